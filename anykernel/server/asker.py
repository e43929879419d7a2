"""Questions of our own to a kernel, beside those that go by the router."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

import anyio

from .._core import Transport
from .._protocol import Message, is_idle

__all__ = ["Asker", "UnansweredError"]

# Seconds that a reply may come after the end of its output.
GRACE = 2.0


class UnansweredError(Exception):
    """A question will not be answered any more: the connection was lost."""


class Asker:
    """Asks a kernel, in a session of its own, and takes the answers out of what comes."""

    def __init__(self, line: Transport) -> None:
        self.session = os.urandom(16).hex()
        self._line = line
        self._count = 0
        self._waiting: dict[str, _Question] = {}

    async def ask(
        self,
        msg_type: str,
        content: dict[str, Any] | None = None,
        *,
        channel: str = "control",
        buffers: Iterable[bytes] = (),
        route: Mapping[str, str] = {},
    ) -> Message | None:
        """Ask, and wait for the reply; None where the kernel is done with the question and has not replied.

        Raises:
            UnansweredError: the connection was lost before that.
            AnyKernelError: it cannot be sent.
        """
        self._count += 1
        full = {
            "msg_id": f"{self.session}_{self._count}",
            "msg_type": msg_type,
            "username": "anykernel",
            "session": self.session,
            "date": "",
            "version": "5.4",
            **route,
        }
        question = self._waiting[full["msg_id"]] = _Question()
        try:
            self._line.send(Message(channel, full, {}, {}, content or {}, tuple(buffers)))
            await question.idle.wait()
            # The reply goes another way, and may come a little later.
            with anyio.move_on_after(GRACE):
                await question.done.wait()
        finally:
            del self._waiting[full["msg_id"]]
        if question.lost:
            raise UnansweredError
        return question.reply

    def takes(self, message: Message) -> bool:
        """Whether it belongs to a question of ours; then it is taken."""
        if message.parent_header.get("session") != self.session:
            return False
        question = self._waiting.get(message.parent_id or "")
        if question is not None:
            if message.channel in ("shell", "control"):
                question.reply = message
                question.end()
            elif is_idle(message):
                question.idle.set()
        return True

    def lose(self) -> None:
        """The connection is lost: what is not answered will not be."""
        for question in self._waiting.values():
            question.lost = True
            question.end()


class _Question:
    """A question that waits for its answer."""

    def __init__(self) -> None:
        self.reply: Message | None = None
        self.lost = False
        self.idle = anyio.Event()
        """Set when the kernel is done with it."""
        self.done = anyio.Event()
        """Set when nothing more is to be waited for."""

    def end(self) -> None:
        """It is answered, or will not be."""
        self.idle.set()
        self.done.set()
