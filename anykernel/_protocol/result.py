"""`Result`: the caller's view of one execution's outputs and reply, as text, images, errors or a notebook's outputs.

And the errors that carry one. No I/O.
"""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any, Literal

from .arguments import as_integer
from .cells import to_nbformat
from .dates import parse_date
from .errors import ArgumentError, ResultCarryingError
from .fold import OutputFold
from .images import Image, image_of
from .outputs import DisplayData, ErrorOutput, ExecuteResult, Output, Stream, error_output, error_text
from .reading import Reading, left_out, read, shorten
from .showing import as_bundle
from .text import printable, terminal_text

__all__ = [
    "ExecutionAbortedError",
    "ExecutionError",
    "ExecutionTimeoutError",
    "Record",
    "Result",
    "error_of",
    "failure_of",
    "timeout_error",
]


# What replies say of an exception that they do not know.
_NAMELESS = frozenset({"", "Error", "NoneType"})


class Losses:
    """Whether something is missing in an execution's result that is not missing in its fold.

    (An object of its own: a stream that is received by nobody must not keep the whole result.)
    """

    __slots__ = ("any",)

    def __init__(self) -> None:
        self.any = False

    def note(self) -> None:
        """A consumer of the outputs was too slow, or something of a message could not be kept."""
        self.any = True


class Record:
    """What has come of one execution: the execution writes it, its `Result` shows it."""

    __slots__ = (
        "complete",
        "duration",
        "ended",
        "execution_count",
        "fold",
        "incomplete_reason",
        "losses",
        "metadata",
        "queued",
        "reply",
        "sent",
        "started",
    )

    def __init__(self, fold: OutputFold) -> None:
        self.fold = fold
        self.reply: dict[str, Any] = {}
        """The content of the reply."""
        self.metadata: dict[str, Any] = {}
        self.execution_count: int | None = None
        self.complete = False
        self.incomplete_reason: str | None = None
        self.losses = Losses()
        self.duration: float | None = None
        self.queued: str = ""
        """When, as the request's header says."""
        self.sent: float | None = None
        """When (time.time)."""
        self.started: tuple[Any, float] | None = None
        """When, as the kernel says, and when that was seen here (time.time)."""
        self.ended: tuple[Any, float] | None = None


class Result:
    """What one execution gave: complete once it has settled, partial before and in errors.

    ``outputs`` may still change after that: a display that another cell updates changes where it is shown.
    """

    __slots__ = {
        "_record": None,
        "msg_id": "Id of the request, which is the ``parent_header.msg_id`` of all its messages.",
    }

    def __init__(self, msg_id: str, record: Record) -> None:
        self.msg_id = msg_id
        self._record = record

    @property
    def complete(self) -> bool:
        """Whether all of it is here: the reply, the end of the output (idle), and no output may have been missed."""
        return self._record.complete

    @property
    def incomplete_reason(self) -> str | None:
        """Why `complete` is False, though it has settled; None where it is True, or where an error tells the reason."""
        return self._record.incomplete_reason

    @property
    def duration(self) -> float | None:
        """Seconds from the kernel's busy to its idle, as seen here; None while it runs or if it never ran."""
        return self._record.duration

    @property
    def queued_at(self) -> datetime | None:
        """When the call was made, by this machine's clock (aware, UTC, as are the others)."""
        return _time_of(self._record.queued, None)

    @property
    def sent_at(self) -> datetime | None:
        """When the request was sent to the kernel, by this machine's clock; None before that, and if it never was."""
        return _time_of(None, self._record.sent)

    @property
    def started_at(self) -> datetime | None:
        """When the kernel began with it, by the kernel's clock: the date in the header of its "busy".

        Where that has none, when it was seen here. None before that, and if it never ran.
        """
        return None if self._record.started is None else _time_of(*self._record.started)

    @property
    def ended_at(self) -> datetime | None:
        """When the kernel was done with it, by the kernel's clock: the date in the header of its "idle".

        Where there was none (the kernel died, say), when that was seen here. None before that, and if it never ran.
        """
        return None if self._record.ended is None else _time_of(*self._record.ended)

    @property
    def execution_count(self) -> int | None:
        """The kernel's number for it, as in ``In [1]``; None for silent code, and before it runs."""
        return self._record.execution_count

    @property
    def metadata(self) -> dict[str, Any]:
        """The reply's metadata."""
        return self._record.metadata

    @property
    def status(self) -> Literal["ok", "error", "aborted"] | None:
        """The reply's status; None while there is no reply."""
        status = self._record.reply.get("status")
        return status if status in ("ok", "error", "aborted") else None

    @property
    def ok(self) -> bool:
        """Whether the code ran to its end without an exception."""
        return self.status == "ok"

    @property
    def outputs(self) -> list[Output]:
        """The outputs in order, as a notebook would show them; what `Output` widgets captured stands among them."""
        return self._record.fold.outputs.copy()

    @property
    def truncated(self) -> bool:
        """Whether something is missing: what ``output_limit`` had no room for (of the outputs, from their middle; of
        expressions and payloads; for a consumer that was too slow), or what cannot be represented.
        """
        return self._record.fold.dropped > 0 or self._record.losses.any

    @property
    def stdout(self) -> str:
        """All text written to stdout."""
        return "".join(o.text for o in self._record.fold.outputs if isinstance(o, Stream) and o.name == "stdout")

    @property
    def stderr(self) -> str:
        """All text written to stderr."""
        return "".join(o.text for o in self._record.fold.outputs if isinstance(o, Stream) and o.name == "stderr")

    @property
    def data(self) -> dict[str, Any]:
        """The MIME bundle of the last expression's value; empty where there is none."""
        for output in reversed(self._record.fold.outputs):
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
            for output in self._record.fold.outputs
            if isinstance(output, DisplayData | ExecuteResult) and (image := image_of(output.data)) is not None
        ]

    @property
    def error(self) -> ErrorOutput | None:
        """The exception that ended the code, if one did.

        One that the code itself only showed (``showtraceback()``, ``%run``) is among the outputs, and not here.
        """
        if self.status not in ("error", None):
            return None
        replied = error_output(self._record.reply) if self.status == "error" else None
        if replied is not None and replied.ename not in _NAMELESS:
            return replied
        # No reply yet, or one that does not know: IPython's, where the error was raised while a value was shown.
        for output in reversed(self._record.fold.outputs):
            if isinstance(output, ErrorOutput):
                return output
        return replied

    @property
    def user_expressions(self) -> dict[str, Any]:
        """The reply's user expressions: a MIME bundle or an error each, as the protocol gives them."""
        expressions = self._record.reply.get("user_expressions")
        return expressions if isinstance(expressions, dict) else {}

    @property
    def payload(self) -> list[dict[str, Any]]:
        """The reply's payloads, such as ``{"source": "ask_exit"}`` after ``exit()``; an old protocol feature."""
        payload = self._record.reply.get("payload")
        return payload if isinstance(payload, list) else []

    @property
    def text(self) -> str:
        """What a person or a language model would read: all output in order, without ANSI sequences."""
        return self._read().text

    def render(self, max_chars: int | None = None) -> str:
        """`text` without its middle, for language models: never more than ``max_chars`` characters, notes included.

        What is kept before anything else is the end of the last traceback: what was raised, and as many of the last frames as
        there is room for. The rest is divided between the beginning and the end. Where something is missing stands how
        much, as in ``[... 1234 characters left out ...]``, or ``[...]`` where that would take too much room itself.

        Args:
            max_chars: how long it may be, in characters (code points); None for all of `text`.

        Raises:
            ArgumentError: ``max_chars`` is no positive integer.
        """
        limit = as_integer(max_chars)
        if max_chars is not None and (limit is None or limit < 1):
            raise ArgumentError(f"max_chars must be None or a positive integer, not {max_chars!r}")
        return self.text if limit is None else shorten(self._read(), limit)

    def _read(self) -> Reading:
        return read(self._record.fold.outputs, self._record.fold.gap, self._left_out)

    def raise_for_error(self) -> Result:
        """Return this result if the code ran to its end.

        Raises:
            ExecutionError: the code raised.
            ExecutionAbortedError: the code never ran.
        """
        failure = failure_of(self)
        if failure is not None:
            raise failure
        return self

    def to_nbformat(self, *, captured: bool = True) -> list[dict[str, Any]]:
        """The outputs as the ``outputs`` of a notebook's code cell (nbformat 4).

        Plain dicts: ``nbformat.from_dict`` makes a whole notebook's nodes of them. Where the limit dropped outputs, there
        is one on stderr that says so.

        Args:
            captured: with what `Output` widgets captured. A notebook that keeps the state of its widgets (`Kernel.widgets`)
                has that there.
        """
        return [to_nbformat(output) for output in self._noted(captured=captured)]

    def _repr_mimebundle_(
        self,
        include: object = None,  # noqa: ARG002 - who asks leaves out what it does not want
        exclude: object = None,  # noqa: ARG002
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """What a notebook shows where this is a cell's value: the outputs, as its own kernel's would be.

        Widgets are shown by their text: a front end cannot reach those of another kernel.
        """
        return as_bundle(self._noted(captured=True), self.text)

    def _noted(self, *, captured: bool) -> list[Output]:
        """The outputs, with a note where some are missing."""
        fold = self._record.fold
        outputs, gap = (fold.outputs.copy(), fold.gap) if captured else fold.uncaptured()
        if gap is not None:
            outputs.insert(gap, Stream("stderr", self._left_out))
        return outputs

    @property
    def _left_out(self) -> str:
        return left_out(self._record.fold.dropped, "bytes of output") + "\n"

    def __repr__(self) -> str:
        # Only the beginning is made into text: there may be much of it.
        shown = terminal_text("".join(output.text[:200] for output in self.outputs[:5]))
        if len(shown) > 60:
            shown = shown[:57] + "..."
        return f"<Result {self.status or 'partial'} [{self.execution_count}] {shown!r}>"


class ExecutionError(ResultCarryingError):
    """Raised for code that raised, by ``check=True`` and `Result.raise_for_error`."""

    result: Result | None

    def __init__(self, ename: str, evalue: str, traceback: list[str], *, result: Result | None = None) -> None:
        super().__init__(printable(error_text(ename, evalue)), result=result)
        self.ename = ename
        self.evalue = evalue
        self.traceback = traceback


class ExecutionTimeoutError(ResultCarryingError, TimeoutError):
    """Raised when an execution outlives its ``timeout``.

    It was interrupted if it was running, and never runs if it was not.
    """

    result: Result
    """What it had put out until then."""

    def __init__(self, message: str, *, result: Result, settled: bool) -> None:
        super().__init__(message, result=result)
        self.settled = settled
        """Whether the kernel is free again. False: the code ignored the interrupts and runs on."""


class ExecutionAbortedError(ResultCarryingError):
    """Raised for code that never ran, by ``check=True`` and `Result.raise_for_error`."""

    result: Result | None


def _time_of(date: Any, seen: float | None) -> datetime | None:
    """An aware time, of a header's date if it is one, or of when it was seen."""
    time = parse_date(date)
    return datetime.fromtimestamp(seen, timezone.utc) if time is None and seen is not None else time


def error_of(content: dict[str, Any], result: Result | None = None) -> ExecutionError:
    """The error that a reply with status ``"error"`` tells."""
    error = error_output(content)
    return ExecutionError(error.ename, error.evalue, error.traceback, result=result)


def failure_of(result: Result) -> ExecutionError | ExecutionAbortedError | None:
    """What `Result.raise_for_error` raises."""
    if result.status == "error":
        error = result.error
        assert error is not None
        return ExecutionError(error.ename, error.evalue, error.traceback, result=result)
    if result.status == "aborted":
        text = "the code never ran: it was aborted, or cancelled while it was queued"
        return ExecutionAbortedError(text, result=result)
    return None


def timeout_error(result: Result, timeout: float, interrupt_timeout: float, state: str) -> ExecutionTimeoutError:
    """The error of an execution that has outlived its timeout and is in this state now."""
    text = f"the code did not finish within {timeout} s"
    if result.status == "aborted":
        text += "; it was still queued and never runs"
    elif state == "settled":
        text += "; it was interrupted"
    elif state == "sent":
        text += "; the kernel has not begun with it, and it is interrupted as soon as it does"
    else:
        text += f"; it ignored interrupts for {interrupt_timeout} s and runs on: restart() or leaving the block ends it"
    return ExecutionTimeoutError(text, result=result, settled=state == "settled")
