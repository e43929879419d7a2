"""A transport in memory, for tests."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import anyio
import anyio.lowlevel

from .._core import Receiver
from .._protocol import ConnectionClosedError, Message, encode_buffers, encode_parts

__all__ = ["MemoryTransport"]


class MemoryTransport:
    """A transport whose peer is the test: it takes what was sent, and feeds what the kernel is to say."""

    channels: tuple[str, ...] = ("shell", "control", "iopub", "stdin")

    def __init__(self) -> None:
        self.dropped: Counter[str] = Counter()
        self.beating = True
        """Whether heartbeats are answered."""
        self.nudges = 0
        """How often the kernel was given a sign to look for what it was sent."""
        self.mistrusted = anyio.Event()
        self.gone = anyio.Event()
        """To be set when the kernel's end goes away."""
        self.receiver: Receiver
        """Who reads; the peer may tell it that the kernel is lost and found."""
        self._closed = self._muted = False
        self._to_kernel, self._sent = anyio.create_memory_object_stream[Message](math.inf)
        self._streams = {channel: anyio.create_memory_object_stream[Message](math.inf) for channel in self.channels}

    def send(self, message: Message) -> None:
        if self._closed:
            raise ConnectionClosedError("the connection is closed")
        encode_parts(message)  # for what they refuse
        encode_buffers(message)
        self._to_kernel.send_nowait(message)

    async def read(self, channel: str, receiver: Receiver) -> None:
        self.receiver = receiver
        async for message in self._streams[channel][1]:
            if not self._muted:
                receiver.deliver(message)

    async def connected(self) -> None:
        await anyio.lowlevel.checkpoint()

    async def disconnected(self) -> None:
        await self.gone.wait()

    async def drain(self) -> None:
        while any(fed.statistics().current_buffer_used for _, fed in self._streams.values()):
            await anyio.lowlevel.checkpoint()

    def mute(self) -> None:
        self._muted = True

    async def beat(self, timeout: float) -> bool:
        await anyio.sleep(0 if self.beating else timeout)
        return self.beating

    async def nudge(self) -> None:
        await anyio.lowlevel.checkpoint()
        self.nudges += 1

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
