"""The owner of a kernel that runs behind a server.

How this works. The kernel's processes are the server's: it starts the next one when one dies, and others may restart it. The
kernel's id stays, and so does the `Kernel`: each process gets a connection of its own (an own router, so that nothing of one
process is taken for the next one's), and calls that are made in between wait. That a process has gone is told by the transport
(which sees what the server says), and by asking the server, whenever something waits and nothing comes.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup, TaskStatus

from .._core import Connection, Ending, OpenOptions, Owner, Router, Witness, ask
from .._protocol import (
    AnyKernelError,
    ConnectionClosedError,
    KernelDiedError,
    KernelRestartedError,
    KernelStartError,
    OutcomeUnknownError,
    Result,
    ServerError,
    UnsupportedError,
    error_of,
)
from .._transports import WebSocket, WebSocketTransport
from .identity import Identity
from .mending import MendingTransport
from .remote import Remote, new_id

__all__ = ["Behind", "Connected", "Opened"]

logger = logging.getLogger("anykernel")

# Seconds between two questions whether the kernel is still there: while it starts, when there is reason to ask, and while
# something waits and nothing comes.
START_POLL = 0.5
CLOSE_POLL = 0.1
POLL = 2.5

# How many processes in a row may end before they were ready.
START_TRIES = 5


class Behind(Owner):
    """A kernel of a server's; how it begins and ends is said by those that derive from this."""

    def __init__(
        self,
        tasks: TaskGroup,
        options: OpenOptions,
        remote: Remote,
        *,
        reconnect_timeout: float,
        witness: Witness | None = None,
    ) -> None:
        super().__init__(tasks, options, witness)
        self._remote = remote
        self._reconnect_timeout = reconnect_timeout
        self._identity = Identity()
        self._restarting: _Restart | None = None
        self._replaced = False
        self._ready_once = False
        self._wake = anyio.Event()
        self._gone = anyio.Event()

    async def _begin(self) -> None:
        """Have a kernel, with an `id`."""
        raise NotImplementedError

    async def _end(self) -> None:
        """The block has ended, or the kernel was shut down."""
        raise NotImplementedError

    async def _start_again(self) -> None:
        """The server does not know the kernel any more, and is to have it again."""
        raise NotImplementedError

    async def _prepare(self, connection: Connection) -> None:
        """A process is ready; do what is to be done before it is used."""

    def _has_come_up(self) -> bool:
        """Whether another of its kind was ready before."""
        return False

    # What a kernel asks of its owner.

    async def interrupt(self, connection: Connection, *, everybody: bool = False) -> None:  # noqa: ARG002
        assert self.id is not None
        await self._remote.interrupt(self.id)

    async def restart(self) -> None:
        await anyio.lowlevel.checkpoint_if_cancelled()
        if self.closed:
            raise ConnectionClosedError("the kernel's block has ended, or it was shut down")
        if self._restarting is None:
            self._restarting = _Restart()
            self.link.events.tell("restarting", "restart() was called")
            connection = self.link.connection
            self.link.detach()
            if connection is not None:
                connection.router.end(lambda result: KernelRestartedError("the kernel was restarted", result=result))
            self._wake.set()
        restarting = self._restarting
        await restarting.done.wait()
        if restarting.error is not None:
            raise copy.copy(restarting.error)  # one for each who waits

    async def shutdown(self) -> None:
        self._close("the kernel was shut down")
        self._wake.set()
        await self._shut_down()
        self._scope.cancel()

    async def _shut_down(self) -> None:
        await self._gone.wait()

    # The run of its processes.

    async def _run(self, task_status: TaskStatus[None]) -> None:
        try:
            await self._begin()
            while True:
                try:
                    await self._run_process(task_status)
                except AnyKernelError as exc:
                    if not self._ready_once:
                        raise  # out of the door
                    self._end_restart(exc)
                while self._restarting is None and not self._replaced and not self.closed:
                    self._wake = anyio.Event()
                    await self._wake.wait()
                if self.closed:
                    break
        finally:
            if self._restarting is not None:
                self._end_restart(ConnectionClosedError("the kernel's block has ended"))
            with anyio.CancelScope(shield=True):
                await self._end()
            self._gone.set()

    async def _run_process(self, task_status: TaskStatus[None]) -> None:
        """Use one process to its end."""
        for attempt in range(START_TRIES):
            if self._restarting is not None and not self._restarting.asked:
                assert self.id is not None
                self._restarting.asked = True
                if not await self._remote.restart(self.id):
                    await self._start_again()
            self._replaced = False
            try:
                await self._connect(task_status)
                return
            except ConnectionClosedError:
                return  # shut down before it was ready
            except KernelRestartedError as exc:
                if attempt + 1 == START_TRIES:
                    raise KernelStartError(f"the server starts it again and again: {exc}") from exc
            except KernelDiedError as exc:
                # It has run nothing yet. Of many that start at once, some do not find their ports free; but where no kernel
                # of this kind ever came up, it is the kernel that is at fault, as the server has tried more than once.
                if attempt or self._ready_once or not self._has_come_up():
                    raise KernelStartError(f"the kernel ended before it was ready: {exc}") from exc
                await self._start_again()

    async def _connect(self, task_status: TaskStatus[None]) -> None:
        assert self.id is not None
        kernel_id = self.id

        async def open_socket() -> WebSocket:
            return await self._remote.http.upgrade(
                "api", "kernels", kernel_id, "channels", session_id=self._identity.session_id
            )

        line = WebSocketTransport(
            open_socket, gone=_gone, reconnect_timeout=self._reconnect_timeout, given_up=_given_up
        )
        transport = MendingTransport(line, self._identity)

        async def watch(router: Router) -> None:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._poll, kernel_id, transport, router)
                ending = await transport.disconnected()
                assert ending is not None
                self._end_process(router, ending)
                tasks.cancel_scope.cancel()

        async with self._connection(transport, None, watch=watch) as connection:
            await transport.settle_in(connection.router.session, connection.kernel_info, self.options.output_limit)
            await self._prepare(connection)
            if connection.router.ending is not None:
                raise connection.router.ending(None)
            self.link.attach(connection)
            if self._ready_once:
                self.link.events.tell("restarted")
                self._end_restart()
            else:
                self._ready_once = True
                task_status.started()
            await connection.router.ended.wait()

    async def _poll(self, kernel_id: str, transport: MendingTransport, router: Router) -> None:
        """Ask the server whether the kernel is still there."""
        while True:
            heard = transport.heard
            if transport.suspicious:
                await anyio.sleep(CLOSE_POLL)
            elif transport.suspicion.is_set():
                await anyio.sleep(POLL)
            else:
                with anyio.move_on_after(POLL if transport.ready else START_POLL):
                    await transport.suspicion.wait()
            waits = bool(len(router)) and heard == transport.heard
            if transport.ready and not waits and not transport.suspicious:
                continue
            try:
                model = await self._remote.kernel(kernel_id)
            except ServerError as exc:
                ending = _gone(exc)
                if ending is not None:
                    transport.end(ending)
                continue  # else: that the server cannot be reached, the WebSocket tells
            if model is None:
                transport.end(_died("the server has it no more: it was deleted, culled, or ended by itself"))
            elif model.execution_state == "dead":
                transport.end(_died("the server has given it up"))

    def _end_process(self, router: Router, ending: Ending) -> None:
        """A process has gone."""
        error = ending(None)
        if not isinstance(error, KernelRestartedError):
            self._end_dead(router, ending)
        elif router.ending is None:
            if self._ready_once and not self.closed:
                # Before the end is told, so that calls made because of it wait for the next process.
                self._replaced = True
                self.link.events.tell("restarting", str(error))
                self.link.detach()
                self._wake.set()
            router.end(ending)

    def _end_restart(self, error: AnyKernelError | None = None) -> None:
        restarting, self._restarting = self._restarting, None
        if restarting is not None:
            restarting.error = error
            restarting.done.set()
        if error is not None and not self.closed:
            text = f"the kernel could not be started again: {error}"

            def ending(result: Result | None) -> KernelDiedError:
                return KernelDiedError(text, result=result)

            self.link.events.tell("died", text)
            self.link.fail(ending)
            self.link.end_messages(ending)


class Opened(Behind):
    """A kernel that was started here, and is deleted at the end."""

    def __init__(
        self,
        tasks: TaskGroup,
        options: OpenOptions,
        remote: Remote,
        *,
        name: str | None,
        path: str | None,
        env: Mapping[str, str],
        reconnect_timeout: float,
        witness: Witness | None = None,
    ) -> None:
        super().__init__(tasks, options, remote, reconnect_timeout=reconnect_timeout, witness=witness)
        self._name = name
        self._path = path
        self._env = env

    async def _begin(self) -> None:
        self.id = new_id()  # before it is asked for: so it is deleted, whatever becomes of the answer
        self.id = await self._remote.start(self._name, self._path, self._env, self.id)

    async def _start_again(self) -> None:
        await self._begin()

    def _has_come_up(self) -> bool:
        return self._name in self._remote.came_up

    async def _prepare(self, connection: Connection) -> None:
        self._remote.came_up.add(self._name)
        if not self._env:
            return
        if connection.kernel_info.language != "python":
            if all(name.startswith("KERNEL_") for name in self._env):
                return  # gateways hand these on
            raise UnsupportedError("only to a Python kernel can a server's client give environment variables")
        code = f"__import__('os').environ.update({dict(self._env)!r})"
        content = {"code": code, "silent": True, "store_history": False, "user_expressions": {}, "allow_stdin": False}
        reply = (await ask(connection.router, "execute_request", content)).content
        if reply.get("status") != "ok":
            raise KernelStartError(f"the kernel did not take its environment variables: {error_of(reply)}")

    async def _end(self) -> None:
        """Delete the kernel, for at most ``shutdown_timeout`` seconds and one."""
        assert self.id is not None
        delay, reason = 0.1, "no answer in time"
        # One that was never had is only there if the server's answer was lost.
        bound = self.options.shutdown_timeout + 1 if self._ready_once else min(2.0, self.options.shutdown_timeout + 1)
        with anyio.move_on_after(bound):
            while True:
                try:
                    await self._remote.delete(self.id)
                    return
                except ServerError as exc:
                    reason = str(exc)
                    if exc.status is not None and exc.status < 500:
                        break
                await anyio.sleep(delay)
                delay *= 2
        logger.warning("the kernel %s may be left on the server: %s", self.id, reason)


class Connected(Behind):
    """A kernel that runs already, and is left running."""

    _asked_on = ("shell", "control")  # where a kernel that is busy answers

    def __init__(self, *args: object, kernel_id: str, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self.id = kernel_id

    async def _begin(self) -> None:
        assert self.id is not None
        if await self._remote.kernel(self.id) is None:
            raise KernelStartError(f"the server has no kernel {self.id!r}")

    async def _start_again(self) -> None:
        raise KernelStartError(f"the server has no kernel {self.id!r} any more")

    async def _shut_down(self) -> None:
        assert self.id is not None
        with anyio.move_on_after(self.options.shutdown_timeout + 1):
            await self._remote.delete(self.id)

    async def _end(self) -> None:
        """Leave it."""


class _Restart:
    """A restart under way, and who waits for it."""

    def __init__(self) -> None:
        self.asked = False
        """Whether the server was told."""
        self.done = anyio.Event()
        self.error: AnyKernelError | None = None


def _died(text: str) -> Ending:
    return lambda result: KernelDiedError(f"the kernel is gone: {text}", result=result)


def _gone(error: AnyKernelError) -> Ending | None:
    """What it means for a kernel that the server answers so; None where it may be back soon."""
    if not isinstance(error, ServerError):
        return None
    if error.status == 404:
        return _died("the server has it no more")
    if error.status == 424 or (error.status is not None and 300 <= error.status < 400):
        return _died("this user's server was stopped")
    return None


def _given_up(reason: str) -> Ending:
    text = f"the server was out of reach for too long ({reason}); what became of code that was sent cannot be told"

    def ending(result: Result | None) -> AnyKernelError:
        return OutcomeUnknownError(text, result=result)

    return ending
