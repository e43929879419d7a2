"""What a transport promises.

A transport carries the messages of one connection. It is made per kernel process and never reconnects: what
was sent to one process can then never reach the next.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Protocol

import anyio

from .._protocol import Message

__all__ = ["Deliver", "Transport"]

Deliver = Callable[[Message], None]


class Transport(Protocol):
    """The messages of one connection to one kernel process."""

    channels: tuple[str, ...]
    """What `read` is to be run for, one task each."""

    dropped: Counter[str]
    """Received messages that were dropped, by reason."""

    mistrusted: anyio.Event
    """Set once a message was dropped for its signature, or the kernel speaks another encryption."""

    def send(self, message: Message) -> None:
        """Hand over one message, to be sent in order; never waits.

        Being synchronous makes a request either registered and sent, or neither, whatever is cancelled.

        Raises:
            ArgumentError: the content has no JSON form, or a buffer is none.
            ConnectionClosedError: the transport is closed.
        """

    async def read(self, channel: str, deliver: Deliver) -> None:
        """Call ``deliver`` for each message of a channel, in order, until cancelled.

        Never raises for what the peer sent.
        """

    async def connected(self) -> None:
        """Wait until all channels can carry messages both ways."""

    async def disconnected(self) -> None:
        """Wait until the kernel's end goes away after it was there."""

    async def beat(self, timeout: float) -> bool:
        """Send one heartbeat and wait up to ``timeout`` seconds for its echo; whether it came."""

    def close(self) -> None:
        """Let go of everything; no `read` may be running any more."""
