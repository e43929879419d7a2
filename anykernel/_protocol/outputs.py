"""The outputs of an execution, typed. No I/O."""

import re
from typing import Any

import msgspec

from .bundles import bundle_text
from .errors import ProtocolError
from .text import terminal_text

__all__ = [
    "OUTPUT_TYPES",
    "DisplayData",
    "ErrorOutput",
    "ExecuteResult",
    "Output",
    "Stream",
    "error_output",
    "error_text",
    "pages_of",
    "parse_output",
]


class Stream(msgspec.Struct, frozen=True, gc=False):
    """Text written to stdout or stderr."""

    name: str
    """``"stdout"`` or ``"stderr"``."""
    text: str
    """As it was written, control sequences included."""

    @property
    def plain(self) -> str:
        """`text` as a terminal would show it: without control sequences, with what they do carried out."""
        return terminal_text(self.text)


class DisplayData(msgspec.Struct, frozen=True):
    """Something displayed: one object in several MIME types."""

    data: dict[str, Any]
    metadata: dict[str, Any] = {}
    display_id: str | None = None
    """The id under which a later ``update_display_data`` changes this output."""

    @property
    def text(self) -> str:
        """What a person would read: its ``text/plain``, or the richest text there is where that says nothing."""
        return bundle_text(self.data)

    @property
    def plain(self) -> str:
        """`text` as a terminal would show it: without control sequences, with what they do carried out."""
        return terminal_text(self.text)


class ExecuteResult(msgspec.Struct, frozen=True):
    """The value of the code's last expression, in several MIME types."""

    data: dict[str, Any]
    metadata: dict[str, Any] = {}
    execution_count: int | None = None
    display_id: str | None = None

    @property
    def text(self) -> str:
        """What a person would read: its ``text/plain``, or the richest text there is where that says nothing."""
        return bundle_text(self.data)

    @property
    def plain(self) -> str:
        """`text` as a terminal would show it: without control sequences, with what they do carried out."""
        return terminal_text(self.text)


class ErrorOutput(msgspec.Struct, frozen=True):
    """An exception that ended the code."""

    ename: str
    evalue: str
    traceback: list[str]
    """Lines for a terminal, mostly with ANSI colours."""

    @property
    def text(self) -> str:
        """The traceback, or name and value where the kernel gives none."""
        return "\n".join(self.traceback) or error_text(self.ename, self.evalue)

    @property
    def plain(self) -> str:
        """`text` as a terminal would show it: without its colours."""
        return terminal_text(self.text)


Output = Stream | DisplayData | ExecuteResult | ErrorOutput

OUTPUT_TYPES = frozenset({"stream", "display_data", "execute_result", "error"})
"""The types of the messages that `parse_output` makes new outputs of."""


# How xeus-python names an exception.
_CLASS = re.compile(r"<class '(?:[\w.<>]*\.)?(\w+)'>")


def error_text(ename: str, evalue: str) -> str:
    """Name and value of an exception in a line; kernels may leave out either (bash's errors are an exit status)."""
    return f"{ename or 'the code failed'}: {evalue}" if evalue else ename or "the code failed"


def error_output(content: dict[str, Any]) -> ErrorOutput:
    """The exception that the content of an ``error`` message, or of a reply, tells; some kernels leave out any of its fields."""
    traceback, ename = content.get("traceback"), str(content.get("ename", "Error"))
    if (named := _CLASS.fullmatch(ename)) is not None:
        ename = named[1]
    return ErrorOutput(
        ename,
        str(content.get("evalue", "")),
        [str(line) for line in traceback] if isinstance(traceback, list) else [],
    )


def pages_of(reply: dict[str, Any]) -> list[DisplayData]:
    """What a reply's payloads want to be shown in a pager, such as help."""
    payloads = reply.get("payload")
    return [
        DisplayData(payload["data"])
        for payload in (payloads if isinstance(payloads, list) else [])
        if isinstance(payload, dict) and payload.get("source") == "page" and isinstance(payload.get("data"), dict)
    ]


def parse_output(msg_type: str, content: dict[str, Any], left_out: str | None = None) -> Output:
    """Make the typed output of an IOPub message's content, of which something may have been left out: then it says so.

    Raises:
        ProtocolError: the content does not have the shape the protocol gives it.
    """
    if left_out is not None:
        return _with_note(msg_type, content, f"[... left out: {left_out} ...]")
    if msg_type == "stream":
        name, text = content.get("name", "stdout"), content.get("text")
        if not (isinstance(text, str) and isinstance(name, str)):
            raise ProtocolError("a stream message without text")
        return Stream(name, text)
    if msg_type == "error":
        return error_output(content)
    data, metadata = content.get("data"), content.get("metadata")
    if not isinstance(data, dict):
        raise ProtocolError(f"a {msg_type} message without data")
    if not isinstance(metadata, dict):
        metadata = {}
    # `transient` may be None (seen with several kernels).
    transient = content.get("transient")
    display_id = transient.get("display_id") if isinstance(transient, dict) else None
    if not isinstance(display_id, str):
        display_id = None
    if msg_type == "execute_result":
        count = content.get("execution_count")
        return ExecuteResult(data, metadata, count if type(count) is int and count >= 0 else None, display_id)
    return DisplayData(data, metadata, display_id)


def _with_note(msg_type: str, content: dict[str, Any], note: str) -> Output:
    try:
        output = parse_output(msg_type, content)
    except ProtocolError:
        return DisplayData({"text/plain": note})
    if isinstance(output, Stream):
        return Stream(output.name, f"{output.text}\n{note}\n")
    if isinstance(output, ErrorOutput):
        return msgspec.structs.replace(output, traceback=[*output.traceback, note])
    text = output.data.get("text/plain")
    text = f"{text}\n{note}" if isinstance(text, str) else note
    return msgspec.structs.replace(output, data={**output.data, "text/plain": text})
