"""What every transport promises, tried on each of them against a peer that does what a kernel's sockets do."""

from __future__ import annotations

import itertools
import math
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
import zmq
from websockets.frames import Opcode
from websockets.protocol import Protocol, Side, State

from anykernel import ArgumentError, ConnectionClosedError, KernelDiedError, Message, ServerError
from anykernel._protocol import V1, decode_v1, encode_v1
from anykernel._transports import (
    MemoryTransport,
    WebSocket,
    WebSocketTransport,
    ZmqTransport,
    open_recorder,
    read_recording,
)

from ..helpers.receiving import Taker
from .test_zmq import Peer as ZmqPeer

COUNT = itertools.count()


class MemoryPeer:
    """The other end of a transport in memory."""

    def __init__(self) -> None:
        self.transport = MemoryTransport()

    async def receive(self, channel):
        message = await self.transport.receive()
        assert message.channel == channel
        return message

    def say(self, channel, request, msg_type, content, buffers=()):
        self.transport.answer(request, channel, msg_type, content, buffers=buffers)

    def go(self):
        self.transport.gone.set()


class SocketPeer(ZmqPeer):
    """The other end of a ZMQ connection: a kernel's sockets."""

    async def receive(self, channel):
        with anyio.fail_after(5):
            while not self.sockets[channel].poll(0):
                await anyio.lowlevel.checkpoint()
        self.identity, message = super().receive(channel)
        return message

    def say(self, channel, request, msg_type, content, buffers=()):
        header = {"msg_id": f"peer-{next(COUNT)}", "msg_type": msg_type, "session": "peer"}
        message = Message(channel, header, request.header if request else {}, {}, content, buffers)
        topic = b"topic" if channel == "iopub" else self.identity
        self.sockets[channel].send_multipart([topic, *self.codec.encode(message)])

    def go(self):
        for socket in self.sockets.values():
            socket.close(linger=0)


class WebSocketPeer:
    """The other end of a WebSocket: a server that hands on what a kernel says."""

    def __init__(self, encode, decode):
        self.encode, self.decode = encode, decode
        self.protocol = Protocol(Side.SERVER, state=State.OPEN, max_size=None)
        self.to_client, self.from_server = anyio.create_memory_object_stream(math.inf)
        self.to_server, self.from_client = anyio.create_memory_object_stream(math.inf)
        self.frames = []

    # What lies under the client's end.

    async def read(self, max_bytes, timeout=None):
        try:
            return await self.from_server.receive()
        except (anyio.EndOfStream, anyio.ClosedResourceError):
            return b""

    async def write(self, buffer, timeout=None):
        self.to_server.send_nowait(buffer)

    async def aclose(self):
        for stream in (self.to_client, self.from_server, self.to_server, self.from_client):
            stream.close()

    async def open(self):
        if not self.to_client.statistics().open_receive_streams:
            raise ServerError("there is no such kernel", status=404)
        return WebSocket(self, self.aclose, V1 if self.encode is encode_v1 else None)

    # What the test lets it do.

    async def receive(self, channel):
        with anyio.fail_after(5):
            while not self.frames:
                self.protocol.receive_data(await self.from_client.receive())
                self.frames += [f for f in self.protocol.events_received() if f.opcode in (Opcode.TEXT, Opcode.BINARY)]
        frame = self.frames.pop(0)
        data = bytes(frame.data)
        message = self.decode(data.decode() if frame.opcode is Opcode.TEXT else data)
        assert message.channel == channel
        return message

    def say(self, channel, request, msg_type, content, buffers=()):
        header = {"msg_id": f"peer-{next(COUNT)}", "msg_type": msg_type, "session": "peer"}
        data = self.encode(Message(channel, header, request.header if request else {}, {}, content, buffers))
        if isinstance(data, str):
            self.protocol.send_text(data.encode())
        else:
            self.protocol.send_binary(data)
        for piece in self.protocol.data_to_send():
            self.to_client.send_nowait(piece)

    def go(self):
        self.to_client.close()
        self.from_server.close()


@asynccontextmanager
async def web_socket(tmp_path):
    peer = WebSocketPeer(encode_v1, decode_v1)
    gone = {404: lambda result: KernelDiedError("gone", result=result)}
    yield (
        peer,
        WebSocketTransport(
            peer.open, gone=lambda exc: gone[exc.status], reconnect_timeout=1, given_up=lambda reason: gone[404]
        ),
    )
    await peer.aclose()


@asynccontextmanager
async def memory(tmp_path):
    peer = MemoryPeer()
    yield peer, peer.transport


@asynccontextmanager
async def sockets(tmp_path):
    with zmq.Context() as context:
        peer = SocketPeer(context)
        try:
            yield peer, ZmqTransport(peer.info)
        finally:
            context.destroy(linger=0)


@asynccontextmanager
async def recorded(tmp_path):
    with zmq.Context() as context, open_recorder(tmp_path / "recording") as recorder:
        peer = SocketPeer(context)
        try:
            yield peer, recorder.wrap(ZmqTransport(peer.info), peer.info)
        finally:
            context.destroy(linger=0)
    assert [line.event for line in read_recording(tmp_path / "recording")][0 :: 10**6] == ["connected"]


@pytest.fixture(params=[memory, sockets, recorded, web_socket], ids=lambda make: make.__name__)
def make(request, tmp_path):
    """Makes a peer and a transport that connects to it."""
    return lambda: request.param(tmp_path)


@asynccontextmanager
async def open_ends(make):
    """A peer, a transport connected to it whose readers run, and who takes what they deliver."""
    async with make() as (peer, transport):
        taker = Taker()
        try:
            async with anyio.create_task_group() as tasks:
                for channel in transport.channels:
                    tasks.start_soon(transport.read, channel, taker)
                with anyio.fail_after(5):
                    await transport.connected()
                yield peer, transport, taker
                tasks.cancel_scope.cancel()
        finally:
            transport.close()
            taker.close()


def request(n=0, channel="shell", **fields):
    header = {"msg_id": f"r{n}", "msg_type": "x_request", "session": "s"}
    return Message(channel, header, **{"content": {"n": n}, **fields})


async def test_what_is_sent_arrives_as_it_is_and_in_order(make):
    async with open_ends(make) as (peer, transport, _):
        for n in range(50):
            transport.send(
                request(n, parent_header={"msg_id": "p"}, metadata={"m": [n]}, buffers=(b"raw", bytearray(3)))
            )
        for n in range(50):
            message = await peer.receive("shell")
            assert (message.msg_id, message.parent_id, message.metadata) == (f"r{n}", "p", {"m": [n]})
            assert message.content == {"n": n}
            assert list(map(bytes, message.buffers)) == [b"raw", b"\0\0\0"]


@pytest.mark.parametrize("channel", ["shell", "control", "stdin"])
async def test_what_the_peer_says_on_a_channel_is_delivered_in_order_with_its_size(make, channel):
    async with open_ends(make) as (peer, transport, taker):
        transport.send(request(0, channel))
        asked = await peer.receive(channel)
        for n in range(50):
            peer.say(channel, asked, "x_reply", {"n": n}, (b"12345",))
        with anyio.fail_after(5):
            got = [await taker.received.receive() for _ in range(50)]
        assert [message.content["n"] for message in got] == list(range(50))
        assert {(message.channel, message.msg_type, message.parent_id) for message in got} == {
            (channel, "x_reply", "r0")
        }
        assert bytes(got[0].buffers[0]) == b"12345"


async def test_what_cannot_be_sent_is_refused_and_nothing_of_it_arrives(make):
    async with open_ends(make) as (peer, transport, _):
        for fields in ({"content": {"x": object()}}, {"metadata": {"x": {1j}}}, {"buffers": ("text",)}):
            with pytest.raises(ArgumentError):
                transport.send(request(1, **fields))
        transport.send(request(2))
        assert (await peer.receive("shell")).msg_id == "r2"


async def test_after_its_end_nothing_can_be_sent(make):
    async with open_ends(make) as (_, transport, _):
        pass
    with pytest.raises(ConnectionClosedError):
        transport.send(request())


async def test_a_reader_that_is_cancelled_loses_nothing(make):
    async with open_ends(make) as (peer, transport, taker):
        transport.send(request())
        asked = await peer.receive("shell")
        with anyio.move_on_after(0):  # somebody who waits is torn away
            await taker.received.receive()
        peer.say("shell", asked, "x_reply", {})
        with anyio.fail_after(5):
            assert (await taker.received.receive()).msg_type == "x_reply"


async def test_a_nudge_leaves_nothing_open_and_says_nothing(make):
    async with open_ends(make) as (peer, transport, _):
        before = set(Path("/proc/self/fd").iterdir())
        with anyio.fail_after(5):
            await transport.nudge()
            while (
                set(Path("/proc/self/fd").iterdir()) - before
            ):  # until libzmq's thread has closed its end, and the peer's
                await anyio.lowlevel.checkpoint()
        transport.send(request())
        assert (await peer.receive("shell")).msg_id == "r0"


async def test_that_the_peer_goes_is_told_to_who_waits_for_it(make):
    async with open_ends(make) as (peer, transport, taker):
        with anyio.fail_after(5):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(transport.disconnected)
                await anyio.wait_all_tasks_blocked()
                peer.go()
        assert taker.told in ([], ["lost"])  # one that may find it again says that first
