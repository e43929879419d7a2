"""Comms: messages between a client and an object in the kernel, in both directions, for as long as both like.

How this works. A comm is known by its ``comm_id``. The kernel publishes its side on IOPub, for everybody; ours goes
out on shell, behind whatever the kernel runs. Each connection has one `Comms`, which hands messages to the comms that
are ours, by id, leaves those of other clients alone, and tells ours when the connection ends. It holds them
weakly: a comm that nobody holds any more takes no memory, whoever opened it.

The protocol has no reply to ``comm_open``. A kernel that does not know the target closes the comm at once (ipykernel),
or says nothing (xeus-python, bash_kernel). So when the kernel is done with it (idle) and has not closed it, it is asked
for its list of comms, and what is not in it was refused. Where a cell of ours runs, nobody waits for this: it may be
an async cell, which itself waits for what is to be sent on the comm, and until whose end ipykernel does not say idle.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
import anyio.lowlevel

from .._protocol import (
    AnyKernelError,
    ArgumentError,
    CommClosedError,
    ConnectionClosedError,
    Message,
    UnsupportedError,
    as_buffers,
    as_dict,
    is_idle,
)
from .budget import Budget
from .dispatcher import Dispatchers
from .request import Ending, Request
from .streams import MESSAGE_OVERHEAD, ByteBoundedStream

__all__ = ["Comm", "Comms"]


class Line:
    """One comm as its connection has it; what callers hold of it is a `Comm`."""

    def __init__(self, comms: Comms, opened: Message, budget: Budget) -> None:
        self.comm_id: str = opened.content["comm_id"]
        self.target_name: str = opened.content["target_name"]
        self.opened = opened
        """The message that opened it."""
        self.closed = False
        self.close_data: Any = None
        self.stream: ByteBoundedStream[Message] = ByteBoundedStream(budget)
        self.refused = False
        """Whether the kernel did not take it."""
        self.opening: _Opening | None = None
        """Asks whether the kernel takes it, until that is known."""
        self._comms = comms
        self._heard = False

    def close(
        self, data: Any = None, metadata: Mapping[str, Any] | None = None, buffers: Iterable[bytes | memoryview] = ()
    ) -> None:
        """Close it, unless it is closed."""
        if not self.closed:
            # A connection that is going away has closed it as well.
            with suppress(ConnectionClosedError):
                self.send("comm_close", data, metadata, buffers)
            self.end()

    def send(
        self, msg_type: str, data: Any, metadata: Mapping[str, Any] | None, buffers: Iterable[bytes | memoryview]
    ) -> None:
        """Send one of its messages."""
        self._comms.router.transport.send(self._comms.message(msg_type, self.comm_id, data, metadata, buffers))

    def check_open(self) -> None:
        """Raise what sending on it is to raise."""
        if self.refused:
            raise self._refusal()
        if self._comms.router.ending is not None:
            raise self._comms.router.ending(None)
        if self.closed:
            raise CommClosedError(f"the comm to {self.target_name!r} is closed")

    def _refusal(self) -> UnsupportedError:
        return UnsupportedError(
            f"the kernel did not take the comm: it knows no target {self.target_name!r}, or its handler failed"
        )

    def on_message(self, message: Message) -> None:
        """Take what the kernel's side says."""
        if message.msg_type == "comm_msg":
            self._heard = True
            self.stream.send_nowait(message, message.weight + MESSAGE_OVERHEAD)
            if self.opening is not None:
                self.opening.done.set()
            return
        self.close_data = message.content.get("data")
        # What a kernel does for an unknown target. Some kernels do not say what the close was caused by.
        at_once = self.opening is not None and not self._heard and not self.close_data
        if at_once and message.parent_id in (self.opened.msg_id, None):
            self.refuse()
        else:
            self.end()

    def refuse(self) -> None:
        """The kernel did not take it."""
        if not self.closed:
            self.refused = True
            self.end(self._refusal())

    def end(self, error: AnyKernelError | None = None) -> None:
        """It is closed, or its connection has ended."""
        self.closed = True
        self._comms.discard(self)
        self.stream.end(error)


class _Opening(Request):
    """A ``comm_open``, and then the ``comm_info_request`` by which we learn whether the kernel took it."""

    __slots__ = ("_comms", "_idle", "_line", "_listed", "_router", "done")

    def __init__(self, comms: Comms, line: Line) -> None:
        self._comms = comms
        self._router = comms.router
        self.done = anyio.Event()
        """Set when there is nothing more to wait for."""
        self._line = line
        self._idle = False
        self._listed: bool | None = None

    def send(self, message: Message) -> None:
        """Send either of them."""
        self._router.send(self, message)
        # It may lie behind another client's cell, which may be an async one and wait for the comm.
        self._router.half_done(self, idle=False)

    def on_reply(self, message: Message) -> None:
        comms = message.content.get("comms")
        self._listed = self._line.comm_id in comms if isinstance(comms, dict) else True  # nobody knows
        self._check()

    def on_iopub(self, message: Message) -> None:
        if not is_idle(message):
            return
        if self.header["msg_type"] == "comm_info_request":
            self._idle = True
            self._check()
            return
        self._router.forget(self)
        if self._line.closed:
            self.done.set()
            return
        if self._comms.dispatchers.runs_a_cell:
            self.done.set()  # it is ahead of the next request
        header = self._router.new_header("comm_info_request")
        try:
            self.send(Message("shell", header, content={"target_name": self._line.target_name}))
        except AnyKernelError:
            self.done.set()

    def on_grace_over(self) -> None:
        self.done.set()

    def on_end(self, ending: Ending) -> None:  # noqa: ARG002
        self.done.set()

    def _check(self) -> None:
        # Idle comes on IOPub behind all that the kernel said of the comm until then; the reply may overtake it.
        if self._idle and self._listed is not None:
            self._router.forget(self)
            self._line.opening = None
            if not self._listed:
                self._line.refuse()
            self.done.set()


class Comm:
    """One comm; made by `Kernel.open_comm` and `Kernel.comms`.

    Iterate over it, or call `receive`, for the kernel's messages: ``message.content["data"]``, ``message.metadata``
    and ``message.buffers``. Iteration ends when the comm is closed, by either side, and raises when the kernel goes
    away. A comm keeps up to the kernel's ``output_limit`` bytes for a slow consumer, then drops the oldest.
    """

    def __init__(self, line: Line) -> None:
        self._line = line

    @property
    def comm_id(self) -> str:
        """What both sides know it by."""
        return self._line.comm_id

    @property
    def target_name(self) -> str:
        """What it was opened for."""
        return self._line.target_name

    @property
    def data(self) -> Any:
        """What it was opened with."""
        return self._line.opened.content.get("data")

    @property
    def metadata(self) -> dict[str, Any]:
        """The metadata it was opened with."""
        return self._line.opened.metadata

    @property
    def buffers(self) -> tuple[bytes | memoryview, ...]:
        """The binary buffers it was opened with."""
        return self._line.opened.buffers

    @property
    def closed(self) -> bool:
        """Whether either side has closed it, or the connection has ended."""
        return self._line.closed

    @property
    def close_data(self) -> Any:
        """What the kernel closed it with; None where it did not."""
        return self._line.close_data

    @property
    def dropped(self) -> int:
        """How many messages were dropped because nobody received them."""
        return self._line.stream.dropped

    async def send(
        self, data: Any = None, *, metadata: Mapping[str, Any] | None = None, buffers: Iterable[bytes | memoryview] = ()
    ) -> None:
        """Send a message to the kernel's side; there is no reply.

        It goes out at once, but a kernel that runs a cell takes it when that has ended; only while an async cell
        awaits do some kernels take it in between. A call that is cancelled has sent nothing.

        Args:
            data: anything that JSON has a form for; None means ``{}``.
            metadata: likewise, for the message.
            buffers: bytes, or anything else with a buffer, such as ``memoryview(array)``; sent as they are now.

        Raises:
            CommClosedError: the comm is closed.
            UnsupportedError: the kernel did not take it when it was opened.
            ArgumentError: the data has no JSON form, or a buffer is none.
            KernelDiedError, KernelRestartedError, ConnectionClosedError: the kernel went away.
        """
        self._line.stream.home.check()
        await anyio.lowlevel.checkpoint()
        self._line.check_open()
        self._line.send("comm_msg", data, metadata, buffers)

    async def receive(self) -> Message:
        """Wait for the kernel's next message.

        Raises:
            anyio.EndOfStream: the comm is closed, and all there was has been received.
            UnsupportedError: the kernel did not take it when it was opened.
            KernelDiedError, KernelRestartedError, ConnectionClosedError: the kernel went away.
        """
        return await self._line.stream.receive()

    async def close(
        self, data: Any = None, *, metadata: Mapping[str, Any] | None = None, buffers: Iterable[bytes | memoryview] = ()
    ) -> None:
        """Close the comm, unless it is closed already; takes what `send` takes.

        Leaving the block of `Kernel.open_comm` does this by itself.

        Raises:
            ArgumentError: the data has no JSON form; the comm stays open.
        """
        self._line.stream.home.check()
        await anyio.lowlevel.checkpoint()
        self._line.close(data, metadata, buffers)

    def __aiter__(self) -> Comm:
        return self  # and not its stream: only who holds the comm gets its messages

    async def __anext__(self) -> Message:
        return await self._line.stream.__anext__()

    def __repr__(self) -> str:
        return f"<Comm {self.target_name} {'closed' if self.closed else 'open'} {self.comm_id}>"


class Comms:
    """The comms of one connection that are ours."""

    def __init__(self, dispatchers: Dispatchers) -> None:
        self.dispatchers = dispatchers
        self.router = dispatchers.router
        self._lines: weakref.WeakValueDictionary[str, Line] = weakref.WeakValueDictionary()
        self.router.listeners.append(self.end)

    def on_iopub(self, message: Message) -> None:
        """Hand a ``comm_msg`` or ``comm_close`` to its comm, if that is ours."""
        comm_id = message.content.get("comm_id")
        line = self._lines.get(comm_id) if isinstance(comm_id, str) else None
        if line is not None:
            line.on_message(message)

    def adopt(self, message: Message, budget: Budget) -> Comm | None:
        """Take a comm that the kernel opens; None where the message tells none, or one that is ours already."""
        comm_id = message.content.get("comm_id")
        if not isinstance(comm_id, str) or comm_id in self._lines or self.router.ending is not None:
            return None
        line = self._lines[comm_id] = Line(self, message, budget)
        return Comm(line)

    def discard(self, line: Line) -> None:
        """Hand it nothing any more."""
        if self._lines.get(line.comm_id) is line:
            del self._lines[line.comm_id]

    def end(self, ending: Ending) -> None:
        """The connection has ended, and all comms with it."""
        for line in list(self._lines.values()):
            line.end(ending(None))

    def message(
        self,
        msg_type: str,
        comm_id: str,
        data: Any,
        metadata: Mapping[str, Any] | None,
        buffers: Iterable[bytes | memoryview],
        **content: Any,
    ) -> Message:
        """A message of a comm, to be sent."""
        return Message(
            "shell",
            self.router.new_header(msg_type),
            {},
            as_dict("metadata", metadata),
            {"comm_id": comm_id, "data": {} if data is None else data, **content},
            as_buffers(buffers),
        )

    @asynccontextmanager
    async def open(
        self,
        target: str,
        data: Any,
        metadata: Mapping[str, Any] | None,
        buffers: Iterable[bytes | memoryview],
        budget: Budget,
    ) -> AsyncIterator[Comm]:
        """A comm of ours for the length of a block, as `Kernel.open_comm` describes it."""
        if not isinstance(target, str):
            raise ArgumentError(f"a comm's target must be a str, not {type(target).__name__}")
        await anyio.lowlevel.checkpoint()
        router = self.router
        message = self.message("comm_open", os.urandom(16).hex(), data, metadata, buffers, target_name=target)
        line = self._lines[message.content["comm_id"]] = Line(self, message, budget)
        opening = line.opening = _Opening(self, line)
        waits = not self.dispatchers.runs_a_cell
        opening.send(message)
        try:
            if waits:
                await opening.done.wait()
                if line.refused or router.ending is not None:
                    line.check_open()
            yield Comm(line)
        finally:
            router.forget(opening)
            line.close()
