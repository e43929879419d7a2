"""A kernel's messages over a WebSocket that may be lost and found again.

How this works. Whoever owns the kernel says how a WebSocket is opened (the handshake is HTTP's business). `read` opens one, runs
its reader, its one writer and its keeper, and, when any of them finds it broken, opens the next, with back-off, until that
has taken too long or it is known that the kernel is gone. What was not yet written when a WebSocket broke is handed back:
who receives decides what of it may go over the next one.

A black hole is found by pings: a connection on which nothing was heard for ``PONG_TIMEOUT`` after one is lost.
"""

from __future__ import annotations

import math
import random
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import anyio.lowlevel

from .._core import Ending, Receiver, Signal
from .._protocol import (
    V1,
    AnyKernelError,
    ArgumentError,
    BadMessageError,
    ConnectionClosedError,
    Message,
    ServerError,
    UnsupportedError,
    decode_legacy,
    decode_v1,
    encode_legacy,
    encode_v1,
)
from .upgraded import READ_SIZE, WebSocket

__all__ = ["WebSocketTransport"]

# Seconds between pings, and until one must have brought something: together, what it takes to find a black hole.
PING_INTERVAL = 10.0
PONG_TIMEOUT = 10.0

# Seconds between attempts to find a lost server again: the first and the longest, and what one may take.
FIRST_DELAY = 0.1
LONGEST_DELAY = 5.0
ATTEMPT_TIMEOUT = 15.0

# Bytes of the largest message that servers take: beyond, tornado cuts the connection.
SIZE_LIMIT = 10 * 2**20


class WebSocketTransport:
    """The messages of one kernel behind a server.

    Args:
        open_socket: opens a WebSocket to the kernel; raises `AnyKernelError`.
        gone: what an error of it means: how the kernel has ended, or None where another attempt may succeed.
        reconnect_timeout: seconds for which the server may stay out of reach before all is given up.
        given_up: makes the end of all calls then, of what kept it out of reach.
    """

    channels: tuple[str, ...] = ("websocket",)

    def __init__(
        self,
        open_socket: Callable[[], Awaitable[WebSocket]],
        *,
        gone: Callable[[AnyKernelError], Ending | None],
        reconnect_timeout: float,
        given_up: Callable[[str], Ending],
    ) -> None:
        self.dropped: Counter[str] = Counter()
        self.mistrusted = anyio.Event()  # never: it is the server that signs, and checks
        self.legacy = False
        """Whether the framing is the one without the subprotocol."""
        self._open_socket = open_socket
        self._gone = gone
        self._reconnect_timeout = reconnect_timeout
        self._given_up = given_up
        self._outbox: deque[str | bytes] = deque()
        self._to_write = Signal()
        self._asked_to_write = False
        self._heard = Signal()
        self._drop = Signal()
        self._dropping = ""
        self._connected = anyio.Event()
        self._lost = False
        self._lost_reason = ""
        self._ended = anyio.Event()
        self._ending: Ending | None = None
        self._closed = self._muted = False

    def send(self, message: Message) -> None:
        if self._ending is not None:
            raise self._ending(None)
        if self._closed:
            raise ConnectionClosedError("the connection is closed")
        if self.legacy and message.buffers:
            raise UnsupportedError(
                "this server does not offer the subprotocol that binary buffers need; the answer to them would silence "
                "the connection (gateways behind --gateway-url are like that)"
            )
        data = encode_legacy(message) if self.legacy else encode_v1(message)
        if len(data) > SIZE_LIMIT:
            raise ArgumentError(
                f"{message.msg_type} takes {len(data)} bytes, and servers take {SIZE_LIMIT} at most "
                "(their websocket_max_message_size): send it in pieces"
            )
        self._outbox.append(data)
        self._wake_writer()

    def take_unsent(self) -> list[str | bytes]:
        """What was handed over and has not been written yet, not even in part; it is not written any more."""
        unsent = list(self._outbox)
        self._outbox.clear()
        return unsent

    def put_back(self, unsent: list[str | bytes]) -> None:
        """Write what `take_unsent` gave, after all."""
        self._outbox.extend(unsent)
        self._wake_writer()

    def _wake_writer(self) -> None:
        self._asked_to_write = True
        self._to_write.set()

    async def read(self, channel: str, receiver: Receiver) -> None:  # noqa: ARG002 - there is one
        while self._ending is None:
            socket = await self._find()
            if socket is None:
                break
            try:
                self._greet(socket, receiver)
                why = await self._run(socket, receiver)
            finally:
                await socket.aclose()
            self._lost = True
            self._lost_reason = why
            receiver.lost()
        self._ended.set()
        await anyio.sleep_forever()

    def _greet(self, socket: WebSocket, receiver: Receiver) -> None:
        if not self._connected.is_set():
            self.legacy = socket.subprotocol != V1
            if self.legacy:  # as nobody knew
                self._outbox = deque(encode_legacy(decode_v1(data)) for data in self._outbox if isinstance(data, bytes))
            self._connected.set()
        if self._lost:
            self._lost = False
            receiver.found()

    async def _find(self) -> WebSocket | None:
        """Open a WebSocket; None where the kernel is gone, or was not found in time."""
        first, delay, reason = not self._lost, FIRST_DELAY, ""
        deadline = anyio.current_time() + (math.inf if first else self._reconnect_timeout)
        while True:
            left = deadline - anyio.current_time()
            if left <= 0:
                self._ending = self._given_up(reason or self._lost_reason)
                return None
            socket: WebSocket | None = None
            try:
                with anyio.move_on_after(math.inf if first else min(left, ATTEMPT_TIMEOUT)):
                    socket = await self._open_socket()
                if socket is not None:
                    return socket
                reason = "no answer in time"
            except AnyKernelError as exc:
                self._ending = self._gone(exc)
                if self._ending is None and first:
                    self._ending = _same(exc)
                if self._ending is not None:
                    return None
                reason = exc.reason if isinstance(exc, ServerError) else str(exc)
            await anyio.sleep(min(delay * random.uniform(0.5, 1.0), max(0.0, deadline - anyio.current_time())))  # noqa: S311
            delay = min(2 * delay, LONGEST_DELAY)

    async def _run(self, socket: WebSocket, receiver: Receiver) -> str:
        """Carry messages both ways until it breaks; why it did."""
        reason = ""
        async with anyio.create_task_group() as tasks:

            async def until_broken(work: Callable[[], Awaitable[None]]) -> None:
                nonlocal reason
                try:
                    await work()
                except EOFError as exc:
                    reason = reason or str(exc)
                    tasks.cancel_scope.cancel()

            tasks.start_soon(until_broken, lambda: self._pump(socket, receiver))
            tasks.start_soon(until_broken, lambda: self._write(socket))
            tasks.start_soon(until_broken, lambda: self._keep(socket))
            tasks.start_soon(until_broken, self._wait_for_drop)
        return reason

    async def _pump(self, socket: WebSocket, receiver: Receiver) -> None:
        decode: Any = decode_legacy if self.legacy else decode_v1
        while True:
            messages = await socket.receive()
            self._heard.set()
            self._wake_writer()
            for data in messages if not self._muted else ():
                try:
                    if isinstance(data, str) and not self.legacy:
                        raise BadMessageError("shape")
                    message: Message = decode(data)
                except BadMessageError as exc:
                    self.dropped[str(exc)] += 1
                else:
                    receiver.deliver(message)

    async def _write(self, socket: WebSocket) -> None:
        while True:
            self._asked_to_write = False
            while self._outbox:
                # As much as fits into one write without holding the rest back for long: what is taken counts as sent.
                size = 0
                while self._outbox and size < READ_SIZE:
                    data = self._outbox.popleft()
                    socket.put(data)
                    size += len(data)
                await socket.flush()
            await socket.flush()
            if not self._asked_to_write:
                await self._to_write.wait()

    async def _keep(self, socket: WebSocket) -> None:
        """Find out when nothing comes through any more."""
        while True:
            await anyio.sleep(PING_INTERVAL)
            heard = False
            socket.ping()
            self._wake_writer()
            with anyio.move_on_after(PONG_TIMEOUT):
                await self._heard.wait()
                heard = True
            if not heard:
                # If the event loop was late, the reader gets to run before time is said to be over.
                with anyio.move_on_after(0.1):
                    await self._heard.wait()
                    heard = True
            if not heard:
                raise EOFError(f"nothing was heard for {PONG_TIMEOUT:g} s after a ping")

    async def _wait_for_drop(self) -> None:
        await self._drop.wait()
        raise EOFError(self._dropping)

    async def connected(self) -> None:
        await self._connected.wait()

    async def disconnected(self) -> Ending | None:
        await self._ended.wait()
        return self._ending

    async def nudge(self) -> None:
        """Nothing: the kernel's peer is the server, whose clients come and go."""
        await anyio.lowlevel.checkpoint()

    async def drain(self) -> None:
        await anyio.lowlevel.checkpoint()  # that the kernel has gone is learned over the same connection, or by asking

    def mute(self) -> None:
        self._muted = True

    async def beat(self, timeout: float) -> bool:  # noqa: ARG002
        # Servers have no heartbeat of the kernel's to hand on, and a lost connection is found by pings and is no death.
        await anyio.lowlevel.checkpoint()
        return True

    def drop(self, reason: str) -> None:
        """Give the WebSocket up, as if it were broken: another may do better."""
        self._dropping = reason
        self._drop.set()

    def end(self, ending: Ending) -> None:
        """It is known in another way that the kernel has ended, or cannot be had."""
        if self._ending is None:
            self._ending = ending
            self._outbox.clear()  # none of it may reach the next process
            self._ended.set()

    @property
    def ended(self) -> bool:
        """Whether the kernel has ended, or cannot be had: nothing of it counts any more."""
        return self._ending is not None

    def close(self) -> None:
        self._closed = True
        self._outbox.clear()


def _same(error: AnyKernelError) -> Ending:
    return lambda result: error  # noqa: ARG005 - it carries none
