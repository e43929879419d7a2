"""Running a kernel's processes, one after another, and restarting them.

How this works. An owner runs in the task group of its door. `Restartable` runs one process after another: start it, connect,
wait until it is ready, hand the connection to the `Kernel`, wait until that connection has ended (the process died,
somebody called ``restart`` or ``shutdown``), take everything down, and perhaps start again. A connection has a task group
of its own inside: a reader for each channel, the heartbeat, the watcher of the process. Whatever happens is told by
*ending* the connection's router with a reason; the first reason stays.
"""

from __future__ import annotations

import copy
import logging
import re
import sys
import time
from contextlib import AbstractAsyncContextManager

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup, TaskStatus

from .._core import Connection, Ending, OpenOptions, Owner, Router, Witness
from .._protocol import (
    AnyKernelError,
    ConnectionClosedError,
    KernelDiedError,
    KernelRestartedError,
    KernelStartError,
    Result,
)

__all__ = ["Restartable"]

logger = logging.getLogger("anykernel")

# How often a kernel that found its ports taken is started again on others.
PORT_TRIES = 5
# How often a kernel that dies is started again by on_death="restart", within how many seconds.
RESTART_TRIES = 3
RESTART_WINDOW = 60.0

_ADDRESS_IN_USE = re.compile(r"address (is )?already in use|EADDRINUSE", re.IGNORECASE)


class Restartable(Owner):
    """Runs a kernel's processes, one after another; `_launch` says how one is started."""

    def __init__(
        self, tasks: TaskGroup, options: OpenOptions, witness: Witness | None = None, *, restart_on_death: bool
    ) -> None:
        super().__init__(tasks, options, witness)
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
                while self._restarting is None and not self.closed:
                    self._wake = anyio.Event()
                    await self._wake.wait()
                if self.closed:
                    break
        finally:
            if self._restarting is not None:
                self._end_restart(ConnectionClosedError("the kernel's block has ended"))
            self._gone.set()

    def _end_dead(self, router: Router, ending: Ending) -> None:
        if self._restart_on_death and router.ending is None and self._restarting is None and self._may_restart():
            self._note_death(router, ending)
            # Before the end is told, so that calls made because of it wait for the next process.
            self._restarting = _Restart()
            self.link.events.tell("restarting", "it died")
            self.link.detach()
            router.end(ending)
        elif router.ending is None:
            if self._restart_on_death and self._ready_once and not self.closed and self._restarting is None:
                logger.warning(
                    "a kernel that died %d times in %g s is not started again", RESTART_TRIES + 1, RESTART_WINDOW
                )
            super()._end_dead(router, ending)

    def _may_restart(self) -> bool:
        now = time.monotonic()
        self._restarts = [then for then in self._restarts if now - then < RESTART_WINDOW]
        self._restarts.append(now)
        return self._ready_once and not self.closed and len(self._restarts) <= RESTART_TRIES

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

    async def _run_one(self, task_status: TaskStatus[None]) -> None:
        """Run one process to its end; one that found its ports taken is started again."""
        for attempt in range(PORT_TRIES):
            try:
                async with self._launch() as connection:
                    self.link.attach(connection)
                    if self._ready_once:
                        self.link.events.tell("restarted")
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


class _Restart:
    """A restart under way, and who waits for it."""

    def __init__(self) -> None:
        self.done = anyio.Event()
        self.error: AnyKernelError | None = None
