"""The ZMQ transport against raw sockets, which do what no kernel does on purpose."""

from __future__ import annotations

import select
import signal
import time
from contextlib import asynccontextmanager

import anyio
import pytest
import zmq

from anykernel import ConnectionClosedError, ConnectionInfo, KernelStartError, Message
from anykernel._protocol.wire import Codec
from anykernel._transports import zmq as zmq_module
from anykernel._transports import zmq_socket
from anykernel._transports.zmq import ZmqTransport

from ..helpers.receiving import Taker

KEY = "secret"
KINDS = {"shell": zmq.ROUTER, "control": zmq.ROUTER, "stdin": zmq.ROUTER, "iopub": zmq.XPUB, "hb": zmq.ROUTER}


class Peer:
    """A kernel's sockets, used synchronously: while they are, the event loop is blocked."""

    def __init__(self, context: zmq.Context) -> None:
        self.sockets = {name: context.socket(kind) for name, kind in KINDS.items()}
        for socket in self.sockets.values():
            socket.sndhwm = 0
        ports = {f"{name}_port": s.bind_to_random_port("tcp://127.0.0.1") for name, s in self.sockets.items()}
        self.info = ConnectionInfo(key=KEY, **ports)
        self.codec = Codec(KEY.encode())
        self.count = 0

    def receive(self, channel="shell"):
        assert self.sockets[channel].poll(5000)
        identity, *frames = self.sockets[channel].recv_multipart()
        return identity, self.codec.decode(channel, frames)

    def frames(self, channel, msg_type, parent=None, **content):
        self.count += 1
        header = {"msg_id": f"peer-{self.count}", "msg_type": msg_type, "session": "peer"}
        return self.codec.encode(Message(channel, header, parent or {}, {}, content))


@asynccontextmanager
async def connected():
    """A peer, a transport that is connected to it, and what the transport delivers."""
    with zmq.Context() as context:
        peer = Peer(context)
        transport = ZmqTransport(peer.info)
        taker = Taker()
        try:
            async with anyio.create_task_group() as tasks:
                for channel in transport.channels:
                    tasks.start_soon(transport.read, channel, taker)
                await transport.connected()
                for _ in range(2):  # to everything, and to a topic of its own
                    assert peer.sockets["iopub"].poll(5000)
                    peer.sockets["iopub"].recv()
                yield peer, transport, taker.received
                tasks.cancel_scope.cancel()
        finally:
            transport.close()
            taker.close()
            context.destroy(linger=0)


def request(n, channel="shell"):
    return Message(channel, {"msg_id": f"r{n}", "msg_type": "x_request", "session": "s"}, content={"n": n})


async def test_a_nudge_shows_a_peer_what_it_has_lost_sight_of():
    async with connected() as (peer, transport, _):
        shell = peer.sockets["shell"]
        transport.send(request(0))
        with anyio.fail_after(10):
            while not shell.get(zmq.EVENTS) & zmq.POLLIN:  # which takes the sign, as a send of the peer does
                await anyio.lowlevel.checkpoint()
            transport.send(request(1))
            assert select.select([shell.FD], [], [], 0.05)[0] == []  # what follows gives no other
            await transport.nudge()
            while not select.select([shell.FD], [], [], 0)[0]:
                await anyio.lowlevel.checkpoint()
        assert [peer.receive()[1].content["n"] for _ in range(2)] == [0, 1]


async def test_a_nudge_that_cannot_be_given_is_left_out(monkeypatch):
    async with connected() as (_, transport, _):
        peerless = ZmqTransport(ConnectionInfo(shell_port=9, iopub_port=9, stdin_port=9, control_port=9, hb_port=9))
        monkeypatch.setattr(zmq_module, "_NUDGE_TIMEOUT", 0.05)
        with anyio.fail_after(5):
            await peerless.nudge()
        peerless.close()

        def none_left(count):
            raise KernelStartError(f"{count} descriptors")

        monkeypatch.setattr(zmq_module, "ensure_descriptors", none_left)
        await transport.nudge()


@pytest.mark.limit(120)
async def test_a_reply_that_came_while_the_loop_was_blocked_survives_a_send_300_of_300():
    received = 0
    async with connected() as (peer, transport, receive):
        for n in range(300):
            transport.send(request(n))
            # From here to the next send the event loop is blocked; the reply arrives meanwhile, and the send
            # consumes the edge of the descriptor that would have told of it.
            identity, message = peer.receive()
            peer.sockets["shell"].send_multipart([identity, *peer.frames("shell", "x_reply", message.header, n=n)])
            time.sleep(0.002)
            transport.send(request(f"more-{n}"))
            with anyio.move_on_after(2):
                reply = await receive.receive()
                assert reply.content == {"n": n}
                received += 1
            peer.receive()
    assert received == 300


async def test_more_waiting_messages_than_a_send_takes_are_left_to_the_reader():
    async with connected() as (peer, transport, receive):
        for round_ in range(20):
            transport.send(request(f"first-{round_}"))
            identity, message = peer.receive()
            count = 3 * zmq_socket._SEND_BURST
            for n in range(count):
                peer.sockets["shell"].send_multipart([identity, *peer.frames("shell", "x_reply", message.header, n=n)])
            time.sleep(0.02)
            transport.send(request(f"second-{round_}"))
            peer.receive()
            with anyio.fail_after(5):
                assert [(await receive.receive()).content["n"] for _ in range(count)] == list(range(count))


async def test_nothing_is_lost_while_the_event_loop_is_blocked():
    async with connected() as (peer, _, receive):
        for n in range(20_000):
            peer.sockets["iopub"].send_multipart([b"topic", *peer.frames("iopub", "stream", n=n)])
        time.sleep(2)
        with anyio.fail_after(30):
            assert [(await receive.receive()).content["n"] for _ in range(20_000)] == list(range(20_000))


async def test_hostile_frames_are_counted_and_the_reader_lives_on():
    async with connected() as (peer, transport, receive):
        good = peer.frames("iopub", "stream", n=1)
        tampered = [*good[:-1], b'{"n": 2}']
        other_key = Codec(b"other").encode(request(1, "iopub"))
        unsigned = Codec(b"").encode(request(2, "iopub"))
        for frames in (
            [b"x"],
            [b""],
            [b"<IDS|MSG>"],
            good[:3],
            good[:5],
            tampered,
            other_key,
            unsigned,
            [good[0], good[1], b"not json", *good[3:]],
        ):
            peer.sockets["iopub"].send_multipart(frames)
        peer.sockets["iopub"].send_multipart(good)
        peer.sockets["iopub"].send_multipart(good)
        peer.sockets["iopub"].send_multipart(peer.frames("iopub", "stream", n=3))
        assert (await receive.receive()).content == {"n": 1}
        assert (await receive.receive()).content == {"n": 3}
        assert transport.dropped == {"shape": 5, "signature": 4, "repeated": 1}
        assert transport.mistrusted.is_set()


async def test_frames_on_the_heartbeat_and_from_strangers_do_no_harm():
    async with connected() as (peer, transport, receive):

        def echo():
            while True:
                assert peer.sockets["hb"].poll(5000)
                frames = peer.sockets["hb"].recv_multipart()
                peer.sockets["hb"].send_multipart([frames[0], b"rubbish"])
                peer.sockets["hb"].send_multipart(frames)
                return

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.to_thread.run_sync, echo)
            assert await transport.beat(5)
        assert not await transport.beat(0.05)
        assert transport.dropped == {}
        assert receive.statistics().current_buffer_used == 0


async def test_large_messages_and_buffers_come_through_unchanged():
    async with connected() as (peer, transport, receive):
        buffers = (b"", b"small", bytes(5_000_000), memoryview(b"view"))
        transport.send(Message("shell", {"msg_id": "1", "msg_type": "x"}, content={"t": "é" * 10**6}, buffers=buffers))
        identity, message = peer.receive()
        assert [bytes(b) for b in message.buffers] == [bytes(b) for b in buffers]
        peer.sockets["shell"].send_multipart(
            [identity, *peer.frames("shell", "x_reply", text="ü" * 10**6), *map(bytes, buffers)]
        )
        reply = await receive.receive()
        assert reply.content["text"] == "ü" * 10**6
        assert [bytes(b) for b in reply.buffers] == [bytes(b) for b in buffers]


async def test_shell_stdin_and_control_share_an_identity_that_no_other_connection_has():
    identities = []
    for _ in range(2):
        async with connected() as (peer, transport, _receive):
            for channel in ("shell", "control", "stdin"):
                transport.send(request(channel, channel))
                identities.append(peer.receive(channel)[0])
    assert len(set(identities[:3])) == len(set(identities[3:])) == 1
    assert identities[0] != identities[3]


async def test_the_end_of_the_peer_is_noticed():
    async with connected() as (peer, transport, _):
        for socket in peer.sockets.values():
            socket.close(linger=0)
        with anyio.fail_after(5):
            await transport.disconnected()


async def test_a_closed_transport_refuses_to_send():
    async with connected() as (_, transport, _receive):
        pass
    with pytest.raises(ConnectionClosedError):
        transport.send(request(1))


def test_signals_at_any_moment_leave_nothing_open():
    info = ConnectionInfo(shell_port=1, iopub_port=2, stdin_port=3, control_port=4, hb_port=5)

    async def main():
        for _ in range(50):
            ZmqTransport(info).close()

    before = signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 0.0002, 0.0002)
    try:
        anyio.run(main)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize(
    "wrong",
    [
        {"ip": "not an address"},
        {"signature_scheme": "none"},
        {"signature_scheme": "hmac-nohash"},
        {"curve_publickey": "short"},
        {"transport": "ipc", "ip": "/" + "x" * 200},
    ],
)
def test_unusable_connection_information_is_refused(wrong):
    fields = {"shell_port": 1, "iopub_port": 2, "stdin_port": 3, "control_port": 4, "hb_port": 5, "key": "k", **wrong}

    async def main():
        with pytest.raises(KernelStartError):
            ZmqTransport(ConnectionInfo(**fields))

    anyio.run(main)
