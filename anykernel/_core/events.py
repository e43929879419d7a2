"""What happens to a kernel, told to whoever shows its state."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timezone
from typing import Literal

import msgspec

from .streams import ByteBoundedStream

__all__ = ["EventKind", "Events", "KernelEvent"]

EventKind = Literal["died", "restarting", "restarted", "disconnected", "reconnected"]

# What an event takes in memory besides its detail, in bytes, about; and what all that nobody receives may take.
_OVERHEAD = 512
_LIMIT = 2**20


class KernelEvent(msgspec.Struct, frozen=True):
    """Something that happened to a kernel; received from `Kernel.events`."""

    kind: EventKind
    """``"died"``; ``"restarting"`` and, when it is ready again, ``"restarted"``; ``"disconnected"`` where the connection
    is lost and may be found again, and then ``"reconnected"``."""
    detail: str
    """Why, for people; may be empty."""
    time: datetime
    """When it was noticed, by this machine's clock (aware, UTC)."""


class Events:
    """Tells events to those who listen."""

    def __init__(self) -> None:
        self._streams: list[ByteBoundedStream[KernelEvent]] = []

    def tell(self, kind: EventKind, detail: str = "") -> None:
        """Something happened."""
        event = KernelEvent(kind, detail, datetime.now(timezone.utc))
        for stream in self._streams:
            stream.send_nowait(event, len(detail) + _OVERHEAD)

    def end(self) -> None:
        """Nothing more will happen."""
        for stream in self._streams:
            stream.end()

    @asynccontextmanager
    async def listen(self) -> AsyncIterator[ByteBoundedStream[KernelEvent]]:
        """Receive events from now on."""
        stream: ByteBoundedStream[KernelEvent] = ByteBoundedStream(_LIMIT)
        self._streams.append(stream)
        try:
            yield stream
        finally:
            self._streams.remove(stream)
            stream.close()
