"""One ZMQ socket, both ways.

How this works. libzmq signals a socket's readiness through a descriptor (``socket.FD``) that is edge-triggered
*through libzmq*: any call on the socket, a send as well, may consume the edge that a waiting message set, and
who then waits for the descriptor waits forever. So one class, `Socket`, owns both directions of a socket, and
keeps one rule: **no call on the socket is ever left without receiving until there is nothing more** (EAGAIN, or no
POLLIN in its EVENTS). The reader does so whenever it wakes. A send does so right after sending; only when it finds more
than a burst, or the reader is inside this very loop further up the stack, does it leave the rest to the reader, awake.
After that the next message makes the descriptor readable again, so parking is safe.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel
import zmq
import zmq.backend

from .._core import running_asyncio_loop
from .._protocol import ConnectionClosedError, Frame

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Handle

__all__ = ["Socket"]

# Plain ints and the backend's own methods: zmq.Socket.send_multipart costs 10 us for six frames, the same sends
# through the backend 1.2 us; recv_multipart asks for RCVMORE as an option (7.6 us), frames know it (4.5 us).
_NOBLOCK = int(zmq.NOBLOCK)
_SNDMORE = int(zmq.NOBLOCK | zmq.SNDMORE)
_EVENTS, _POLLIN = int(zmq.EVENTS), int(zmq.POLLIN)

# Messages that a send receives on the way, at most; and that a reader takes before it lets other tasks run.
_SEND_BURST = 64
_READ_BURST = 512
# Messages after each of which a reader asks whether there are more, and does not just try to receive: mostly one to three
# come at a time, and to ask three times takes about as long as to fail once.
_FEW = 3
# Bytes after which either stops, too: or a consumer of large outputs would lose some before it gets to run.
_BURST_BYTES = 4 * 2**20
# Frames from this size on (bytes) are not copied out of libzmq's memory but viewed there.
_VIEW_SIZE = 64 * 1024


class Socket:
    """One ZMQ socket, both ways; see the head of this module for the rule it keeps."""

    def __init__(self, socket: zmq.Socket[bytes], on_frames: Callable[[list[Frame]], None] | None = None) -> None:
        self._socket = socket
        self._fd: int = socket.FD
        self._backend_send = zmq.backend.Socket.send.__get__(socket)
        self._backend_recv = zmq.backend.Socket.recv.__get__(socket)
        self._backend_get = zmq.backend.Socket.get.__get__(socket)
        self._receiving = False
        # Wakes the reader, where it waits.
        self._wake: Callable[[], object] | None = None
        self.on_frames = on_frames
        """Takes each received message, and the list for its own; set before anything is sent or read. Must not raise."""

    def send(self, frames: Sequence[Frame]) -> None:
        """Send one multipart message, and receive what the send may have hidden from the reader."""
        if self._socket.closed:
            raise ConnectionClosedError("the connection is closed")
        try:
            for frame in frames[:-1]:
                self._backend_send(frame, _SNDMORE)
            self._backend_send(frames[-1], _NOBLOCK)
        except zmq.ZMQError as exc:
            # EAGAIN: the kernel refused the handshake, and ZMQ gave the connection up.
            raise ConnectionClosedError(f"cannot send to the kernel: {exc}") from exc
        # While the receive loop is running further up the stack, it receives all there is itself.
        # (The reader receives first thing when it starts.)
        if self._receiving or self.on_frames is None or self._is_empty():
            return
        if not self._receive(_SEND_BURST) and self._wake is not None:
            self._wake()

    def _is_empty(self) -> bool:
        """Whether there is nothing to receive: what EAGAIN tells, for 1.5 us instead of the 4 us of an exception."""
        return not self._backend_get(_EVENTS) & _POLLIN

    def _receive(self, limit: int) -> bool:
        """Receive up to ``limit`` messages; True when there is nothing more, False when there may be."""
        assert self.on_frames is not None
        recv, on_frames = self._backend_recv, self.on_frames
        self._receiving = True
        room = _BURST_BYTES
        try:
            for number in range(limit):
                frames: list[Frame] = []
                try:
                    more = True
                    while more:
                        # Multipart messages arrive whole: EAGAIN comes before one, not in it.
                        frame = recv(_NOBLOCK, False)
                        frames.append(frame.bytes if len(frame) < _VIEW_SIZE else frame.buffer)
                        more = frame.more
                except zmq.Again:
                    return True
                room -= len(frames[-1])  # the content or the last buffer: the others are small, or alike
                on_frames(frames)
                if room < 0:
                    return False
                if number < _FEW and self._is_empty():
                    return True
            return False
        finally:
            self._receiving = False

    def drain(self) -> None:
        """Receive all there is, now."""
        while not self.drain_some():
            pass

    def drain_some(self) -> bool:
        """Receive as much as a reader takes before it lets other tasks run; whether that was all."""
        return self._receiving or self._receive(_READ_BURST)

    async def read(self) -> None:
        """Receive until cancelled."""
        loop = running_asyncio_loop()
        if loop is not None:
            await self._read_by_callback(loop)
        else:
            await self._read_by_waiting()

    async def _read_by_waiting(self) -> None:
        """Receive until cancelled, on any event loop."""
        # What it raises in the waiting costs nothing until it is needed; a cancel scope for each wait took 8 us.
        self._wake = functools.partial(anyio.notify_closing, self._fd)
        while True:
            if self._receive(_READ_BURST):
                # No checkpoint between having found nothing and being parked: a send in between would find
                # nobody to wake.
                try:
                    await anyio.wait_readable(self._fd)
                except anyio.ClosedResourceError:
                    continue  # a send left something to receive
            else:
                await anyio.lowlevel.checkpoint()

    async def _read_by_callback(self, loop: AbstractEventLoop) -> None:
        """Receive until cancelled, on asyncio, by a callback that stays registered.

        Each wait of its own would register the descriptor anew: a wake-up costs a third, and an execute a quarter
        less so.
        """
        again: Handle | None = None

        def wake() -> None:
            nonlocal again
            if again is None:
                again = loop.call_soon(receive)

        def receive() -> None:
            nonlocal again
            again = None
            if not self._receiving and not self._receive(_READ_BURST):
                wake()

        # anyio asks sniffio for the event loop where that is installed, and sniffio finds it by the task, which a
        # callback has none of; so it is told.
        if (sniffio := sys.modules.get("sniffio")) is not None:
            sniffio.current_async_library_cvar.set("asyncio")
        loop.add_reader(self._fd, receive)
        self._wake = wake
        try:
            wake()
            await anyio.sleep_forever()
        finally:
            self._wake = None
            loop.remove_reader(self._fd)
            if again is not None:
                again.cancel()

    def close(self) -> None:
        self._socket.close(linger=0)
