"""The ZMQ transport.

How this works. Each channel has a `Socket`, which is read and sent to without losing sight of what has come. The sockets have
no high-water marks: while our event loop is blocked, libzmq's own thread goes on receiving and nothing is lost, and sending
never waits (which is why there is no send lock: one multipart send is one synchronous call, and a cancellation cannot come
in between).
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import signal
import struct
from collections import Counter
from collections.abc import Iterator

import anyio
import anyio.lowlevel
import zmq

from .._core import Receiver
from .._protocol import (
    BadMessageError,
    Codec,
    ConnectionClosedError,
    ConnectionInfo,
    Frame,
    KernelStartError,
    Message,
)
from .zmq_socket import Socket

__all__ = ["DESCRIPTORS", "ZmqTransport", "ensure_descriptors"]

logger = logging.getLogger("anykernel")

# Seconds that what a dead kernel has sent may take to arrive where its connection does not end.
DRAIN_TIMEOUT = 1.0

# Descriptors that a connection takes: 20 as measured, and some to spare.
DESCRIPTORS = 32
_NUDGE_DESCRIPTORS = 4  # of which it takes two
# Seconds for which a nudge waits for its handshake.
_NUDGE_TIMEOUT = 2.0

_KINDS = {"shell": zmq.DEALER, "control": zmq.DEALER, "stdin": zmq.DEALER, "iopub": zmq.SUB, "hb": zmq.DEALER}


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

    channels: tuple[str, ...] = (
        "shell", "control", "iopub", "stdin", "hb", "stdin monitor", "iopub monitor",
    )  # fmt: skip

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
        # Whether IOPub has been connected, and set when it is not any more.
        self._publishes = False
        self._silent = anyio.Event()
        self._beats: dict[bytes, anyio.Event] = {}
        # What the ROUTERs know us by. Fresh, or the kernel would send an earlier client's replies here; and
        # the same on shell and stdin, or input requests would not find us.
        self._identity = os.urandom(16).hex().encode()
        self._info = info
        self._curve_keys: tuple[bytes, bytes] | None = None
        self._context = zmq.Context()
        self._sockets: dict[str, Socket] = {}
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
                self._sockets[channel] = Socket(socket, self._on_echo if channel == "hb" else None)
                socket.rcvhwm = socket.sndhwm = 0
                socket.reconnect_ivl = reconnect_interval
                if kind == zmq.SUB:
                    # The kernel greets each new topic (JEP 65), so one that nobody else can have brings a
                    # greeting even where other clients hold the subscription to everything.
                    socket.subscribe(b"")
                    socket.subscribe(b"anykernel-" + self._identity)
                else:
                    socket.setsockopt(zmq.IDENTITY, self._identity)
                if channel in ("stdin", "iopub"):
                    # An input request to a peer whose handshake is not done is silently lost, and no message
                    # tells when that is; so this socket is watched. It also tells when the kernel goes, and IOPub's when
                    # the kernel's last words have come.
                    events = (
                        zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_DISCONNECTED
                    )
                    watch = self._on_monitor if channel == "stdin" else self._on_iopub_monitor
                    self._sockets[f"{channel} monitor"] = Socket(socket.get_monitor_socket(events), watch)
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
                frames.clear()  # what is decoded need not be there twice
            except BadMessageError as exc:
                reason = str(exc)
                dropped[reason] += 1
                if reason == "signature":
                    self.mistrusted.set()
                logger.debug("dropped a message on %s: bad %s", channel, reason)
                if exc.rest is not None:
                    deliver(exc.rest)
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

    def _on_iopub_monitor(self, frames: list[Frame]) -> None:
        (event,) = struct.unpack_from("=H", frames[0])
        if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            self._publishes = True
        elif event == zmq.EVENT_DISCONNECTED and self._publishes:
            self._silent.set()

    async def drain(self) -> None:
        # ZMQ tells that a connection has ended when all that came over it can be received. Where a child of the kernel's holds
        # the connection, it does not end.
        self._sockets["iopub monitor"].drain()
        with anyio.move_on_after(DRAIN_TIMEOUT):
            while self._publishes and not self._silent.is_set():
                await self._silent.wait()
        with anyio.move_on_after(math.inf if self._silent.is_set() else DRAIN_TIMEOUT):
            for channel in ("iopub", "shell", "control", "stdin"):
                while not self._sockets[channel].drain_some():
                    await anyio.lowlevel.checkpoint()

    def mute(self) -> None:
        for channel in ("iopub", "shell", "control", "stdin"):
            self._sockets[channel].on_frames = list.clear

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
