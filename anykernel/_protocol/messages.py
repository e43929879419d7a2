"""Messages of the Jupyter protocol: what every transport delivers and accepts. No I/O."""

from typing import Any

import msgspec

__all__ = ["END_OF_INPUT", "Frame", "Message", "RawMessage", "is_idle"]

Frame = bytes | memoryview

# What Jupyter kernels take for the end of stdin.
END_OF_INPUT = "\x04"


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
    memory: int = 0
    """Bytes that it takes in memory, about, but for what every message takes; 0 where nobody has looked."""
    left_out: str | None = None
    """What of it is not here, and why; None where nothing is missing.

    That is what cannot be represented (JSON that is nested too deeply, say), and what ``output_limit`` has no room for.
    """

    @property
    def msg_type(self) -> str:
        """What kind of message it is, such as ``"execute_reply"``."""
        return self.header["msg_type"]  # type: ignore[no-any-return]

    @property
    def msg_id(self) -> str:
        """The message's own id."""
        return self.header["msg_id"]  # type: ignore[no-any-return]

    @property
    def weight(self) -> int:
        """What keeping it takes: bytes in memory where somebody has looked, else its size."""
        return self.memory or self.size

    @property
    def parent_id(self) -> str | None:
        """The ``msg_id`` of the request that caused this message, if the kernel says which."""
        return self.parent_header.get("msg_id")


class RawMessage(Message, frozen=True):
    """A message of which metadata and content are not decoded yet; `partial.read_rest` does, as far as there is room."""

    raw_metadata: Frame = b"{}"
    raw_content: Frame = b"{}"
    broken: bool = False
    """Whether decoding them as a whole has failed."""


def is_idle(message: Message) -> bool:
    """Whether the kernel says with this that it is done with a request."""
    return message.msg_type == "status" and message.content.get("execution_state") == "idle"
