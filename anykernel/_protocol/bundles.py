"""MIME bundles as a person would read them. No I/O."""

from __future__ import annotations

import json
import re
from typing import Any

from .html import html_text

__all__ = ["bundle_text"]

# What text/plain says of an object that has no text of its own: its class, perhaps where it lies.
_PLACEHOLDER = re.compile(r"\s*<[\w.]+(?:\.\w+)?(?: object)?(?: at 0x[0-9a-fA-F]+)?>\s*|\s*<IPython\.[\w.]+ object>\s*")
_JSON = re.compile(r"application/(?:json|geo\+json|[\w.-]+\+json)")
# Characters of JSON that are shown; more is data, not something to read.
_JSON_SHOWN = 10_000


def bundle_text(data: dict[str, Any]) -> str:
    """The text of a bundle: its text/plain, where that says something, or the richest text there is.

    Markdown and LaTeX as they are, HTML without its tags, scripts and styles, JSON as JSON; where there is none of these, the
    types there are, such as ``<image/png>``.
    """
    plain = data.get("text/plain")
    if not isinstance(plain, str):
        plain = None
    if plain is not None and not _PLACEHOLDER.fullmatch(plain):
        return plain
    for mime in ("text/markdown", "text/latex"):
        if isinstance(text := data.get(mime), str) and text.strip():
            return text
    if isinstance(html := data.get("text/html"), str) and (text := html_text(html)):
        return text
    for mime, value in data.items():
        if mime == "application/json":
            text = json.dumps(value, ensure_ascii=False)
            return text if len(text) <= _JSON_SHOWN else f"{text[:_JSON_SHOWN]}[...]"
    shown = "".join(f"<{mime}>" for mime in data if not mime.startswith("text/"))
    return shown or plain or "".join(f"<{mime}>" for mime in data)
