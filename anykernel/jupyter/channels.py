"""Messages as jupyter_client has them, and the channels that its clients read and send by."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from queue import Empty
from typing import Any, Protocol

import anyio
from jupyter_client.jsonutil import parse_date

from .. import Message

__all__ = ["Channel", "DeadKernelError", "Heart", "Inbox", "as_dict"]

LIMIT = 64 * 2**20
"""Bytes that each channel keeps of what nobody has read; beyond them the oldest messages are dropped."""
# What a message takes besides its content.
_OVERHEAD = 2048


class DeadKernelError(RuntimeError):
    """The kernel is gone: it died, or its client has stopped."""


def as_dict(message: Message) -> dict[str, Any]:
    """A message as jupyter_client gives it."""
    header = dict(message.header)
    if isinstance(header.get("date"), str):
        header["date"] = parse_date(header["date"])
    return {
        "header": header,
        "msg_id": header.get("msg_id"),
        "msg_type": header.get("msg_type"),
        "parent_header": message.parent_header,
        "metadata": message.metadata,
        "content": message.content,
        "buffers": list(message.buffers),
        "channel": message.channel,
    }


class Inbox:
    """What came on a channel and nobody has read yet, bounded in bytes."""

    def __init__(self) -> None:
        self._items: deque[tuple[dict[str, Any], int]] = deque()
        self._held = 0
        self._changed = asyncio.Event()
        self._error: Exception | None = None

    def __len__(self) -> int:
        return len(self._items)

    def put(self, message: dict[str, Any], weight: int) -> None:
        weight += _OVERHEAD
        self._items.append((message, weight))
        self._held += weight
        while self._held > LIMIT and len(self._items) > 1:
            self._held -= self._items.popleft()[1]
        self._changed.set()

    def fail(self, error: Exception | None) -> None:
        """What is here can be read, and then nothing comes any more; or (None) something does again."""
        self._error = error
        self._changed.set()

    async def get(self, timeout: float | None = None) -> dict[str, Any]:
        """The next message; `queue.Empty` after ``timeout`` seconds, `DeadKernelError` where none will come."""
        with anyio.move_on_after(timeout):
            while not self._items:
                if self._error is not None:
                    raise self._error
                self._changed.clear()
                await self._changed.wait()
        if not self._items:
            raise Empty
        message, weight = self._items.popleft()
        self._held -= weight
        return message

    def take(self, msg_id: str) -> dict[str, Any] | None:
        """The reply to this request, if it is here."""
        for item in self._items:
            if item[0]["parent_header"].get("msg_id") == msg_id:
                self._items.remove(item)
                self._held -= item[1]
                return item[0]
        return None


class Linked(Protocol):
    """What channels lead to."""

    inboxes: dict[str, Inbox]
    ending: Exception | None

    def send(self, channel: str, message: dict[str, Any]) -> None: ...


class Channel:
    """One of a client's channels; only a way to its link."""

    def __init__(self, name: str, link: Callable[[], Linked | None]) -> None:
        self.name = name
        self._link = link

    def start(self) -> None:
        """Nothing: the client's link is started and stopped as a whole."""

    stop = start

    def is_alive(self) -> bool:
        """Whether the client has been started, and not stopped."""
        return self._link() is not None

    def _running(self) -> Linked:
        link = self._link()
        if link is None:
            raise RuntimeError("the client's channels do not run: call start_channels() first")
        return link

    def send(self, message: dict[str, Any]) -> None:
        self._running().send(self.name, message)

    async def get_msg(self, timeout: float | None = None, **_: Any) -> dict[str, Any]:
        """The next message that no call of the client's has taken.

        Raises:
            queue.Empty: none came within ``timeout`` seconds.
            DeadKernelError: none will come any more.
        """
        return await self._running().inboxes[self.name].get(timeout)

    async def get_msgs(self) -> list[dict[str, Any]]:
        """All that is here."""
        inbox = self._running().inboxes[self.name]
        return [await inbox.get(0) for _ in range(len(inbox))]

    async def msg_ready(self) -> bool:
        """Whether there is a message."""
        return len(self._running().inboxes[self.name]) > 0


class Heart(Channel):
    """The heartbeat's channel: it beats while the link has not seen the kernel's end."""

    time_to_dead = 1.0

    def is_beating(self) -> bool:
        link = self._link()
        return link is not None and link.ending is None

    def pause(self) -> None:
        """Nothing: the heartbeat disturbs nobody."""

    unpause = pause
