"""The end of what a process writes, for errors."""

from __future__ import annotations

from collections import deque

__all__ = ["Tail"]

# Bytes of it that are kept.
_LIMIT = 16 * 1024


class Tail:
    """The end of a stream, bounded."""

    def __init__(self) -> None:
        self._chunks: deque[bytes] = deque()
        self._size = 0

    def add(self, chunk: bytes) -> None:
        """Take what comes next."""
        self._chunks.append(chunk)
        self._size += len(chunk)
        while self._size - len(self._chunks[0]) >= _LIMIT:
            self._size -= len(self._chunks.popleft())

    @property
    def text(self) -> str:
        """What is kept."""
        return b"".join(self._chunks)[-_LIMIT:].decode("utf-8", "replace")
