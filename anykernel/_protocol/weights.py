"""What JSON takes in memory once it is decoded, from its text or from its values. No I/O.

How this works. Text becomes text of about the same size, but each value besides has the overhead of an object: a megabyte
of ``{},`` becomes 24, one of ``{"":0},`` 35. So the strings are taken out of the text, and what is left is counted:
containers, pairs, elements, the strings themselves. That takes a fraction of the time that decoding such text takes, and for
what consists of a few long strings, hardly any.
"""

from __future__ import annotations

from collections.abc import Mapping
from sys import getsizeof
from typing import Any

from .messages import Frame

__all__ = ["weigh", "weigh_flat", "weigh_json"]

# Bytes, as CPython takes them: an empty dict, and what its first pair adds; an empty list; a number; a str without its
# text; a pair besides key and value; an element besides the value.
_DICT, _FIRST_PAIR, _LIST, _NUMBER, _STR, _PAIR, _ELEMENT = 64, 120, 72, 28, 56, 48, 9
# Bytes that a key takes, about: short ones that come again are the same object.
_KEY = 24
# Small integers are the same object each time; so a number takes no more than this for each of its digits.
_DIGIT = 9

# Bytes of text that are looked at together: what is left of them exists besides.
_WINDOW = 2**16
# What is no mark between values.
_NO_MARKS = bytes(byte for byte in range(256) if byte not in b"{}[]:,")

# Values of a message that are looked at one by one.
_FEW = 16


def weigh_json(raw: Frame) -> int:
    """Bytes that JSON takes when it is decoded, about; what is no JSON gives any number."""
    dicts = lists = pairs = commas = quotes = left = bare_size = 0
    start, in_string = 0, False
    while start < len(raw):
        end = start + _WINDOW
        while raw[end - 1 : end] == b"\\":  # which belongs to what follows it
            end += 1
        window = bytes(raw[start:end])
        start = end
        if b"\\" in window:
            # Without the quotes that stand in strings, they begin and end strings by turns.
            window = window.replace(b"\\\\", b"").replace(b'\\"', b"")
        pieces = window.split(b'"')
        bare = b"".join(pieces[in_string::2])
        in_string ^= not len(pieces) % 2
        quotes += len(pieces) - 1
        bare_size += len(bare)
        marks = bare.translate(None, _NO_MARKS)
        dicts += marks.count(b"{")
        lists += marks.count(b"[")
        pairs += marks.count(b":")
        commas += marks.count(b",")
        left += len(bare) - len(marks) * (1 + (b", " in bare))
    strings, text = quotes // 2, len(raw) - bare_size
    # Each pair or element but the first of its container follows a comma.
    full = min(dicts, pairs)
    elements = max(0, commas - (pairs - full)) + lists
    values = pairs + elements
    numbers = max(0, values - (strings - pairs) - dicts - lists)
    return (
        text
        + (strings - pairs) * _STR
        + pairs * (_KEY + _PAIR)
        + elements * _ELEMENT
        + dicts * _DICT
        + full * _FIRST_PAIR
        + lists * _LIST
        + min(numbers * _NUMBER, max(0, left) * _DIGIT)
    )


def weigh(value: Any, enough: float = float("inf")) -> int:
    """Bytes that a decoded value takes, about; looks no further once it is more than ``enough``."""
    total, stack = 0, [value]
    while stack and total <= enough:
        item = stack.pop()
        total += getsizeof(item)
        if isinstance(item, dict):
            stack.extend(item)
            stack.extend(item.values())
        elif isinstance(item, list):
            stack.extend(item)
    return total


def weigh_flat(content: Mapping[str, Any]) -> int | None:
    """What a decoded object takes beyond its JSON, where that is easily told: it holds few values besides text.

    (That is text with characters beyond ASCII, of which a single one can make all others take four bytes.)
    """
    if len(content) > _FEW:
        return None
    wide = 0
    for value in content.values():
        if isinstance(value, str):
            if not value.isascii():
                wide += getsizeof(value)
        elif isinstance(value, dict):
            if len(value) > _FEW:
                return None
            for inner in value.values():
                if isinstance(inner, str):
                    if not inner.isascii():
                        wide += getsizeof(inner)
                elif isinstance(inner, dict | list):
                    return None
        elif isinstance(value, list):
            return None
    return wide
