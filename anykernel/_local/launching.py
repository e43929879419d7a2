"""A kernel whose process a `Launcher` starts: readiness, interrupts, death, and how it is asked to end."""

from __future__ import annotations

import contextlib
import math
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from anyio.abc import TaskGroup

from .._core import Connection, Router, Witness, closed_ending
from .._protocol import (
    ConnectionClosedError,
    KernelDiedError,
    KernelStartError,
    KernelStartTimeoutError,
    Message,
    UnsupportedError,
)
from .._transports import DESCRIPTORS, ZmqTransport, ensure_descriptors
from .child import becoming
from .dying import how_it_ended, to_died, why_it_ended
from .kernelspec import LaunchSpec
from .launched import STARTUP_RECONNECT
from .launcher import LaunchedProcess, Launcher, LaunchOrder
from .options import LaunchOptions
from .restartable import Restartable

__all__ = ["LaunchedBy"]


class LaunchedBy(Restartable):
    """Runs a kernel's processes where a launcher starts them."""

    def __init__(
        self,
        launcher: Launcher,
        spec: LaunchSpec,
        tasks: TaskGroup,
        options: LaunchOptions,
        witness: Witness | None = None,
        *,
        encrypted: bool,
    ) -> None:
        super().__init__(tasks, options, witness, restart_on_death=options.on_death == "restart")
        if options.transport != "tcp":
            raise UnsupportedError("a kernel that a launcher starts is reached by TCP alone")
        self._launcher = launcher
        self._launch_options = options
        self._process: LaunchedProcess | None = None
        self._launching = anyio.CancelScope()
        argv = options.wrapped(spec.command("{connection_file}"))
        env = spec.additions(options.env)
        self._order = LaunchOrder(
            name=spec.name,
            argv=argv if options.limits is None else [*becoming(env, options.limits), *argv],
            env=env,
            cwd=None if options.cwd is None else str(options.cwd),
            encrypted=encrypted,
            interrupt_mode=spec.interrupt_mode,
            metadata=spec.metadata,
        )

    @property
    def pid(self) -> int | None:  # type: ignore[override]
        return self._process.pid if self._process is not None else None

    @property
    def returncode(self) -> int | None:  # type: ignore[override]
        return self._process.returncode if self._process is not None else None

    def _close(self, reason: str) -> None:
        super()._close(reason)
        self._launching.cancel()

    async def interrupt(self, connection: Connection, *, everybody: bool = False) -> None:  # noqa: ARG002
        assert self._process is not None
        if self._order.interrupt_mode == "message":
            await self._request_interrupt(connection.router)
        else:
            if self.witness is not None:
                self.witness.interrupted()
            await self._process.signal(signal.SIGINT)

    @asynccontextmanager
    async def _launch(self) -> AsyncIterator[Connection]:
        ensure_descriptors(DESCRIPTORS + 24)
        timeout = self.options.startup_timeout
        started = False
        with anyio.CancelScope(deadline=anyio.current_time() + timeout) as overdue, contextlib.ExitStack() as stack:
            self._launching = stack.enter_context(anyio.CancelScope())  # ended by `_close`, until it is started
            async with self._launcher.launch(self._order) as process:
                started, overdue.deadline, self._launching = True, math.inf, anyio.CancelScope()
                if self.closed:
                    raise ConnectionClosedError("the kernel was shut down")
                async with self._connected(process) as connection:
                    yield connection
        if not started:
            if self.closed:
                raise ConnectionClosedError("the kernel was shut down")
            raise KernelStartTimeoutError(f"the kernel was not started within {timeout} s")

    @asynccontextmanager
    async def _connected(self, process: LaunchedProcess) -> AsyncIterator[Connection]:
        self._process, info = process, process.connection
        if self._launch_options.encryption == "required" and info.curve_publickey is None:
            raise UnsupportedError("encryption is required, and the launcher gave the kernel no keys for it")
        transport = ZmqTransport(info, reconnect_interval=STARTUP_RECONNECT)

        async def watch(router: Router) -> None:
            with watching:
                await process.wait()
                gone.set()
                reason = why_it_ended(self._launch_options.limits, process.returncode, process.stderr, None)
                await self._end_gone(router, to_died(process.returncode, process.stderr, reason or process.reason))

        gone, watching = anyio.Event(), anyio.CancelScope()
        try:
            async with self._connection(transport, info, watch=watch) as connection:
                watching.shield = True  # its end is awaited when all else is cancelled
                try:
                    yield connection
                finally:
                    with anyio.CancelScope(shield=True):
                        await self._ask_to_end(connection, process, gone)
                    watching.cancel()
        except KernelDiedError as exc:
            text = f"the kernel {how_it_ended(exc.returncode, exc.reason)} before it was ready"
            raise KernelStartError(text, returncode=exc.returncode, stderr=exc.stderr) from None
        except KernelStartError as exc:
            raise type(exc)(str(exc), returncode=process.returncode, stderr=process.stderr) from exc

    async def _ask_to_end(self, connection: Connection, process: LaunchedProcess, gone: anyio.Event) -> None:
        """Ask a process that was ready to end, and wait; the launcher ends it then."""
        router = connection.router
        dead = router.ending is not None and isinstance(router.ending(None), KernelDiedError)
        router.end(closed_ending("the kernel's block has ended"))
        if self.closed:
            router.transport.mute()
        if dead or gone.is_set():
            return

        def ask(msg_type: str, **content: object) -> None:
            with contextlib.suppress(ConnectionClosedError):  # what cannot be asked is made to end
                router.transport.send(Message("control", router.new_header(msg_type), content=content))

        farewell = connection.debugger.farewell()
        if farewell is not None:
            with contextlib.suppress(ConnectionClosedError):
                router.transport.send(farewell)
        with anyio.move_on_after(self.options.shutdown_timeout):
            # The kernel ends when its code does, so the code must; first, as a kernel that ends may take nothing more.
            if connection.dispatcher.ended_busy:
                ask("interrupt_request")
                if self._order.interrupt_mode == "signal":
                    await process.signal(signal.SIGINT)
            ask("shutdown_request", restart=self._restarting is not None)
            await gone.wait()
