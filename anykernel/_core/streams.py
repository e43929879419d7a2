"""A queue whose producer never waits: a memory object stream that is bounded in bytes instead of items."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from threading import get_ident
from typing import TypeVar

import anyio
import anyio.lowlevel
from anyio.abc import ObjectReceiveStream
from anyio.streams.memory import MemoryObjectStreamStatistics

from .budget import Budget
from .home import Home
from .tasks import Signal

__all__ = ["MESSAGE_OVERHEAD", "ByteBoundedStream"]

# What a message takes in memory besides its content, in bytes, about.
MESSAGE_OVERHEAD = 2048

T = TypeVar("T")


class ByteBoundedStream(ObjectReceiveStream[T]):
    """Items for one consumer, in order: an `anyio.abc.ObjectReceiveStream`, so iterate over it, or call `receive`.

    It is not one of anyio's memory object streams because its producer is a reader, which never waits for consumers, and
    because what is to be bounded is memory: bytes, where theirs count items. So when a consumer lets more than the limit
    pile up, or the consumers of a kernel's streams together more than twice the limit, the oldest items are dropped, and
    ``dropped`` counts them.

    Args:
        limit: bytes; or what it shares with others.
        first: items that are there already, and held by others as well: they count nothing and are never dropped.
        on_drop: called when an item is dropped.
    """

    def __init__(
        self, limit: int | Budget, first: Sequence[T] = (), on_drop: Callable[[], object] | None = None
    ) -> None:
        self.home = Home()
        """Where it may be received from: where it was made."""
        self.dropped = 0
        """How many items were dropped because the consumer was too slow."""
        self._budget = limit if isinstance(limit, Budget) else Budget(limit)
        self._account = self._budget.open(self)
        self._on_drop = on_drop
        self._first = iter(first)
        self._first_left = len(first)
        self._items: deque[tuple[T, int]] = deque()
        # An item that is not dropped, and how many of the others are before it.
        self._pinned: T | None = None
        self._ahead = 0
        self._received = 0
        self._ended = False
        self._error: Exception | None = None
        self._closed = False
        self._waiting = 0
        self._changed = Signal(self.home)

    @property
    def _size(self) -> int:
        return self._account.held

    def send_nowait(self, item: T, size: int) -> None:
        """Append one item of ``size`` bytes; the last one sent to any stream of a budget is kept, however large."""
        if self._ended:
            return
        self._items.append((item, size))
        self._budget.take(self._account, size)
        self._changed.set()

    def pin(self, item: T) -> None:
        """Append one item that is never dropped, and takes the place of an earlier one like that."""
        if self._ended:
            return
        self._pinned, self._ahead = item, len(self._items)
        self._changed.set()

    def drop_oldest(self, keep: int) -> bool:
        """Drop the oldest item, unless there are no more than ``keep``; whether there was one to drop."""
        if len(self._items) <= keep:
            return False
        self._take()
        self.dropped += 1
        if self._on_drop is not None:
            self._on_drop()
        return True

    def _take(self) -> T:
        item, size = self._items.popleft()
        self._budget.give(self._account, size)
        if self._ahead:
            self._ahead -= 1
        return item

    def end(self, error: Exception | None = None) -> None:
        """No more items will come: what is there is still received, then ``error`` or the end of the stream."""
        if not self._ended:
            self._ended = True
            self._error = error
            self._changed.set()

    def close(self) -> None:
        """Forget what is there and take nothing more."""
        self._first, self._first_left, self._pinned = iter(()), 0, None
        self._items.clear()
        self._budget.give(self._account, self._account.held)
        self.end()

    async def aclose(self) -> None:
        """Close it for whoever receives: what is there is forgotten, and `receive` raises `anyio.ClosedResourceError`.

        The streams of this package close by themselves at the end of the block that gave them.
        """
        self.home.check()
        self._closed = True
        self.close()
        self._changed.set()
        await anyio.lowlevel.checkpoint()

    def statistics(self) -> MemoryObjectStreamStatistics:
        """What anyio's memory object streams tell; ``max_buffer_size`` is infinite, as items are not what is bounded."""
        return MemoryObjectStreamStatistics(
            current_buffer_used=self._first_left + len(self._items) + (self._pinned is not None),
            max_buffer_size=math.inf,
            open_send_streams=int(not self._ended),
            open_receive_streams=int(not self._closed),
            tasks_waiting_send=0,
            tasks_waiting_receive=self._waiting,
        )

    async def receive(self) -> T:
        """Wait for the next item.

        Raises:
            anyio.EndOfStream: no more will come.
            anyio.ClosedResourceError: it was closed by `aclose`.
            AnyKernelError: the error that ended it.
            UnsupportedError: this is not where the kernel may be used.
        """
        if get_ident() != self.home.thread:  # the rest is looked at where it waits
            self.home.check()
        self._received += 1
        if not self._received % 64:
            await anyio.lowlevel.checkpoint()  # for the other tasks, where there is much to receive
        elif self._items or self._ended or self._first_left or self._pinned is not None:
            await anyio.lowlevel.checkpoint_if_cancelled()  # where it waits, that is a checkpoint
        while True:
            if self._first_left:
                self._first_left -= 1
                return next(self._first)
            if self._pinned is not None and not self._ahead:
                pinned, self._pinned = self._pinned, None
                return pinned
            if self._items:
                return self._take()
            if self._ended:
                if self._closed:
                    raise anyio.ClosedResourceError
                if self._error is not None:
                    raise self._error
                raise anyio.EndOfStream
            self._waiting += 1
            try:
                await self._changed.wait()
            finally:
                self._waiting -= 1
