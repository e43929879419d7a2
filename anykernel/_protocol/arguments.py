"""What callers give for an argument, checked. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from numbers import Integral, Real
from typing import Any

from .errors import ArgumentError

__all__ = ["as_buffers", "as_dict", "as_integer", "as_seconds", "as_timeout", "check_msg_id", "check_text"]

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


def check_msg_id(msg_id: object) -> str:
    """The id that a caller chose for a request, if it can be one.

    Raises:
        ArgumentError: it cannot.
    """
    if not (isinstance(msg_id, str) and 0 < len(msg_id) <= MSG_ID_LIMIT and msg_id.isprintable()):
        raise ArgumentError(f"a msg_id must be a str of 1 to {MSG_ID_LIMIT} printable characters, not {msg_id!r:.200}")
    return msg_id


def check_text(name: str, text: object) -> str:
    """Text that every kernel can be sent.

    Raises:
        ArgumentError: it is no string, or holds half a surrogate pair, which UTF-8 has no form for.
    """
    if not isinstance(text, str):
        raise ArgumentError(f"{name} must be a str, not {type(text).__name__}")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as exc:
            raise ArgumentError(f"{name} holds half a surrogate pair, which cannot be sent: {exc}") from exc
    return text


def as_seconds(value: object) -> float | None:
    """A number of seconds, as a float: sums with those of NumPy would keep no more than a few digits. None where it is none."""
    if not isinstance(value, Real) or isinstance(value, bool):
        return None
    seconds = float(value)
    return seconds if seconds >= 0 else None  # nor is NaN one


def as_timeout(name: str, value: object) -> float | None:
    """Seconds, or None for no limit.

    Raises:
        ArgumentError: it is neither.
    """
    seconds = as_seconds(value)
    if seconds is None and value is not None:
        raise ArgumentError(f"{name} must be None or seconds (a number >= 0), not {value!r}")
    return seconds


def as_integer(value: object) -> int | None:
    """A number without a fraction, also one of NumPy's, as an int; None where it is none."""
    return int(value) if isinstance(value, Integral) and not isinstance(value, bool) else None
