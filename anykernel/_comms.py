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

from ._exceptions import AnyKernelError, ArgumentError, CommClosedError, ConnectionClosedError, UnsupportedError
from ._messages import Message, as_buffers, as_dict
from ._queue import MESSAGE_OVERHEAD, ByteBoundedStream
from ._router import Ending, Request, Router, is_idle

__all__ = ["Comm", "Comms"]


class Comm:
    """One comm; made by `Kernel.open_comm` and `Kernel.comms`.

    Iterate over it, or call `receive`, for the kernel's messages: ``message.content["data"]``, ``message.metadata``
    and ``message.buffers``. Iteration ends when the comm is closed, by either side, and raises when the kernel goes
    away. A comm keeps up to the kernel's ``output_limit`` bytes for a slow consumer, then drops the oldest.
    """

    def __init__(self, comms: Comms, message: Message, limit: int) -> None:
        self.comm_id: str = message.content["comm_id"]
        """What both sides know it by."""
        self.target_name: str = message.content["target_name"]
        """What it was opened for."""
        self.data: Any = message.content.get("data")
        """What it was opened with."""
        self.metadata: dict[str, Any] = message.metadata
        """The metadata it was opened with."""
        self.buffers = message.buffers
        """The binary buffers it was opened with."""
        self.closed = False
        """Whether either side has closed it, or the connection has ended."""
        self.close_data: Any = None
        """What the kernel closed it with; None where it did not."""
        self._comms = comms
        self._open_id = message.msg_id
        self._opening: _Opening | None = None
        self._stream: ByteBoundedStream[Message] = ByteBoundedStream(limit)
        self._heard = self._refused = False

    @property
    def dropped(self) -> int:
        """How many messages were dropped because nobody received them."""
        return self._stream.dropped

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
        await anyio.lowlevel.checkpoint()
        self._check_open()
        self._send("comm_msg", data, metadata, buffers)

    async def receive(self) -> Message:
        """Wait for the kernel's next message.

        Raises:
            anyio.EndOfStream: the comm is closed, and all there was has been received.
            UnsupportedError: the kernel did not take it when it was opened.
            KernelDiedError, KernelRestartedError, ConnectionClosedError: the kernel went away.
        """
        return await self._stream.receive()

    async def close(
        self, data: Any = None, *, metadata: Mapping[str, Any] | None = None, buffers: Iterable[bytes | memoryview] = ()
    ) -> None:
        """Close the comm, unless it is closed already; takes what `send` takes.

        Leaving the block of `Kernel.open_comm` does this by itself.

        Raises:
            ArgumentError: the data has no JSON form; the comm stays open.
        """
        await anyio.lowlevel.checkpoint()
        self._close(data, metadata, buffers)

    def _close(
        self, data: Any = None, metadata: Mapping[str, Any] | None = None, buffers: Iterable[bytes | memoryview] = ()
    ) -> None:
        if not self.closed:
            # A connection that is going away has closed it as well.
            with suppress(ConnectionClosedError):
                self._send("comm_close", data, metadata, buffers)
            self._end()

    def _send(
        self, msg_type: str, data: Any, metadata: Mapping[str, Any] | None, buffers: Iterable[bytes | memoryview]
    ) -> None:
        self._comms.router.transport.send(self._comms.message(msg_type, self.comm_id, data, metadata, buffers))

    def __aiter__(self) -> Comm:
        return self  # and not its stream: only who holds the comm gets its messages

    async def __anext__(self) -> Message:
        return await self._stream.__anext__()

    def __repr__(self) -> str:
        return f"<Comm {self.target_name} {'closed' if self.closed else 'open'} {self.comm_id}>"

    def _check_open(self) -> None:
        if self._refused:
            raise self._refusal()
        if self._comms.router.ending is not None:
            raise self._comms.router.ending(None)
        if self.closed:
            raise CommClosedError(f"the comm to {self.target_name!r} is closed")

    def _refusal(self) -> UnsupportedError:
        return UnsupportedError(
            f"the kernel did not take the comm: it knows no target {self.target_name!r}, or its handler failed"
        )

    def _on_message(self, message: Message) -> None:
        if message.msg_type == "comm_msg":
            self._heard = True
            self._stream.send_nowait(message, message.size + MESSAGE_OVERHEAD)
            if self._opening is not None:
                self._opening.done.set()
            return
        self.close_data = message.content.get("data")
        # What a kernel does for an unknown target. Some kernels do not say what the close was caused by.
        at_once = self._opening is not None and not self._heard and not self.close_data
        if at_once and message.parent_id in (self._open_id, None):
            self._refuse()
        else:
            self._end()

    def _refuse(self) -> None:
        if not self.closed:
            self._refused = True
            self._end(self._refusal())

    def _end(self, error: AnyKernelError | None = None) -> None:
        self.closed = True
        self._comms.discard(self)
        self._stream.end(error)


class _Opening(Request):
    """A ``comm_open``, and then the ``comm_info_request`` by which we learn whether the kernel took it."""

    __slots__ = ("_comm", "_idle", "_listed", "done")

    def __init__(self, comm: Comm) -> None:
        self.done = anyio.Event()
        """Set when there is nothing more to wait for."""
        self._comm = comm
        self._idle = False
        self._listed: bool | None = None

    def send(self, router: Router, message: Message) -> None:
        router.send(self, message)
        # It may lie behind another client's cell, which may be an async one and wait for the comm.
        router.half_done(self, idle=False)

    def _on_reply(self, message: Message) -> None:
        comms = message.content.get("comms")
        self._listed = self._comm.comm_id in comms if isinstance(comms, dict) else True  # nobody knows
        self._check()

    def _on_iopub(self, message: Message) -> None:
        if not is_idle(message):
            return
        if self._header["msg_type"] == "comm_info_request":
            self._idle = True
            self._check()
            return
        self._router.forget(self)
        if self._comm.closed:
            self.done.set()
            return
        if _runs_a_cell(self._router):
            self.done.set()  # it is ahead of the next request
        header = self._router.new_header("comm_info_request")
        try:
            self.send(self._router, Message("shell", header, content={"target_name": self._comm.target_name}))
        except AnyKernelError:
            self.done.set()

    def _on_grace_over(self) -> None:
        self.done.set()

    def _on_end(self, ending: Ending) -> None:  # noqa: ARG002
        self.done.set()

    def _check(self) -> None:
        # Idle comes on IOPub behind all that the kernel said of the comm until then; the reply may overtake it.
        if self._idle and self._listed is not None:
            self._router.forget(self)
            self._comm._opening = None
            if not self._listed:
                self._comm._refuse()
            self.done.set()


def _runs_a_cell(router: Router) -> bool:
    # Of the main shell, the first, which is where comms are sent.
    return any(dispatcher.busy for dispatcher in router.dispatchers[:1])


class Comms:
    """The comms of one connection that are ours."""

    def __init__(self, router: Router) -> None:
        self.router = router
        self._comms: weakref.WeakValueDictionary[str, Comm] = weakref.WeakValueDictionary()
        router.on_ended.append(self.end)

    def on_iopub(self, message: Message) -> None:
        """Hand a ``comm_msg`` or ``comm_close`` to its comm, if that is ours."""
        comm_id = message.content.get("comm_id")
        comm = self._comms.get(comm_id) if isinstance(comm_id, str) else None
        if comm is not None:
            comm._on_message(message)

    def adopt(self, message: Message, limit: int) -> Comm | None:
        """Take a comm that the kernel opens; None where the message tells none, or one that is ours already."""
        comm_id = message.content.get("comm_id")
        if not isinstance(comm_id, str) or comm_id in self._comms or self.router.ending is not None:
            return None
        comm = self._comms[comm_id] = Comm(self, message, limit)
        return comm

    def discard(self, comm: Comm) -> None:
        """Hand it nothing any more."""
        if self._comms.get(comm.comm_id) is comm:
            del self._comms[comm.comm_id]

    def end(self, ending: Ending) -> None:
        """The connection has ended, and all comms with it."""
        for comm in list(self._comms.values()):
            comm._end(ending(None))

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
        limit: int,
    ) -> AsyncIterator[Comm]:
        """A comm of ours for the length of a block, as `Kernel.open_comm` describes it."""
        if not isinstance(target, str):
            raise ArgumentError(f"a comm's target must be a str, not {type(target).__name__}")
        await anyio.lowlevel.checkpoint()
        router = self.router
        message = self.message("comm_open", os.urandom(16).hex(), data, metadata, buffers, target_name=target)
        comm = self._comms[message.content["comm_id"]] = Comm(self, message, limit)
        opening = comm._opening = _Opening(comm)
        waits = not _runs_a_cell(router)
        opening.send(router, message)
        try:
            if waits:
                await opening.done.wait()
                if comm._refused or router.ending is not None:
                    comm._check_open()
            yield comm
        finally:
            router.forget(opening)
            comm._close()
