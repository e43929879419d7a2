"""A function called for many items, each in one of several kernels.

How this works. Workers, one for each kernel that may be had, take the next item when there is room, and put what comes of it
into `Mapped`, over which the caller iterates. Room is what keeps memory bounded: at most ``max_pending`` items are under way
or done and not taken yet. A worker keeps its kernel until there are no more items, or the kernel dies.
"""

from __future__ import annotations

import functools
import math
import os
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Sized
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import anyio
import anyio.lowlevel

from .._core import Home, Kernel, open_task_group
from .._protocol import ArgumentError, KernelDiedError, MissingDependencyError

__all__ = ["Mapped", "open_mapping"]

# Where a kernel keeps a function that was sent to it: among the modules, which no user's namespace shows.
_KEEP = "(lambda blob: __import__('sys').modules.__setitem__({key!r}, __import__('cloudpickle').loads(blob)))"
_KEPT = "__import__('sys').modules[{key!r}]"


class _Item:
    __slots__ = ("index", "tries", "value")

    def __init__(self, index: int, value: Any) -> None:
        self.index = index
        self.value = value
        self.tries = 0


class Mapped:
    """The values of `Pool.map`, for one consumer: ``async for value in results``."""

    def __init__(self, *, ordered: bool, max_pending: int) -> None:
        self._home = Home()
        self._ordered = ordered
        self._limit = anyio.Semaphore(max_pending)
        self._done: dict[int, tuple[bool, Any]] = {}
        self._finished: deque[int] = deque()
        self._next = 0
        self._total = math.inf
        self._failure: BaseException | None = None
        self._changed = anyio.Event()
        self.count = 0
        """How many items are done."""

    async def room(self) -> None:
        """Wait until another item may be taken."""
        await self._limit.acquire()

    def no_more(self, total: int) -> None:
        """There are so many items."""
        self._total = total
        self._limit.release()
        self._changed.set()

    def put(self, item: _Item, value: Any, *, failed: bool) -> None:
        """An item is done."""
        self.count += 1
        self._done[item.index] = failed, value
        self._finished.append(item.index)
        self._changed.set()

    def fail(self, error: BaseException) -> None:
        """It ends with this error, behind the values that are there."""
        if self._failure is None:
            self._failure = error
            self._changed.set()

    def __aiter__(self) -> Mapped:
        return self

    async def __anext__(self) -> Any:
        self._home.check()
        await anyio.lowlevel.checkpoint()
        while True:
            index = self._next if self._ordered else (self._finished[0] if self._finished else -1)
            if index in self._done:
                break
            if self._failure is not None:
                raise self._failure
            if self._next >= self._total:
                raise StopAsyncIteration
            self._changed = anyio.Event()
            await self._changed.wait()
        if not self._ordered:
            self._finished.popleft()
        self._next += 1
        _, value = self._done.pop(index)
        self._limit.release()
        return value


@asynccontextmanager
async def open_mapping(
    borrow: Callable[[], AbstractAsyncContextManager[Kernel]],
    function: str | Callable[..., Any],
    items: Iterable[Any] | AsyncIterable[Any],
    *,
    workers: int,
    retries: int,
    timeout: float | None,
    ordered: bool,
    max_pending: int,
    return_exceptions: bool,
    on_progress: Callable[[int, int | None], object] | None,
) -> AsyncIterator[Mapped]:
    """See `Pool.map`."""
    prepare, name = _prepared(function)
    if not isinstance(items, Iterable | AsyncIterable):
        raise ArgumentError(f"items must be an iterable, or an async one, not {type(items).__name__}")
    length = len(items) if isinstance(items, Sized) else None
    source = _Source(items)
    mapped = Mapped(ordered=ordered, max_pending=max_pending)
    scope = anyio.CancelScope()

    async def call(kernel: Kernel, item: _Item, *, fresh: bool) -> Any:
        if fresh:
            await prepare(kernel)
        with anyio.fail_after(timeout):
            return await kernel.call(name, item.value)

    async def run(kernel: Kernel, item: _Item, *, fresh: bool = False) -> bool:
        """Run one item; whether the kernel lives on."""
        try:
            value, failed = await call(kernel, item, fresh=fresh), False
        except KernelDiedError as exc:
            if item.tries < retries:
                item.tries += 1
                source.again(item)
                return False
            value, failed = exc, True
        except Exception as exc:  # noqa: BLE001 - whatever becomes of an item
            value, failed = exc, True
        if failed and not return_exceptions:
            mapped.fail(value)
            scope.cancel()
            return False
        mapped.put(item, value, failed=failed)
        if on_progress is not None:
            on_progress(mapped.count, length)
        return not isinstance(value, KernelDiedError)

    async def work() -> None:
        while (item := await source.next(mapped)) is not None:
            async with borrow() as kernel:
                alive = await run(kernel, item, fresh=True)
                while alive and (item := await source.next(mapped)) is not None:
                    alive = await run(kernel, item)
            if item is None:
                return

    async def work_all() -> None:
        try:
            with scope:
                async with open_task_group() as tasks:
                    for _ in range(workers):
                        tasks.start_soon(work)
        except Exception as exc:  # noqa: BLE001 - no kernel could be had, the items or on_progress raised
            mapped.fail(exc)

    async with open_task_group() as tasks:
        tasks.start_soon(work_all)
        try:
            yield mapped
        finally:
            scope.cancel()


class _Source:
    """Items to be taken by several workers, one at a time; those to be tried again come first."""

    def __init__(self, items: Iterable[Any] | AsyncIterable[Any]) -> None:
        self._again: deque[_Item] = deque()
        self._items = aiter(items) if isinstance(items, AsyncIterable) else iter(items)
        self._lock = anyio.Lock()
        self._count = 0
        self._exhausted = False

    def again(self, item: _Item) -> None:
        self._again.append(item)

    async def next(self, mapped: Mapped) -> _Item | None:
        """The next item, when there is room for it; None when there are no more."""
        if self._again:
            return self._again.popleft()
        async with self._lock:
            if self._exhausted:
                return None
            await mapped.room()
            try:
                value = await anext(self._items) if isinstance(self._items, AsyncIterator) else next(self._items)
            except (StopIteration, StopAsyncIteration):
                self._exhausted = True
                mapped.no_more(self._count)
                return None
            self._count += 1
            return _Item(self._count - 1, value)


def _prepared(function: str | Callable[..., Any]) -> tuple[Callable[[Kernel], Any], str]:
    """What makes a kernel know the function, and by which name."""
    if isinstance(function, str):
        return _nothing, function
    if not callable(function):
        raise ArgumentError(f"function must be a name in the kernels or a function, not {function!r:.200}")
    try:
        import cloudpickle  # noqa: PLC0415
    except ImportError as exc:
        raise MissingDependencyError(
            "sending a function needs cloudpickle: pip install 'anykernel-client[pool]'", name="cloudpickle"
        ) from exc
    key = f"_anykernel_function_{os.urandom(8).hex()}"
    return functools.partial(_keep, cloudpickle.dumps(function), key), _KEPT.format(key=key)


async def _nothing(kernel: Kernel) -> None:
    """The kernel knows it already."""


async def _keep(blob: bytes, key: str, kernel: Kernel) -> None:
    await kernel.call(_KEEP.format(key=key), blob)
