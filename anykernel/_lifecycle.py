"""Who owns the kernel's process, its connection and their tasks.

How this works. An owner runs in the task group of `open_kernel` or `connect_kernel`. `Restartable` runs one process
after another: start it, connect, wait until it is ready, hand the connection to the `Kernel`, wait until that
connection has ended (the process died, somebody called ``restart`` or ``shutdown``), take everything down, and
perhaps start again. A connection has a task group of its own inside: a reader for each channel, the heartbeat,
the watcher of the process. Whatever happens is told by *ending* the connection's router with a reason; the first
reason stays.

Taking down is shielded from cancellation, and each step is bounded: shutdown_request, wait, SIGTERM, wait,
SIGKILL to the process group, reap.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup, TaskStatus

from ._connection import ConnectionInfo, new_connection
from ._exceptions import (
    AnyKernelError,
    ConnectionClosedError,
    KernelDiedError,
    KernelRestartedError,
    KernelStartError,
    UnsupportedError,
)
from ._kernel import Connection
from ._kernelspec import LaunchSpec
from ._messages import Message
from ._owner import Owner
from ._process import KernelProcess, open_kernel_process
from ._router import Ending, Router, closed_ending
from ._transport import Transport
from ._zmq import DESCRIPTORS, ZmqTransport, ensure_descriptors

if TYPE_CHECKING:
    from ._result import Result

__all__ = ["Connected", "Launched", "Restartable"]

logger = logging.getLogger("anykernel")

# How often a kernel that found its ports taken is started again on others.
PORT_TRIES = 5
# How often a kernel that dies is started again by on_death="restart", within how many seconds.
RESTART_TRIES = 3
RESTART_WINDOW = 60.0
# Milliseconds between attempts to connect to a kernel that is starting. ZMQ's own 100 would add 50 to each start.
STARTUP_RECONNECT = 10

_ADDRESS_IN_USE = re.compile(r"address (is )?already in use|EADDRINUSE", re.IGNORECASE)


class Restartable(Owner):
    """Runs a kernel's processes, one after another; `_launch` says how one is started."""

    def __init__(self, tasks: TaskGroup, *, restart_on_death: bool, **options: Any) -> None:
        super().__init__(tasks, **options)
        self._restart_on_death = restart_on_death
        self._restarting: _Restart | None = None
        self._restarts: list[float] = []  # when it restarted by itself (time.monotonic)
        self._ready_once = False
        self._holds_ports = sys.platform == "linux"
        self._wake = anyio.Event()
        self._gone = anyio.Event()

    def _launch(self) -> AbstractAsyncContextManager[Connection]:
        """Start a kernel, for the length of a block."""
        raise NotImplementedError

    async def restart(self) -> None:
        await anyio.lowlevel.checkpoint_if_cancelled()
        if self._closed:
            raise ConnectionClosedError("the kernel's block has ended, or it was shut down")
        if self._restarting is None:
            self._restarting = _Restart()
            connection = self.kernel._connection
            self.kernel._detach()
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
        await self._gone.wait()

    async def _run(self, task_status: TaskStatus[None]) -> None:
        """Start the kernel, and again after restarts, until the block ends."""
        try:
            while True:
                try:
                    await self._run_one(task_status)
                except KernelStartError as exc:
                    if not self._ready_once:
                        raise  # the first start: out of open_kernel
                    self._end_restart(exc)
                while self._restarting is None and not self._closed:
                    self._wake = anyio.Event()
                    await self._wake.wait()
                if self._closed:
                    break
        finally:
            if self._restarting is not None:
                self._end_restart(ConnectionClosedError("the kernel's block has ended"))
            self._gone.set()

    def _end_dead(self, router: Router, ending: Ending) -> None:
        if self._restart_on_death and router.ending is None and self._restarting is None and self._may_restart():
            self._record_death(router, ending)
            # Before the end is told, so that calls made because of it wait for the next process.
            self._restarting = _Restart()
            self.kernel._detach()
            router.end(ending)
        elif router.ending is None:
            if self._restart_on_death and self._ready_once and not self._closed and self._restarting is None:
                logger.warning(
                    "a kernel that died %d times in %g s is not started again", RESTART_TRIES + 1, RESTART_WINDOW
                )
            super()._end_dead(router, ending)

    def _may_restart(self) -> bool:
        now = time.monotonic()
        self._restarts = [then for then in self._restarts if now - then < RESTART_WINDOW]
        self._restarts.append(now)
        return self._ready_once and not self._closed and len(self._restarts) <= RESTART_TRIES

    def _end_restart(self, error: AnyKernelError | None = None) -> None:
        restarting, self._restarting = self._restarting, None
        if restarting is not None:
            restarting.error = error
            restarting.done.set()
        if error is not None and not self._closed:
            text = f"the kernel could not be started again: {error}"

            def ending(result: Result | None) -> KernelDiedError:
                return KernelDiedError(text, result=result)

            self.kernel._fail(ending)
            self.kernel._end_messages(ending)

    async def _run_one(self, task_status: TaskStatus[None]) -> None:
        """Run one process to its end; one that found its ports taken is started again."""
        for attempt in range(PORT_TRIES):
            try:
                async with self._launch() as connection:
                    self.kernel._attach(connection)
                    if self._ready_once:
                        self._end_restart()
                    else:
                        self._ready_once = True
                        task_status.started()
                    await connection.router.ended.wait()
                return
            except ConnectionClosedError:
                return  # shut down before it was ready
            except KernelStartError as exc:
                if not _ADDRESS_IN_USE.search(exc.stderr) or attempt + 1 == PORT_TRIES:
                    raise
                self._holds_ports = False  # perhaps this is a kernel that cannot share them with us


class Launched(Restartable):
    """Runs a kernel's processes on this machine."""

    def __init__(
        self,
        spec: LaunchSpec,
        tasks: TaskGroup,
        *,
        cwd: str | os.PathLike[str] | None,
        env: Mapping[str, str] | None,
        transport: Literal["tcp", "ipc"],
        encrypted: bool,
        **options: Any,
    ) -> None:
        super().__init__(tasks, **options)
        self._spec = spec
        self._cwd = cwd
        self._env = env
        self._transport: Literal["tcp", "ipc"] = transport
        self._encrypted = encrypted
        self._process: KernelProcess | None = None

    @property
    def pid(self) -> int | None:  # type: ignore[override]
        return self._process.pid if self._process is not None else None

    @property
    def returncode(self) -> int | None:  # type: ignore[override]
        return self._process.returncode if self._process is not None else None

    async def interrupt(self, connection: Connection) -> None:
        assert self._process is not None
        if self._spec.interrupt_mode == "message":
            await self._request_interrupt(connection.router)
        elif self._process.returncode is None:
            if self._recorder is not None:
                self._recorder.interrupted()
            # The whole group, as a terminal's Ctrl-C: code may wait for a child that must end first.
            self._process.signal(signal.SIGINT)

    @asynccontextmanager
    async def _launch(self) -> AsyncIterator[Connection]:
        # Before anything is begun, and with those that starting two processes takes.
        ensure_descriptors(DESCRIPTORS + 24)
        with _runtime_directory(self._transport) as directory, contextlib.ExitStack() as ports:
            connection_file = directory / "kernel.json"
            try:
                held = ports if self._holds_ports else None
                info = new_connection(self._transport, directory, encrypted=self._encrypted, held=held)
                info.write(connection_file)
            except OSError as exc:
                raise KernelStartError(f"cannot prepare the kernel's connection: {exc}") from exc
            argv, env = self._spec.command(connection_file), self._spec.environment(self._env)
            async with open_kernel_process(argv, cwd=self._cwd, env=env, directory=directory) as process:
                if self._closed:
                    raise ConnectionClosedError("the kernel was shut down")
                self._process = process
                transport = ZmqTransport(info, reconnect_interval=STARTUP_RECONNECT)

                async def watch(router: Router) -> None:
                    async with anyio.create_task_group() as tasks:
                        tasks.start_soon(process.read_stderr)
                        await process.wait()
                        self._end_dead(router, _died(process))
                        tasks.cancel_scope.cancel()

                try:
                    async with self._connection(transport, info, watch=watch) as connection:
                        ports.close()
                        try:
                            yield connection
                        finally:
                            with anyio.CancelScope(shield=True):
                                await self._take_down(connection, process)
                except KernelDiedError as exc:
                    text = f"the kernel {_how_it_ended(exc.returncode)} before it was ready"
                    raise KernelStartError(text, returncode=exc.returncode, stderr=exc.stderr) from None
                except KernelStartError as exc:
                    raise type(exc)(str(exc), returncode=process.returncode, stderr=process.stderr) from exc

    async def _take_down(self, connection: Connection, process: KernelProcess) -> None:
        """End a process that was ready: ask it, then make it."""
        router = connection.router
        dead = router.ending is not None and isinstance(router.ending(None), KernelDiedError)
        router.end(closed_ending("the kernel's block has ended"))
        if dead or process.returncode is not None:
            process.kill()  # its heart has stopped, or only its children are left
            return
        header = router.new_header("shutdown_request")
        with contextlib.suppress(ConnectionClosedError):  # what cannot be asked is made to end
            router.transport.send(Message("control", header, content={"restart": self._restarting is not None}))
        # The kernel ends when its code does, so the code must.
        interrupt = connection.dispatcher.ended_busy and self._spec.interrupt_mode == "signal"
        # ipykernel stops its heart last, after all that was registered with `atexit`. Then one of its threads may wait
        # for another that has ended (one time in three without a history, one in thirty with one in memory).
        beat = router.transport.beat if connection.kernel_info.implementation == "ipython" else None
        await process.stop(self._shutdown_timeout, interrupt=interrupt, beat=beat)


class _Restart:
    """A restart under way, and who waits for it."""

    def __init__(self) -> None:
        self.done = anyio.Event()
        self.error: AnyKernelError | None = None


class Connected(Owner):
    """Uses a kernel that is somebody else's."""

    _asked_on = ("shell", "control")  # where a kernel that is busy answers

    def __init__(
        self, info: ConnectionInfo, tasks: TaskGroup, open_transport: Callable[[], Transport], **options: Any
    ) -> None:
        super().__init__(tasks, **options)
        self._info = info
        self._open_transport = open_transport

    async def interrupt(self, connection: Connection) -> None:
        # Only the request reaches a process that may be anywhere; ipykernel takes it whatever its kernelspec says.
        await self._request_interrupt(connection.router)

    async def restart(self) -> None:
        raise UnsupportedError("only a kernel that open_kernel started can be restarted")

    async def shutdown(self) -> None:
        connection = self.kernel._connection
        assert connection is not None
        router = connection.router
        if router.ending is not None:
            raise router.ending(None)
        with anyio.move_on_after(self._shutdown_timeout):
            try:
                await router.request("shutdown_request", {"restart": False}, channel="control")
            except KernelDiedError:
                pass  # it was quicker to go than to answer
            else:
                await router.transport.disconnected()
        self.close()

    async def _run(self, task_status: TaskStatus[None]) -> None:
        transport = self._open_transport()

        async def watch(router: Router) -> None:
            await transport.disconnected()
            if router.restart_announced:
                self._end_dead(
                    router, lambda result: KernelRestartedError("somebody restarted the kernel", result=result)
                )
            else:
                self._end_dead(
                    router, lambda result: KernelDiedError("the kernel closed the connection", result=result)
                )

        try:
            async with self._connection(transport, self._info, watch=watch) as connection:
                self.kernel._attach(connection)
                task_status.started()
                await connection.router.ended.wait()
        except (KernelDiedError, KernelRestartedError) as exc:
            raise KernelStartError(f"the kernel went away before it was ready: {exc}") from exc


def _died(process: KernelProcess) -> Ending:
    text = f"the kernel {_how_it_ended(process.returncode)}"
    returncode, stderr = process.returncode, process.stderr
    return lambda result: KernelDiedError(text, returncode=returncode, stderr=stderr, result=result)


def _how_it_ended(returncode: int | None) -> str:
    if returncode is None:
        return "went away"
    if returncode < 0:
        try:
            return f"was killed by {signal.Signals(-returncode).name}"
        except ValueError:
            return f"was killed by signal {-returncode}"
    return f"exited with status {returncode}"


@contextmanager
def _runtime_directory(transport: str) -> Iterator[Path]:
    """A directory that only this user can enter."""
    # Addresses of IPC sockets must be short: about 100 bytes for the system, and 31 for xeus kernels.
    base = "/tmp" if transport == "ipc" else None  # noqa: S108
    try:
        directory = Path(tempfile.mkdtemp(prefix="anyk-", dir=base))
    except OSError as exc:
        raise KernelStartError(f"cannot make a directory for the kernel: {exc}") from exc
    try:
        yield directory
    finally:
        # The kernel may remove files of its own at the same time.
        shutil.rmtree(directory, ignore_errors=True)
