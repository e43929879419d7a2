"""What callers give for an argument, checked. No I/O."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from .errors import ArgumentError

__all__ = ["as_buffers", "as_dict", "check_code", "check_msg_id", "is_duration"]

# Characters of a msg_id: replies quote it, in a header that must not be too large.
MSG_ID_LIMIT = 1024


def as_dict(name: str, value: Any) -> dict[str, Any]:
    """A dict of what a caller gives for an argument that is to be a mapping; None means an empty one.

    Raises:
        ArgumentError: it is none.
    """
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ArgumentError(f"{name} must be a mapping, not {value!r:.200}")
    return dict(value)


def as_buffers(value: Any) -> tuple[bytes | memoryview, ...]:
    """The buffers of what a caller gives for them; None means none.

    Raises:
        ArgumentError: it is not several.
    """
    if isinstance(value, bytes | bytearray | memoryview | str) or not isinstance(value, Iterable | None):
        raise ArgumentError(f"buffers must be a list (or the like) of bytes, not {type(value).__name__}")
    return tuple(value or ())


def check_code(code: object) -> str:
    """The code, if it is some.

    Raises:
        ArgumentError: it is no string.
    """
    if not isinstance(code, str):
        raise ArgumentError(f"code must be a str, not {type(code).__name__}")
    return code


def check_msg_id(msg_id: object) -> str:
    """The id that a caller chose for a request, if it can be one.

    Raises:
        ArgumentError: it cannot.
    """
    if not (isinstance(msg_id, str) and 0 < len(msg_id) <= MSG_ID_LIMIT and msg_id.isprintable()):
        raise ArgumentError(f"a msg_id must be a str of 1 to {MSG_ID_LIMIT} printable characters, not {msg_id!r:.200}")
    return msg_id


def is_duration(value: object) -> bool:
    """Whether it is a number of seconds."""
    return isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value) and value >= 0
