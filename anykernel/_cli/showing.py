"""How outputs are put out: as they are to a terminal or a pipe, or as JSON."""

from __future__ import annotations

import json
import sys
from typing import Any

from .. import AnyKernelError, DisplayData, ErrorOutput, ExecuteResult, Output, Result, Stream

__all__ = ["as_dict", "print_json", "show_output"]


def show_output(output: Output) -> None:
    """Write one output to where it belongs."""
    if isinstance(output, Stream):
        stream, text = (sys.stderr if output.name == "stderr" else sys.stdout), output.text
    elif isinstance(output, ErrorOutput):
        stream, text = sys.stderr, output.text
    else:
        assert isinstance(output, DisplayData | ExecuteResult)
        stream, text = sys.stdout, output.text
    if not stream.isatty() and not isinstance(output, Stream):
        text = output.plain
    if not isinstance(output, Stream) and not text.endswith("\n"):
        text += "\n"
    stream.write(text.encode(stream.encoding or "utf-8", "replace").decode(stream.encoding or "utf-8", "replace"))
    stream.flush()


def as_dict(result: Result) -> dict[str, Any]:
    """A result for programs."""
    return {
        "status": result.status,
        "ok": result.ok,
        "execution_count": result.execution_count,
        "outputs": result.to_nbformat(),
        "text": result.text,
        "duration": result.duration,
        "complete": result.complete,
        "truncated": result.truncated,
    }


def print_json(value: Any, error: AnyKernelError | None = None) -> None:
    """Write one JSON object."""
    if error is not None:
        value = {**value, "error": type(error).__name__, "message": str(error)}
    sys.stdout.write(json.dumps(value, indent=1, default=str) + "\n")
