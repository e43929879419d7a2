"""What a fold consists of: outputs, the lists they stand in, and what several of them have in common. No I/O."""

from __future__ import annotations

from collections import deque
from typing import Any

import msgspec

from .cutting import boundary, from_utf8
from .outputs import DisplayData, ErrorOutput, ExecuteResult, Output, Stream

__all__ = ["Chain", "Display", "Entry"]

# Bytes of a stream's text that are kept in one piece: small pieces cost memory, trimming large ones time.
_PIECE = 4096
# Dead entries that a chain may have in any case.
_FEW = 16


class Display:
    """What is shown under one display id: an update is kept here, for all outputs that were there before it."""

    __slots__ = ("_data", "_head_size", "_metadata", "_newer", "_size", "_tail_count", "_tail_size", "count")

    def __init__(self) -> None:
        self.count = 0
        """How many outputs there are."""
        self._tail_count = self._head_size = self._tail_size = 0
        # The last update, and the outputs that came after it.
        self._data: dict[str, Any] = {}
        self._metadata: dict[str, Any] = {}
        self._size = 0
        self._newer: dict[Entry, None] = {}

    def add(self, entry: Entry) -> None:
        """One more output is shown."""
        entry.display = self
        self._newer[entry] = None
        self.count += 1
        if entry.tail:
            self._tail_count += 1
            self._tail_size += entry.size
        else:
            self._head_size += entry.size

    def remove(self, entry: Entry) -> int:
        """It is shown no longer; its size."""
        size = entry.size if entry in self._newer else self._size
        self._newer.pop(entry, None)
        self.count -= 1
        if entry.tail:
            self._tail_count -= 1
            self._tail_size -= size
        else:
            self._head_size -= size
        return size

    def growth(self, size: int) -> tuple[int, int]:
        """By how much the head and the tail grow if an update has this size."""
        return (self.count - self._tail_count) * size - self._head_size, self._tail_count * size - self._tail_size

    def update(self, data: dict[str, Any], metadata: dict[str, Any], size: int) -> None:
        """Show other data from now on."""
        head, tail = self.growth(size)
        self._head_size += head
        self._tail_size += tail
        self._data, self._metadata, self._size = data, metadata, size
        for entry in self._newer:  # what it replaces is not kept until they are read
            assert isinstance(entry.output, DisplayData | ExecuteResult)
            entry.output = msgspec.structs.replace(entry.output, data={}, metadata={})
        self._newer.clear()

    def output_of(self, entry: Entry) -> Output:
        """What one of the outputs shows."""
        assert isinstance(entry.output, DisplayData | ExecuteResult)
        if entry in self._newer:
            return entry.output
        return msgspec.structs.replace(entry.output, data=self._data, metadata=self._metadata)


class Entry:
    """One output. A stream's text is kept as UTF-8 (as str, a single emoji makes it take four times as much), in pieces."""

    __slots__ = ("dead", "display", "name", "older", "output", "size", "tail", "text", "widget")

    def __init__(self, size: int, *, tail: bool, widget: str | None) -> None:
        self.size = size
        self.tail = tail
        self.widget = widget
        self.dead = False
        """Whether it was taken out, and only its place is left."""
        self.output: DisplayData | ExecuteResult | ErrorOutput | None = None
        self.display: Display | None = None
        self.name = ""
        self.text = b""
        self.older: deque[bytes] | None = None

    def append(self, data: bytes) -> None:
        """More of a stream's text."""
        if len(self.text) + len(data) <= _PIECE:
            self.text += data
            return
        if self.older is None:
            self.older = deque()
        if self.text:
            self.older.append(self.text)
        start = 0
        while len(data) - start > _PIECE:
            end = boundary(data, start + _PIECE)
            self.older.append(data[start:end])
            start = end
        self.text = data[start:]

    def drop_text(self, size: int) -> int:
        """Forget about so many bytes from the beginning of the text, or of its first piece; how many there were."""
        older = self.older or None
        piece = self.text if older is None else older.popleft()
        kept = piece[boundary(piece, size, up=True) :] if len(piece) > size else b""
        if older is None:
            self.text = kept
        elif kept:
            older.appendleft(kept)
        self.size -= len(piece) - len(kept)
        return len(piece) - len(kept)

    def folded(self) -> Output:
        """As the output that it is."""
        if self.display is not None:
            return self.display.output_of(self)
        if self.output is not None:
            return self.output
        return Stream(self.name, from_utf8(b"".join((*self.older, self.text)) if self.older else self.text))


class Chain:
    """The entries of the head, or of the tail, in order; ``size`` is that of the living."""

    __slots__ = ("_dead", "_entries", "size")

    def __init__(self, entries: list[Entry] | deque[Entry]) -> None:
        self._entries = entries
        self._dead = 0
        self.size = 0

    def __len__(self) -> int:
        return len(self._entries) - self._dead

    def last(self, count: int) -> list[Entry]:
        """The last so many, or all that there are."""
        found: list[Entry] = []
        for entry in reversed(self._entries):
            if len(found) >= count:
                break
            if not entry.dead:
                found.append(entry)
        found.reverse()
        return found

    @property
    def newest(self) -> Entry | None:
        """The newest, if there is any."""
        entries = self._entries
        while entries and entries[-1].dead:
            entries.pop()
            self._dead -= 1
        return entries[-1] if entries else None

    @property
    def oldest(self) -> Entry:
        """The oldest (of a tail that has any)."""
        assert isinstance(self._entries, deque)
        while self._entries[0].dead:
            self._entries.popleft()
            self._dead -= 1
        return self._entries[0]

    def append(self, entry: Entry) -> None:
        self._entries.append(entry)
        self.size += entry.size

    def remove(self, entry: Entry, size: int) -> None:
        """Take one out that has this size; its place stays until there are too many such."""
        entry.dead, entry.output, entry.display, entry.text, entry.older = True, None, None, b"", None
        self.size -= size
        self._dead += 1
        if self._dead > _FEW and 2 * self._dead > len(self._entries):
            self._entries = type(self._entries)(entry for entry in self._entries if not entry.dead)
            self._dead = 0
