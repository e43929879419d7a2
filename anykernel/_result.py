"""`Result`: the caller's view of one execution's outputs and reply, as text, images, errors or a notebook's outputs."""

from __future__ import annotations

import base64
import binascii
import json
import re
from typing import Any, Literal

from ._exceptions import ExecutionAbortedError, ExecutionError, ExecutionTimeoutError
from ._messages import error_of
from ._outputs import DisplayData, ErrorOutput, ExecuteResult, Output, OutputFold, Stream, error_output

__all__ = ["Image", "Result", "terminal_text"]

# CSI sequences (colours, cursor; but not those that are carried out: "erase in line", and the cursor up and down), strings
# (titles, links, graphics; ended by BEL or ST), other escapes (character sets, saved cursor), and an escape character
# that introduces nothing.
_ANSI = re.compile(
    r"\x1b(?:\[(?![012]?K|[0-9]{0,4}[AB])[0-?]*[ -/]*[@-~]|[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)|[ -/]+[0-~]"
    r"|(?!\[[012]?K|\[[0-9]{0,4}[AB])[0-~]|(?!\[))"
)
_UP_OR_DOWN = re.compile(r"\x1b\[[0-9]{0,4}[AB]")
_MOVES = re.compile(r"(\r|\x08|\n|\x1b\[[012]?K|\x1b\[[0-9]{0,4}[AB])")


def terminal_text(text: str) -> str:
    """What a terminal would show: ANSI sequences removed; movements of the cursor and erasures carried out."""
    if "\x1b" in text:
        text = _ANSI.sub("", text)
    if "\r" not in text and "\b" not in text and "\x1b" not in text:
        return text
    text = text.replace("\r\n", "\n")
    # Lines take much more memory as cells than as text: only those that need it, where none depends on another.
    pieces = [text] if _UP_OR_DOWN.search(text) else text.split("\n")
    return "\n".join(_on_screen(piece) if _MOVES.search(piece) else piece for piece in pieces)


def _on_screen(text: str) -> str:
    lines, row, column = [_Line()], 0, 0
    for part in _MOVES.split(text):
        if part == "\n":
            row, column = row + 1, 0
        elif part == "\r":
            column = 0
        elif part == "\b":
            column = max(0, column - 1)
        elif part.startswith("\x1b"):
            if part[-1] == "K":
                lines[row].erase(part[2], column)
            else:
                count = int(part[2:-1] or 1)
                row = max(0, row - count) if part[-1] == "A" else min(row + count, len(lines) - 1)
        elif part:
            lines[row].write(part, column)
            column += len(part)
        if row == len(lines):
            lines.append(_Line())
    return "\n".join(line.text for line in lines)


class _Line:
    """A line of a terminal. Takes time in proportion to what is done to it: nothing is erased twice."""

    __slots__ = ("_blank", "_cells", "_start")

    def __init__(self) -> None:
        self._cells: list[str] = []
        self._start = 0  # of the cells: before it, all is blank
        self._blank = 0  # as far as is known, all before it is blank

    @property
    def text(self) -> str:
        return " " * self._start + "".join(self._cells) if self._cells else ""

    def write(self, text: str, column: int) -> None:
        cells = self._cells
        if not cells:
            self._start = self._blank = column
        elif column < self._start:
            cells[:0] = " " * (self._start - column)
            self._start = column
        column -= self._start
        cells.extend(" " * (column - len(cells)))
        cells[column : column + len(text)] = text
        self._blank = min(self._blank, column + self._start)

    def erase(self, mode: str, column: int) -> None:
        """Erase to the end (``"0"``, or none), from the beginning (``"1"``), or all of it (``"2"``)."""
        start = self._start
        if mode == "2":
            self._cells.clear()
        elif mode == "1":
            end = min(column + 1, start + len(self._cells))
            if self._blank < end:
                first = max(self._blank, start)
                self._cells[first - start : end - start] = " " * (end - first)
                self._blank = end
        else:
            del self._cells[max(0, column - start) :]


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
        """The outputs in order, as a notebook would show them; what `Output` widgets captured stands among them."""
        return self._fold.outputs.copy()

    @property
    def truncated(self) -> bool:
        """Whether ``output_limit`` dropped output: from the middle, or for a consumer that was too slow."""
        return self._fold.dropped > 0 or self._missed

    @property
    def stdout(self) -> str:
        """All text written to stdout."""
        return "".join(o.text for o in self._fold.outputs if isinstance(o, Stream) and o.name == "stdout")

    @property
    def stderr(self) -> str:
        """All text written to stderr."""
        return "".join(o.text for o in self._fold.outputs if isinstance(o, Stream) and o.name == "stderr")

    @property
    def data(self) -> dict[str, Any]:
        """The MIME bundle of the last expression's value; empty where there is none."""
        for output in reversed(self._fold.outputs):
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
            for output in self._fold.outputs
            if isinstance(output, DisplayData | ExecuteResult) and (image := _image(output.data)) is not None
        ]

    @property
    def error(self) -> ErrorOutput | None:
        """The exception that ended the code, if one did."""
        if self.status == "error":
            return error_output(self._reply)
        for output in reversed(self._fold.outputs):
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
        for index, output in enumerate((*self._fold.outputs, None)):
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

    def _timeout_error(self, timeout: float, interrupt_timeout: float, state: str) -> ExecutionTimeoutError:
        text = f"the code did not finish within {timeout} s"
        if self.status == "aborted":
            text += "; it was still queued and never runs"
        elif state == "settled":
            text += "; it was interrupted"
        elif state == "sent":
            text += "; the kernel has not begun with it, and it is interrupted as soon as it does"
        else:
            text += (
                f"; it ignored interrupts for {interrupt_timeout} s and runs on: restart() or leaving the block ends it"
            )
        return ExecutionTimeoutError(text, result=self, settled=state == "settled")

    def to_nbformat(self) -> list[dict[str, Any]]:
        """The outputs as the ``outputs`` of a notebook's code cell (nbformat 4).

        Plain dicts: ``nbformat.from_dict`` makes a whole notebook's nodes of them. Where the limit dropped outputs, there
        is one on stderr that says so.
        """
        outputs = [_to_nbformat(output) for output in self._fold.outputs]
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
