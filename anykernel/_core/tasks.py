"""Task groups whose errors leave them bare, tasks apart from their caller, and what wakes a waiting task."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
from anyio.abc import TaskGroup

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Future

__all__ = ["Signal", "StartSoon", "open_task_group", "run_apart", "running_asyncio_loop"]

StartSoon = Callable[[Callable[[], Coroutine[Any, Any, object]]], None]
"""Runs an async function in a task of its own."""


async def run_apart(start_soon: StartSoon, function: Callable[[], Coroutine[Any, Any, object]]) -> None:
    """Run a function to its end in a task of its own, and wait for that, shielded.

    For what must be done even if the caller is torn away: shields do not hold off asyncio's own ``Task.cancel``.
    """
    done = anyio.Event()

    async def run() -> None:
        try:
            await function()
        finally:
            done.set()

    start_soon(run)
    with anyio.CancelScope(shield=True):
        await done.wait()


@asynccontextmanager
async def open_task_group() -> AsyncIterator[TaskGroup]:
    """A task group that raises a single error as it is, not in a group of one."""
    error: BaseException | None = None
    try:
        async with anyio.create_task_group() as tasks:
            yield tasks
    except BaseExceptionGroup as group:
        if len(group.exceptions) != 1:
            raise
        error = group.exceptions[0]
    # Outside of the except block, or the group would become the error's context.
    if error is not None:
        try:
            raise error
        finally:
            del error


def running_asyncio_loop() -> AbstractEventLoop | None:
    """The event loop that runs here, if it is one of asyncio's."""
    asyncio = sys.modules.get("asyncio")
    if asyncio is None:
        return None
    try:
        loop: AbstractEventLoop = asyncio.get_running_loop()
    except RuntimeError:
        return None
    return loop


class Signal:
    """Wakes those who wait for it, again and again.

    An `anyio.Event` for each time does the same. But on asyncio, to make, wait for and set one takes 10 us longer than a bare
    future, and that was a quarter of an output for which a task waits.
    """

    __slots__ = ("_waiters",)

    def __init__(self) -> None:
        # One for each, because on asyncio who is cancelled takes the future he waits for with him.
        self._waiters: list[Future[None] | anyio.Event] = []

    def set(self) -> None:
        """Wake those who wait now."""
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if isinstance(waiter, anyio.Event):
                waiter.set()
            elif not waiter.done():
                waiter.set_result(None)

    async def wait(self) -> None:
        """Wait until it is set the next time."""
        loop = running_asyncio_loop()
        waiter = anyio.Event() if loop is None else loop.create_future()
        self._waiters.append(waiter)
        try:
            await (waiter.wait() if isinstance(waiter, anyio.Event) else waiter)
        except BaseException:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
            raise
