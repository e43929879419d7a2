"""A kernel on this machine: its process, its connection, and how both are taken down.

Taking down is shielded from cancellation, and each step is bounded: shutdown_request, wait, SIGTERM, wait, SIGKILL to the
process group, reap.
"""

from __future__ import annotations

import contextlib
import signal
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup

from .._core import Connection, Router, Witness, closed_ending
from .._protocol import ArgumentError, ConnectionClosedError, KernelDiedError, KernelStartError, Message
from .._transports import DESCRIPTORS, ZmqTransport, ensure_descriptors
from .child import becoming
from .connection import new_connection
from .directory import made, new_directory
from .dying import how_it_ended, to_died, why_it_ended
from .guard import Guard, open_guard
from .kernelspec import LaunchSpec
from .options import LaunchOptions
from .process import KernelProcess, open_kernel_process
from .restartable import Restartable

__all__ = ["Launched"]

# Milliseconds between attempts to connect to a kernel that is starting. ZMQ's own 100 would add 50 to each start.
STARTUP_RECONNECT = 10


class Launched(Restartable):
    """Runs a kernel's processes on this machine."""

    def __init__(
        self,
        spec: LaunchSpec,
        tasks: TaskGroup,
        options: LaunchOptions,
        witness: Witness | None = None,
        *,
        encrypted: bool,
    ) -> None:
        super().__init__(tasks, options, witness, restart_on_death=options.on_death == "restart")
        self._spec = spec
        self._launch_options = options
        self._encrypted = encrypted
        self._process: KernelProcess | None = None

    @property
    def pid(self) -> int | None:  # type: ignore[override]
        return self._process.pid if self._process is not None else None

    @property
    def returncode(self) -> int | None:  # type: ignore[override]
        return self._process.returncode if self._process is not None else None

    async def interrupt(self, connection: Connection, *, everybody: bool = False) -> None:
        assert self._process is not None
        if self._spec.interrupt_mode == "message":
            await self._request_interrupt(connection.router)
        elif not self._process.gone:
            if not self._process.interrupt(everybody=everybody):
                await self._request_interrupt(connection.router)  # Deno, whose kernelspec does not say so
            elif self.witness is not None:
                self.witness.interrupted()

    async def _lives(self, router: Router, patience: float) -> bool:  # noqa: ARG002
        # The process is the better witness, and its end is waited for: code may hold up whatever else would answer.
        await anyio.lowlevel.checkpoint()
        return True

    @asynccontextmanager
    async def _launch(self) -> AsyncIterator[Connection]:
        # Before anything is begun, and with those that starting two processes takes.
        ensure_descriptors(DESCRIPTORS + 24)
        directory = new_directory(self._launch_options.transport)
        async with open_guard(directory) as guard:
            with made(directory), contextlib.ExitStack() as ports:
                async with self._launch_in(directory, guard, ports) as connection:
                    yield connection

    @asynccontextmanager
    async def _launch_in(self, directory: Path, guard: Guard, ports: contextlib.ExitStack) -> AsyncIterator[Connection]:
        connection_file = directory / f"kernel-{uuid.uuid4()}.json"
        try:
            held = ports if self._holds_ports else None
            info = new_connection(self._launch_options.transport, directory, encrypted=self._encrypted, held=held)
            info.write(connection_file)
        except (OSError, ArgumentError) as exc:
            raise KernelStartError(f"cannot prepare the kernel's connection: {exc}") from exc
        env = self._spec.environment(self._launch_options.env)
        argv = self._launch_options.wrapped(self._spec.command(connection_file))
        limits = self._launch_options.limits
        if limits is not None:
            argv = [*becoming(env, limits), *argv]
        async with open_kernel_process(argv, cwd=self._launch_options.cwd, env=env, guard=guard) as process:
            if self.closed:
                raise ConnectionClosedError("the kernel was shut down")
            self._process = process
            transport = ZmqTransport(info, reconnect_interval=STARTUP_RECONNECT)

            async def watch(router: Router) -> None:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(process.read_stderr)
                    await process.wait()
                    process.kill()  # its children, which may hold its connection
                    reason = why_it_ended(limits, process.returncode, process.stderr, process.cpu_seconds)
                    await self._end_gone(router, to_died(process.returncode, process.stderr, reason))
                    tasks.cancel_scope.cancel()

            try:
                async with self._connection(transport, info, watch=watch) as connection:
                    ports.close()
                    process.identify(connection.reply_id)
                    try:
                        yield connection
                    finally:
                        with anyio.CancelScope(shield=True):
                            await self._take_down(connection, process)
            except KernelDiedError as exc:
                text = f"the kernel {how_it_ended(exc.returncode, exc.reason)} before it was ready"
                raise KernelStartError(text, returncode=exc.returncode, stderr=exc.stderr) from None
            except KernelStartError as exc:
                raise type(exc)(str(exc), returncode=process.returncode, stderr=process.stderr) from exc

    async def _take_down(self, connection: Connection, process: KernelProcess) -> None:
        """End a process that was ready: ask it, then make it."""
        router = connection.router
        dead = router.ending is not None and isinstance(router.ending(None), KernelDiedError)
        router.end(closed_ending("the kernel's block has ended"))
        if self.closed:
            router.transport.mute()
        if dead or process.gone:
            process.kill()  # its heart has stopped, or only its children are left
            return
        transport, farewell = router.transport, connection.debugger.farewell()

        def ask(msg_type: str, **content: object) -> None:
            with contextlib.suppress(ConnectionClosedError):  # what cannot be asked is made to end
                transport.send(Message("control", router.new_header(msg_type), content=content))

        def interrupt() -> None:
            # By both ways: async-kernel takes a second for a message, and some know only that.
            if not process.interrupt(everybody=True) and self._spec.interrupt_mode == "signal":
                process.terminate(signal.SIGINT)  # which is welcome now
            if self._spec.interrupt_mode == "message":
                ask("interrupt_request")

        if farewell is not None:
            with contextlib.suppress(ConnectionClosedError):
                transport.send(farewell)
        # The kernel ends when its code does, so the code must; first, as a kernel that ends may take nothing more.
        busy = connection.dispatcher.ended_busy
        if busy:
            interrupt()
        ask("shutdown_request", restart=self._restarting is not None)
        # ipykernel stops its heart last, after all that was registered with `atexit`. Then one of its threads may wait
        # for another that has ended (one time in three without a history, one in thirty with one in memory).
        beat = transport.beat if connection.kernel_info.implementation == "ipython" else None
        await process.stop(self.options.shutdown_timeout, interrupt=interrupt if busy else None, beat=beat)
