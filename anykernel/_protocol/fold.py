"""The outputs of an execution folded as a front end would show them, bounded in memory. No I/O.

How this works. `OutputFold` takes the IOPub messages of one request in order and keeps the outputs they add up
to: adjacent text of one stream is one `Stream`, ``clear_output`` empties the list (at once, or when the next
output comes), ``update_display_data`` and what is shown under the same id again replace what carries that display id.
The first half of the limit is the head and stays; once something did not fit there, all that follows goes to the tail. When head and tail exceed the
limit, the tail forgets its oldest: so the middle is missing. A single output that is larger than what the tail has
room for is cut itself, where it is text: an error, or text/plain.

Each step takes time in proportion to what it brings, however much there is already. So what is taken out of the middle (a
widget's outputs, when that is cleared) stays in its list as a dead entry until there are more of those than others; and an
update is kept once for all outputs of its id, which have it when they are read.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from itertools import groupby
from typing import Any

from .cutting import boundary, shortened, to_utf8
from .entries import Chain, Display, Entry
from .outputs import DisplayData, ErrorOutput, ExecuteResult, Output, Stream

__all__ = ["OutputFold"]

# Characters of a stream's text that are taken at once: the rest of a larger one need not be there twice.
_STEP = 2**20
# Bytes of one text from which on it is not kept as it was last read, once there is more of it.
_LARGE = 2**16

# What a fold has for its own until there is something to put in: they stay empty. (An empty deque takes 600 bytes, an
# empty set 200, of the 2,800 that a queued execution took with them.)
_NO_TAIL = Chain(deque())
_NO_WIDGETS: dict[str, dict[Entry, None]] = {}
_NONE_PENDING: set[str | None] = set()
# Bytes that an output takes besides its text or data, about.
_ENTRY = 256


class OutputFold:
    """The outputs of one request so far.

    Args:
        limit: bytes kept; text counts in UTF-8, other outputs by the size of their message. The number of outputs
            is limited too, to about one for each 512 bytes, since each costs as much memory, however small it is.
    """

    __slots__ = (
        "__weakref__",
        "_built",
        "_cache",
        "_clear_pending",
        "_displays",
        "_gap",
        "_half",
        "_head",
        "_head_open",
        "_limit",
        "_max_entries",
        "_tail",
        "_valid",
        "_widget",
        "_widgets",
        "dropped",
        "on_change",
    )

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._half = limit // 2
        self._max_entries = 128 + limit // 512
        # The `Output` widget (its comm's id) that captures what is being added, and which widgets, or the whole (None), are to
        # be cleared when their next output comes. In a notebook a widget shows what it captured; here it is in its place
        # among the outputs, but clearing a widget clears nothing else.
        self._widget: str | None = None
        self._displays: dict[str, Display] = {}
        # The outputs as they were last read, or are still; and how many of them, from the first, still hold.
        self._built: list[Output] = []
        self._valid = 0
        self._cache: list[Output] | None = None
        self.on_change: Callable[[], None] | None = None
        """Called after each change."""
        self._reset()

    def _reset(self) -> None:
        self._head, self._tail = Chain([]), _NO_TAIL
        self._head_open, self._gap = True, False
        self._displays.clear()
        # What each widget captured, and so what there is to clear.
        self._widgets = _NO_WIDGETS
        self._clear_pending = _NONE_PENDING
        self._valid = 0
        self.dropped = 0
        """Bytes that the limit cost."""

    def clear(self, widget: str | None = None, *, wait: bool = False) -> None:
        """Forget all outputs, or those that a widget captured: now, or (``wait``) when the next one comes."""
        if not wait:
            self._clear(widget)
            self._changed()
        elif widget is None or widget in self._widgets:  # others have nothing to clear
            self._clear_pending = self._clear_pending or set()
            self._clear_pending.add(widget)

    def _clear(self, widget: str | None) -> None:
        if widget is None:
            self._reset()
            return
        for entry in self._widgets.get(widget, {}).copy():
            self._remove(entry)

    def add(self, output: Output, size: int, widget: str | None = None) -> None:
        """Append one output of ``size`` bytes, which this widget captures."""
        self._widget = widget
        if self._clear_pending and widget in self._clear_pending:
            self._clear(widget)
        if not isinstance(output, Stream):
            self._add(output, size)
        elif len(output.text) <= _STEP:
            self._add_text(output.name, to_utf8(output.text))
        else:
            for start in range(0, len(output.text), _STEP):
                self._add_text(output.name, to_utf8(output.text[start : start + _STEP]))
        self._changed()

    def _changed(self) -> None:
        self._cache = None
        if self.on_change is not None:
            self.on_change()

    def has_changed(self, outputs: list[Output]) -> bool:
        """Whether ``outputs``, as it once was, is out of date."""
        return self._cache is not outputs

    def _add_text(self, name: str, data: bytes) -> None:
        if not data:
            return
        if self._head_open:
            room = self._half - self._head.size
            if len(data) <= room and len(self._head) < self._max_entries // 2:
                self._push_text(self._head, name, data)
                return
            self._close_head()
            # A stream's text can be split: what fits stays in the head.
            if 0 < room < len(data) and (size := boundary(data, room)):
                self._push_text(self._head, name, data[:size])
                data = data[size:]
        self._push_text(self._tail, name, data)
        self._trim()

    def _add(self, output: DisplayData | ExecuteResult | ErrorOutput, size: int) -> None:
        if not isinstance(output, ErrorOutput) and output.display_id is not None:
            self._update(output.display_id, output.data, output.metadata, size)
        if self._head_open:
            if size <= self._half - self._head.size and len(self._head) < self._max_entries // 2:
                self._push(self._head, output, size)
                return
            self._close_head()
        room = self._limit - self._head.size
        if size > room and (short := shortened(output, room // 2)) is not None:
            # Whole, it would push all that came before it out of the tail, and then itself.
            self.dropped += size - short[1]
            assert not isinstance(short[0], Stream)
            output, size = short[0], short[1]
        self._push(self._tail, output, size)
        self._trim()

    def _close_head(self) -> None:
        self._head_open, self._tail = False, Chain(deque())

    def _trim(self) -> None:
        while (excess := self._head.size + self._tail.size - self._limit) > 0:
            self._evict(excess)
        while len(self._tail) > self._max_entries // 2:
            self._evict(self._tail.oldest.size)

    def update(self, display_id: str, data: dict[str, Any], metadata: dict[str, Any], size: int) -> bool:
        """Replace the data of every output with this display id; False where there is none."""
        if not self._update(display_id, data, metadata, size):
            return False
        self._changed()
        return True

    def _update(self, display_id: str, data: dict[str, Any], metadata: dict[str, Any], size: int) -> bool:
        display = self._displays.get(display_id)
        if display is None:
            return False
        head_growth, tail_growth = display.growth(size)
        if self._head.size + self._tail.size + head_growth + tail_growth > self._limit:
            self.dropped += size  # the old data stays: it is what the limit has room for
        else:
            self._head.size += head_growth
            self._tail.size += tail_growth
            display.update(data, metadata, size)
        self._valid = 0
        return True

    def shows(self, display_id: str) -> bool:
        """Whether there is an output with this display id."""
        return display_id in self._displays

    def _push_text(self, chain: Chain, name: str, data: bytes) -> None:
        entry = chain.newest
        if entry is not None and entry.output is None and entry.name == name and entry.widget == self._widget:
            entry.size += len(data)
            chain.size += len(data)
            self._outdate(entry, len(self._head) + len(self._tail) - 1)
        else:
            entry = self._append(chain, len(data))
            entry.name = name
        entry.append(data)

    def _push(self, chain: Chain, output: DisplayData | ExecuteResult | ErrorOutput, size: int) -> None:
        entry = self._append(chain, size)
        entry.output = output
        if isinstance(output, ErrorOutput) or output.display_id is None:
            return
        display = self._displays.get(output.display_id)
        if display is None:
            display = self._displays[output.display_id] = Display()
        display.add(entry)

    def _append(self, chain: Chain, size: int) -> Entry:
        entry = Entry(size, tail=chain is self._tail, widget=self._widget)
        chain.append(entry)
        if self._widget is not None:
            self._widgets = self._widgets or {}
            self._widgets.setdefault(self._widget, {})[entry] = None
        return entry

    def _evict(self, excess: int) -> None:
        """Drop the oldest of the tail: one piece of text (or the excess of one), or one other output."""
        self._gap = True
        entry = self._tail.oldest
        if entry.output is None:
            self._outdate(entry, len(self._head))
            dropped = entry.drop_text(excess)
            self._tail.size -= dropped
            self.dropped += dropped
            if entry.text or entry.older:
                return
        self.dropped += self._remove(entry)

    def _remove(self, entry: Entry) -> int:
        """Take an entry out; how many bytes it had."""
        size, output = entry.size, entry.output
        if entry.display is not None:
            size = entry.display.remove(entry)
            if not entry.display.count:
                assert isinstance(output, DisplayData | ExecuteResult)
                assert output.display_id is not None
                del self._displays[output.display_id]
        if entry.widget is not None:
            captured = self._widgets[entry.widget]
            del captured[entry]
            if not captured:
                del self._widgets[entry.widget]
                self._clear_pending.discard(entry.widget)
        (self._tail if entry.tail else self._head).remove(entry, size)
        self._valid = min(self._valid, len(self._head)) if entry.tail else 0
        return size

    def _outdate(self, entry: Entry, index: int) -> None:
        """A stream's text changes, which is at this index of the outputs."""
        self._valid = min(self._valid, index)
        if entry.size > _LARGE and self._built:
            self._built, self._valid = [], 0

    @property
    def outputs(self) -> list[Output]:
        """The outputs, adjacent text of one stream joined (but not across a gap)."""
        if self._cache is None:
            head, tail, old = self._head, self._tail, self._valid
            entries = [*head.last(len(head) - old), *tail.last(len(head) + len(tail) - old)]
            self._cache = self._built = [*self._built[:old], *(entry.folded() for entry in entries)]
            self._valid = len(self._built)
            if len(head) and len(tail) and not self._gap:
                last, first = self._built[len(head) - 1], self._built[len(head)]
                if isinstance(last, Stream) and isinstance(first, Stream) and last.name == first.name:
                    both = Stream(last.name, last.text + first.text)
                    self._cache = [*self._built[: len(head) - 1], both, *self._built[len(head) + 1 :]]
        return self._cache

    @property
    def size(self) -> int:
        """What it takes in memory, in bytes, about."""
        return self._head.size + self._tail.size + _ENTRY * (len(self._head) + len(self._tail))

    def uncaptured(self) -> tuple[list[Output], int | None]:
        """The outputs that no widget captured, and the `gap` among them."""
        if not self._widgets:
            return self.outputs.copy(), self.gap
        head, tail = (
            _joined(entry.folded() for entry in chain.last(len(chain)) if entry.widget is None)
            for chain in (self._head, self._tail)
        )
        if self._gap:
            return [*head, *tail], len(head)
        return _joined([*head, *tail]), None

    @property
    def gap(self) -> int | None:
        """Index in ``outputs`` before which the limit dropped something."""
        return len(self._head) if self._gap else None


def _joined(outputs: Iterable[Output]) -> list[Output]:
    """Outputs, with adjacent text of one stream joined."""
    joined: list[Output] = []
    for name, group in groupby(outputs, lambda output: output.name if isinstance(output, Stream) else None):
        if name is None:
            joined += group
        else:
            joined.append(Stream(name, "".join(output.text for output in group)))
    return joined
