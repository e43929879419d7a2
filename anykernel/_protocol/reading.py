"""Outputs as one text, and that text in so many characters. No I/O.

How this works. `read` puts the outputs' texts together, and remembers where the frames of the last traceback begin.
`shorten` decides which pieces of the text are kept: first the last frames of that traceback, as many as there is room for, then,
of what is left, as much of the beginning as of the end. Between the pieces stands how much is left out; room for that is set
aside before anything is decided.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from .outputs import ErrorOutput, Output
from .text import terminal_text

__all__ = ["Reading", "left_out", "read", "shorten"]

# A note in words may take this share of the text; where it would take more, three dots stand for it.
_NOTE_SHARE = 0.25
_DOTS = "[...]"
# A cut is moved to a line's end if that costs no more than this share of the piece.
_LINE_SHARE = 0.2


class Reading(msgspec.Struct, frozen=True):
    """What a person would read of the outputs."""

    text: str
    frames: list[int] = []
    """Where the frames of the last traceback begin, and its last line."""
    end: int = 0
    """Where that traceback ends; 0 where there is none."""


def left_out(count: int, what: str) -> str:
    """What stands in the place of so much of something."""
    return f"[... {count} {what} left out ...]"


def read(outputs: Iterable[Output], gap: int | None, note: str) -> Reading:
    """All outputs in order, without control sequences, each on lines of its own.

    (The two streams too, as in a notebook: which of their texts comes first is up to the kernel's buffers.)

    Args:
        outputs: the outputs.
        gap: before which of them the limit dropped others.
        note: the line that says so.
    """
    parts: list[str] = []
    length = end = 0
    frames: list[int] = []

    def add(part: str) -> None:
        nonlocal length
        parts.append(part)
        length += len(part)

    for index, output in enumerate((*outputs, None)):
        part = "" if output is None else output.plain
        cut = index == gap
        if (part or cut) and parts and not parts[-1].endswith("\n"):
            add("\n")
        if cut:
            add(note)
        if part:
            if isinstance(output, ErrorOutput):
                frames = [length + start for start in _frames(output, part)]
                end = length + len(part)
            add(part)
    # No text has a form for lone surrogates; what is read here goes on to files and other services.
    return Reading("".join(parts).encode("utf-8", "replace").decode(), frames, end)


def _frames(error: ErrorOutput, text: str) -> list[int]:
    """Where the items of a traceback, or where these cannot be told its lines, begin in its text; and its last line."""
    items = [terminal_text(item) for item in error.traceback]
    if len(items) < 2 or "\n".join(items) != text:
        items = text.split("\n")
    starts = [0]
    for item in items[:-1]:
        starts.append(starts[-1] + len(item) + 1)
    last = text.rstrip().rfind("\n") + 1
    return starts if last <= starts[-1] else [*starts, last]


def shorten(reading: Reading, limit: int) -> str:
    """The text in at most ``limit`` characters; what is left out is said, unless there is no room even for dots."""
    text = reading.text
    if len(text) <= limit:
        return text
    note = f"\n{left_out(len(text), 'characters')}\n"  # as long as it can get
    in_words = len(note) <= limit * _NOTE_SHARE
    note_length = len(note) if in_words else len(_DOTS)
    pieces = _pieces(reading, limit, note_length)
    shown: list[str] = []
    position = 0
    for start, end in [*pieces, (len(text), len(text))]:
        if start > position:
            shown.append(_note(text, position, start) if in_words else _DOTS)
        shown.append(text[start:end])
        position = end
    return "".join(shown)[:limit]


def _note(text: str, start: int, end: int) -> str:
    before = "\n" if start and text[start - 1] != "\n" else ""
    return f"{before}{left_out(end - start, 'characters')}\n"


def _pieces(reading: Reading, limit: int, note_length: int) -> list[tuple[int, int]]:
    """The pieces of the text to keep, in order and apart from each other."""
    text, end = reading.text, reading.end
    room = limit - note_length
    if not end:
        return _ends(text, room, (len(text), len(text)))
    if end < len(text):
        room -= note_length  # there may be a gap on both sides
    start = next((frame for frame in reading.frames if end - frame <= room), None)
    if start is not None:
        return _ends(text, room, (start, end))
    # Not even the last line: its beginning, which names the error.
    start = reading.frames[-1]
    return [(start, start + max(0, limit - 2 * note_length))]


def _ends(text: str, room: int, kept: tuple[int, int]) -> list[tuple[int, int]]:
    """A piece, with as much of the beginning and of the end as there is room for beside it."""
    start, end = kept
    room = max(0, room - (end - start))
    if end == len(text):
        # What comes before it stands for the end.
        return [(0, _at_line_end(text, room - room // 2)), (_at_line_start(text, start - room // 2, start), end)]
    tail = min(len(text) - end, room - min(start, room // 2))
    head = _at_line_end(text, min(start, room - tail))
    return [(0, head), (start, end), (_at_line_start(text, len(text) - tail, len(text)), len(text))]


def _at_line_end(text: str, end: int) -> int:
    """Where to end a piece that begins with the text: after a line, if there is one not far before."""
    return text.rfind("\n", end - int(end * _LINE_SHARE), end) + 1 or end


def _at_line_start(text: str, start: int, end: int) -> int:
    """Where to begin a piece: with a line, if there is one not far behind."""
    return text.find("\n", max(0, start - 1), start + int((end - start) * _LINE_SHARE)) + 1 or start
