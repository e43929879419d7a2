"""Kernels kept ready: started ahead, lent to one borrower at a time, replaced when they are used up or die.

How this works. Each kernel has a *place* in the pool and a task that keeps it: opens it, runs the setup, offers it, and closes
it when its place is to be vacated. Everything else is plain calls that change the lists below, so nothing is half done when
a borrower is cancelled. After each change `Keeper.balance` starts as many kernels as are wanted: those lent, one for each
who waits, and the spares, at most ``size``. So a spare's replacement starts when it is lent, and not when it comes back.

A start that fails ends those who wait with its error at once, and the next waits longer each time, so that a kernel that can
never start makes no storm.
"""

from __future__ import annotations

import copy
import time
from collections import deque
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup

from .._core import Home, Kernel
from .._protocol import AnyKernelError, ConnectionClosedError

__all__ = ["Keeper", "Place"]

# Seconds until the next start after one that failed, doubling; and at most.
BACK_OFF = 0.5
MAX_BACK_OFF = 30.0


class Place:
    """One kernel's place in the pool."""

    def __init__(self) -> None:
        self.kernel: Kernel | None = None
        """Once it is ready."""
        self.lends = 0
        """How often it was lent."""
        self.spoiled = False
        """Whether it must not be lent again: it died, or was started anew without the setup."""
        self.idle_since = 0.0
        self.vacated = anyio.Event()
        """To be set when the kernel is to go."""
        self.scope = anyio.CancelScope()


class _Waiter:
    def __init__(self) -> None:
        self.done = anyio.Event()
        self.place: Place | None = None
        self.error: AnyKernelError | None = None


class Keeper:
    """The places, who waits for one, and what is started when."""

    def __init__(
        self,
        tasks: TaskGroup,
        open_one: Callable[[], AbstractAsyncContextManager[Kernel]],
        *,
        size: int,
        spares: int,
        uses: int | None,
        setup: str | None,
        max_starting: int,
        idle_timeout: float,
    ) -> None:
        self.size = size
        self.idle: deque[Place] = deque()
        """The longest idle first."""
        self.lent: set[Place] = set()
        self.starting: set[Place] = set()
        self.leaving: set[Place] = set()
        self.waiters: deque[_Waiter] = deque()
        self.started = self.died = self.replaced = 0
        self._home = Home()
        self._tasks = tasks
        self._open_one = open_one
        self._spares = spares
        self._uses = uses
        self._setup = setup
        self._max_starting = max_starting
        self._idle_timeout = idle_timeout
        self._failures = 0
        self._backing_off = self._opening = self._closed = False

    def balance(self) -> None:
        """Start the kernels that are wanted and not there."""
        wanted = len(self.lent) + len(self.waiters) + self._spares
        if self._opening:  # what is waited for is no borrower
            wanted = max(1, self._spares)
        wanted = min(self.size, wanted)
        while (
            not (self._closed or self._backing_off)
            and len(self.idle) + len(self.lent) + len(self.starting) < wanted
            and len(self.starting) < self._max_starting
        ):
            place = Place()
            self.starting.add(place)
            self._tasks.start_soon(self._keep, place)

    async def first(self) -> None:
        """Start kernels, and wait until one is ready.

        Raises:
            AnyKernelError: it could not be started, or its setup failed.
        """
        self._opening = True
        place = await self.borrow(None)
        self._opening = False
        place.lends = 0
        self.give_back(place)

    async def borrow(self, timeout: float | None) -> Place:
        """Wait for a kernel, in the order of the calls.

        Raises:
            TimeoutError: none was free within so many seconds.
            AnyKernelError: none could be started.
        """
        self._home.check()
        await anyio.lowlevel.checkpoint()
        waiter = _Waiter()
        self.waiters.append(waiter)
        self._serve()
        self.balance()
        try:
            with anyio.fail_after(timeout):
                await waiter.done.wait()
        except BaseException:
            if waiter.place is not None:
                waiter.place.lends -= 1
                self.give_back(waiter.place)
            elif waiter in self.waiters:
                self.waiters.remove(waiter)
            raise
        if waiter.error is not None:
            raise waiter.error
        assert waiter.place is not None
        return waiter.place

    def give_back(self, place: Place) -> None:
        """A borrower is done with a kernel."""
        self.lent.discard(place)
        kernel = place.kernel
        assert kernel is not None
        used_up = self._uses is not None and place.lends >= self._uses
        if self._closed or used_up or place.spoiled or not kernel.is_alive or kernel.pending:
            if not self._closed:
                self.replaced += 1
            self._vacate(place)
        else:
            self._offer(place)
        self.balance()

    def close(self) -> None:
        """End all kernels, and those who wait."""
        self._closed = True
        self._fail_waiters(ConnectionClosedError("the pool's block has ended"))
        for place in (*self.idle, *self.lent, *self.starting, *self.leaving):
            place.scope.cancel()

    def _offer(self, place: Place) -> None:
        place.idle_since = time.monotonic()
        self.idle.append(place)
        self._serve()

    def _serve(self) -> None:
        """Lend what is idle to those who wait."""
        while self.idle and self.waiters:
            waiter, place = self.waiters.popleft(), self.idle.pop()
            place.lends += 1
            self.lent.add(place)
            waiter.place = place
            waiter.done.set()

    def _fail_waiters(self, error: AnyKernelError) -> None:
        waiters, self.waiters = self.waiters, deque()
        for waiter in waiters:
            waiter.error = copy.copy(error)  # one for each
            waiter.done.set()

    def _vacate(self, place: Place) -> None:
        self.leaving.add(place)
        place.vacated.set()

    async def _keep(self, place: Place) -> None:
        """Keep one kernel, from its start to its end."""
        try:
            with place.scope:
                if self._closed:
                    return
                try:
                    async with self._open_one() as kernel:
                        if self._setup is not None:
                            await kernel.execute(self._setup, check=True, store_history=False)
                        async with kernel.events() as events, anyio.create_task_group() as tasks:
                            place.kernel = kernel
                            self._ready(place)

                            async def watch() -> None:
                                async for event in events:
                                    if event.kind in ("died", "restarted"):
                                        self._spoil(place, died=event.kind == "died")
                                self._spoil(place, died=False)  # shut down

                            tasks.start_soon(watch)
                            await self._stay(place)
                            tasks.cancel_scope.cancel()
                except AnyKernelError as exc:
                    if place in self.starting:
                        self._failed(place, exc)
                    elif not self._closed:
                        raise  # closing failed
        finally:
            for places in (self.starting, self.lent, self.leaving):
                places.discard(place)
            if place in self.idle:
                self.idle.remove(place)
            self.balance()

    async def _stay(self, place: Place) -> None:
        """Wait until a kernel is to go: when it is vacated, or has been idle for long and is not needed as a spare."""
        while not place.vacated.is_set():
            with anyio.move_on_after(self._idle_timeout):
                await place.vacated.wait()
            if (
                place in self.idle
                and len(self.idle) > self._spares
                and time.monotonic() - place.idle_since >= self._idle_timeout
            ):
                self.idle.remove(place)
                self._vacate(place)

    def _ready(self, place: Place) -> None:
        self.starting.discard(place)
        self.started += 1
        self._failures = 0
        self._offer(place)
        self.balance()

    def _spoil(self, place: Place, *, died: bool) -> None:
        if died:
            self.died += 1
        place.spoiled = True
        if place in self.idle:
            self.idle.remove(place)
            self.replaced += 1
            self._vacate(place)
            self.balance()

    def _failed(self, place: Place, error: AnyKernelError) -> None:
        self.starting.discard(place)
        self._fail_waiters(error)
        if not self._backing_off:
            self._backing_off = True
            delay = min(MAX_BACK_OFF, BACK_OFF * 2**self._failures)
            self._failures += 1
            self._tasks.start_soon(self._back_off, delay)

    async def _back_off(self, delay: float) -> None:
        scope = Place()
        self.leaving.add(scope)  # so that closing ends it
        try:
            with scope.scope:
                await anyio.sleep(delay)
        finally:
            self.leaving.discard(scope)
            self._backing_off = False
            self.balance()
