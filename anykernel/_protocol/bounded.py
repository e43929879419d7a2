"""Replies in as much memory as the limit gives: cut as outputs are. No I/O."""

from __future__ import annotations

from typing import Any

import msgspec

from .cutting import cut, shortened
from .outputs import ErrorOutput, error_output
from .weights import weigh

__all__ = ["bounded_reply"]


def bounded_reply(content: dict[str, Any], memory: int, limit: int) -> tuple[dict[str, Any], bool]:
    """The content of an ``execute_reply`` that takes so much memory, in about ``limit`` bytes; and whether that cost anything.

    Of expressions and payloads that are too large, the ends of their text are kept. (Of the exception too, which costs
    nothing: it is among the outputs.)
    """
    if memory <= limit:
        return content, False
    room = _Room(limit)
    kept: dict[str, Any] = {}
    if content.get("status") == "error":
        kept = room.take_error(content)
    for key, value in content.items():
        if key not in kept and key not in ("user_expressions", "payload") and room.has(value):
            kept[key] = value
    expressions, payloads = content.get("user_expressions"), content.get("payload")
    if isinstance(expressions, dict):
        kept["user_expressions"] = {
            name: value if room.has(value) else room.take_bundle(value) for name, value in expressions.items()
        }
    if isinstance(payloads, list):
        kept["payload"] = [value if room.has(value) else room.take_bundle(value) for value in payloads]
    return kept, room.exceeded


class _Room:
    """What is left of the limit."""

    def __init__(self, limit: int) -> None:
        self._left = limit
        self.exceeded = False
        """Whether something had to be cut or left out."""

    def has(self, value: Any) -> bool:
        """Take a value, if there is room for it."""
        weight = weigh(value, self._left)
        if weight > self._left:
            return False
        self._left -= weight
        return True

    def take_error(self, content: dict[str, Any]) -> dict[str, Any]:
        """Of an exception, its ends."""
        short = shortened(error_output(content), self._left)
        assert short is not None
        assert isinstance(short[0], ErrorOutput)
        self._left = max(0, self._left - short[1])
        return msgspec.structs.asdict(short[0])

    def take_bundle(self, value: Any) -> Any:
        """Of something in several MIME types, what is small, and of its text the ends; of an exception likewise."""
        self.exceeded = True
        if not isinstance(value, dict):
            return {}
        if value.get("status") == "error":
            return {"status": "error", **self.take_error(value)}
        kept = {key: field for key, field in value.items() if key != "data" and self.has(field)}
        data = value.get("data")
        text = data.get("text/plain") if isinstance(data, dict) else None
        if isinstance(text, str):
            kept["data"] = {"text/plain": cut(text, self._left // 2)}
            self._left -= min(self._left, weigh(kept["data"]))
        return kept
