"""Protocol messages and the typed contents of replies. No I/O.

`Message` is what every transport delivers and accepts. Replies keep the protocol's field names, and can be
indexed like the content they were made from (``reply["matches"]``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from ._exceptions import ArgumentError, ExecutionError, ProtocolError

if TYPE_CHECKING:
    from ._result import Result

__all__ = [
    "CommInfoReply",
    "CompleteReply",
    "DebugReply",
    "HistoryReply",
    "InspectReply",
    "IsCompleteReply",
    "KernelInfo",
    "Message",
    "Reply",
    "UsageReply",
    "as_buffers",
    "as_dict",
    "read_reply",
]


def as_dict(name: str, value: Any) -> dict[str, Any]:
    """A dict of what a caller gives for an argument that is to be a mapping; None means an empty one.

    Raises:
        ArgumentError: it is none.
    """
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ArgumentError(f"{name} must be a mapping, not {value!r:.200}")
    return dict(value)


def as_buffers(value: Any) -> tuple[bytes | memoryview, ...]:
    """The buffers of what a caller gives for them; None means none.

    Raises:
        ArgumentError: it is not several.
    """
    if isinstance(value, bytes | bytearray | memoryview | str) or not isinstance(value, Iterable | None):
        raise ArgumentError(f"buffers must be a list (or the like) of bytes, not {type(value).__name__}")
    return tuple(value or ())


class Message(msgspec.Struct, frozen=True):
    """One message of the Jupyter protocol, as received or to be sent."""

    channel: str
    """``"shell"``, ``"control"``, ``"iopub"`` or ``"stdin"``."""
    header: dict[str, Any]
    parent_header: dict[str, Any] = {}
    metadata: dict[str, Any] = {}
    content: dict[str, Any] = {}
    buffers: tuple[bytes | memoryview, ...] = ()
    size: int = 0
    """Bytes of content and buffers on the wire; 0 for messages to be sent."""

    @property
    def msg_type(self) -> str:
        """What kind of message it is, such as ``"execute_reply"``."""
        return self.header["msg_type"]  # type: ignore[no-any-return]

    @property
    def msg_id(self) -> str:
        """The message's own id."""
        return self.header["msg_id"]  # type: ignore[no-any-return]

    @property
    def parent_id(self) -> str | None:
        """The ``msg_id`` of the request that caused this message, if the kernel says which."""
        return self.parent_header.get("msg_id")


class Reply(msgspec.Struct, frozen=True):
    """Base of the typed replies: the reply's content as attributes, or by key."""

    content: dict[str, Any]
    """The content as it came, with fields that only this kernel sends."""

    def __getitem__(self, key: str) -> Any:
        return self.content[key]


class CompleteReply(Reply, frozen=True):
    """Completions, and the part of the code that each would replace (in code points)."""

    matches: list[str] = []
    cursor_start: int = 0
    cursor_end: int = 0
    metadata: dict[str, Any] = {}


class InspectReply(Reply, frozen=True):
    """What is known of an object, in several MIME types."""

    found: bool = False
    data: dict[str, Any] = {}
    metadata: dict[str, Any] = {}


class IsCompleteReply(Reply, frozen=True):
    """Whether code is ready to be run."""

    status: str = "unknown"
    """``"complete"``, ``"incomplete"``, ``"invalid"`` or ``"unknown"``."""
    indent: str = ""


class HistoryReply(Reply, frozen=True):
    """What was run, oldest first."""

    history: list[Any] = []
    """``[session, line_number, input]`` each; ``input`` is ``[input, output]`` where outputs were asked for."""


class CommInfoReply(Reply, frozen=True):
    """The comms that are open in the kernel."""

    comms: dict[str, dict[str, Any]] = {}
    """Open comms: ``comm_id`` to ``{"target_name": ...}``."""


class UsageReply(Reply, frozen=True):
    """What the kernel's process and its machine use."""

    hostname: str = ""
    pid: int = 0
    kernel_cpu: float = 0.0
    """Percent of one processor, children included, since the last such request; 0 the first time."""
    kernel_memory: int = 0
    """Bytes of resident memory, children included."""
    cpu_count: int = 0
    host_cpu_percent: float | None = None
    host_virtual_memory: dict[str, Any] = {}
    """Bytes each, as ``psutil.virtual_memory()`` in the kernel gives them."""


class DebugReply(Reply, frozen=True):
    """What the debugger answers to a command: a response of the Debug Adapter Protocol."""

    success: bool = True
    command: str = ""
    body: dict[str, Any] = {}


class KernelInfo(Reply, frozen=True):
    """What the kernel says of itself."""

    protocol_version: str = ""
    implementation: str = ""
    implementation_version: str = ""
    banner: str = ""
    language_info: dict[str, Any] = {}
    help_links: list[Any] = []
    supported_features: list[str] = []

    @property
    def language(self) -> str:
        """The name of the kernel's language, in lower case; ``""`` where it says none."""
        return str(self.language_info.get("name", "")).lower()


ReplyT = TypeVar("ReplyT", bound=Reply)


def read_reply(content: dict[str, Any], kind: type[ReplyT]) -> ReplyT:
    """Make a typed reply of a reply's content.

    Raises:
        ExecutionError: the kernel answered with an error.
        ProtocolError: the content does not have the shape the protocol gives it.
    """
    if content.get("status") == "error":
        raise error_of(content)
    try:
        # null counts as absent: kernels send it for fields they do not fill.
        fields = {key: value for key, value in content.items() if value is not None}
        return msgspec.convert({**fields, "content": content}, kind)
    except msgspec.ValidationError as exc:
        raise ProtocolError(f"the kernel sent a malformed {kind.__name__}: {exc}") from exc


def error_of(content: dict[str, Any], result: Result | None = None) -> ExecutionError:
    """The error that a reply with status ``"error"`` tells; some kernels leave out any of its fields."""
    traceback = content.get("traceback")
    return ExecutionError(
        str(content.get("ename", "Error")),
        str(content.get("evalue", "")),
        [str(line) for line in traceback] if isinstance(traceback, list) else [],
        result=result,
    )
