"""The kernels that a server keeps: each opened by a task of its own, found by name, replaced when it has died."""

from __future__ import annotations

import itertools
import time
from collections import OrderedDict
from typing import Any

import anyio
from anyio.abc import TaskGroup

from .. import AnyKernelError, ArgumentError, Execution, Kernel, open_kernel

__all__ = ["Keeping", "Kept", "Ran"]

# Executions whose output can be read again; the oldest are forgotten.
MOST_RAN = 100


class Kept:
    """A kernel that is kept under a name."""

    def __init__(self, name: str, spec: str) -> None:
        self.name = name
        self.spec = spec
        self.kernel: Kernel | None = None
        self.used = time.monotonic()
        self.lost = ""
        """Why the state of an earlier kernel under this name is gone; told once."""
        self.leave = anyio.Event()
        self.left = anyio.Event()
        self.lock = anyio.Lock()

    @property
    def alive(self) -> bool:
        """Whether it answers."""
        return self.kernel is not None and self.kernel.is_alive


class Ran:
    """Code that runs, or ran."""

    def __init__(self, name: str, kernel: str, execution: Execution) -> None:
        self.name = name
        self.kernel = kernel
        self.execution = execution


class Keeping:
    """All kernels of a server, and what ran in them."""

    def __init__(self, tasks: TaskGroup, spec: str, *, max_kernels: int, idle_timeout: float | None) -> None:
        self.kept: dict[str, Kept] = {}
        self.ran: OrderedDict[str, Ran] = OrderedDict()
        self._tasks = tasks
        self._spec = spec
        self._max_kernels = max_kernels
        self._idle_timeout = idle_timeout
        self._numbers = itertools.count(1)

    async def get(self, name: str) -> Kept:
        """The kernel of that name, started if need be: the first time, and after its death.

        Raises:
            AnyKernelError: it could not be started, or there are as many as may be.
        """
        kept = self.kept.get(name)
        if kept is None:
            kept = self._new(name, self._spec)
        async with kept.lock:
            if not kept.alive:
                if kept.kernel is not None:
                    await self._end(kept)
                    kept.lost = kept.lost or "it had died"
                await self._start(kept)
        kept.used = time.monotonic()
        return kept

    async def start(self, name: str, spec: str | None) -> Kept:
        """Start a kernel under a new name."""
        if name in self.kept:
            raise ArgumentError(f"there is a kernel named {name!r} already; restart_kernel starts it anew")
        kept = self._new(name, spec or self._spec)
        async with kept.lock:
            try:
                await self._start(kept)
            except BaseException:
                self.kept.pop(name, None)
                raise
        return kept

    async def stop(self, name: str) -> None:
        """End a kernel."""
        kept = self.find(name)
        del self.kept[name]
        async with kept.lock:
            await self._end(kept)

    def find(self, name: str) -> Kept:
        """The kernel of that name.

        Raises:
            ArgumentError: there is none.
        """
        try:
            return self.kept[name]
        except KeyError:
            known = ", ".join(self.kept) or "none"
            raise ArgumentError(f"there is no kernel named {name!r}; there are: {known}") from None

    def note(self, kernel: str, execution: Execution) -> Ran:
        """Remember an execution, so that it can be waited for and read."""
        ran = Ran(f"run-{next(self._numbers)}", kernel, execution)
        self.ran[ran.name] = ran
        while len(self.ran) > MOST_RAN:
            oldest = next((r for r in self.ran.values() if r.execution.state == "settled"), None)
            if oldest is None:
                break
            del self.ran[oldest.name]
        return ran

    def _new(self, name: str, spec: str) -> Kept:
        if len(self.kept) >= self._max_kernels:
            raise ArgumentError(f"there are {len(self.kept)} kernels, as many as may be; stop_kernel ends one")
        kept = self.kept[name] = Kept(name, spec)
        return kept

    async def _start(self, kept: Kept) -> None:
        kept.leave, kept.left = anyio.Event(), anyio.Event()
        await self._tasks.start(self._keep, kept)

    async def _end(self, kept: Kept) -> None:
        if kept.kernel is not None:
            kept.leave.set()
            await kept.left.wait()
            kept.kernel = None

    async def _keep(self, kept: Kept, *, task_status: Any) -> None:
        leave, left = kept.leave, kept.left
        started = False
        try:
            async with open_kernel(kept.spec) as kernel:
                kept.kernel = kernel
                task_status.started()
                started = True
                while not leave.is_set():
                    with anyio.move_on_after(self._idle_timeout):
                        await leave.wait()
                    idle = time.monotonic() - kept.used
                    if self._idle_timeout is not None and idle >= self._idle_timeout and not kernel.pending:
                        kept.lost = f"it was not used for {idle:.0f} s, and ended"
                        break
        except AnyKernelError:
            if not started:
                raise
        finally:
            left.set()
