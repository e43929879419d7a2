"""How blocking calls reach the event loop: one of asyncio's, in a thread of its own, for the whole process.

How this works. A call is a coroutine that is run by a task of that loop; the caller waits on a queue. What comes through it is
either the outcome, or one of the caller's own functions (``on_output``, ``stdin``), which is called right there, in the
thread that waits, and may itself make blocking calls. Ctrl-C cancels the task, which stops the code, and is raised when the
task has ended. A block is a task that stays between its entering and its leaving, since both must be in the same one.

The thread is a daemon: at the interpreter's exit all blocks are left and the loop is ended, and waited for, but not for ever.
After a fork the child has no such thread; it gets one of its own, and refuses what its parent had.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from queue import SimpleQueue
from typing import Any, TypeVar

from .._protocol import UnsupportedError

__all__ = ["Portal", "get_portal"]

# Seconds that the loop may take to end at the interpreter's exit.
EXIT_TIMEOUT = 15.0

T = TypeVar("T")
Own = Callable[[Any], Any]


class _Caller:
    """Where one blocking call waits."""

    def __init__(self, portal: Portal) -> None:
        self._portal = portal
        self._inbox: SimpleQueue[Any] = SimpleQueue()
        self.task: asyncio.Task[Any] | None = None

    def function(self, function: Any) -> Any:
        """An async function that has this one called in the caller's thread; what is none stays as it is."""
        if not callable(function):
            return function

        async def ask(*args: Any) -> Any:
            answer = asyncio.get_running_loop().create_future()
            self._inbox.put((function, args, answer))
            return await answer

        return ask

    def start(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        """In the loop: run it."""
        self.task = asyncio.get_running_loop().create_task(coroutine)
        self.task.add_done_callback(self._inbox.put)

    def wait(self) -> Any:
        """In the caller's thread: wait for the outcome."""
        interrupt: BaseException | None = None
        while True:
            try:
                item = self._inbox.get()
                if isinstance(item, tuple):
                    self._serve(*item)
                    continue
            except KeyboardInterrupt as exc:
                if interrupt is not None:
                    raise  # who insists does not wait for the code to settle
                interrupt = exc
                self._portal.soon(self._cancel)
                continue
            if interrupt is not None:
                raise interrupt
            return item.result()

    def _cancel(self) -> None:
        assert self.task is not None
        self.task.cancel()

    def _serve(self, function: Callable[..., Any], args: tuple[Any, ...], answer: asyncio.Future[Any]) -> None:
        try:
            value = function(*args)
        except KeyboardInterrupt:
            raise
        except BaseException as exc:  # noqa: BLE001 - it is the awaiting task's
            self._portal.soon(_answer, answer, None, exc)
        else:
            self._portal.soon(_answer, answer, value, None)


def _answer(answer: asyncio.Future[Any], value: Any, error: BaseException | None) -> None:
    if answer.done():
        return
    if error is None:
        answer.set_result(value)
    else:
        answer.set_exception(error)


class Portal:
    """The way to the event loop; got by `get_portal`."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._loop: asyncio.AbstractEventLoop
        self._stopping: asyncio.Event
        self._blocks: set[asyncio.Task[Any]] = set()
        started = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(started,), name="anykernel", daemon=True)
        self._thread.start()
        started.wait()

    def _run(self, started: threading.Event) -> None:
        async def serve() -> None:
            self._loop = asyncio.get_running_loop()
            self._stopping = asyncio.Event()
            started.set()
            await self._stopping.wait()
            for task in list(self._blocks):
                task.cancel()
            await asyncio.gather(*self._blocks, return_exceptions=True)

        asyncio.run(serve())

    def close(self) -> None:
        """Leave all blocks and end the loop; waits, but not for ever."""
        if self._pid == os.getpid() and self._thread.is_alive():
            self.soon(self._stopping.set)
            self._thread.join(EXIT_TIMEOUT)

    def soon(self, function: Callable[..., object], *args: Any) -> None:
        """Have something called in the loop."""
        self._loop.call_soon_threadsafe(function, *args)

    def _check(self) -> None:
        if self._pid != os.getpid():
            raise UnsupportedError(
                "this was opened before a fork, by the parent process, and only works there; open another in the child"
            )
        if threading.current_thread() is self._thread:
            raise UnsupportedError(
                "blocking calls cannot be made from the event loop's own thread; use the async names there"
            )

    def call(self, make: Callable[[Own], Coroutine[Any, Any, T]]) -> T:
        """Run what ``make`` makes in the loop, and wait for what it returns.

        ``make`` is called in the loop with a function that makes an async one of the caller's own, to be called in this thread.
        """
        self._check()
        caller = _Caller(self)
        self.soon(lambda: caller.start(make(caller.function)))
        result: T = caller.wait()
        return result

    def enter(self, make: Callable[[], AbstractAsyncContextManager[T]]) -> tuple[T, Callable[[], None]]:
        """Enter a block in the loop; what it gives, and what leaves it."""
        self._check()
        entered, left = _Caller(self), _Caller(self)
        value: list[T] = []

        async def hold(inside: asyncio.Event, leave: asyncio.Event) -> None:
            async with make() as opened:
                value.append(opened)
                inside.set()
                await leave.wait()

        events: list[asyncio.Event] = []
        tasks: list[asyncio.Task[None]] = []

        async def start() -> None:
            inside, leave = asyncio.Event(), asyncio.Event()
            events.append(leave)
            task = asyncio.get_running_loop().create_task(hold(inside, leave))
            tasks.append(task)
            self._blocks.add(task)
            task.add_done_callback(self._blocks.discard)
            waiting = asyncio.get_running_loop().create_task(inside.wait())
            try:
                await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
            except asyncio.CancelledError:
                task.cancel()
                await asyncio.wait({task})
                raise
            finally:
                waiting.cancel()
            if task.done():
                task.result()

        async def leave() -> None:
            events[0].set()
            await asyncio.wait({tasks[0]})
            if not tasks[0].cancelled():
                tasks[0].result()

        self.soon(lambda: entered.start(start()))
        entered.wait()

        def leave_block() -> None:
            self._check()
            self.soon(lambda: left.start(leave()))
            left.wait()

        return value[0], leave_block


_portal: Portal | None = None
_pid = 0
_lock = threading.Lock()


def get_portal() -> Portal:
    """The portal of this process; made by the first use, and again in a child after a fork."""
    global _portal, _pid
    if _portal is None or _pid != os.getpid():
        with _lock:
            if _portal is None or _pid != os.getpid():
                _portal, _pid = Portal(), os.getpid()
                atexit.register(_portal.close)
    return _portal


def _forget_lock() -> None:
    global _lock  # noqa: PLW0603 - it may have been held by a thread that the child does not have
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_lock)
