"""Which event loop runs here, and which task."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

__all__ = ["current_loop", "current_task", "running_asyncio_loop"]


def running_asyncio_loop() -> AbstractEventLoop | None:
    """The event loop that runs here, if it is one of asyncio's.

    Not where trio runs what asks, within a task of asyncio's (`trio.run`) or as its guest.
    """
    asyncio = sys.modules.get("asyncio")
    if asyncio is None:
        return None
    try:
        loop: AbstractEventLoop = asyncio.get_running_loop()
    except RuntimeError:
        return None
    sniffio = sys.modules.get("sniffio")  # which comes with trio, and is told by it
    return None if sniffio is not None and sniffio.thread_local.name == "trio" else loop


def current_loop() -> object | None:
    """What stands for the event loop that runs here; None where none runs."""
    loop = running_asyncio_loop()
    if loop is not None:
        return loop
    trio = sys.modules.get("trio")
    if trio is None:
        return None
    try:
        token: object = trio.lowlevel.current_trio_token()
    except RuntimeError:
        return None
    return token


def current_task() -> object | None:
    """The task that runs here; None outside of tasks."""
    asyncio, trio = sys.modules.get("asyncio"), sys.modules.get("trio")
    task: object = None
    if running_asyncio_loop() is not None:
        assert asyncio is not None
        task = asyncio.current_task()
    elif trio is not None and trio.lowlevel.in_trio_task():
        task = trio.lowlevel.current_task()
    return task
