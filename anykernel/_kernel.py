"""What callers hold: `Kernel`.

A `Kernel` outlives its processes: `anykernel._lifecycle` gives it one connection after another, and calls made
between two of them wait for the next. Nothing here does I/O itself or owns a task.
"""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from threading import get_ident
from typing import Any, TypeVar

import anyio
import anyio.lowlevel

from ._comms import Comm, Comms
from ._connection import ConnectionInfo
from ._debugger import Debugger
from ._dispatcher import Dispatcher
from ._displays import Displays
from ._exceptions import ArgumentError, ProtocolError, UnsupportedError
from ._messages import DebugReply, KernelInfo, Message, UsageReply, read_reply
from ._queue import MESSAGE_OVERHEAD, ByteBoundedStream
from ._router import Ending, Request, Router
from ._shell import Shell
from ._subshell import SUBSHELLS, Subshell, open_subshell
from ._tasks import StartSoon

__all__ = ["Connection", "Kernel", "Lifecycle"]

T = TypeVar("T")


class Lifecycle:
    """What a kernel can ask of the one who owns its process; `anykernel._lifecycle` implements it."""

    pid: int | None = None
    returncode: int | None = None

    async def interrupt(self, connection: Connection) -> None:
        """Interrupt what the kernel runs, by signal or by message."""
        raise NotImplementedError

    def interrupts_subshell(self, subshell_id: str) -> None:
        """The code of a subshell is about to be interrupted."""

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
        self.comms = Comms(router)
        self.debugger = Debugger(router, kernel_info)

    def for_subshell(self) -> Connection:
        """The same connection, with a dispatcher of its own."""
        connection = copy.copy(self)
        connection.dispatcher = Dispatcher(self.router, self.max_in_flight)
        return connection


class Kernel(Shell):
    """A kernel; made by `open_kernel` and `connect_kernel`, usable by any number of tasks until their block ends."""

    def __init__(
        self,
        lifecycle: Lifecycle,
        start_soon: StartSoon,
        *,
        output_limit: int,
        interrupt_timeout: float,
    ) -> None:
        self._lifecycle = lifecycle
        self._start_soon = start_soon
        self.output_limit = output_limit
        self.interrupt_timeout = interrupt_timeout
        self._displays = Displays()
        self._event_loop_thread = get_ident()
        self._connection = None
        self._attached = anyio.Event()
        self._last: Connection | None = None
        # Which message types each wants, its stream, and what is put into it for a message (nothing for None).
        self._subscribers: list[tuple[frozenset[str], ByteBoundedStream[Any], Callable[[Message], Any]]] = []
        self._comm_targets: set[str] = set()

    # For the owner of the process.

    def _attach(self, connection: Connection) -> None:
        """Go on with a new connection."""
        self._connection = self._last = connection
        self._attached.set()

    def _detach(self) -> None:
        """Let calls wait for the next connection."""
        self._event_loop_thread = get_ident()
        self._connection = None
        self._attached = anyio.Event()

    def _close(self, ending: Ending) -> None:
        """No connection will follow: refuse all calls."""
        if self._last is not None:
            self._last.router.end(ending)
            self._fail(ending)
        self._end_messages()

    def _end_messages(self, ending: Ending | None = None) -> None:
        for _, stream, _ in self._subscribers:
            stream.end(ending(None) if ending is not None else None)

    def _fail(self, ending: Ending) -> None:
        """No connection followed the last one: refuse calls, until another is attached."""
        assert self._last is not None
        self._last.router.ending = ending
        self._attach(self._last)

    async def _connected(self) -> Connection:
        self._check_thread()
        while self._connection is None:
            await self._attached.wait()
        return self._connection

    def _on_iopub(self, message: Message, request: Request | None) -> None:
        msg_type = message.msg_type
        for types, stream, convert in self._subscribers:
            if not types or msg_type in types:
                item = convert(message)
                if item is not None:
                    stream.send_nowait(item, message.size + MESSAGE_OVERHEAD)
        if msg_type == "update_display_data":
            self._displays.update(message.content, message.size)
        elif msg_type in ("comm_msg", "comm_close"):
            if self._connection is not None:
                self._connection.comms.on_iopub(message)
        elif request is None and message.parent_id is not None:
            self._displays.show_late(message.parent_id, msg_type, message.content, message.size)

    # For callers.

    @asynccontextmanager
    async def messages(self, *types: str) -> AsyncIterator[ByteBoundedStream[Message]]:
        """Receive every IOPub message from now on: ``async with kernel.messages() as stream``.

        Whoever caused them: this client, another one, a thread that prints after its cell has ended. With
        ``types`` (such as ``"stream"``), only those. The stream goes on over restarts, and ends with the kernel's
        block; if the kernel dies and is not restarted by itself, it raises `KernelDiedError`. It keeps up to
        ``output_limit`` bytes for a slow consumer, then drops the oldest (see ``dropped``).
        """
        async with self._subscribe(types, lambda message: message) as stream:
            yield stream

    @asynccontextmanager
    async def _subscribe(
        self, types: Iterable[str], convert: Callable[[Message], T | None]
    ) -> AsyncIterator[ByteBoundedStream[T]]:
        self._check_thread()
        await anyio.lowlevel.checkpoint()
        stream: ByteBoundedStream[T] = ByteBoundedStream(self.output_limit)
        if self._connection is not None and self._connection.router.ending is not None:
            raise self._connection.router.ending(None)
        entry = (frozenset(types), stream, convert)
        # Replaced, not changed: the reader may be iterating over it.
        self._subscribers = [*self._subscribers, entry]
        try:
            yield stream
        finally:
            self._subscribers = [other for other in self._subscribers if other is not entry]
            stream.close()

    @asynccontextmanager
    async def open_comm(
        self,
        target: str,
        data: Any = None,
        *,
        metadata: Mapping[str, Any] | None = None,
        buffers: Iterable[bytes | memoryview] = (),
    ) -> AsyncIterator[Comm]:
        """Open a comm for the length of a block: ``async with kernel.open_comm("target") as comm``.

        Waits until the kernel has taken it. While a cell of this client runs, it does not wait, since an async cell
        may itself wait for the comm; then `Comm.send` and `Comm.receive` tell if the kernel did not take it. Leaving
        the block closes the comm, unless the kernel did already. Takes ``data``, ``metadata`` and ``buffers`` as
        `Comm.send` does.

        Raises:
            UnsupportedError: the kernel did not take it: it knows no such target, or has no comms.
            ArgumentError: the target is no string, or the rest cannot be sent.
            KernelDiedError, KernelRestartedError, ConnectionClosedError: the kernel went away.
        """
        connection = await self._connected()
        async with connection.comms.open(target, data, metadata, buffers, self.output_limit) as comm:
            yield comm

    @asynccontextmanager
    async def comms(self, target: str) -> AsyncIterator[ByteBoundedStream[Comm]]:
        """Receive the comms that the kernel opens for a target from now on: ``async with kernel.comms("t") as stream``.

        Each `Comm` has what it was opened with, and has its messages from the first one on. It is the kernel's: it
        stays open when the block ends, for as long as somebody holds it, and is closed only by `Comm.close` or by
        the kernel. The stream goes on over restarts (which end the comms), ends with the kernel's block, and raises
        `KernelDiedError` if the kernel dies. Comms that nobody receives are dropped, the oldest first, when their
        openings take more than ``output_limit`` bytes.

        Raises:
            ArgumentError: the target is no string, or another block of this kernel receives its comms.
        """
        if not isinstance(target, str) or target in self._comm_targets:
            raise ArgumentError(f"a comm's target must be a str that nobody else receives comms for, not {target!r}")

        def adopt(message: Message) -> Comm | None:
            if message.content.get("target_name") != target or self._connection is None:
                return None
            return self._connection.comms.adopt(message, self.output_limit)

        self._comm_targets.add(target)
        try:
            async with self._subscribe(["comm_open"], adopt) as stream:
                yield stream
        finally:
            self._comm_targets.discard(target)

    async def debug(self, command: str, arguments: Mapping[str, Any] | None = None) -> DebugReply:
        """Give the kernel's debugger a command of the Debug Adapter Protocol, and wait for its answer.

        A cell may run, or stand at a breakpoint, meanwhile. Besides the protocol's commands, kernels know
        ``debugInfo``, ``dumpCell`` and others of Jupyter's. The sequence numbers are put in here. Some commands are
        never answered (in ipykernel, ``continue`` where nothing stands at a breakpoint), and keep the kernel from
        answering others, and interrupt requests, until it is restarted: bound the wait (`anyio.fail_after`).

        A cell that stands at a breakpoint is interrupted like any other when its caller is cancelled or its
        ``timeout`` is over. The debugger of a Python kernel may then stop at no breakpoint until a restart;
        ``continue`` or ``disconnect`` let the cell go on.

        Raises:
            DebugError: the debugger refused, or has not been started.
            UnsupportedError: the kernel has no debugger.
            ArgumentError: the command is no string, or the arguments have no JSON form.
            ProtocolError: the kernel did not answer, as kernels do when it cannot read the arguments.
            KernelDiedError, KernelRestartedError, ConnectionClosedError: the kernel went away.
        """
        return await (await self._connected()).debugger.request(command, arguments)

    @asynccontextmanager
    async def debug_events(self) -> AsyncIterator[ByteBoundedStream[dict[str, Any]]]:
        """Receive what the debugger tells from now on: ``async with kernel.debug_events() as events``.

        Each is an event of the Debug Adapter Protocol, such as ``{"event": "stopped", "body": {...}}``. Every client
        of the kernel gets them. The stream is bounded, goes on and ends as that of `messages`.
        """
        async with self._subscribe(["debug_event"], lambda message: message.content) as stream:
            yield stream

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

        Everything pending fails with `KernelRestartedError` and is not run again. The new process listens elsewhere, with
        new keys: `connection` changes. Callable from any task, also
        after the kernel has died; calls made during a restart join it, and requests wait for its end.

        Raises:
            KernelStartError: the new process did not start; another `restart` may be tried.
            ConnectionClosedError: the block has ended, or the kernel was shut down.
            UnsupportedError: the kernel was connected to, not started.
        """
        self._check_thread()
        await self._lifecycle.restart()

    async def shutdown(self) -> None:
        """End the kernel now, and wait until it is gone; later calls raise `ConnectionClosedError`.

        Leaving the block of `open_kernel` does this by itself. A kernel that was connected to is asked to end
        with this call only, and is waited for at most ``shutdown_timeout`` seconds.
        """
        self._check_thread()
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
        """``"starting"``, ``"busy"`` or ``"idle"`` as last heard; ``"dead"`` when the connection has ended.

        ``"unknown"`` where a kernel that was connected to has not said it yet.
        """
        if self._connection is None:
            return "starting"
        return "dead" if self._connection.router.ending is not None else self._connection.router.execution_state

    @property
    def supports_subshells(self) -> bool:
        """Whether the kernel says that it has subshells."""
        return SUBSHELLS in self.info.supported_features

    def __repr__(self) -> str:
        return f"<Kernel {self.info.implementation or 'unknown'} {self.execution_state} pid={self.pid}>"
