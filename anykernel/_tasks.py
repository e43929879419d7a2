"""Task groups whose errors leave them bare, and tasks apart from their caller."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import anyio
from anyio.abc import TaskGroup

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

__all__ = ["StartSoon", "open_task_group", "run_apart"]

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
