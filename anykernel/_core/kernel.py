"""What callers hold: `Kernel`.

A `Kernel` outlives its processes: its owner gives its `Link` one connection after another, and calls made between two of
them wait for the next. Nothing here does I/O itself or owns a task.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any

import anyio.lowlevel

from .._protocol import (
    ArgumentError,
    ConnectionInfo,
    DebugReply,
    KernelInfo,
    Message,
    ProtocolError,
    UnsupportedError,
    UsageReply,
    read_reply,
)
from .asking import ask_optional
from .blocks import block
from .comms import Comm
from .connection import Lifecycle
from .events import KernelEvent
from .executor import MainExecutor
from .link import Link
from .shell import Shell
from .streams import ByteBoundedStream
from .subshell import SUBSHELLS, Subshell, open_subshell
from .widgets import Widgets, follow_widgets

__all__ = ["Kernel"]


class Kernel(Shell):
    """A kernel; made by `open_kernel` and `connect_kernel`, usable by any number of tasks until their block ends."""

    def __init__(self, link: Link, lifecycle: Lifecycle) -> None:
        super().__init__(MainExecutor(link, lifecycle))
        self._link = link
        self._lifecycle = lifecycle
        self._comm_targets: set[str] = set()

    @block
    async def messages(self, *types: str) -> AsyncIterator[ByteBoundedStream[Message]]:
        """Receive every IOPub message from now on: ``async with kernel.messages() as stream``.

        Whoever caused them: this client, another one, a thread that prints after its cell has ended. With
        ``types`` (such as ``"stream"``), only those. The stream goes on over restarts, and ends with the kernel's
        block; if the kernel dies and is not restarted by itself, it raises `KernelDiedError`. It keeps up to
        ``output_limit`` bytes for a slow consumer, then drops the oldest (see ``dropped``).
        """
        async with self._link.subscribe(types, lambda message: message) as stream:
            yield stream

    @block
    async def events(self) -> AsyncIterator[ByteBoundedStream[KernelEvent]]:
        """Receive what happens to the kernel from now on: ``async with kernel.events() as events``.

        A `KernelEvent` each: that it died, is restarted and was, that the connection is lost and found. The stream goes on
        over deaths and restarts, and ends with the kernel's block, or its shutdown.

        Raises:
            ConnectionClosedError: that has ended already.
        """
        self._link.home.check()
        await anyio.lowlevel.checkpoint()
        if self._link.closed is not None:
            raise self._link.closed(None)
        async with self._link.events.listen() as stream:
            yield stream

    @block
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
        connection = await self._link.connected()
        async with connection.comms.open(target, data, metadata, buffers, self._link.limits.budget) as comm:
            yield comm

    @block
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
            if message.content.get("target_name") != target or self._link.connection is None:
                return None
            return self._link.connection.comms.adopt(message, self._link.limits.budget)

        self._comm_targets.add(target)
        try:
            async with self._link.subscribe(["comm_open"], adopt) as stream:
                yield stream
        finally:
            self._comm_targets.discard(target)

    @block
    async def widgets(self) -> AsyncIterator[Widgets]:
        """Follow the kernel's widgets (ipywidgets' and others') from now on: ``async with kernel.widgets() as widgets``.

        What a front end would know of them, while their code runs and after it: state, buffers, what `Output` widgets capture,
        and what was closed is gone. It is up to date as soon as an execution has settled. As a front end does, it tells the
        kernel what `Output` widgets captured of this client's executions, when each is done. A restart ends all widgets; after
        the block, or the kernel's death, they can still be looked at.

        Raises:
            KernelDiedError, ConnectionClosedError: the kernel went away.
        """
        async with follow_widgets(self._link) as widgets:
            yield widgets

    async def debug(self, command: str, arguments: Mapping[str, Any] | None = None) -> DebugReply:
        """Give the kernel's debugger a command of the Debug Adapter Protocol, and wait for its answer.

        A cell may run, or stand at a breakpoint, meanwhile. Besides the protocol's commands, kernels know
        ``debugInfo``, ``dumpCell`` and others of Jupyter's. The sequence numbers are put in here. Some commands are
        never answered (in ipykernel, ``continue`` where nothing stands at a breakpoint), and keep the kernel from
        answering others, and interrupt requests, until it is restarted: bound the wait (`anyio.fail_after`).

        A cell that stands at a breakpoint is interrupted like any other when its caller is cancelled or its
        ``timeout`` is over, and the debugger is detached (``disconnect``), or the cell might stop again where the interrupt
        takes it. It can be attached anew, but up to Python 3.11 a kernel may then stop at no breakpoint until a restart.

        Raises:
            DebugError: the debugger refused, or has not been started.
            UnsupportedError: the kernel has no debugger.
            ArgumentError: the command is no string, or the arguments have no JSON form.
            ProtocolError: the kernel did not answer, as kernels do when it cannot read the arguments.
            KernelDiedError, KernelRestartedError, ConnectionClosedError: the kernel went away.
        """
        return await (await self._link.connected()).debugger.request(command, arguments)

    @block
    async def debug_events(self) -> AsyncIterator[ByteBoundedStream[dict[str, Any]]]:
        """Receive what the debugger tells from now on: ``async with kernel.debug_events() as events``.

        Each is an event of the Debug Adapter Protocol, such as ``{"event": "stopped", "body": {...}}``. Every client
        of the kernel gets them. The stream is bounded, goes on and ends as that of `messages`.
        """
        async with self._link.subscribe(["debug_event"], lambda message: message.content) as stream:
            yield stream

    async def interrupt(self) -> None:
        """Interrupt what the main shell runs, whoever started it; nothing happens when it runs nothing.

        Waits until the kernel has been told: for code that was just sent, till it begins; where no code of ours runs,
        up to a second, till the shell has shown whether it runs another client's. Its process is sent SIGINT, or the
        kernel an ``interrupt_request``, as its kernelspec says, or where SIGINT would end it; kernels that were connected
        to get the request. If our code has not settled 1.2 s later, its child processes are sent SIGINT, too.

        Raises:
            ProtocolError: the kernel knows no interrupt request, or has not answered it for 15 s.
            KernelDiedError, KernelRestartedError, ConnectionClosedError: the kernel went away.
        """
        await self._executor.interrupt()

    @block
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
        async with open_subshell(self._executor) as subshell:
            yield subshell

    async def usage(self) -> UsageReply:
        """Ask what the kernel uses of its machine; answered while code runs.

        Raises:
            UnsupportedError: the kernel does not tell. (ipykernel does where psutil is there.)
            KernelDiedError, KernelRestartedError, ConnectionClosedError: the kernel went away.
        """
        connection = await self._link.connected()
        try:
            reply = await ask_optional(connection.router, "usage_request")
        except ProtocolError as exc:
            raise UnsupportedError("this kernel does not tell what it uses") from exc
        usage = read_reply(reply.content, UsageReply)
        if not (usage.pid or usage.kernel_memory or usage.hostname):  # xeus-python's
            raise UnsupportedError("this kernel does not tell what it uses")
        return usage

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
        self._link.home.check()
        await self._lifecycle.restart()

    async def shutdown(self) -> None:
        """End the kernel now, and wait until it is gone; later calls raise `ConnectionClosedError`.

        Leaving the block of `open_kernel` does this by itself. A kernel that was connected to is asked to end
        with this call only, and is waited for at most ``shutdown_timeout`` seconds.
        """
        self._link.home.check()
        await self._lifecycle.shutdown()

    @property
    def info(self) -> KernelInfo:
        """What the kernel said of itself when it was ready."""
        assert self._link.last is not None
        return self._link.last.kernel_info

    @property
    def connection(self) -> ConnectionInfo:
        """Where the kernel listens, with its keys: what `connect_kernel` takes.

        Raises:
            UnsupportedError: the kernel is a server's, which keeps that to itself; its `id` is what the server's
                ``connect_kernel`` takes.
        """
        assert self._link.last is not None
        if self._link.last.info is None:
            raise UnsupportedError("where a server's kernel listens is known to the server only; connect by its id")
        return self._link.last.info

    @property
    def id(self) -> str | None:
        """The server's name for the kernel; None where it is not a server's."""
        return self._lifecycle.id

    @property
    def is_alive(self) -> bool:
        """Whether calls are answered: the process runs, and the connection to it holds."""
        return self._link.connection is not None and self._link.connection.router.ending is None

    @property
    def pid(self) -> int | None:
        """Process id of the kernel; None where it was connected to."""
        return self._lifecycle.pid

    @property
    def returncode(self) -> int | None:
        """Exit status of the kernel's process, negative for a signal; None while it runs, or if it is not ours.

        None for ever where another than us has reaped it, or SIGCHLD is ignored.
        """
        return self._lifecycle.returncode

    @property
    def execution_state(self) -> str:
        """``"starting"``, ``"busy"`` or ``"idle"`` as last heard; ``"dead"`` when the connection has ended.

        ``"unknown"`` where a kernel that was connected to has not said it yet.
        """
        if self._link.connection is None:
            return "starting"
        return (
            "dead" if self._link.connection.router.ending is not None else self._link.connection.router.execution_state
        )

    @property
    def pending(self) -> int:
        """How many executions of this client wait in its queue for the main shell, or are in the kernel."""
        return 0 if self._link.connection is None else self._link.connection.dispatcher.pending

    @property
    def supports_subshells(self) -> bool:
        """Whether the kernel says that it has subshells."""
        return SUBSHELLS in self.info.supported_features

    def __repr__(self) -> str:
        return f"<Kernel {self.info.implementation or 'unknown'} {self.execution_state} pid={self.pid}>"
