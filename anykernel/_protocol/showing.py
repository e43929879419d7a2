"""Outputs as one MIME bundle, for front ends that show a result of another kernel as its own would. No I/O."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from typing import Any

from .images import image_of
from .outputs import DisplayData, ErrorOutput, ExecuteResult, Output, Stream
from .text import terminal_text

__all__ = ["as_bundle"]

# What can be shown only where the model is: beside the other kernel.
_WIDGET = "application/vnd.jupyter.widget-view+json"
_ERROR_STYLE = ' style="background: var(--jp-rendermime-error-background, #fdd)"'


def as_bundle(outputs: Sequence[Output], text: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The data and metadata that show these outputs, which read ``text``; nothing where there are none.

    One that stands alone is shown as it is; text keeps its colours; several with pictures, HTML or the like are put below
    each other, as HTML.
    """
    if not any(
        isinstance(output, DisplayData | ExecuteResult) and _shown(output).keys() > {"text/plain"} for output in outputs
    ):
        return ({"text/plain": _text(outputs)}, {}) if outputs else ({}, {})
    if len(outputs) == 1:
        (output,) = outputs
        assert isinstance(output, DisplayData | ExecuteResult)
        return _shown(output), {key: value for key, value in output.metadata.items() if key != _WIDGET}
    return {"text/plain": text, "text/html": "\n".join(map(_html, outputs))}, {}


def _shown(output: DisplayData | ExecuteResult) -> dict[str, Any]:
    return {mime: value for mime, value in output.data.items() if mime != _WIDGET}


def _text(outputs: Sequence[Output]) -> str:
    pieces: list[str] = []
    for output in outputs:
        if pieces and not pieces[-1].endswith("\n") and not isinstance(output, Stream):
            pieces.append("\n")
        # What moves the cursor is carried out: only a terminal would.
        pieces.append(terminal_text(output.text) if "\r" in output.text or "\b" in output.text else output.text)
    return "".join(pieces)


def _html(output: Output) -> str:
    if isinstance(output, Stream):
        return _pre(output.plain, _ERROR_STYLE if output.name == "stderr" else "")
    if isinstance(output, ErrorOutput):
        return _pre(output.plain, _ERROR_STYLE)
    if isinstance(page := output.data.get("text/html"), str):
        return f"<div>{page}</div>"
    image = image_of(output.data)
    if image is None:
        return _pre(output.plain)
    size = output.metadata.get(image.mime)
    fields = size if isinstance(size, dict) else {}
    given = "".join(
        f' {name}="{fields[name]}"' for name in ("width", "height") if type(fields.get(name)) in (int, float)
    )
    return f'<img src="data:{image.mime};base64,{base64.b64encode(image).decode()}"{given}>'


def _pre(text: str, style: str = "") -> str:
    return f"<pre{style}>{html.escape(text)}</pre>"
