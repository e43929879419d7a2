"""What owning a started and owning a connected kernel have in common: a connection's tasks, readiness, heartbeat."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Protocol

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup, TaskStatus

from .._protocol import (
    AnyKernelError,
    ConnectionClosedError,
    ConnectionInfo,
    KernelDiedError,
    KernelInfo,
    KernelStartError,
    KernelStartTimeoutError,
    Message,
    UnsupportedError,
    read_reply,
)
from .asking import Fence, ask, ask_optional
from .connection import Connection, Lifecycle
from .context import Limits
from .home import HomeTask
from .kernel import Kernel
from .link import Link
from .nudging import may_lose_sight, nudge
from .options import OpenOptions
from .request import Ending, closed_ending
from .router import Router
from .tasks import open_task_group
from .transport import Transport

__all__ = ["Owner", "Witness"]

logger = logging.getLogger("anykernel")

# Seconds between two requests by which a kernel that does not greet is found to reach us on IOPub.
PROBE_INTERVAL = 0.05

# Seconds until a kernel that has not said what it is is asked again; each time twice as long.
KNOCK_INTERVAL = 0.5

# Seconds that a kernel gets to answer an interrupt request while its shell is free; one that does not in this time
# hardly ever will, and what comes next is not held any longer.
INTERRUPT_TIMEOUT = 15.0


class Witness(Protocol):
    """Sees all that goes over a kernel's connections, such as a recorder."""

    def wrap(self, transport: Transport, info: ConnectionInfo | None) -> Transport:
        """A new connection is made; what stands in for its transport."""
        ...

    def interrupted(self, subshell: str = "") -> None:
        """The kernel's process is about to be sent SIGINT, or the code of one subshell to be interrupted."""

    def died(self, error: AnyKernelError) -> None:
        """The kernel went away, which is told by this error."""


class Owner(Lifecycle):
    """What owning a started and owning a connected kernel have in common."""

    # Where the kernel is asked what it is. A kernel that starts may answer on control before its shells are there:
    # ipykernel does, and would then fail to make a subshell.
    _asked_on: tuple[str, ...] = ("shell",)

    def __init__(self, tasks: TaskGroup, options: OpenOptions, witness: Witness | None = None) -> None:
        self.options = options
        self.witness = witness
        self._tasks = tasks
        self._helpers: TaskGroup
        self.closed = False
        self._scope = anyio.CancelScope()
        self._over = anyio.Event()  # set when nothing of the owning is left
        self._router: Router | None = None

        def start_soon(func: Callable[[], Coroutine[Any, Any, object]]) -> bool:
            coroutine = func()
            try:
                self._helpers.start_soon(lambda: coroutine)
            except RuntimeError:  # the task group has ended: after `shutdown`, the block goes on without it
                coroutine.close()
                return False
            return True

        limits = Limits(output_limit=options.output_limit, interrupt_timeout=options.interrupt_timeout)
        self.link = Link(start_soon, limits)
        self.kernel = Kernel(self.link, self)

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Kernel]:
        """The kernel, ready, for the length of a block; at its end its tasks are cancelled.

        Raises:
            UnsupportedError: the block was left in another task than entered; the kernel is gone all the same.
        """
        home = HomeTask()
        try:
            await self._tasks.start(self._own)
            # From here on, a cancellation of the block reaches the block only, and `close` ends the owning:
            # otherwise the block would see the connection end, and not that it was cancelled. Not before the
            # start is over: that is to be cancelled with the block.
            self._scope.shield = True
            yield self.kernel
        except BaseException as exc:
            if not home.is_here:
                logger.warning("%s: %r", await self._leave_elsewhere(home), exc)  # the user's own error goes on
            raise
        else:
            if not home.is_here:
                raise UnsupportedError(await self._leave_elsewhere(home))
        finally:
            # (This ends all tasks. To cancel the task group would cancel the task of the block, too, and up to Python 3.12
            # that would not be taken back in a task in which an asyncio.TaskGroup has failed.)
            if self.link.home.is_here:
                self.close()

    async def _leave_elsewhere(self, entered: HomeTask) -> str:
        """Leave the block in another task than entered it; what is wrong with that."""
        home, complaint = self.link.home, entered.complaint()
        if home.is_here:
            self.close()
            with anyio.CancelScope(shield=True):
                await self._over.wait()
            return f"{complaint}. (The kernel is gone all the same.)"
        if home.is_in_another_process:
            return complaint
        home.call(self.close)
        return f"{complaint}. (The event loop is another one, too: the kernel ends when its own one runs.)"

    async def _own(self, *, task_status: TaskStatus[None]) -> None:
        try:
            with self._scope:
                async with open_task_group() as self._helpers:
                    await self._run(task_status)
        finally:
            self._over.set()

    async def _run(self, task_status: TaskStatus[None]) -> None:
        raise NotImplementedError

    def close(self) -> None:
        """The block has ended: refuse all calls from now on, and end the owning."""
        self._close("the kernel's block has ended")
        self._scope.cancel()

    def _close(self, reason: str) -> None:
        if self.closed:
            return
        self.closed = True
        self.link.close(closed_ending(reason))
        if self._router is not None:
            self._router.end(closed_ending(reason))  # also one that is still starting

    @asynccontextmanager
    async def _connection(
        self, transport: Transport, info: ConnectionInfo | None, *, watch: Callable[[Router], Coroutine[Any, Any, None]]
    ) -> AsyncIterator[Connection]:
        """Run a connection's tasks, wait until it is ready, and close the transport at the end.

        ``watch`` is a task that ends the router when the kernel goes away.

        Raises:
            AnyKernelError: the router ended first.
            KernelStartError: the kernel does not sign as we do.
            KernelStartTimeoutError: it was not ready in time.
        """
        if self.witness is not None:
            transport = self.witness.wrap(transport, info)
        try:
            async with open_task_group() as tasks:
                self._router = router = Router(transport, self.link.on_iopub, self.link.limits, self._on_reach)
                if self.closed:  # while this began
                    router.end(closed_ending("the kernel was shut down"))
                # What reads goes on until the end: what comes while the kernel is taken down must not pile up.
                with _shielded(len(transport.channels)) as scopes:
                    for channel, scope in zip(transport.channels, scopes, strict=True):
                        tasks.start_soon(_read, transport, channel, router, scope)
                    tasks.start_soon(router.watch)
                    tasks.start_soon(watch, router)
                    greeting = await self._ready(router)
                    kernel_info = _read_info(greeting)
                    tasks.start_soon(self._heartbeat, router)
                    if may_lose_sight(kernel_info):
                        tasks.start_soon(nudge, router)
                    try:
                        yield Connection(router, info, kernel_info, self.options.max_in_flight, greeting.msg_id)
                    finally:
                        tasks.cancel_scope.cancel()
        finally:
            transport.close()

    def _on_reach(self, reached: bool) -> None:
        self.link.events.tell("reconnected" if reached else "disconnected")

    def interrupts_subshell(self, subshell_id: str) -> None:
        if self.witness is not None:
            self.witness.interrupted(subshell_id)

    async def _request_interrupt(self, router: Router) -> None:
        """Interrupt by message.

        Raises:
            ProtocolError: the kernel knows no such request, or does not answer it.
        """
        # Code that keeps the kernel from answering holds up what comes next as well, so till it ends, no time counts:
        # the interrupt may still come, and must not find somebody else's code.
        await ask_optional(router, "interrupt_request", beside=("shell",), patience=INTERRUPT_TIMEOUT)

    async def _ready(self, router: Router) -> Message:
        """Wait until the kernel has said what it is, and every channel carries messages; what it said."""
        transport, replies = router.transport, list[Message]()
        with anyio.move_on_after(self.options.startup_timeout) as timeout:
            async with open_task_group() as tasks:

                async def stop_at(event: anyio.Event) -> None:
                    await event.wait()
                    tasks.cancel_scope.cancel()

                async def ask_on(channel: str) -> None:
                    try:
                        replies.append(await self._knock(router, channel))
                        answered.set()
                        # A kernel that does not greet may have published before our subscription reached it; and some
                        # (Deno's) publish nothing for what they are asked on control.
                        while not router.iopub_seen.is_set():
                            with anyio.move_on_after(PROBE_INTERVAL):
                                await router.iopub_seen.wait()
                                break
                            await self._knock(router, channel)
                    except AnyKernelError as exc:
                        # A refused connection is reported as mistrust, on whichever channel it is noticed first.
                        refused = isinstance(exc, ConnectionClosedError)
                        if router.ending is None and channel == "shell" and not refused:
                            raise KernelStartError(f"the kernel does not say what it is: {exc}") from exc

                answered = anyio.Event()
                tasks.start_soon(stop_at, router.ended)
                tasks.start_soon(stop_at, transport.mistrusted)
                for channel in self._asked_on:
                    tasks.start_soon(ask_on, channel)
                await answered.wait()
                await router.iopub_seen.wait()
                await transport.connected()
                tasks.cancel_scope.cancel()
        if router.ending is not None:
            raise router.ending(None)
        if not replies and transport.mistrusted.is_set():
            raise KernelStartError(
                "signatures do not match: the key or the encryption is not the kernel's; check the connection information"
            )
        if timeout.cancelled_caught:
            missing = await self._missing(router, answered=bool(replies))
            raise KernelStartTimeoutError(
                f"the kernel was not ready within {self.options.startup_timeout} s: {missing}"
            )
        return replies[0]

    async def _knock(self, router: Router, channel: str) -> Message:
        """Ask the kernel what it is until it answers: some lose what comes while they start."""
        patience = KNOCK_INTERVAL
        while True:
            # What is asked of a kernel that is only busy piles up there, so ever more seldom.
            with anyio.move_on_after(patience):
                return await ask(router, "kernel_info_request", {}, channel=channel, bounded=False)
            patience *= 2

    async def _missing(self, router: Router, *, answered: bool) -> str:
        if answered:
            return "it answers requests, but its output channel stays silent"
        if await router.transport.beat(0.2):
            return "it is there, but answers no requests (it is stuck, or the key is not the kernel's)"
        return "nothing answers at its address"

    async def _heartbeat(self, router: Router) -> None:
        # Some kernels have no heart (so a first beat must have been heard), and in some it stands still while code runs.
        seconds = self.options.heartbeat_interval * self.options.heartbeat_misses
        text = f"the kernel does not answer: no heartbeat for {seconds:g} s"
        beaten, missed = False, 0
        while True:
            if await router.transport.beat(self.options.heartbeat_interval):
                if missed >= self.options.heartbeat_misses:
                    self.link.events.tell("reconnected", "its heart beats again")
                beaten, missed = True, 0
                await anyio.sleep(self.options.heartbeat_interval)
            elif beaten:
                missed += 1
                if missed == self.options.heartbeat_misses:
                    self.link.events.tell("disconnected", text)
                if missed >= self.options.heartbeat_misses and not await self._lives(router, seconds):
                    break
        self._end_dead(router, lambda result: KernelDiedError(text, result=result))

    async def _lives(self, router: Router, patience: float) -> bool:
        """Whether there is another sign of life than the heartbeat, or comes within ``patience`` seconds."""
        heard, seen = anyio.Event(), router.received
        fences = [Fence(router, heard.set) for _ in ("control", "shell")]
        try:
            for fence, channel in zip(fences, ("control", "shell"), strict=True):
                fence.send(channel)
            with anyio.move_on_after(patience):
                await heard.wait()
            return heard.is_set() or router.received != seen
        finally:
            for fence in fences:
                fence.withdraw()

    async def _end_gone(self, router: Router, ending: Ending) -> None:
        """The kernel is dead, and what it has said until then may still be on its way."""
        await router.transport.drain()
        self._end_dead(router, ending)

    def _end_dead(self, router: Router, ending: Ending) -> None:
        """The kernel is dead."""
        self._note_death(router, ending)
        router.end(ending)
        self.link.end_messages(ending)

    def _note_death(self, router: Router, ending: Ending) -> None:
        if router.ending is None:
            error = ending(None)
            if self.witness is not None:
                self.witness.died(error)
            self.link.events.tell("died", str(error))


def _read_info(reply: Message) -> KernelInfo:
    try:
        return read_reply(reply.content, KernelInfo)
    except AnyKernelError as exc:
        raise KernelStartError(f"the kernel does not say what it is: {exc}") from exc


@contextmanager
def _shielded(count: int) -> Iterator[list[anyio.CancelScope]]:
    """So many scopes that are cancelled at the end of the block, and by nothing else."""
    scopes = [anyio.CancelScope(shield=True) for _ in range(count)]
    try:
        yield scopes
    finally:
        for scope in scopes:
            scope.cancel()


async def _read(transport: Transport, channel: str, router: Router, scope: anyio.CancelScope) -> None:
    with scope:
        await transport.read(channel, router)
