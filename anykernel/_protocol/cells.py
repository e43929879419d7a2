"""Outputs as the code cell of a notebook keeps them (nbformat 4). No I/O."""

from __future__ import annotations

import json
import re
from typing import Any

from .outputs import ErrorOutput, ExecuteResult, Output, Stream

__all__ = ["to_nbformat", "valid_json"]


def to_nbformat(output: Output) -> dict[str, Any]:
    if isinstance(output, Stream):
        return {"output_type": "stream", "name": _valid(output.name), "text": _valid(output.text)}
    if isinstance(output, ErrorOutput):
        return {
            "output_type": "error",
            "ename": _valid(output.ename),
            "evalue": _valid(output.evalue),
            "traceback": [_valid(line) for line in output.traceback],
        }
    bundle = {
        # Only JSON types may hold anything but text; what breaks that is written as its JSON.
        _valid(mime): valid_json(value)
        if isinstance(value, str) or re.fullmatch(r"application/(.*\+)?json", mime)
        else _json_text(value)
        for mime, value in output.data.items()
    }
    fields: dict[str, Any] = {"data": bundle, "metadata": valid_json(output.metadata)}
    if isinstance(output, ExecuteResult):
        return {"output_type": "execute_result", "execution_count": output.execution_count, **fields}
    return {"output_type": "display_data", **fields}


def valid_json(value: Any) -> Any:
    """The value with valid text: by a loop, as it may be nested more deeply than functions may call themselves."""
    result: list[Any] = [value]
    # Lists and dicts whose places are to be filled with copies.
    pending: list[tuple[Any, Any]] = [(result, 0)]
    while pending:
        holder, place = pending.pop()
        item = holder[place]
        if isinstance(item, str):
            holder[place] = _valid(item)
        elif isinstance(item, list):
            holder[place] = copy = list(item)
            pending.extend((copy, index) for index, inner in enumerate(copy) if isinstance(inner, str | list | dict))
        elif isinstance(item, dict):
            holder[place] = fields = {_valid(key): inner for key, inner in item.items()}
            pending.extend((fields, key) for key, inner in fields.items() if isinstance(inner, str | list | dict))
    return result[0]


def _json_text(value: Any) -> str:
    try:
        return json.dumps(value)
    except RecursionError:
        return "[... left out: it is nested too deeply ...]"


def _valid(text: str) -> str:
    """The text without lone surrogates, which cannot be written to a file as UTF-8."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
