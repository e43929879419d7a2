"""One task group for everything, whose errors leave it bare."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from anyio.abc import TaskGroup

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

__all__ = ["open_task_group"]


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
