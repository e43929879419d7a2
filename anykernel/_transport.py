"""What a transport promises, and one in memory for tests.

A transport carries the messages of one connection. It is made per kernel process and never reconnects: what
was sent to one process can then never reach the next.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from typing import Any, Protocol

import anyio
import anyio.lowlevel

from ._exceptions import ConnectionClosedError
from ._messages import Message
from ._wire import encode_buffers, encode_parts

__all__ = ["Deliver", "MemoryTransport", "Transport"]

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


class MemoryTransport:
    """A transport whose peer is the test: it takes what was sent, and feeds what the kernel is to say."""

    channels: tuple[str, ...] = ("shell", "control", "iopub", "stdin")

    def __init__(self) -> None:
        self.dropped: Counter[str] = Counter()
        self.beating = True
        """Whether heartbeats are answered."""
        self.mistrusted = anyio.Event()
        self.gone = anyio.Event()
        """To be set when the kernel's end goes away."""
        self._closed = False
        self._to_kernel, self._sent = anyio.create_memory_object_stream[Message](math.inf)
        self._streams = {channel: anyio.create_memory_object_stream[Message](math.inf) for channel in self.channels}

    def send(self, message: Message) -> None:
        if self._closed:
            raise ConnectionClosedError("the connection is closed")
        encode_parts(message), encode_buffers(message)  # for what they refuse
        self._to_kernel.send_nowait(message)

    async def read(self, channel: str, deliver: Deliver) -> None:
        async for message in self._streams[channel][1]:
            deliver(message)

    async def connected(self) -> None:
        await anyio.lowlevel.checkpoint()

    async def disconnected(self) -> None:
        await self.gone.wait()

    async def beat(self, timeout: float) -> bool:
        await anyio.sleep(0 if self.beating else timeout)
        return self.beating

    def close(self) -> None:
        self._closed = True
        for stream in (self._to_kernel, self._sent, *(end for pair in self._streams.values() for end in pair)):
            stream.close()

    # The peer's side.

    async def receive(self) -> Message:
        """The next message that the client sent."""
        return await self._sent.receive()

    def feed(self, message: Message) -> None:
        """Let the kernel say something."""
        self._streams[message.channel][0].send_nowait(message)

    def answer(
        self,
        request: Message | None,
        channel: str,
        msg_type: str,
        content: dict[str, Any] | None = None,
        *,
        msg_id: str = "",
        **fields: Any,
    ) -> None:
        """Let the kernel say something because of a request (or, with None, on its own)."""
        header = {"msg_id": msg_id or f"kernel-{msg_type}", "msg_type": msg_type, "session": "kernel"}
        self.feed(Message(channel, header, request.header if request else {}, {}, content or {}, **fields))
