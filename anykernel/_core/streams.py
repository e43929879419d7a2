"""A queue whose producer never waits: a memory object stream that is bounded in bytes instead of items."""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

import anyio
import anyio.lowlevel

from .tasks import Signal

__all__ = ["MESSAGE_OVERHEAD", "ByteBoundedStream"]

# What a message takes in memory besides its content, in bytes, about.
MESSAGE_OVERHEAD = 2048

T = TypeVar("T")


class ByteBoundedStream(Generic[T]):
    """Items for one consumer, in order; iterate over it, or call `receive`.

    Its producer is a reader, which never waits for consumers. So when a consumer lets more than ``limit`` bytes
    pile up, the oldest items are dropped, and ``dropped`` counts them.
    """

    def __init__(self, limit: int) -> None:
        self.dropped = 0
        """How many items were dropped because the consumer was too slow."""
        self._limit = limit
        self._items: deque[tuple[T, int]] = deque()
        self._size = 0
        self._received = 0
        self._closed = False
        self._error: Exception | None = None
        self._changed = Signal()

    def send_nowait(self, item: T, size: int) -> None:
        """Append one item of ``size`` bytes; one of 0 bytes is never dropped, nor is the last."""
        if self._closed:
            return
        self._items.append((item, size))
        self._size += size
        kept: list[tuple[T, int]] = []
        while self._size > self._limit and len(self._items) > 1:
            oldest = self._items.popleft()
            if oldest[1]:
                self._size -= oldest[1]
                self.dropped += 1
            else:
                kept.append(oldest)
        self._items.extendleft(reversed(kept))
        self._changed.set()

    def end(self, error: Exception | None = None) -> None:
        """No more items will come: what is there is still received, then ``error`` or the end of the stream."""
        if not self._closed:
            self._closed = True
            self._error = error
            self._changed.set()

    def close(self) -> None:
        """Forget what is there and take nothing more."""
        self._items.clear()
        self._size = 0
        self.end()

    async def receive(self) -> T:
        """Wait for the next item.

        Raises:
            anyio.EndOfStream: no more will come.
            AnyKernelError: the error that ended it.
        """
        self._received += 1
        if not self._received % 64:
            await anyio.lowlevel.checkpoint()  # for the other tasks, where there is much to receive
        elif self._items or self._closed:  # where it waits, that is a checkpoint
            await anyio.lowlevel.checkpoint_if_cancelled()
        while not self._items:
            if self._closed:
                if self._error is not None:
                    raise self._error
                raise anyio.EndOfStream
            await self._changed.wait()
        item, size = self._items.popleft()
        self._size -= size
        return item

    def __aiter__(self) -> ByteBoundedStream[T]:
        return self

    async def __anext__(self) -> T:
        try:
            return await self.receive()
        except anyio.EndOfStream:
            raise StopAsyncIteration from None
