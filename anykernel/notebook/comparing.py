"""Two runs of a notebook compared, as nbval judges them: which cells put out something else."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from .reading import read_notebook
from .report import has_tag

__all__ = ["CellDifference", "compare_notebooks"]

# Tags, and comments in the source, by which a cell says that its output is not compared.
_IGNORED_TAGS = ("nbval-ignore-output", "nbval-skip", "skip-execution")
_IGNORED = re.compile(r"^\s*#\s*(?:NBVAL_IGNORE_OUTPUT|NBVAL_SKIP|PYTEST_VALIDATE_IGNORE_OUTPUT)\b", re.MULTILINE)
# Types of data that are never compared: pictures differ by the version that drew them.
_SKIPPED = ("image/png", "image/jpeg", "image/svg+xml", "application/vnd.jupyter.widget-view+json", "text/html")
_ADDRESS = re.compile(r"\b0x[0-9a-fA-F]{4,}\b")


class CellDifference(msgspec.Struct, frozen=True):
    """A cell whose outputs differ."""

    index: int
    """Among the code cells of both notebooks, from 0."""
    source: str
    what: str
    """``"stdout"``, ``"stderr"``, a MIME type, ``"error"``, ``"cells"`` where one notebook has no such cell, ..."""
    a: str
    b: str


def compare_notebooks(a: Any, b: Any, *, sanitize: Mapping[str, str] | None = None) -> list[CellDifference]:
    """The cells whose outputs differ between two notebooks, as nbval judges them; an empty list where none do.

    Text of a stream counts as one, whatever pieces it came in; pictures, HTML and addresses in memory do not count, nor does
    what stands on stderr. A cell tagged ``nbval-ignore-output`` (or with the comment ``# NBVAL_IGNORE_OUTPUT``) is passed over.

    ``a`` and ``b`` are what `run_notebook` takes; ``sanitize`` has regular expressions, and what stands for their matches in
    both.

    Raises:
        ArgumentError: one is no notebook.
    """
    patterns = [(re.compile(pattern), replacement) for pattern, replacement in (sanitize or {}).items()]
    ours, theirs = ([c for c in read_notebook(n).cells if c.cell_type == "code"] for n in (a, b))
    found = []
    for index in range(max(len(ours), len(theirs))):
        if index >= len(ours) or index >= len(theirs):
            there = ours[index] if index < len(ours) else theirs[index]
            has = ("a cell", "none") if index < len(ours) else ("none", "a cell")
            found.append(CellDifference(index, there.source, "cells", *has))
            continue
        one, other = ours[index], theirs[index]
        if any(has_tag(cell, tag) for cell in (one, other) for tag in _IGNORED_TAGS) or _IGNORED.search(one.source):
            continue
        left, right = _parts(one.outputs, patterns), _parts(other.outputs, patterns)
        found += [
            CellDifference(index, one.source, what, left.get(what, ""), right.get(what, ""))
            for what in [*left, *(what for what in right if what not in left)]
            if left.get(what) != right.get(what)
        ]
    return found


def _parts(outputs: Iterable[Any], patterns: list[tuple[re.Pattern[str], str]]) -> dict[str, str]:
    parts: dict[str, str] = {}
    for output in outputs:
        if output.output_type == "stream":
            if output.name != "stderr":
                parts[output.name] = parts.get(output.name, "") + output.text
        elif output.output_type == "error":
            parts["error"] = f"{output.ename}: {output.evalue}"
        else:
            for mime, value in output.data.items():
                if mime not in _SKIPPED:
                    parts[mime] = parts.get(mime, "") + (value if isinstance(value, str) else repr(value)) + "\n"
    return {what: _sanitized(text, patterns) for what, text in parts.items()}


def _sanitized(text: str, patterns: list[tuple[re.Pattern[str], str]]) -> str:
    text = _ADDRESS.sub("0x...", text)
    for pattern, replacement in patterns:
        text = pattern.sub(replacement, text)
    return text
