"""Small parts of conkernelclient's client."""

from __future__ import annotations

import ast
from collections.abc import Awaitable, Callable
from typing import Any

__all__ = ["Verbs", "literal"]


def literal(text: str) -> Any:
    """The value of a literal; of anything else its text."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text


class Verbs:
    """Requests as methods."""

    def __init__(self, send: Callable[..., Awaitable[dict[str, Any]]]) -> None:
        self._send = send

    def __getattr__(self, name: str) -> Callable[..., Awaitable[dict[str, Any]]]:
        if name.startswith("_"):
            raise AttributeError(name)
        return lambda **content: self._send(f"{name}_request", **content)
