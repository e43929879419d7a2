"""Where something may be used, or must be left: in the event loop, process and perhaps task that it was made in."""

from __future__ import annotations

import os
from collections.abc import Callable
from threading import get_ident

from .._protocol import UnsupportedError
from .loops import current_loop, current_task

__all__ = ["Home", "HomeTask"]


class _Process:
    """Which process it is: a forked child has another ``here``."""

    def __init__(self) -> None:
        self.here: object = object()
        if hasattr(os, "register_at_fork"):
            # To ask for the process id takes a system call, and more than all else that `Home` looks at.
            os.register_at_fork(after_in_child=self._renew)

    def _renew(self) -> None:
        self.here = object()


_PROCESS = _Process()


class Home:
    """The event loop, its thread and its process, that something belongs to: where it was made.

    Elsewhere, nobody would wake who waits for it. So whatever waits, or changes something, asks here first.
    """

    __slots__ = ("_process", "loop", "thread")

    def __init__(self) -> None:
        self.loop = current_loop()
        """One of asyncio's, or a token of trio's; None where there was none."""
        self.thread = get_ident()
        self._process = _PROCESS.here

    @property
    def is_here(self) -> bool:
        """Whether this is the place."""
        return current_loop() is self.loop and _PROCESS.here is self._process

    @property
    def is_in_another_process(self) -> bool:
        """Whether this is a child that was forked since."""
        return _PROCESS.here is not self._process

    def check(self) -> None:
        """Refuse to be used elsewhere.

        Raises:
            UnsupportedError: this is another thread, event loop or process.
        """
        if current_loop() is not self.loop or _PROCESS.here is not self._process:
            raise self._refusal()

    def call(self, function: Callable[[], object]) -> None:
        """Have a function called in this event loop, if that runs, or runs once more."""
        schedule = getattr(self.loop, "call_soon_threadsafe", None) or getattr(self.loop, "run_sync_soon", None)
        if schedule is not None:
            try:
                schedule(function)
            except RuntimeError:  # it is closed (trio's error for that is one, too)
                return

    def _refusal(self) -> UnsupportedError:
        if self.is_in_another_process:
            return UnsupportedError(
                "kernels, pools and servers can be used only in the process that opened them, not in a forked child; "
                "the child may open kernels of its own, or use `connect_kernel`"
            )
        if get_ident() != self.thread:
            return UnsupportedError(
                "kernels, pools and servers can be used only in the thread whose event loop opened them; from another "
                "thread, call them by `anyio.from_thread.run` or a portal"
            )
        return UnsupportedError(
            "kernels, pools and servers can be used only in the event loop that opened them, and this is another one (or "
            "none), in the same thread: open them where they are used, or run both in one event loop; docs/recipes.md shows how"
        )


class HomeTask(Home):
    """And the task: task groups must be left in the one that entered them."""

    __slots__ = ("_task",)

    def __init__(self) -> None:
        super().__init__()
        self._task = current_task()

    @property
    def is_here(self) -> bool:
        return super().is_here and current_task() is self._task

    def complaint(self) -> str:
        """What is wrong with leaving the block elsewhere."""
        block = "anykernel: a block (`async with open_kernel()` or the like) was left in"
        if self.is_in_another_process:
            return f"{block} a forked child; what it opened stays its parent's"
        return (
            f"{block} another task than the one that entered it, as fixtures, start and stop methods, and cells of "
            "notebooks do; or it was never left. Give it a task of its own; docs/recipes.md shows how for each"
        )
