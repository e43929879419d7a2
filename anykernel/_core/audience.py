"""Those who iterate over the outputs of one execution."""

from __future__ import annotations

import weakref
from typing import Any

from .streams import ByteBoundedStream

__all__ = ["Audience"]

# What an output takes in memory besides its text or data, in bytes, about.
_OUTPUT_OVERHEAD = 256


class Audience:
    """Hands outputs to streams, each of which one consumer reads; it holds them weakly, so that one given up ends."""

    __slots__ = ("_streams",)

    def __init__(self) -> None:
        # (To iterate over a WeakSet takes 2 us, for each output.)
        self._streams: tuple[weakref.ref[ByteBoundedStream[Any]], ...] = ()

    def add(self, stream: ByteBoundedStream[Any]) -> None:
        """One more."""
        self._streams = tuple(map(weakref.ref, (*self.streams(), stream)))

    def send(self, output: object, size: int) -> bool:
        """Hand on an output of ``size`` bytes; whether none was too slow."""
        kept = True
        for stream in self.streams():
            stream.send_nowait(output, size + _OUTPUT_OVERHEAD)
            kept = kept and not stream.dropped
        return kept

    def streams(self) -> list[ByteBoundedStream[Any]]:
        """Those that are still read."""
        return [stream for reference in self._streams if (stream := reference()) is not None]
