"""The ZMQ transport.

How this works. libzmq signals a socket's readiness through a descriptor (``socket.FD``) that is edge-triggered
*through libzmq*: any call on the socket, a send as well, may consume the edge that a waiting message set, and
who then waits for the descriptor waits forever. So one class, `_Socket`, owns both directions of a socket, and
keeps one rule: **no call on the socket is ever left without receiving until there is nothing more** (EAGAIN, or no
POLLIN in its EVENTS). The reader does so whenever it wakes. A send does so right after sending; only when it finds more
than a burst, or the reader is inside this very loop further up the stack, does it leave the rest to the reader, awake.
After that the next message makes the descriptor readable again, so parking is safe.

The sockets have no high-water marks: while our event loop is blocked, libzmq's own thread goes on receiving and
nothing is lost, and sending never waits (which is why there is no send lock: one multipart send is one
synchronous call, and a cancellation cannot come in between).
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import signal
import struct
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel
import zmq
import zmq.backend

from .._core import Receiver, running_asyncio_loop
from .._protocol import (
    BadMessageError,
    Codec,
    ConnectionClosedError,
    ConnectionInfo,
    Frame,
    KernelStartError,
    Message,
)

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Handle

__all__ = ["DESCRIPTORS", "ZmqTransport", "ensure_descriptors"]

logger = logging.getLogger("anykernel")

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

# Descriptors that a connection takes: 18 as measured, and some to spare.
DESCRIPTORS = 32
_NUDGE_DESCRIPTORS = 4  # of which it takes two
# Seconds for which a nudge waits for its handshake.
_NUDGE_TIMEOUT = 2.0

_KINDS = {"shell": zmq.DEALER, "control": zmq.DEALER, "stdin": zmq.DEALER, "iopub": zmq.SUB, "hb": zmq.DEALER}


class _Socket:
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
        """Takes each received message; set before anything is sent or read. Must not raise."""

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
                on_frames(frames)
                room -= len(frames[-1])  # the content or the last buffer: the others are small, or alike
                if room < 0:
                    return False
                if number < _FEW and self._is_empty():
                    return True
            return False
        finally:
            self._receiving = False

    def drain(self) -> None:
        """Receive all there is, now."""
        if not self._receiving:
            while not self._receive(_READ_BURST):
                pass

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


def ensure_descriptors(count: int) -> None:
    """Make sure that so many descriptors can be opened now.

    libzmq ends the whole process (abort) when it runs out of descriptors while a context starts.

    Raises:
        KernelStartError: there are not as many left.
    """
    spare: list[int] = []
    try:
        for _ in range(count):
            spare.append(os.open(os.devnull, os.O_RDONLY))  # noqa: PERF401 - those before a failure must be known
    except OSError as exc:
        raise KernelStartError(f"a kernel's connection needs {count} file descriptors: {exc.strerror}") from exc
    finally:
        for descriptor in spare:
            os.close(descriptor)


@contextlib.contextmanager
def _signals_blocked() -> Iterator[None]:
    """Let signals wait, such as the SIGCHLD that uvloop gets.

    pyzmq takes an interrupted ``term()`` for a finished one, which leaves the context's threads and descriptors
    behind, and does not try again when a monitor's making is interrupted.
    """
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


class ZmqTransport:
    """A connection to a kernel over TCP or IPC, as `Transport` describes it.

    Args:
        info: where the kernel listens.
        reconnect_interval: milliseconds between attempts to connect while nothing listens there yet.

    Raises:
        KernelStartError: the connection information cannot be used.
    """

    channels: tuple[str, ...] = ("shell", "control", "iopub", "stdin", "hb", "monitor")

    def __init__(self, info: ConnectionInfo, *, reconnect_interval: int = 100) -> None:
        ensure_descriptors(DESCRIPTORS)
        try:
            self._codec = Codec(info.key.encode(), info.signature_scheme)
        except ValueError as exc:
            raise KernelStartError(str(exc)) from exc
        self.dropped: Counter[str] = Counter()
        self.mistrusted = anyio.Event()
        self._handshake = anyio.Event()
        self._disconnected = anyio.Event()
        self._beats: dict[bytes, anyio.Event] = {}
        # What the ROUTERs know us by. Fresh, or the kernel would send an earlier client's replies here; and
        # the same on shell and stdin, or input requests would not find us.
        self._identity = os.urandom(16).hex().encode()
        self._info = info
        self._curve_keys: tuple[bytes, bytes] | None = None
        self._context = zmq.Context()
        self._sockets: dict[str, _Socket] = {}
        try:
            self._open(reconnect_interval)
        except (zmq.ZMQError, OSError, ValueError) as exc:
            self.close()
            raise KernelStartError(f"cannot connect to {info.address('shell')}: {exc}") from exc

    def _open(self, reconnect_interval: int) -> None:
        with _signals_blocked():
            if self._info.curve_publickey:
                self._curve_keys = zmq.curve_keypair()
            for channel, kind in _KINDS.items():
                socket = self._context.socket(kind)
                self._sockets[channel] = _Socket(socket, self._on_echo if channel == "hb" else None)
                socket.rcvhwm = socket.sndhwm = 0
                socket.reconnect_ivl = reconnect_interval
                if kind == zmq.SUB:
                    # The kernel greets each new topic (JEP 65), so one that nobody else can have brings a
                    # greeting even where other clients hold the subscription to everything.
                    socket.subscribe(b"")
                    socket.subscribe(b"anykernel-" + self._identity)
                else:
                    socket.setsockopt(zmq.IDENTITY, self._identity)
                if channel == "stdin":
                    # An input request to a peer whose handshake is not done is silently lost, and no message
                    # tells when that is; so this one socket is watched. It also tells when the kernel goes.
                    events = (
                        zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_DISCONNECTED
                    )
                    monitor = _Socket(socket.get_monitor_socket(events), self._on_monitor)
                    self._sockets["monitor"] = monitor
                self._connect(socket, channel)

    def _connect(self, socket: zmq.Socket[bytes], channel: str) -> None:
        socket.linger = 0
        if self._info.is_ipv6:  # not always: for a host's name, it would prefer an address where nobody may listen
            socket.ipv6 = True
        if self._curve_keys is not None:
            assert self._info.curve_publickey is not None
            socket.curve_publickey, socket.curve_secretkey = self._curve_keys
            socket.curve_serverkey = self._info.curve_publickey.encode()
        socket.connect(self._info.address(channel))

    def send(self, message: Message) -> None:
        self._sockets[message.channel].send(self._codec.encode(message))

    async def read(self, channel: str, receiver: Receiver) -> None:
        decode, dropped, deliver = self._codec.decode, self.dropped, receiver.deliver

        def on_frames(frames: list[Frame]) -> None:
            try:
                message = decode(channel, frames)
            except BadMessageError as exc:
                reason = str(exc)
                dropped[reason] += 1
                if reason == "signature":
                    self.mistrusted.set()
                logger.debug("dropped a message on %s: bad %s", channel, reason)
            else:
                deliver(message)

        socket = self._sockets[channel]
        if socket.on_frames is None:
            socket.on_frames = on_frames
        await socket.read()

    async def connected(self) -> None:
        await self._handshake.wait()

    async def disconnected(self) -> None:
        await self._disconnected.wait()

    def _on_monitor(self, frames: list[Frame]) -> None:
        # Event (u16), value (i32); zmq.utils.monitor reads this too, but importing it costs 20 ms.
        (event,) = struct.unpack_from("=H", frames[0])
        if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            self._handshake.set()
        elif event == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL:
            self.mistrusted.set()
        elif self._handshake.is_set():
            self._disconnected.set()

    async def beat(self, timeout: float) -> bool:
        payload, echo = os.urandom(8), anyio.Event()
        self._beats[payload] = echo
        try:
            with anyio.move_on_after(timeout):
                with contextlib.suppress(ConnectionClosedError):  # then there will be no echo
                    # An empty frame first, which is what a REQ socket would send.
                    self._sockets["hb"].send([b"", payload])
                await echo.wait()
                return True
            # If it was our event loop that was late, the echo may be waiting.
            self._sockets["hb"].drain()
            return echo.is_set()
        finally:
            del self._beats[payload]

    def _on_echo(self, frames: list[Frame]) -> None:
        echo = self._beats.get(bytes(frames[-1]))
        if echo is not None:
            echo.set()

    async def nudge(self) -> None:
        # Connecting to the shell's socket once more does it: that a peer has come makes its owner look at it.
        try:
            ensure_descriptors(_NUDGE_DESCRIPTORS)
            socket = self._context.socket(zmq.DEALER)
        except (KernelStartError, zmq.ZMQError) as exc:
            logger.debug("could not nudge the kernel: %s", exc)
            return
        with socket, anyio.move_on_after(_NUDGE_TIMEOUT):
            socket.immediate = True  # it can be written to when the handshake is done, not before
            self._connect(socket, "shell")
            while not socket.poll(0, zmq.POLLOUT):
                await anyio.wait_readable(socket.FD)

    def close(self) -> None:
        for socket in self._sockets.values():
            socket.close()
        # Sockets do not linger, so this does not wait.
        with _signals_blocked():
            self._context.term()
