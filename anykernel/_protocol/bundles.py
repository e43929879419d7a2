"""MIME bundles as a person would read them. No I/O."""

from __future__ import annotations

import json
import re
from typing import Any

from .html import html_text

__all__ = ["bundle_text"]

# What text/plain says of an object that has no text of its own: its class, perhaps where it lies.
_PLACEHOLDER = re.compile(r"<[\w.<>]+(?: object)?(?: at 0x[0-9a-fA-F]+)?>")
_PLACEHOLDER_LENGTH = 500
# JSON that is there to be read; that of makers of their own (Plotly's, Vega's) is data for a program.
_JSON = re.compile(r"application/(?:json|(?!vnd\.)[\w.-]+\+json)")
# Types of text that are no text for readers.
_CODE = frozenset({"text/plain", "text/html", "text/css", "text/javascript"})


def bundle_text(data: dict[str, Any]) -> str:
    """The text of a bundle: its text/plain, where that says something, or the richest text there is.

    Markdown, LaTeX and other text as they are, HTML without its tags, scripts and styles, JSON as JSON; where there is none of
    these, the types there are, such as ``<image/png>``.
    """
    plain = data.get("text/plain")
    if isinstance(plain, str) and not _is_placeholder(plain):
        return plain
    for mime in ("text/markdown", "text/latex"):
        if isinstance(text := data.get(mime), str) and text.strip():
            return text
    if isinstance(html := data.get("text/html"), str) and (text := html_text(html)):
        return text
    for mime, value in data.items():
        if mime.startswith("text/") and mime not in _CODE and isinstance(value, str) and value.strip():
            return value
        if _JSON.fullmatch(mime) and (text := _json_text(value)):
            return text
    shown = "".join(f"<{mime}>" for mime in data if not mime.startswith("text/"))
    return shown or (plain if isinstance(plain, str) else "".join(f"<{mime}>" for mime in data))


def _is_placeholder(plain: str) -> bool:
    return len(plain) <= _PLACEHOLDER_LENGTH and _PLACEHOLDER.fullmatch(plain.strip()) is not None


def _json_text(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False)
    except RecursionError:
        return ""  # too deeply nested to be read by anybody
