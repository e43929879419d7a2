"""A notebook as a caller gives it: a path, a URL, a mapping or a node; always a copy, upgraded to the newest format."""

from __future__ import annotations

import json
import os
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from .._protocol import ArgumentError, MissingDependencyError

__all__ = ["describe_source", "is_url", "read_notebook"]

_URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*://")


def is_url(source: object) -> bool:
    """Whether it is an address for fsspec, and no path."""
    return isinstance(source, str) and _URL.match(source) is not None


def describe_source(source: object) -> str:
    """What to call the notebook in messages."""
    return os.fspath(source) if isinstance(source, str | os.PathLike) else "the notebook"


def read_notebook(source: Any) -> NotebookNode:
    """A copy of a notebook, in nbformat's version 4, each cell with an id.

    Raises:
        ArgumentError: it is none, or cannot be read.
        MissingDependencyError: it is a URL, and fsspec is not installed.
    """
    name = describe_source(source)
    if isinstance(source, Mapping):
        return _checked(dict(source), name)
    if not isinstance(source, str | os.PathLike):
        raise ArgumentError(f"a notebook is a path, a URL, a mapping or a NotebookNode, not {type(source).__name__}")
    text = _read_url(str(source)) if is_url(source) else _read_file(Path(source), name)
    return _parsed(text, name)


def _read_file(path: Path, name: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except IsADirectoryError:
        raise ArgumentError(f"{name!r} is a directory, not a notebook") from None
    except UnicodeDecodeError as exc:
        raise ArgumentError(f"{name!r} is no notebook: it is not UTF-8 text") from exc
    except (OSError, ValueError) as exc:
        raise ArgumentError(f"cannot read {name!r}: {getattr(exc, 'strerror', None) or exc}") from exc


def _read_url(url: str) -> str:
    try:
        import fsspec  # noqa: PLC0415
    except ImportError as exc:
        raise MissingDependencyError(
            "reading a notebook from a URL needs fsspec: pip install 'anykernel-client[notebook]'", name="fsspec"
        ) from exc
    try:
        opened: Any = fsspec.open(url, "rt", encoding="utf-8")
        with opened as file:
            return str(file.read())
    except Exception as exc:  # whatever the many file systems raise
        raise ArgumentError(f"cannot read {url!r}: {exc}") from exc


def _parsed(text: str, name: str) -> NotebookNode:
    if not text.strip():
        raise ArgumentError(f"{name!r} is empty, and no notebook")
    if text.lstrip().startswith("<"):
        raise ArgumentError(f"{name!r} is no notebook: it looks like HTML or XML (a page that links to it?)")
    try:
        found = nbformat.reader.parse_json(text)
    except Exception as exc:  # nbformat's own, and RecursionError
        raise ArgumentError(f"{name!r} is no notebook: it is not JSON") from exc
    return _checked(found, name)


def _checked(found: Any, name: str) -> NotebookNode:
    if not isinstance(found, Mapping) or "nbformat" not in found:
        raise ArgumentError(f"{name!r} is no notebook: it is JSON of another kind (it has no 'nbformat')")
    version = found["nbformat"]
    if not isinstance(version, int) or isinstance(version, bool) or version > nbformat.current_nbformat:
        raise ArgumentError(f"{name!r} has version {version!r} of the notebook format; this reads up to 4")
    if not isinstance(found.get("cells" if version >= 4 else "worksheets"), list):
        raise ArgumentError(f"{name!r} is no notebook: it has no list of cells")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of ids that are missing: they are added
            node = nbformat.reads(json.dumps(found), as_version=nbformat.current_nbformat)
            if node.nbformat_minor < nbformat.current_nbformat_minor:
                node = nbformat.v4.upgrade(node, from_minor=node.nbformat_minor)
                node.metadata.pop("orig_nbformat_minor", None)
            node = nbformat.from_dict(nbformat.validator.normalize(node)[1])
            nbformat.validate(node)
    except nbformat.ValidationError as exc:
        raise ArgumentError(f"{name!r} is no valid notebook: {str(exc).splitlines()[0]}") from exc
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as exc:
        raise ArgumentError(f"{name!r} is no valid notebook: {exc!r}") from exc
    assert isinstance(node, NotebookNode)
    return node
