"""The text of what runs inside a kernel: this package's files, sent as they are."""

from __future__ import annotations

import pkgutil

__all__ = ["SEPARATOR", "served_source"]

# Stands between the parts, each of which is run by itself: a form feed, which no text of ours holds.
SEPARATOR = "\f"


def served_source() -> str:
    """What the kernel runs to serve variables, in its parts."""
    parts = [pkgutil.get_data(__package__ or "", f"{name}.py") for name in ("values", "served")]
    return SEPARATOR.join(part.decode() for part in parts if part is not None)
