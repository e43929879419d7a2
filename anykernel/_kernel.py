"""What callers hold: `Kernel`.

A `Kernel` outlives its processes: `anykernel._lifecycle` gives it one connection after another, and calls made
between two of them wait for the next. Nothing here does I/O itself or owns a task.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.lowlevel

from ._connection import ConnectionInfo
from ._dispatcher import Dispatcher
from ._exceptions import ProtocolError, UnsupportedError
from ._messages import KernelInfo, Message, UsageReply, read_reply
from ._outputs import Displays
from ._queue import ByteBoundedStream
from ._router import Ending, Request, Router
from ._shell import Shell
from ._subshell import SUBSHELLS, Subshell, open_subshell

__all__ = ["Connection", "Kernel", "Lifecycle"]


# What a message takes in memory besides its content, in bytes, about.
_MESSAGE_OVERHEAD = 2048


class Lifecycle:
    """What a kernel can ask of the one who owns its process; `anykernel._lifecycle` implements it."""

    pid: int | None = None
    returncode: int | None = None

    async def interrupt(self, connection: Connection) -> None:
        """Interrupt what the kernel runs, by signal or by message."""
        raise NotImplementedError

    async def restart(self) -> None:
        raise NotImplementedError

    async def shutdown(self) -> None:
        raise NotImplementedError


class Connection:
    """One connection to one kernel process, ready for use."""

    def __init__(self, router: Router, info: ConnectionInfo, kernel_info: KernelInfo, max_in_flight: int) -> None:
        self.router = router
        self.info = info
        self.kernel_info = kernel_info
        self.max_in_flight = max_in_flight
        self.dispatcher = Dispatcher(router, max_in_flight)

    def for_subshell(self) -> Connection:
        """The same connection, with a dispatcher of its own."""
        return Connection(self.router, self.info, self.kernel_info, self.max_in_flight)


class Kernel(Shell):
    """A kernel; made by `open_kernel` and `connect_kernel`, usable by any number of tasks until their block ends."""

    def __init__(
        self,
        lifecycle: Lifecycle,
        start_soon: Callable[[Callable[[], Coroutine[Any, Any, object]]], None],
        *,
        output_limit: int,
        interrupt_timeout: float,
    ) -> None:
        self._lifecycle = lifecycle
        self.start_soon = start_soon
        self.output_limit = output_limit
        self.interrupt_timeout = interrupt_timeout
        self.displays = Displays()
        self._connection = None
        self._attached = anyio.Event()
        self._last: Connection | None = None
        self._subscribers: list[tuple[frozenset[str], ByteBoundedStream[Message]]] = []

    # For the owner of the process.

    def _attach(self, connection: Connection) -> None:
        """Go on with a new connection."""
        self._connection = self._last = connection
        self._attached.set()

    def _detach(self) -> None:
        """Let calls wait for the next connection."""
        self._connection = None
        self._attached = anyio.Event()

    def _close(self, ending: Ending) -> None:
        """No connection will follow: refuse all calls."""
        if self._last is not None:
            self._last.router.end(ending)
            self._fail(ending)
        self._end_messages()

    def _end_messages(self, error: Exception | None = None) -> None:
        for _, stream in self._subscribers:
            stream.end(error)

    def _fail(self, ending: Ending) -> None:
        """No connection followed the last one: refuse calls, until another is attached."""
        assert self._last is not None
        self._last.router.ending = ending
        self._attach(self._last)

    async def _connected(self) -> Connection:
        while self._connection is None:
            await self._attached.wait()
        return self._connection

    def _on_iopub(self, message: Message, request: Request | None) -> None:
        msg_type = message.msg_type
        for types, stream in self._subscribers:
            if not types or msg_type in types:
                stream.send_nowait(message, message.size + _MESSAGE_OVERHEAD)
        if msg_type == "update_display_data":
            self.displays.update(message.content, message.size)
        elif request is None and message.parent_id is not None:
            self.displays.show_late(message.parent_id, msg_type, message.content, message.size)

    # For callers.

    @asynccontextmanager
    async def messages(self, *types: str) -> AsyncIterator[ByteBoundedStream[Message]]:
        """Receive every IOPub message from now on: ``async with kernel.messages() as stream``.

        Whoever caused them: this client, another one, a thread that prints after its cell has ended. With
        ``types`` (such as ``"stream"``), only those. The stream goes on over restarts, and ends with the kernel's
        block; if the kernel dies and is not restarted by itself, it raises `KernelDiedError`. It keeps up to
        ``output_limit`` bytes for a slow consumer, then drops the oldest (see ``dropped``).
        """
        await anyio.lowlevel.checkpoint()
        stream: ByteBoundedStream[Message] = ByteBoundedStream(self.output_limit)
        if self._connection is not None and self._connection.router.ending is not None:
            raise self._connection.router.ending(None)
        entry = (frozenset(types), stream)
        # Replaced, not changed: the reader may be iterating over it.
        self._subscribers = [*self._subscribers, entry]
        try:
            yield stream
        finally:
            self._subscribers = [other for other in self._subscribers if other is not entry]
            stream.close()

    async def interrupt(self) -> None:
        """Interrupt what the main shell runs, whoever started it; nothing happens when it runs nothing.

        Waits until the kernel has been told. Its process is sent SIGINT, or the kernel an ``interrupt_request``,
        as its kernelspec says; kernels that were connected to get the request.

        Raises:
            ProtocolError: the kernel knows no interrupt request, or has not answered it for 15 s.
            KernelDiedError, KernelRestartedError, ConnectionClosedError: the kernel went away.
        """
        connection = await self._connected()
        await self._interrupt(connection, lambda: self._lifecycle.interrupt(connection))

    @asynccontextmanager
    async def subshell(self) -> AsyncIterator[Subshell]:
        """Open another shell of the kernel: ``async with kernel.subshell() as subshell`` (JEP 91).

        It runs code and answers requests while the main shell runs code, in a thread of its own and in the same
        namespace. Leaving the block deletes it: what is pending there fails with `ConnectionClosedError`, and
        code that still runs is interrupted first, as far as `Subshell.interrupt` can.

        Raises:
            UnsupportedError: the kernel has no subshells.
            KernelDiedError, KernelRestartedError, ConnectionClosedError: the kernel went away. A restart ends
                its subshells.
        """
        async with open_subshell(self, await self._connected()) as subshell:
            yield subshell

    async def usage(self) -> UsageReply:
        """Ask what the kernel uses of its machine; answered while code runs.

        Raises:
            UnsupportedError: the kernel does not tell. (ipykernel does where psutil is there.)
            KernelDiedError, KernelRestartedError, ConnectionClosedError: the kernel went away.
        """
        connection = await self._connected()
        try:
            reply = await connection.router.request_optional("usage_request")
        except ProtocolError as exc:
            raise UnsupportedError("this kernel does not tell what it uses") from exc
        return read_reply(reply.content, UsageReply)

    async def restart(self) -> None:
        """Start the kernel's process anew, and wait until the new one is ready.

        Everything pending fails with `KernelRestartedError` and is not run again. Callable from any task, also
        after the kernel has died; calls made during a restart join it, and requests wait for its end.

        Raises:
            KernelStartError: the new process did not start; another `restart` may be tried.
            ConnectionClosedError: the block has ended, or the kernel was shut down.
            UnsupportedError: the kernel was connected to, not started.
        """
        await self._lifecycle.restart()

    async def shutdown(self) -> None:
        """End the kernel now, and wait until it is gone; later calls raise `ConnectionClosedError`.

        Leaving the block of `open_kernel` does this by itself. A kernel that was connected to is asked to end
        with this call only.
        """
        await self._lifecycle.shutdown()

    @property
    def info(self) -> KernelInfo:
        """What the kernel said of itself when it was ready."""
        assert self._last is not None
        return self._last.kernel_info

    @property
    def connection(self) -> ConnectionInfo:
        """Where the kernel listens, with its keys: what `connect_kernel` takes."""
        assert self._last is not None
        return self._last.info

    @property
    def is_alive(self) -> bool:
        """Whether calls are answered: the process runs, and the connection to it holds."""
        return self._connection is not None and self._connection.router.ending is None

    @property
    def pid(self) -> int | None:
        """Process id of the kernel; None where it was connected to."""
        return self._lifecycle.pid

    @property
    def returncode(self) -> int | None:
        """Exit status of the kernel's process, negative for a signal; None while it runs, or if it is not ours."""
        return self._lifecycle.returncode

    @property
    def execution_state(self) -> str:
        """``"starting"``, ``"busy"`` or ``"idle"`` as last heard; ``"dead"`` when the connection has ended."""
        if self._connection is None:
            return "starting"
        return "dead" if self._connection.router.ending is not None else self._connection.router.execution_state

    @property
    def supports_subshells(self) -> bool:
        """Whether the kernel says that it has subshells."""
        return SUBSHELLS in self.info.supported_features

    def __repr__(self) -> str:
        return f"<Kernel {self.info.implementation or 'unknown'} {self.execution_state} pid={self.pid}>"
