"""Who owns the kernel's process, its connection and their tasks.

How this works. An owner runs in the task group of `open_kernel` or `connect_kernel`. `Launched` runs one process
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
import os
import re
import shutil
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup, TaskStatus

from ._connection import ConnectionInfo, new_connection
from ._exceptions import (
    AnyKernelError,
    ArgumentError,
    ConnectionClosedError,
    KernelDiedError,
    KernelRestartedError,
    KernelStartError,
    KernelStartTimeoutError,
    UnsupportedError,
)
from ._kernel import Connection, Kernel, Lifecycle
from ._kernelspec import LaunchSpec
from ._messages import KernelInfo, Message, read_reply
from ._process import KernelProcess, open_kernel_process
from ._router import Ending, Router
from ._tasks import open_task_group
from ._transport import Transport
from ._zmq import DESCRIPTORS, ZmqTransport, ensure_descriptors

if TYPE_CHECKING:
    pass

__all__ = ["Connected", "Launched"]

# How often a kernel that found its ports taken is started again on others.
PORT_TRIES = 5
# How often a kernel that dies is started again by on_death="restart", within how many seconds.
RESTART_TRIES = 3
RESTART_WINDOW = 60.0
# Milliseconds between attempts to connect to a kernel that is starting. ZMQ's own 100 would add 50 to each start.
STARTUP_RECONNECT = 10

# Seconds between two requests by which a kernel that does not greet is found to reach us on IOPub.
PROBE_INTERVAL = 0.05

_ADDRESS_IN_USE = re.compile(r"address (is )?already in use|EADDRINUSE", re.IGNORECASE)


class Owner(Lifecycle):
    """What owning a started and owning a connected kernel have in common."""

    def __init__(
        self,
        tasks: TaskGroup,
        *,
        startup_timeout: float,
        shutdown_timeout: float,
        interrupt_timeout: float,
        output_limit: int,
        max_in_flight: int,
        heartbeat_interval: float,
        heartbeat_misses: int,
    ) -> None:
        for name, value in {
            "startup_timeout": startup_timeout,
            "shutdown_timeout": shutdown_timeout,
            "interrupt_timeout": interrupt_timeout,
            "output_limit": output_limit,
        }.items():
            if not value >= 0:
                raise ArgumentError(f"{name} must not be negative: {value!r}")
        if not (max_in_flight >= 1 and heartbeat_interval > 0 and heartbeat_misses >= 1):
            raise ArgumentError("max_in_flight, heartbeat_interval and heartbeat_misses must be positive")
        self._startup_timeout = startup_timeout
        self._shutdown_timeout = shutdown_timeout
        self._max_in_flight = max_in_flight
        self._heartbeat_interval = heartbeat_interval
        self._heartbeat_misses = heartbeat_misses
        self._closed = False
        self._scope = anyio.CancelScope()
        self._router: Router | None = None

        def start_soon(func: Callable[[], Coroutine[Any, Any, object]]) -> None:
            tasks.start_soon(func)

        self.kernel = Kernel(self, start_soon, output_limit=output_limit, interrupt_timeout=interrupt_timeout)

    async def run(self, *, task_status: TaskStatus[None]) -> None:
        """Own the kernel until `close`; a task of its own."""
        with self._scope:
            await self._run(task_status)

    def _started(self, task_status: TaskStatus[None]) -> None:
        # From here on, a cancellation of the block reaches the block only. When it has ended, `close` ends this:
        # otherwise the block would see the connection end, and not that it was cancelled.
        self._scope.shield = True
        task_status.started()

    async def _run(self, task_status: TaskStatus[None]) -> None:
        raise NotImplementedError

    def close(self) -> None:
        """The block has ended: refuse all calls from now on, and end `run`."""
        self._close("the kernel's block has ended")
        self._scope.cancel()

    def _close(self, reason: str) -> None:
        self._closed = True
        self.kernel._close(_closed(reason))
        if self._router is not None:
            self._router.end(_closed(reason))  # also one that is still starting

    @asynccontextmanager
    async def _connection(
        self, transport: Transport, info: ConnectionInfo, *, watch: Callable[[Router], Coroutine[Any, Any, None]]
    ) -> AsyncIterator[Connection]:
        """Run a connection's tasks, wait until it is ready, and close the transport at the end.

        ``watch`` is a task that ends the router when the kernel goes away.

        Raises:
            AnyKernelError: the router ended first.
            KernelStartError: the kernel does not sign as we do.
            KernelStartTimeoutError: it was not ready in time.
        """
        try:
            async with open_task_group() as tasks:
                self._router = router = Router(transport, self.kernel._on_iopub)
                for channel in transport.channels:
                    tasks.start_soon(transport.read, channel, router.deliver)
                tasks.start_soon(router.watch)
                tasks.start_soon(watch, router)
                kernel_info = await self._ready(router)
                tasks.start_soon(self._heartbeat, router)
                try:
                    yield Connection(router, info, kernel_info, self._max_in_flight)
                finally:
                    tasks.cancel_scope.cancel()
        finally:
            transport.close()

    async def _ready(self, router: Router) -> KernelInfo:
        """Wait until the kernel has answered and every channel carries messages."""
        transport, replies = router.transport, list[Message]()
        with anyio.move_on_after(self._startup_timeout) as timeout:
            async with open_task_group() as tasks:

                async def stop_at(event: anyio.Event) -> None:
                    await event.wait()
                    tasks.cancel_scope.cancel()

                async def ask(channel: str) -> None:
                    # On control too, where a kernel that is busy answers.
                    try:
                        replies.append(await router.request("kernel_info_request", {}, channel=channel))
                    except AnyKernelError as exc:
                        if router.ending is None and channel == "shell":
                            raise KernelStartError(f"the kernel does not say what it is: {exc}") from exc
                    else:
                        answered.set()

                answered = anyio.Event()
                tasks.start_soon(stop_at, router.ended)
                tasks.start_soon(stop_at, transport.mistrusted)
                tasks.start_soon(ask, "shell")
                tasks.start_soon(ask, "control")
                await answered.wait()
                while not router.iopub_seen.is_set():
                    with anyio.move_on_after(PROBE_INTERVAL):
                        await router.iopub_seen.wait()
                        break
                    # A kernel that does not greet may have published before our subscription reached it.
                    await router.request("kernel_info_request", {}, channel=replies[0].channel)
                await transport.connected()
                tasks.cancel_scope.cancel()
        if router.ending is not None:
            raise router.ending(None)
        if not replies and transport.mistrusted.is_set():
            raise KernelStartError("the signatures of the kernel's messages do not match: the key is not the kernel's")
        if timeout.cancelled_caught:
            missing = await self._missing(router, answered=bool(replies))
            raise KernelStartTimeoutError(f"the kernel was not ready within {self._startup_timeout} s: {missing}")
        return read_reply(replies[0].content, KernelInfo)

    async def _missing(self, router: Router, *, answered: bool) -> str:
        if answered:
            return "it answers requests, but its output channel stays silent"
        if await router.transport.beat(0.2):
            return "it is there, but answers no requests (it is stuck, or the key is not the kernel's)"
        return "nothing answers at its address"

    async def _heartbeat(self, router: Router) -> None:
        missed = 0
        while missed < self._heartbeat_misses:
            if await router.transport.beat(self._heartbeat_interval):
                missed = 0
                await anyio.sleep(self._heartbeat_interval)
            else:
                missed += 1
        seconds = self._heartbeat_interval * self._heartbeat_misses
        text = f"the kernel does not answer: no heartbeat for {seconds:g} s"
        self._end_dead(router, lambda result: KernelDiedError(text, result=result))

    def _end_dead(self, router: Router, ending: Ending) -> None:
        """The kernel is dead."""
        router.end(ending)


class Launched(Owner):
    """Runs a kernel's processes, one after another."""

    def __init__(
        self,
        spec: LaunchSpec,
        tasks: TaskGroup,
        *,
        cwd: str | os.PathLike[str] | None,
        env: Mapping[str, str] | None,
        transport: Literal["tcp", "ipc"],
        encrypted: bool,
        restart_on_death: bool,
        **options: Any,
    ) -> None:
        super().__init__(tasks, **options)
        self._spec = spec
        self._cwd = cwd
        self._env = env
        self._transport: Literal["tcp", "ipc"] = transport
        self._encrypted = encrypted
        self._restart_on_death = restart_on_death
        self._process: KernelProcess | None = None
        self._restarting: _Restart | None = None
        self._restarts: list[float] = []  # when it restarted by itself (time.monotonic)
        self._ready_once = False
        self._wake = anyio.Event()
        self._gone = anyio.Event()

    @property
    def pid(self) -> int | None:  # type: ignore[override]
        return self._process.pid if self._process is not None else None

    @property
    def returncode(self) -> int | None:  # type: ignore[override]
        return self._process.returncode if self._process is not None else None

    async def interrupt(self, connection: Connection) -> None:
        assert self._process is not None
        if self._spec.interrupt_mode == "message":
            await connection.router.request("interrupt_request", {}, channel="control")
        elif self._process.returncode is None:
            # The whole group, as a terminal's Ctrl-C: code may wait for a child that must end first.
            self._process.signal(signal.SIGINT)

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
            raise restarting.error()

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
            # Before the end is told, so that calls made because of it wait for the next process.
            self._restarting = _Restart()
            self.kernel._detach()
        router.end(ending)

    def _may_restart(self) -> bool:
        now = time.monotonic()
        self._restarts = [then for then in self._restarts if now - then < RESTART_WINDOW]
        self._restarts.append(now)
        return self._ready_once and not self._closed and len(self._restarts) <= RESTART_TRIES

    def _end_restart(self, error: AnyKernelError | None = None) -> None:
        restarting, self._restarting = self._restarting, None
        if restarting is not None:
            restarting.end(error)
        if error is not None and not self._closed:
            text = f"the kernel could not be started again: {error}"
            self.kernel._fail(lambda result: KernelDiedError(text, result=result))

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
                        self._started(task_status)
                    await connection.router.ended.wait()
                return
            except ConnectionClosedError:
                return  # shut down before it was ready
            except KernelStartError as exc:
                if not _ADDRESS_IN_USE.search(exc.stderr) or attempt + 1 == PORT_TRIES:
                    raise

    @asynccontextmanager
    async def _launch(self) -> AsyncIterator[Connection]:
        # Before anything is begun, and with those that starting two processes takes.
        ensure_descriptors(DESCRIPTORS + 16)
        with _runtime_directory(self._transport) as directory:
            connection_file = directory / "kernel.json"
            try:
                info = new_connection(self._transport, directory, encrypted=self._encrypted)
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
        router.end(_closed("the kernel's block has ended"))
        if dead or process.returncode is not None:
            process.kill()  # its heart has stopped, or only its children are left
            return
        header = router.new_header("shutdown_request")
        with contextlib.suppress(ConnectionClosedError):  # what cannot be asked is made to end
            router.transport.send(Message("control", header, content={"restart": self._restarting is not None}))
        # The kernel ends when its code does, so the code must.
        interrupt = connection.dispatcher.ended_busy and self._spec.interrupt_mode == "signal"
        await process.stop(self._shutdown_timeout, interrupt=interrupt)


class _Restart:
    """A restart under way, and who waits for it."""

    def __init__(self) -> None:
        self.done = anyio.Event()
        self.error: Callable[[], AnyKernelError] | None = None

    def end(self, error: AnyKernelError | None) -> None:
        if isinstance(error, KernelStartError):
            start_error = error
            self.error = lambda: type(start_error)(str(start_error), returncode=start_error.returncode)
        elif error is not None:
            self.error = lambda: type(error)(str(error))
        self.done.set()


class Connected(Owner):
    """Uses a kernel that is somebody else's."""

    def __init__(
        self, info: ConnectionInfo, tasks: TaskGroup, open_transport: Callable[[], Transport], **options: Any
    ) -> None:
        super().__init__(tasks, **options)
        self._info = info
        self._open_transport = open_transport

    async def interrupt(self, connection: Connection) -> None:
        # Only the request reaches a process that may be anywhere; ipykernel takes it whatever its kernelspec says.
        await connection.router.request("interrupt_request", {}, channel="control")

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
                router.end(lambda result: KernelRestartedError("somebody restarted the kernel", result=result))
            else:
                router.end(lambda result: KernelDiedError("the kernel closed the connection", result=result))

        try:
            async with self._connection(transport, self._info, watch=watch) as connection:
                self.kernel._attach(connection)
                self._started(task_status)
                await connection.router.ended.wait()
        except KernelDiedError as exc:
            raise KernelStartError(f"the kernel went away before it was ready: {exc}") from exc


def _closed(reason: str) -> Ending:
    return lambda result: ConnectionClosedError(reason, result=result)


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
