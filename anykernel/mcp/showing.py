"""Results as an agent wants them: text without terminal control and within a budget, images as images, short tracebacks."""

from __future__ import annotations

import base64
from typing import Any

from mcp.types import CallToolResult, ImageContent, TextContent

from .. import ErrorOutput, Result

__all__ = ["failed", "shown", "text_of"]

# Characters of output that a result shows; the rest can be read by `read_output`.
BUDGET = 20_000
# Images of one result.
MAX_IMAGES = 8
_IMAGES = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})


def text_of(result: Result) -> str:
    """All that was put out, as text; of a traceback, what is the code's own."""
    parts = []
    for output in result.outputs:
        parts.append(_traceback(output) if isinstance(output, ErrorOutput) else output.plain)
        if parts[-1] and not parts[-1].endswith("\n"):
            parts[-1] += "\n"
    return "".join(parts).encode("utf-8", "replace").decode()


def _traceback(error: ErrorOutput) -> str:
    """The frames of the cell, and what was raised: the kernel's own and the libraries' say an agent little."""
    lines = error.plain.splitlines()
    frames, current, ours = [], list[str](), False
    for line in lines:
        if line.startswith(("File ", "Cell In", "Input In", "~/", "/")) or (
            "line " in line and line.startswith("  File")
        ):
            if current and ours:
                frames.append(current)
            current, ours = [line], line.startswith(("Cell In", "Input In"))
        elif current:
            current.append(line)
    if current and ours:
        frames.append(current)
    last = lines[-1] if lines else f"{error.ename}: {error.evalue}"
    if not frames:
        return "\n".join(lines[-12:])
    body = "\n".join("\n".join(frame) for frame in frames[-3:]).rstrip()
    return body if body.endswith(last) else f"{body}\n{last}"


def shown(result: Result, *, name: str, note: str = "", error: bool | None = None) -> CallToolResult:
    """A result as a tool gives it; ``name`` is what `read_output` knows it by."""
    text = text_of(result)
    if len(text) > BUDGET:
        half = BUDGET // 2
        left_out = len(text) - 2 * half
        text = (
            f"{text[:half]}\n[... {left_out} characters left out; read_output(id={name!r}, offset={half}) reads them ...]\n"
            f"{text[len(text) - half :]}"
        )
    if result.truncated:
        text += "[the kernel's output was larger than is kept, and its middle is lost]\n"
    if note:
        text = f"{text}\n{note}" if text else note
    content: list[Any] = [TextContent(type="text", text=text or "(no output)")]
    content.extend(
        ImageContent(type="image", data=base64.b64encode(image).decode(), mime_type=image.mime)
        for image in result.images[:MAX_IMAGES]
        if image.mime in _IMAGES
    )
    return CallToolResult(content=content, is_error=not result.ok if error is None else error)


def failed(text: str) -> CallToolResult:
    """A tool that could not do what it was asked for."""
    return CallToolResult(content=[TextContent(type="text", text=text)], is_error=True)
