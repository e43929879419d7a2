"""What can be read, and kept, of messages that cannot be decoded as a whole. No I/O.

How this works. Content that would take more memory than there is room for, and JSON that cannot be represented (nested too
deeply, with integers of too many digits, or none at all), is taken apart as far as its parts mean something by themselves:
its fields, the MIME types of what it shows, the expressions of a reply. Each part is decoded by itself, the small ones
first, and what is left out is told. JSON that is nested too deeply even for being passed over is taken apart here.
"""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec

from .cutting import CUT
from .messages import Frame, Message, RawMessage
from .weights import weigh_json
from .wire import loads_leniently

__all__ = ["read_rest"]

# Notes about what is left out that are told.
_NOTES = 5
# Steps in which JSON is taken apart here, at most: that is half a second.
_STEPS = 500_000
# What one field takes in memory when its value is not decoded, in bytes, about.
_FIELD = 256

_decoder = msgspec.json.Decoder()
_splitter = msgspec.json.Decoder(dict[str, msgspec.Raw])
_list_splitter = msgspec.json.Decoder(list[msgspec.Raw])

# The fields that are looked for where there are too many to look at each.
_KNOWN = (
    *("status", "ename", "evalue", "traceback", "execution_count", "user_expressions", "payload", "execution_state"),
    *(
        "name",
        "text",
        "data",
        "metadata",
        "transient",
        "comm_id",
        "target_name",
        "wait",
        "prompt",
        "password",
        "source",
    ),
    *("text/plain", "text/markdown", "text/latex", "text/html", "application/json", "application/javascript"),
    *("image/png", "image/jpeg", "image/gif", "image/webp", "image/svg+xml", "application/pdf"),
)
_Known = msgspec.defstruct(
    "_Known", [(f"field_{n}", msgspec.Raw, msgspec.field(default=msgspec.Raw(), name=k)) for n, k in enumerate(_KNOWN)]
)
_known_splitter = msgspec.json.Decoder(_Known)

_OUTPUTS = frozenset({"display_data", "update_display_data", "execute_result"})
# Fields that hold several such.
_BUNDLES = frozenset({"user_expressions", "payload"})
# Text of which the ends are worth having.
_TEXTS = frozenset({"text/plain", "text", "ename", "evalue"})
_MISSING = object()


def read_rest(message: RawMessage, limit: int) -> Message:
    """The message, with what of metadata and content can be decoded into ``limit`` bytes of memory."""
    reader = _Reader(message.msg_type, limit)
    metadata = reader.read_object(message.raw_metadata, ("metadata",))
    content = reader.read_object(message.raw_content, ())
    memory = limit - reader.room + sum(map(len, message.buffers))
    return Message(
        message.channel, message.header, message.parent_header, metadata, content, message.buffers, message.size, memory,
        "; ".join(reader.notes[:_NOTES]) or None,
    )  # fmt: skip


class _Reader:
    """Reads one message."""

    def __init__(self, msg_type: str, room: int) -> None:
        self.room = room
        """Bytes that are left."""
        self.notes: list[str] = []
        """What is left out, and why."""
        self._shows = msg_type in _OUTPUTS

    def read_object(self, raw: Frame, path: tuple[str, ...]) -> dict[str, Any]:
        """A JSON object; what is none is empty."""
        if raw == b"null":
            return {}
        value = self._read(raw, path)
        if isinstance(value, dict):
            return value
        if value is not _MISSING:
            self._leave_out(path, "is no JSON object")
        return {}

    def _read(self, raw: Frame, path: tuple[str, ...]) -> Any:
        weight = weigh_json(raw)
        value: Any = _MISSING
        if weight <= self.room:
            try:
                value = _loads(raw)
            except RecursionError:
                reason = "is nested too deeply"
            except ValueError as exc:
                reason = "has an integer of too many digits" if "digits" in str(exc) else "is no JSON"
            else:
                self.room -= weight
                return value
        else:
            reason = f"takes {_in_words(weight)} in memory, and output_limit has no room for it"
            if path and (path[-1] in _TEXTS or path[0] == "traceback") and raw[:1] == b'"':
                value = self._read_ends(raw)
        if value is _MISSING and self._is_open(path):
            if raw[:1] == b"[":
                value = self._read_list(raw, path)
            elif (split := _split(raw, self.room)) is not None:
                value = self._read_fields(*split, path)
        if value is _MISSING or isinstance(value, str):
            self._leave_out(path, reason)
        return value

    def _read_fields(self, fields: dict[str, Frame], every: bool, path: tuple[str, ...]) -> dict[str, Any]:
        if not every and path:
            self._leave_out(path, "may have many fields, of which only the usual ones are here")
        found = {}
        for key in sorted(fields, key=lambda key: len(fields[key])):
            value = self._read(fields[key], (*path, key))
            if value is not _MISSING:
                found[key] = value
        return {key: found[key] for key in fields if key in found}

    def _read_list(self, raw: Frame, path: tuple[str, ...]) -> Any:
        if _count(raw, b",") * _FIELD > max(self.room, 2**20):
            return _MISSING
        try:
            items = [memoryview(item) for item in _list_splitter.decode(raw)]
        except (ValueError, RecursionError):
            return _MISSING
        values = [self._read(item, (*path, str(number))) for number, item in enumerate(items)]
        return [value for value in values if value is not _MISSING]

    def _read_ends(self, raw: Frame) -> Any:
        """The ends of a text."""
        room = self.room // 2
        self.room -= room
        try:
            return _ends(raw, room)
        except ValueError:
            return _MISSING

    def _is_open(self, path: tuple[str, ...]) -> bool:
        """Whether a part of what is there means something by itself."""
        if self._shows:
            return path in ((), ("data",))
        return not path or (path[0] in _BUNDLES and (len(path) < 3 or path[2:] == ("data",))) or path == ("traceback",)

    def _leave_out(self, path: tuple[str, ...], reason: str) -> None:
        where = path[-1] if path[:-1] == ("data",) else ".".join(path) or "its content"
        self.notes.append(f"{where:.200}, which {reason}")


def _in_words(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size} bytes"


def _loads(raw: Frame) -> Any:
    try:
        return _decoder.decode(raw)
    except (ValueError, RecursionError):
        return loads_leniently(raw)


def _split(raw: Frame, room: int) -> tuple[dict[str, Frame], bool] | None:
    """The fields of a JSON object, each as JSON, and whether those are all; None where that cannot be told."""
    try:
        if _count(raw, b":") * _FIELD > max(room, 2**20):
            known = msgspec.structs.astuple(_known_splitter.decode(raw))
            fields: dict[str, Frame] = {key: memoryview(field) for key, field in zip(_KNOWN, known, strict=True)}
            return {key: field for key, field in fields.items() if field}, False
        return {name: memoryview(field) for name, field in _splitter.decode(raw).items()}, True
    except (ValueError, RecursionError):
        apart = _take_apart(bytes(raw))
        return None if apart is None else (apart, True)


def _ends(raw: Frame, size: int) -> str:
    """The beginning and the end of a JSON string, of about so many bytes of JSON together."""
    first, last = raw[1 : _escape_at(raw, size // 2)[0]], raw[_escape_at(raw, len(raw) - size // 2)[1] : -1]
    # A character that was cut is left out as well.
    texts = (bytes(piece).decode("utf-8", "ignore") for piece in (first, last))
    return CUT.join(json.loads(f'"{text}"', strict=False) for text in texts)


def _escape_at(raw: Frame, position: int) -> tuple[int, int]:
    """Where the escape sequence begins and ends that lies across a position; that position where there is none."""
    start = bytes(raw[:position][-6:]).rfind(b"\\")
    if start < 0:
        return position, position
    start += max(0, position - 6)
    first = start
    while raw[first - 1 : first] == b"\\":
        first -= 1
    end = start + (6 if raw[start + 1 : start + 2] == b"u" else 2)
    return (position, position) if (start - first) % 2 or end <= position else (start, end)


def _count(raw: Frame, mark: bytes) -> int:
    return sum(bytes(raw[start : start + 2**16]).count(mark) for start in range(0, len(raw), 2**16))


_MARK = re.compile(rb'["{}\[\]:,]')
_DEEP_MARK = re.compile(rb'["{}\[\]]')


def _take_apart(raw: bytes) -> dict[str, Frame] | None:
    """The fields of a JSON object, each as JSON, for JSON however deep, and what is almost JSON; None where it takes too many steps."""
    fields: dict[str, Frame] = {}
    key: str | None = None
    depth = start = position = 0
    for _ in range(_STEPS):
        found = (_MARK if depth < 2 else _DEEP_MARK).search(raw, position)
        if found is None:
            return None
        mark, position = found.group(), found.end()
        if mark == b'"':
            end = _end_of_string(raw, position)
            if end is None:
                return None
            if depth == 1 and key is None:
                try:
                    key = str(loads_leniently(raw[position - 1 : end]))
                except ValueError:
                    return None
            position = end
        elif mark in b"{[":
            depth += 1
            if depth == 1 and mark == b"[":
                return None
        elif mark in b"}]":
            depth -= 1
        elif depth == 1 and mark == b":":
            start = position
        if (depth == 1 and mark == b",") or depth == 0:
            if key is not None:
                fields[key] = memoryview(raw[start : position - 1].strip())
                key = None
            if depth == 0:
                return fields
    return None


def _end_of_string(raw: bytes, start: int) -> int | None:
    """Where a string ends that begins before ``start``."""
    while (end := raw.find(b'"', start)) >= 0:
        first = end
        while raw[first - 1 : first] == b"\\":
            first -= 1
        if (end - first) % 2 == 0:
            return end + 1
        start = end + 1
    return None
