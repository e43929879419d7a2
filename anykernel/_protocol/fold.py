"""The outputs of an execution folded as a front end would show them, bounded in memory. No I/O.

How this works. `OutputFold` takes the IOPub messages of one request in order and keeps the outputs they add up
to: adjacent text of one stream is one `Stream`, ``clear_output`` empties the list (at once, or when the next
output comes), ``update_display_data`` replaces what carries its display id. The first half of the limit is the
head and stays; once something did not fit there, all that follows goes to the tail. When head and tail exceed the
limit, the tail forgets its oldest: so the middle is missing. A single output that is larger than what the tail has
room for is cut itself, where it is text: an error, or text/plain.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec

from .outputs import DisplayData, ErrorOutput, ExecuteResult, Output, Stream, error_output

__all__ = ["OutputFold", "bounded_error"]


def _shortened(output: DisplayData | ExecuteResult | ErrorOutput, limit: int) -> tuple[Output, int] | None:
    """The output in at most about ``limit`` bytes, and in how many: its text without the middle, and nothing else.

    None where it has no text.
    """
    if isinstance(output, ErrorOutput):
        traceback = _cut("\n".join(output.traceback), limit // 2)
        ename, evalue = _cut(output.ename, limit // 8), _cut(output.evalue, limit // 4)
        return ErrorOutput(ename, evalue, traceback.split("\n")), _utf8_size(ename + evalue + traceback)
    text = output.data.get("text/plain")
    if not isinstance(text, str):
        return None
    text = _cut(text, limit)
    return msgspec.structs.replace(output, data={"text/plain": text}, metadata={}), _utf8_size(text)


def bounded_error(content: dict[str, Any], size: int, limit: int) -> dict[str, Any]:
    """The content of a reply, in which the exception (it is in the outputs, too) takes no more than the limit."""
    if content["status"] != "error" or size <= limit:
        return content
    short = _shortened(error_output(content), limit)
    assert short is not None
    return {**content, **msgspec.structs.asdict(short[0])}


_CUT = "[...]"


def _cut(text: str, size: int) -> str:
    excess = _utf8_size(text) - max(0, size - len(_CUT))
    if excess <= len(_CUT):
        return text
    first, rest = _split(text, (size - len(_CUT)) // 2) if size > len(_CUT) else ("", text)
    return f"{first}{_CUT}{_split(rest, excess, up=True)[1]}"


# Characters of a stream's text that are kept in one piece: small pieces cost memory, trimming large ones time.
_PIECE = 4096


class _Entry:
    """One output in the fold; a stream's text is a deque of pieces of about one size."""

    __slots__ = ("chunks", "name", "output", "size", "tail", "widget")

    def __init__(self, output: Output, size: int, *, tail: bool, widget: str | None) -> None:
        self.size = size
        self.tail = tail
        self.widget = widget
        stream = output if isinstance(output, Stream) else None
        self.output = output if stream is None else None
        self.name = stream.name if stream is not None else None
        self.chunks: deque[str] = deque()
        if stream is not None:
            self.append(stream.text)

    def append(self, text: str) -> None:
        if self.chunks and len(self.chunks[-1]) + len(text) <= _PIECE:
            self.chunks[-1] += text
        elif len(text) <= _PIECE:
            self.chunks.append(text)
        else:
            self.chunks.extend(text[start : start + _PIECE] for start in range(0, len(text), _PIECE))


# What a fold has for its own until there is something to put in: they stay empty. (An empty deque takes 600 bytes, an
# empty set 200, of the 2,800 that a queued execution took with them.)
_NO_TAIL: deque[_Entry] = deque()
_NONE_PENDING: frozenset[str | None] = frozenset()


class OutputFold:
    """The outputs of one request so far.

    Args:
        limit: bytes kept; text counts in UTF-8, other outputs by the size of their message. The number of outputs
            is limited too, to about one for each 512 bytes, since each costs as much memory, however small it is.
    """

    __slots__ = (
        "__weakref__",
        "_cache",
        "_clear_pending",
        "_displays",
        "_gap",
        "_half",
        "_head",
        "_head_open",
        "_head_size",
        "_limit",
        "_max_entries",
        "_tail",
        "_tail_size",
        "_widget",
        "dropped",
        "on_change",
    )

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._half = limit // 2
        self._max_entries = 128 + limit // 512
        # The `Output` widget (its comm's id) that captures what comes, and which widgets, or the whole (None), are to be
        # cleared when their next output comes. In a notebook a widget shows what it captured; here it is in its place
        # among the outputs, but clearing a widget clears nothing else.
        self._widget: str | None = None
        self._clear_pending = _NONE_PENDING
        self._displays: dict[str, list[_Entry]] = {}
        self._cache: list[Output] | None = None
        self.on_change: Callable[[], None] | None = None
        """Called after each change."""
        self._reset()

    def _reset(self) -> None:
        self._head: list[_Entry] = []
        self._tail = _NO_TAIL
        self._head_size = self._tail_size = 0
        self._head_open, self._gap = True, False
        self._displays.clear()
        self.dropped = 0
        """Bytes that the limit cost."""

    def clear(self, *, wait: bool = False) -> None:
        """Forget all outputs, or those of the widget that captures them: now, or (``wait``) when the next one comes."""
        if wait:
            self._clear_pending |= {self._widget}
        else:
            self._clear_pending -= {self._widget}
            self._forget(self._widget)
            self._changed()

    def _forget(self, widget: str | None) -> None:
        if widget is None:
            self._reset()
            return
        for entries in (self._head, self._tail):
            every = list(entries)
            entries.clear()
            for entry in every:
                if entry.widget == widget:
                    self._unlist(entry)
                else:
                    entries.append(entry)
        self._head_size = sum(entry.size for entry in self._head)
        self._tail_size = sum(entry.size for entry in self._tail)

    def capture(self, msg_id: str, content: dict[str, Any]) -> None:
        """Take a ``comm_msg``: an `Output` widget of ipywidgets tells by its state which request's output is its own."""
        data = content.get("data")
        state = data.get("state") if isinstance(data, dict) else None
        if isinstance(state, dict) and isinstance(state.get("msg_id"), str):
            self._widget = str(content.get("comm_id")) if state["msg_id"] == msg_id else None

    def add(self, output: Output, size: int) -> None:
        """Append one output of ``size`` bytes."""
        if self._widget in self._clear_pending:
            self._clear_pending -= {self._widget}
            self._forget(self._widget)
        self._add(output, size)
        self._changed()

    def _changed(self) -> None:
        self._cache = None
        if self.on_change is not None:
            self.on_change()

    def has_changed(self, outputs: list[Output]) -> bool:
        """Whether ``outputs``, as it once was, is out of date."""
        return self._cache is not outputs

    def _add(self, output: Output, size: int) -> None:
        if isinstance(output, Stream):
            size = _utf8_size(output.text)
            if not size:
                return
        if self._head_open:
            room = self._half - self._head_size
            if size <= room and len(self._head) < self._max_entries // 2:
                self._push(self._head, output, size)
                self._head_size += size
                return
            self._head_open, self._tail = False, deque()
            if isinstance(output, Stream) and 0 < room < size:
                # A stream's text can be split: what fits stays in the head.
                first, rest = _split(output.text, room)
                if first:
                    taken = _utf8_size(first)
                    self._push(self._head, Stream(output.name, first), taken)
                    self._head_size += taken
                    output, size = Stream(output.name, rest), size - taken
        room = self._limit - self._head_size
        if size > room and not isinstance(output, Stream) and (short := _shortened(output, room // 2)) is not None:
            # Whole, it would push all that came before it out of the tail, and then itself.
            self.dropped += size - short[1]
            output, size = short
        self._push(self._tail, output, size)
        self._tail_size += size
        while (excess := self._head_size + self._tail_size - self._limit) > 0:
            self._evict(excess)
        while len(self._tail) > self._max_entries // 2:
            self._evict(self._tail[0].size)

    def update(self, display_id: str, data: dict[str, Any], metadata: dict[str, Any], size: int) -> bool:
        """Replace the data of every output with this display id; False where there is none."""
        entries = self._displays.get(display_id)
        if not entries:
            return False
        for entry in entries:
            growth = size - entry.size
            if self._head_size + self._tail_size + growth > self._limit:
                self.dropped += size  # the old data stays: it is what the limit has room for
                continue
            assert isinstance(entry.output, DisplayData | ExecuteResult)
            entry.output = msgspec.structs.replace(entry.output, data=data, metadata=metadata)
            entry.size = size
            if entry.tail:
                self._tail_size += growth
            else:
                self._head_size += growth
        self._changed()
        return True

    def shows(self, display_id: str) -> bool:
        """Whether there is an output with this display id."""
        return display_id in self._displays

    def _push(self, entries: list[_Entry] | deque[_Entry], output: Output, size: int) -> None:
        if isinstance(output, Stream):
            if entries and entries[-1].name == output.name and entries[-1].widget == self._widget:
                entries[-1].append(output.text)
                entries[-1].size += size
                return
            entries.append(_Entry(output, size, tail=entries is self._tail, widget=self._widget))
            return
        entry = _Entry(output, size, tail=entries is self._tail, widget=self._widget)
        entries.append(entry)
        display_id = None if isinstance(output, ErrorOutput) else output.display_id
        if display_id is not None:
            self._displays.setdefault(display_id, []).append(entry)

    def _evict(self, excess: int) -> None:
        """Drop the oldest of the tail: one piece of text (or the excess of one), or one other output."""
        self._gap = True
        entry = self._tail[0]
        if entry.output is None:
            chunk = entry.chunks.popleft()
            dropped = _utf8_size(chunk)
            if dropped > excess:
                kept = _split(chunk, excess, up=True)[1]
                if kept:
                    entry.chunks.appendleft(kept)
                    dropped -= _utf8_size(kept)
            entry.size -= dropped
            if not entry.chunks:
                self._tail.popleft()
        else:
            self._tail.popleft()
            dropped = entry.size
            self._unlist(entry)
        self._tail_size -= dropped
        self.dropped += dropped

    def _unlist(self, entry: _Entry) -> None:
        display_id = getattr(entry.output, "display_id", None)
        if display_id is not None:
            self._displays[display_id].remove(entry)
            if not self._displays[display_id]:
                del self._displays[display_id]

    @property
    def outputs(self) -> list[Output]:
        """The outputs, adjacent text of one stream joined (but not across a gap)."""
        if self._cache is None:
            head, tail = list(map(_fold, self._head)), list(map(_fold, self._tail))
            if head and tail and not self._gap:
                last, first = head[-1], tail[0]
                if isinstance(last, Stream) and isinstance(first, Stream) and last.name == first.name:
                    head[-1], tail = Stream(last.name, last.text + first.text), tail[1:]
            self._cache = head + tail
        return self._cache

    @property
    def gap(self) -> int | None:
        """Index in ``outputs`` before which the limit dropped something."""
        return len(self._head) if self._gap else None


def _fold(entry: _Entry) -> Output:
    if entry.output is not None:
        return entry.output
    assert entry.name is not None
    return Stream(entry.name, "".join(entry.chunks))


def _utf8_size(text: str) -> int:
    # isascii reads a flag of the string, it scans nothing
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def _split(text: str, size: int, *, up: bool = False) -> tuple[str, str]:
    """Split text after ``size`` bytes of UTF-8; a character that lies across goes to the second, or ``up`` the first."""
    if text.isascii():
        return text[:size], text[size:]
    # Half a surrogate pair is no character for UTF-8, but it is for Python.
    data = text.encode("utf-8", "surrogatepass")
    step = 1 if up else -1
    while 0 < size < len(data) and data[size] & 0xC0 == 0x80:
        size += step
    return data[:size].decode("utf-8", "surrogatepass"), data[size:].decode("utf-8", "surrogatepass")
