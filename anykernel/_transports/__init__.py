"""What carries a kernel's messages: over ZMQ, in memory, from a recording, and into one.

Each module meets the `Transport` protocol, and passes the one contract test. They may import `anykernel._protocol` and what
`anykernel._core` says of transports, and know nothing of requests and executions. A newcomer begins with ``memory``.
"""

from typing import TYPE_CHECKING, Any

from .memory import MemoryTransport
from .recording import Line, open_recorder, read_recording
from .replay import ReplayTransport
from .script import Session, read_sessions

if TYPE_CHECKING:
    from .upgraded import WebSocket
    from .websocket import WebSocketTransport
    from .zmq import DESCRIPTORS, ZmqTransport, ensure_descriptors

__all__ = [
    "DESCRIPTORS",
    "Line",
    "MemoryTransport",
    "ReplayTransport",
    "Session",
    "WebSocket",
    "WebSocketTransport",
    "ZmqTransport",
    "ensure_descriptors",
    "open_recorder",
    "read_recording",
    "read_sessions",
]

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        if name in ("WebSocket", "WebSocketTransport"):  # what they need is an extra's
            from . import upgraded, websocket  # noqa: PLC0415

            return getattr(upgraded if name == "WebSocket" else websocket, name)
        if name in __all__:  # ZMQ takes 40 ms to import, and a replay needs none
            from . import zmq  # noqa: PLC0415

            return getattr(zmq, name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
