"""Who receives the outputs of one execution as they come."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from typing import Any

from .._protocol import Output
from .streams import ByteBoundedStream

__all__ = ["Audience"]

# What an output takes in memory besides its text or data, in bytes, about.
_OVERHEAD = 256


class Audience:
    """The streams of one execution's outputs. It holds them weakly, so that an iteration that is given up ends."""

    __slots__ = ("_prune_at", "_streams")

    def __init__(self) -> None:
        # (To iterate over a WeakSet takes 2 us, for each output.)
        self._streams: list[weakref.ref[ByteBoundedStream[Any]]] = []
        self._prune_at = 8

    def __iter__(self) -> Iterator[ByteBoundedStream[Any]]:
        return (stream for reference in self._streams if (stream := reference()) is not None)

    def add(self, stream: ByteBoundedStream[Any]) -> None:
        """One more."""
        if len(self._streams) >= self._prune_at:
            self._streams = [weakref.ref(living) for living in self]
            self._prune_at = max(8, 2 * len(self._streams))
        self._streams.append(weakref.ref(stream))

    def send(self, output: Output, size: int) -> None:
        """Give all of them an output of ``size`` bytes."""
        for reference in self._streams:
            stream = reference()
            if stream is not None:
                stream.send_nowait(output, size + _OVERHEAD)

    def end(self, error: Callable[[], Exception | None], but: ByteBoundedStream[Any] | None = None) -> None:
        """End all of them, but one, each with an error of its own."""
        for stream in self:
            if stream is not but:
                stream.end(error())
