"""Messages of the Jupyter protocol: what every transport delivers and accepts. No I/O."""

from typing import Any

import msgspec

__all__ = ["END_OF_INPUT", "Message", "is_idle"]

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


def is_idle(message: Message) -> bool:
    """Whether the kernel says with this that it is done with a request."""
    return message.msg_type == "status" and message.content.get("execution_state") == "idle"
