"""The link between a kernel and those who own its process: connections come and go, the kernel stays.

The owner hands over one connection after another; calls that are made between two of them wait for the next. Who
listens to everything that the kernel publishes goes on listening over restarts.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import anyio
import anyio.lowlevel

from .._protocol import COMM_TYPES, Captures, Displays, Message
from .connection import Connection
from .context import Limits
from .events import Events
from .home import Home
from .observing import observe_kernel
from .request import Ending, Request
from .streams import MESSAGE_OVERHEAD, ByteBoundedStream
from .tasks import StartSoon

__all__ = ["Link"]

T = TypeVar("T")


class Link:
    """What a kernel's shells and its owner share."""

    def __init__(self, start_soon: StartSoon, limits: Limits) -> None:
        self.start_soon = start_soon
        """Runs an async function in a task of the kernel's block, while that has any."""
        self.home = Home()
        """Where the kernel may be used."""
        self.limits = limits
        self.displays = Displays()
        self.captures = Captures()
        self.events = Events()
        self.connection: Connection | None = None
        """None while the kernel starts or restarts; an ended one stays, to refuse calls with its reason."""
        self.last: Connection | None = None
        """The one now, or before the restart that is under way."""
        self.closed: Ending | None = None
        """Why no connection will follow."""
        self._attached = anyio.Event()
        # By message type (None stands for all) the streams of those who want it, and what is put into each for a message
        # (nothing for None).
        self._subscribers: dict[str | None, dict[ByteBoundedStream[Any], Callable[[Message], Any]]] = {}

    # For the owner of the process.

    def attach(self, connection: Connection) -> None:
        """Go on with a new connection."""
        if connection is not self.last:
            self.captures.clear()  # they were the old process's
            observe_kernel(connection.router, connection.kernel_info)
        self.connection = self.last = connection
        self._attached.set()

    def detach(self) -> None:
        """Let calls wait for the next connection."""
        self.connection = None
        self._attached = anyio.Event()

    def close(self, ending: Ending) -> None:
        """No connection will follow: refuse all calls."""
        self.closed = ending
        if self.last is not None:
            self.last.router.end(ending)
            self.fail(ending)
        self.end_messages()
        self.events.end()

    def fail(self, ending: Ending) -> None:
        """No connection followed the last one: refuse calls, until another is attached."""
        assert self.last is not None
        self.last.router.ending = ending
        self.attach(self.last)

    def end_messages(self, ending: Ending | None = None) -> None:
        """Nothing more will be published."""
        for stream in {stream for streams in self._subscribers.values() for stream in streams}:
            stream.end(ending(None) if ending is not None else None)

    def on_iopub(self, message: Message, request: Request | None) -> None:
        """Take what was published, and by which of our requests under way it was caused."""
        msg_type = message.msg_type
        if msg_type in COMM_TYPES:
            self.captures.take(message)
        if self._subscribers:
            for wanted in (None, msg_type):
                for stream, convert in self._subscribers.get(wanted, {}).items():
                    item = convert(message)
                    if item is not None:
                        stream.send_nowait(item, message.weight + MESSAGE_OVERHEAD)
        if msg_type == "update_display_data":
            self.displays.update(message.content, message.weight, message.left_out)
        elif msg_type in ("comm_msg", "comm_close"):
            if self.connection is not None:
                self.connection.comms.on_iopub(message)
        elif msg_type == "debug_event":
            if self.connection is not None:
                self.connection.debugger.on_event(message.content)
        elif request is None and message.parent_id is not None:
            self.displays.show_late(message, self.captures.by(message.parent_id))

    # For the shells.

    async def connected(self) -> Connection:
        """The connection; where there is none, wait for the next."""
        self.home.check()
        while self.connection is None:
            await self._attached.wait()
        return self.connection

    @asynccontextmanager
    async def subscribe(
        self, types: Iterable[str], convert: Callable[[Message], T | None]
    ) -> AsyncIterator[ByteBoundedStream[T]]:
        """Receive what is published from now on, of some types (of none, all), as ``convert`` makes it."""
        self.home.check()
        await anyio.lowlevel.checkpoint()
        stream: ByteBoundedStream[T] = ByteBoundedStream(self.limits.budget)
        if self.connection is not None and self.connection.router.ending is not None:
            raise self.connection.router.ending(None)
        wanted: set[str | None] = set(types) or {None}
        for msg_type in wanted:
            self._subscribers.setdefault(msg_type, {})[stream] = convert
        try:
            yield stream
        finally:
            for msg_type in wanted:
                del self._subscribers[msg_type][stream]
                if not self._subscribers[msg_type]:
                    del self._subscribers[msg_type]
            stream.close()
