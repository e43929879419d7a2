"""Cutting what is too large: its ends stay, and something says that the middle is missing. No I/O."""

from __future__ import annotations

from sys import getsizeof

import msgspec

from .outputs import DisplayData, ErrorOutput, ExecuteResult, Output

__all__ = ["CUT", "boundary", "cut", "from_utf8", "shortened", "to_utf8", "utf8_size"]

# Characters from which on it matters what a text takes in memory, and not only in UTF-8.
_MUCH = 2**16

CUT = "[...]"
"""What stands for the missing."""


def shortened(output: DisplayData | ExecuteResult | ErrorOutput, limit: int) -> tuple[Output, int] | None:
    """The output in at most about ``limit`` bytes, and in how many: its text without the middle, and nothing else.

    None where it has no text.
    """
    if isinstance(output, ErrorOutput):
        traceback = cut("\n".join(output.traceback), limit // 2)
        ename, evalue = cut(output.ename, limit // 8), cut(output.evalue, limit // 4)
        return ErrorOutput(ename, evalue, traceback.split("\n")), utf8_size(ename + evalue + traceback)
    text = output.data.get("text/plain")
    if not isinstance(text, str):
        return None
    text = cut(text, limit)
    return msgspec.structs.replace(output, data={"text/plain": text}, metadata={}), utf8_size(text)


def cut(text: str, size: int) -> str:
    """The text in at most ``size`` bytes, of UTF-8 and about in memory (or as many as say that something is missing)."""
    if len(text) > _MUCH:
        # A single emoji makes all of it take four times as much.
        size = size * utf8_size(text) // max(utf8_size(text), getsizeof(text))
    if len(text) <= max(size, len(CUT)) and utf8_size(text) <= max(size, len(CUT)):
        return text
    room = max(0, size - len(CUT))
    # Of a long text, only the ends are worth encoding. (A character has at most 4 bytes, and at least one.)
    first, last = to_utf8(text[: room // 2]), to_utf8(text[max(0, len(text) - room) :])
    first = first[: boundary(first, min(room // 2, len(first)))]
    last = last[boundary(last, max(0, len(last) - (room - len(first))), up=True) :]
    return f"{from_utf8(first)}{CUT}{from_utf8(last)}"


def to_utf8(text: str) -> bytes:
    """As UTF-8; half a surrogate pair, which is no character for UTF-8 but is one for Python, as three bytes."""
    return text.encode("utf-8", "surrogatepass")


def from_utf8(data: bytes) -> str:
    """What `to_utf8` made UTF-8 of."""
    return data.decode("utf-8", "surrogatepass")


def utf8_size(text: str) -> int:
    # isascii reads a flag of the string, it scans nothing
    return len(text) if text.isascii() else len(to_utf8(text))


def boundary(data: bytes, size: int, *, up: bool = False) -> int:
    """Where to cut UTF-8 after about ``size`` bytes: before a character that lies across, or (``up``) after it."""
    step = 1 if up else -1
    while 0 < size < len(data) and data[size] & 0xC0 == 0x80:
        size += step
    return size
