"""Who takes what a transport receives, where no router is wanted."""

from __future__ import annotations

import math

import anyio

from anykernel import Message


class Taker:
    """Puts every message into a stream, `received`, and notes what else it is told."""

    def __init__(self) -> None:
        self.told: list[object] = []
        self._send, self.received = anyio.create_memory_object_stream[Message](math.inf)

    def deliver(self, message: Message) -> None:
        self._send.send_nowait(message)

    def lost(self) -> None:
        self.told.append("lost")

    def found(self) -> None:
        self.told.append("found")

    def missed(self, msg_id: str | None, reason: str) -> None:
        self.told.append((msg_id, reason))

    def gave_up(self, msg_id: str, ending: object) -> None:
        self.told.append((msg_id, ending))

    def close(self) -> None:
        self._send.close()
        self.received.close()
