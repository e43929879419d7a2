"""Task groups whose errors leave them bare, tasks apart from their caller, and what wakes a waiting task."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
from anyio.abc import TaskGroup

from .._protocol import UnsupportedError
from .home import Home, HomeTask
from .loops import running_asyncio_loop

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

if TYPE_CHECKING:
    from asyncio import Future

__all__ = ["Signal", "StartSoon", "open_task_group", "run_apart"]

StartSoon = Callable[[Callable[[], Coroutine[Any, Any, object]]], bool]
"""Runs an async function in a task of its own; False where there can be none any more, and the function is not run."""


async def run_apart(start_soon: StartSoon, function: Callable[[], Coroutine[Any, Any, object]]) -> None:
    """Run a function to its end in a task of its own, and wait for that, shielded.

    For what must be done even if the caller is torn away: shields do not hold off asyncio's own ``Task.cancel``. Where
    there can be no task any more, it is run here: then there is no kernel that it could wait for.
    """
    done = anyio.Event()

    async def run() -> None:
        try:
            await function()
        finally:
            done.set()

    started = start_soon(run)
    with anyio.CancelScope(shield=True):
        await (done.wait() if started else run())


@asynccontextmanager
async def open_task_group() -> AsyncIterator[TaskGroup]:
    """A task group that raises a single error as it is, not in a group of one.

    Left in another task than entered, which task groups cannot be (anyio raises on asyncio, and waits for ever on trio),
    it is given up: who opens it sees to it that its tasks end all the same.

    Raises:
        UnsupportedError: it was left so, and without an error.
    """
    error: BaseException | None = None
    home, tasks = HomeTask(), anyio.create_task_group()
    try:
        await tasks.__aenter__()
        try:
            yield tasks
        except BaseException as exc:
            if not home.is_here or not await tasks.__aexit__(type(exc), exc, exc.__traceback__):
                raise
        else:
            if not home.is_here:
                raise UnsupportedError(home.complaint())
            await tasks.__aexit__(None, None, None)
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


class Signal:
    """Wakes those who wait for it, again and again.

    An `anyio.Event` for each time does the same. But on asyncio, to make, wait for and set one takes 10 us longer than a bare
    future, and that was a quarter of an output for which a task waits.

    Args:
        home: where alone it may be waited for; None where nobody else can.
    """

    __slots__ = ("_home", "_waiters")

    def __init__(self, home: Home | None = None) -> None:
        self._home = home
        # One for each, because on asyncio who is cancelled takes the future he waits for with him. (In order, and a dict, as
        # many may be cancelled at once.)
        self._waiters: dict[Future[None] | anyio.Event, None] = {}

    def set(self) -> None:
        """Wake those who wait now."""
        waiters, self._waiters = self._waiters, {}
        for waiter in waiters:
            if isinstance(waiter, anyio.Event):
                waiter.set()
            elif not waiter.done():
                waiter.set_result(None)

    async def wait(self) -> None:
        """Wait until it is set the next time.

        Raises:
            UnsupportedError: this is not where it may be waited for.
        """
        loop = running_asyncio_loop()
        if self._home is not None and loop is not self._home.loop:
            self._home.check()  # it is trio, or another one
        waiter = anyio.Event() if loop is None else loop.create_future()
        self._waiters[waiter] = None
        try:
            await (waiter.wait() if isinstance(waiter, anyio.Event) else waiter)
        except BaseException:
            self._waiters.pop(waiter, None)
            raise
