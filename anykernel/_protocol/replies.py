"""The typed contents of replies. No I/O.

They keep the protocol's field names, and can be indexed like the content they were made from (``reply["matches"]``).
"""

from typing import Any, TypeVar

import msgspec

from .errors import ProtocolError
from .result import error_of

__all__ = [
    "CommInfoReply",
    "CompleteReply",
    "DebugReply",
    "HistoryReply",
    "InspectReply",
    "IsCompleteReply",
    "KernelInfo",
    "UsageReply",
    "read_reply",
]


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
