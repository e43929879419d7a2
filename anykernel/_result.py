"""`Result`: the caller's view of one execution's outputs and reply, as text, images, errors or a notebook's outputs."""

from __future__ import annotations

import base64
import binascii
import json
import re
from typing import Any, Literal

from ._exceptions import ExecutionAbortedError, ExecutionError
from ._messages import error_of
from ._outputs import DisplayData, ErrorOutput, ExecuteResult, Output, OutputFold, Stream, error_output

__all__ = ["Image", "Result", "terminal_text"]

# CSI sequences (colours, cursor; but not "erase in line", which is carried out), strings (titles, links, graphics;
# ended by BEL or ST), other escapes (character sets, saved cursor), and an escape character that introduces nothing.
_ANSI = re.compile(
    r"\x1b(?:\[(?![012]?K)[0-?]*[ -/]*[@-~]|[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)|[ -/]+[0-~]|(?!\[[012]?K)[0-~]|(?!\[))"
)
_MOVES = re.compile(r"(\r|\x08|\x1b\[[012]?K)")


def terminal_text(text: str) -> str:
    """What a terminal would show: ANSI sequences removed; carriage returns, backspaces and erasures carried out."""
    if "\x1b" in text:
        text = _ANSI.sub("", text)
    if "\r" not in text and "\b" not in text and "\x1b" not in text:
        return text
    lines = text.replace("\r\n", "\n").split("\n")
    return "\n".join(_overwrite(line) if _MOVES.search(line) else line for line in lines)


def _overwrite(line: str) -> str:
    # Takes time in proportion to the line, whatever it does: what is erased is neither stored nor erased twice.
    cells: list[str] = []
    column = 0
    start = 0  # of what is stored: before it, all is blank
    blank = 0  # as far as is known, all before it is blank
    for part in _MOVES.split(line):
        if part == "\r":
            column = 0
        elif part == "\b":
            column = max(0, column - 1)
        elif part in ("\x1b[K", "\x1b[0K"):
            del cells[max(0, column - start) :]
        elif part == "\x1b[1K":
            end = min(column + 1, start + len(cells))
            if blank < end:
                cells[max(0, blank - start) : end - start] = " " * (end - max(blank, start))
                blank = end
        elif part == "\x1b[2K":
            cells.clear()
        elif part:
            if not cells:
                start = blank = column
            elif column < start:
                cells[:0] = " " * (start - column)
                start = column
            cells.extend(" " * (column - start - len(cells)))
            cells[column - start : column - start + len(part)] = part
            blank = min(blank, column)
            column += len(part)
    return " " * start + "".join(cells) if cells else ""


class Result:
    """What one execution gave: complete once it has settled, partial before and in errors.

    ``outputs`` may still change after that: a display that another cell updates changes where it is shown.
    """

    __slots__ = {
        **dict.fromkeys(("_fold", "_missed", "_reply")),
        "complete": "Whether both the reply and the end of the output (idle) have come.",
        "duration": "Seconds from the kernel's busy to its idle, as seen here; None while it runs or if it never ran.",
        "execution_count": "The kernel's number for it, as in ``In [1]``; None for silent code, and before it runs.",
        "metadata": "The reply's metadata.",
        "msg_id": "Id of the request, which is the ``parent_header.msg_id`` of all its messages.",
    }

    def __init__(self, msg_id: str, fold: OutputFold) -> None:
        self._fold = fold
        self._missed = False
        self._reply: dict[str, Any] = {}
        self.msg_id = msg_id
        self.execution_count: int | None = None
        self.complete = False
        self.duration: float | None = None
        self.metadata: dict[str, Any] = {}

    @property
    def status(self) -> Literal["ok", "error", "aborted"] | None:
        """The reply's status; None while there is no reply."""
        status = self._reply.get("status")
        return status if status in ("ok", "error", "aborted") else None

    @property
    def ok(self) -> bool:
        """Whether the code ran to its end without an exception."""
        return self.status == "ok"

    @property
    def outputs(self) -> list[Output]:
        """The outputs in order, as a notebook would show them."""
        return self._fold.outputs

    @property
    def truncated(self) -> bool:
        """Whether ``output_limit`` dropped output: from the middle, or for a consumer that was too slow."""
        return self._fold.dropped > 0 or self._missed

    @property
    def stdout(self) -> str:
        """All text written to stdout."""
        return "".join(o.text for o in self.outputs if isinstance(o, Stream) and o.name == "stdout")

    @property
    def stderr(self) -> str:
        """All text written to stderr."""
        return "".join(o.text for o in self.outputs if isinstance(o, Stream) and o.name == "stderr")

    @property
    def data(self) -> dict[str, Any]:
        """The MIME bundle of the last expression's value; empty where there is none."""
        for output in reversed(self.outputs):
            if isinstance(output, ExecuteResult):
                return output.data
        return {}

    @property
    def images(self) -> list[Image]:
        """The images among displays and result, decoded: PNG, JPEG, GIF, WebP or (as UTF-8) SVG, one for each output.

        They are bytes, with their ``mime`` type.
        """
        return [
            image
            for output in self.outputs
            if isinstance(output, DisplayData | ExecuteResult) and (image := _image(output.data)) is not None
        ]

    @property
    def error(self) -> ErrorOutput | None:
        """The exception that ended the code, if one did."""
        if self.status == "error":
            return error_output(self._reply)
        for output in reversed(self.outputs):
            if isinstance(output, ErrorOutput):
                return output
        return None

    @property
    def user_expressions(self) -> dict[str, Any]:
        """The reply's user expressions: a MIME bundle or an error each, as the protocol gives them."""
        expressions = self._reply.get("user_expressions")
        return expressions if isinstance(expressions, dict) else {}

    @property
    def payload(self) -> list[dict[str, Any]]:
        """The reply's payloads, such as ``{"source": "ask_exit"}`` after ``exit()``; an old protocol feature."""
        payload = self._reply.get("payload")
        return payload if isinstance(payload, list) else []

    @property
    def text(self) -> str:
        """What a person or a language model would read: all output in order, without ANSI sequences."""
        parts: list[str] = []
        for index, output in enumerate((*self.outputs, None)):
            # Each starts on a line of its own, the two streams too, as in a notebook: which of their texts comes
            # first is up to the kernel's buffers.
            part = "" if output is None else terminal_text(output.text)
            cut = index == self._fold.gap
            if (part or cut) and parts and not parts[-1].endswith("\n"):
                parts.append("\n")
            if cut:
                parts.append(self._left_out)
            if part:
                parts.append(part)
        # No text has a form for lone surrogates; what is read here goes on to files and other services.
        return "".join(parts).encode("utf-8", "replace").decode()

    def raise_for_error(self) -> Result:
        """Return this result if the code ran to its end.

        Raises:
            ExecutionError: the code raised.
            ExecutionAbortedError: the code never ran.
        """
        failure = self._failure()
        if failure is not None:
            raise failure
        return self

    def _failure(self) -> ExecutionError | ExecutionAbortedError | None:
        if self.status == "error":
            return error_of(self._reply, self)
        if self.status == "aborted":
            text = "the code never ran: it was aborted, or cancelled while it was queued"
            return ExecutionAbortedError(text, result=self)
        return None

    def to_nbformat(self) -> list[dict[str, Any]]:
        """The outputs as the ``outputs`` of a notebook's code cell (nbformat 4).

        Plain dicts: ``nbformat.from_dict`` makes a whole notebook's nodes of them. Where the limit dropped outputs, there
        is one on stderr that says so.
        """
        outputs = [_to_nbformat(output) for output in self.outputs]
        if self._fold.gap is not None:
            outputs.insert(self._fold.gap, _to_nbformat(Stream("stderr", self._left_out)))
        return outputs

    @property
    def _left_out(self) -> str:
        return f"[... {self._fold.dropped} bytes of output left out ...]\n"

    def __repr__(self) -> str:
        # Only the beginning is made into text: there may be much of it.
        shown = terminal_text("".join(output.text[:200] for output in self.outputs[:5]))
        if len(shown) > 60:
            shown = shown[:57] + "..."
        return f"<Result {self.status or 'partial'} [{self.execution_count}] {shown!r}>"


_IMAGES = ("image/png", "image/jpeg", "image/gif", "image/webp")
_SVG = "image/svg+xml"


class Image(bytes):
    """The bytes of an image, as a file of its type has them."""

    mime: str
    """Its type, such as ``"image/png"``."""

    def __new__(cls, data: bytes, mime: str = "") -> Image:  # noqa: PYI034 - Self is new in Python 3.11
        image = super().__new__(cls, data)
        image.mime = mime
        return image


def _image(data: dict[str, Any]) -> Image | None:
    for mime in _IMAGES:
        if isinstance(encoded := data.get(mime), str):
            try:
                return Image(base64.b64decode(encoded), mime)
            except (binascii.Error, ValueError):
                continue
    svg = data.get(_SVG)
    return Image(svg.encode("utf-8", "replace"), _SVG) if isinstance(svg, str) else None


def _to_nbformat(output: Output) -> dict[str, Any]:
    if isinstance(output, Stream):
        return {"output_type": "stream", "name": output.name, "text": _valid(output.text)}
    if isinstance(output, ErrorOutput):
        return {
            "output_type": "error",
            "ename": _valid(output.ename),
            "evalue": _valid(output.evalue),
            "traceback": [_valid(line) for line in output.traceback],
        }
    bundle = {
        # Only JSON types may hold anything but text; what breaks that is written as its JSON.
        _valid(mime): _valid_json(value)
        if isinstance(value, str) or re.fullmatch(r"application/(.*\+)?json", mime)
        else json.dumps(value)
        for mime, value in output.data.items()
    }
    fields: dict[str, Any] = {"data": bundle, "metadata": _valid_json(output.metadata)}
    if isinstance(output, ExecuteResult):
        return {"output_type": "execute_result", "execution_count": output.execution_count, **fields}
    return {"output_type": "display_data", **fields}


def _valid_json(value: Any) -> Any:
    if isinstance(value, str):
        return _valid(value)
    if isinstance(value, list):
        return [_valid_json(item) for item in value]
    if isinstance(value, dict):
        return {_valid(key): _valid_json(item) for key, item in value.items()}
    return value


def _valid(text: str) -> str:
    """The text without lone surrogates, which cannot be written to a file as UTF-8."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
