"""How a shell's requests reach its kernel: executions by way of its queue, interrupts, everything else at once."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

import anyio
import anyio.lowlevel

from .._protocol import (
    AnyKernelError,
    ArgumentError,
    ExecutionTimeoutError,
    Message,
    OutputFold,
    Record,
    Result,
    as_buffers,
    as_dict,
    check_msg_id,
    check_text,
)
from .asking import Fence, ask
from .clock import monotonic
from .connection import Connection, Lifecycle
from .context import Context
from .debugger import Debugger
from .dispatcher import Dispatcher
from .link import Link
from .observing import is_observed, observe_execution
from .options import ExecuteOptions
from .run import Run

__all__ = ["Executor", "MainExecutor"]

logger = logging.getLogger("anykernel")

# Seconds until a fence that is not answered is sent again; each time twice as long.
FENCE_PATIENCE = 2.0
# Seconds until an interrupt that did not settle what runs is sent to its child processes, too; longer than `stop` takes
# to send another, which does.
INSISTENCE = 1.2
# Seconds in which a shell that runs nothing answers; one that does not is taken to run something.
IDLE_TIMEOUT = 1.0


class Executor:
    """What `Shell` does, for one shell; its methods do as those of `Shell` say."""

    route: Mapping[str, str] = {}
    """What the headers of requests hold so that they reach this shell."""

    def __init__(self, link: Link, lifecycle: Lifecycle) -> None:
        self.link = link
        self.lifecycle = lifecycle
        self.context = Context(
            link.limits, link.displays, link.captures, link.home, link.start_soon, self.interrupt, self._debugger
        )

    @property
    def connection(self) -> Connection | None:
        """The connection; None while there is none yet, or again."""
        return self.link.connection

    async def connected(self) -> Connection:
        """The connection, as soon as there is one."""
        return await self.link.connected()

    def _debugger(self) -> Debugger | None:
        connection = self.connection
        return None if connection is None else connection.debugger

    def dispatcher_of(self, connection: Connection) -> Dispatcher:
        """The queue of this shell."""
        return connection.dispatcher

    async def submit(
        self,
        code: str,
        options: ExecuteOptions,
        *,
        kind: Callable[..., Run] = Run,
        buffers: Iterable[bytes | memoryview] = (),
    ) -> Run:
        """Queue code."""
        check_text("code", code)
        self.link.home.check()
        # A caller that is cancelled already sends nothing.
        await anyio.lowlevel.checkpoint_if_cancelled()
        connection = self.connection
        if connection is None:
            connection, options = await self._wait_connected(options)
        header = connection.router.new_header("execute_request", **self.route)
        if options.msg_id is not None:
            header["msg_id"] = options.msg_id
        metadata = {} if options.metadata is None else dict(options.metadata)
        message = Message("shell", header, {}, metadata, options.content(code), tuple(buffers))
        dispatcher = self.dispatcher_of(connection)
        run = kind(self.context, dispatcher, message, options)
        if is_observed():
            dispatcher.check()
            run.observation = observe_execution(message, connection.kernel_info, self.lifecycle.id)
        if options.timeout == 0:
            run.expire()
        else:
            dispatcher.submit(run)
        return run

    async def _wait_connected(self, options: ExecuteOptions) -> tuple[Connection, ExecuteOptions]:
        """Wait for the connection; and the options with what is left of their timeout."""
        asked, connection = monotonic(), None
        with anyio.move_on_after(options.timeout):
            connection = await self.connected()
        if connection is None:
            raise ExecutionTimeoutError(
                f"the kernel was not ready again within {options.timeout} s; the code never runs",
                result=Result("", Record(OutputFold(0))),
                settled=True,
            )
        return connection, options.less(monotonic() - asked)

    async def request(
        self,
        msg_type: str,
        content: dict[str, Any],
        *,
        channel: str = "shell",
        metadata: Mapping[str, Any] | None = None,
        buffers: Iterable[bytes | memoryview] | None = None,
        msg_id: str | None = None,
        parent: Mapping[str, Any] | None = None,
    ) -> Message:
        """Send any request and wait for its reply."""
        if channel not in ("shell", "control"):
            raise ArgumentError(f"requests go on 'shell' or 'control', not {channel!r}")
        if not (isinstance(msg_type, str) and isinstance(content, dict)):
            raise ArgumentError("a request needs a str for its type and a dict for its content")
        header = dict(self.route) if channel == "shell" else {}
        if msg_id is not None:
            header["msg_id"] = check_msg_id(msg_id)
        parent_header = as_dict("parent", parent)
        if not isinstance(parent_header.get("msg_id", ""), str):
            raise ArgumentError(f"the msg_id in a parent header must be a str, not {parent_header['msg_id']!r:.200}")
        all_metadata, all_buffers = as_dict("metadata", metadata), as_buffers(buffers)
        connection = await self.connected()
        return await ask(
            connection.router,
            msg_type,
            content,
            channel=channel,
            parent=parent_header,
            metadata=all_metadata,
            buffers=all_buffers,
            header=header,
        )

    async def interrupt(self) -> None:
        """Interrupt what the shell runs, and wait until the kernel has been told."""
        raise NotImplementedError

    async def deliver_interrupt(
        self,
        connection: Connection,
        deliver: Callable[[], Awaitable[object]],
        insist: Callable[[], Awaitable[object]] | None = None,
    ) -> None:
        """Send an interrupt, and let nothing follow it until the kernel is past it; ``insist`` where that takes long."""
        router, dispatcher = connection.router, self.dispatcher_of(connection)
        if router.ending is not None:
            raise router.ending(None)
        router.count_interrupt(self.route)
        done, over, errors = anyio.Event(), anyio.Event(), list[AnyKernelError]()

        def passed() -> None:
            over.set()
            router.count_interrupt(self.route)  # it may also have hit what was sent while it was under way
            dispatcher.release()

        async def run() -> None:
            # A task of its own: whoever gives up waiting, the interrupt is under way, and what comes next waits
            # until the kernel is past a request sent behind it; or, late, it would hit that. The request also
            # wakes an ipykernel whose code awaits: with some versions of tornado, its signal handler does not.
            fence = Fence(router, passed)
            try:
                await deliver()
            except AnyKernelError as exc:
                errors.append(exc)
            finally:
                fence.send(**self.route)
                done.set()
            if insist is not None:
                with anyio.move_on_after(INSISTENCE):
                    await over.wait()
                if not over.is_set() and router.ending is None:
                    try:
                        await insist()
                    except AnyKernelError as exc:
                        logger.debug("could not insist on an interrupt: %s", exc)
            patience = FENCE_PATIENCE
            while True:
                with anyio.move_on_after(patience):
                    await over.wait()
                if over.is_set():
                    break
                # Perhaps the interrupt hit it so that it left no trace. (Where the kernel is only busy, another does
                # no harm.)
                fence.send(**self.route)
                patience *= 2

        dispatcher.hold()
        if self.link.start_soon(run):
            await done.wait()
        if errors:
            raise errors[0]


class MainExecutor(Executor):
    """The main shell's."""

    def __init__(self, link: Link, lifecycle: Lifecycle) -> None:
        super().__init__(link, lifecycle)
        # What ran when the last interrupt was sent.
        self._hit: set[Run] = set()

    async def interrupt(self) -> None:
        connection = await self.connected()
        if not await self._runs(connection):
            return
        running = _running(connection)
        # Its child processes only where it was not enough for itself: it may wait for one in a way that an interrupt does
        # not end (`os.system`), but others are servers or pools that earlier cells have started.
        again, self._hit = bool(running & self._hit), running

        async def insist() -> None:
            if self._hit is running and running & _running(connection):
                await self.lifecycle.interrupt(connection, everybody=True)

        # Code at a breakpoint has its own time, and its debugger another way.
        once = again or connection.debugger.stands
        await self.deliver_interrupt(
            connection,
            lambda: self.lifecycle.interrupt(connection, everybody=again),
            None if once else insist,
        )

    async def _runs(self, connection: Connection) -> bool:
        """Whether the shell runs anything: interrupts end some kernels that do not (xeus-python, for one)."""
        router, dispatcher = connection.router, connection.dispatcher
        for run in dispatcher.in_flight:
            if _running(connection):  # with more than one in flight, others wait behind it
                break
            if isinstance(run, Run) and run.state == "sent":
                with anyio.move_on_after(self.link.limits.interrupt_timeout):
                    await run.wait_until(lambda sent=run: sent.state != "sent")  # type: ignore[misc]
                break
        if _running(connection) or router.ending is not None:
            return True
        # It may run another client's. Its state does not tell: it is that of all its shells, and may be of the past.
        with anyio.move_on_after(IDLE_TIMEOUT):
            await ask(router, "kernel_info_request", {}, channel="shell")
            return False
        return True


def _running(connection: Connection) -> set[Run]:
    """What of ours the main shell is known to run."""
    runs = (run for run in connection.dispatcher.in_flight if isinstance(run, Run))
    return {run for run in runs if run.state == "running" and not run.ended}
