"""What a transport promises, and what it may expect of whoever takes what it receives.

A transport carries the messages of one connection to one kernel process. It may lose that process and find it again (over
a network), and it never reaches another: what was sent to one process can then never be run by the next.

Sending is synchronous for every transport. Over ZMQ one multipart send is one call. One that writes to a byte stream
queues what it is handed, encoded, and writes it in a task of its own, the only one that writes: that is its send lock, and
a caller that is cancelled never leaves half a message behind.
"""

from __future__ import annotations

from collections import Counter
from typing import Protocol

import anyio

from .._protocol import Message
from .request import Ending

__all__ = ["Receiver", "Transport"]


class Receiver(Protocol):
    """Takes what a transport receives, and how it fares; none of this waits or raises."""

    def deliver(self, message: Message) -> None:
        """A message came."""

    def lost(self) -> None:
        """The kernel is out of reach, perhaps for a while: nothing is to be concluded from its silence."""

    def found(self) -> None:
        """It is in reach again."""

    def missed(self, msg_id: str | None, reason: str) -> None:
        """Output that a request (or, with None, any request) caused may not have arrived, for this reason."""

    def gave_up(self, msg_id: str, ending: Ending) -> None:
        """What became of a request cannot be told any more: it is to end with this."""


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
            ArgumentError: the content has no JSON form, a buffer is none, or it is larger than the other end takes.
            ConnectionClosedError: the transport is closed.
        """

    async def read(self, channel: str, receiver: Receiver) -> None:
        """Deliver each message of a channel, in order, until cancelled.

        Never raises for what the peer sent.
        """

    async def connected(self) -> None:
        """Wait until all channels can carry messages both ways."""

    async def disconnected(self) -> Ending | None:
        """Wait until the kernel's end goes away for good after it was there; why, where the transport knows."""
        ...

    async def drain(self) -> None:
        """Once the kernel's end has gone away: wait until what it had sent before has been delivered.

        Bounded, also where something keeps the connection open.
        """

    def mute(self) -> None:
        """Deliver nothing any more: what comes is dropped unread, so that it takes no memory while a kernel is ended."""

    async def beat(self, timeout: float) -> bool:
        """Send one heartbeat and wait up to ``timeout`` seconds for its echo; whether it came."""
        ...

    async def nudge(self) -> None:
        """Give the kernel's end a sign to look for what it was sent, where the transport has one; it is no message."""

    def close(self) -> None:
        """Let go of everything; no `read` may be running any more."""
