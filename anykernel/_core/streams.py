"""A queue whose producer never waits: a memory object stream that is bounded in bytes instead of items."""

from __future__ import annotations

import math
from collections import deque
from threading import get_ident
from typing import TypeVar

import anyio
import anyio.lowlevel
from anyio.abc import ObjectReceiveStream
from anyio.streams.memory import MemoryObjectStreamStatistics

from .home import Home
from .tasks import Signal

__all__ = ["MESSAGE_OVERHEAD", "ByteBoundedStream"]

# What a message takes in memory besides its content, in bytes, about.
MESSAGE_OVERHEAD = 2048

T = TypeVar("T")


class ByteBoundedStream(ObjectReceiveStream[T]):
    """Items for one consumer, in order: an `anyio.abc.ObjectReceiveStream`, so iterate over it, or call `receive`.

    It is not one of anyio's memory object streams because its producer is a reader, which never waits for consumers, and
    because what is to be bounded is memory: bytes, where theirs count items. So when a consumer lets more than ``limit``
    bytes pile up, the oldest items are dropped, and ``dropped`` counts them.
    """

    def __init__(self, limit: int) -> None:
        self.home = Home()
        """Where it may be received from: where it was made."""
        self.dropped = 0
        """How many items were dropped because the consumer was too slow."""
        self._limit = limit
        self._items: deque[tuple[T, int]] = deque()
        self._size = 0
        self._received = 0
        self._ended = False
        self._error: Exception | None = None
        self._closed = False
        self._waiting = 0
        self._changed = Signal(self.home)

    def send_nowait(self, item: T, size: int) -> None:
        """Append one item of ``size`` bytes; one of 0 bytes is never dropped, nor is the last."""
        if self._ended:
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
        if not self._ended:
            self._ended = True
            self._error = error
            self._changed.set()

    def close(self) -> None:
        """Forget what is there and take nothing more."""
        self._items.clear()
        self._size = 0
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
            current_buffer_used=len(self._items),
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
        elif self._items or self._ended:  # where it waits, that is a checkpoint
            await anyio.lowlevel.checkpoint_if_cancelled()
        while not self._items:
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
        item, size = self._items.popleft()
        self._size -= size
        return item
