"""A kernel that does nothing, as fast as it can, so that what is measured is the client.

``python -m benchmarks.echo_kernel CONNECTION_FILE...``; for several files it is several processes. It answers every
request with ok, and with the request's buffers. The code of an execute_request says what is published before that:

- ``stream N SIZE``: N stream messages of SIZE bytes of text; ``display N SIZE``: N displays of that;
- ``hold``: nothing, and the answer waits until somebody sends ``release``;
- ``feed N SIZE``: N stream messages for the held requests, each in turn;
- anything else: nothing.

Contents are bytes made beforehand; only ids and signatures are made for each message.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
from collections import deque
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from threading import Thread

import zmq

DELIMITER = b"<IDS|MSG>"
# A real date: some clients parse it, which is part of their cost.
HEADER = b'{"msg_id":"echo_%d","msg_type":"%s","username":"echo","session":"echo","date":"%s","version":"5.4"}'
DATE = b"2025-01-01T00:00:00.000000+00:00"
BUSY, IDLE = b'{"execution_state":"busy"}', b'{"execution_state":"idle"}'
KERNEL_INFO = json.dumps(
    {
        "status": "ok",
        "protocol_version": "5.4",
        "implementation": "echo",
        "implementation_version": "0",
        "banner": "",
        "language_info": {"name": "echo", "version": "0", "mimetype": "text/plain", "file_extension": ".txt"},
        "help_links": [],
        "supported_features": [],
    }
).encode()
EXECUTE_REPLY = b'{"status":"ok","execution_count":%d,"user_expressions":{},"payload":[]}'
STREAM = b'{"name":"stdout","text":"%s"}'
DISPLAY = b'{"data":{"text/plain":"%s"},"metadata":{},"transient":{"display_id":"echo_%d_%d"}}'

_SNDMORE = int(zmq.SNDMORE)


class Signer:
    """HMAC-SHA256 from two hashes that have taken the key already: half the price of `hmac`."""

    def __init__(self, key: bytes) -> None:
        if len(key) > 64:
            key = hashlib.sha256(key).digest()
        self._inner, self._outer = (hashlib.sha256(bytes(c ^ pad for c in key.ljust(64, b"\0"))) for pad in b"\x36\x5c")

    def sign(self, data: bytes) -> bytes:
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(data)
        outer.update(inner.digest())
        return outer.hexdigest().encode()


class Channel:
    """A socket and the messages that leave through it."""

    def __init__(self, context: zmq.Context, kind: int, signer: Signer, ids: count[int]) -> None:
        self.socket = context.socket(kind)
        self.socket.linger = 500
        self.socket.sndhwm = self.socket.rcvhwm = 0  # nothing is dropped, however slow the client
        self._signer, self._ids = signer, ids
        # The backend's own send is a third of the price of send_multipart.
        self._send = zmq.backend.Socket.send.__get__(self.socket)

    def send(self, ident: bytes, msg_type: bytes, parent: bytes, content: bytes, buffers: Sequence[bytes] = ()) -> None:
        header, send = HEADER % (next(self._ids), msg_type, DATE), self._send
        send(ident, _SNDMORE)
        send(DELIMITER, _SNDMORE)
        send(self._signer.sign(b"%s%s{}%s" % (header, parent, content)), _SNDMORE)
        send(header, _SNDMORE)
        send(parent, _SNDMORE)
        send(b"{}", _SNDMORE)
        for frame in buffers:
            send(content, _SNDMORE)
            content = frame
        send(content, 0)


class EchoKernel:
    def __init__(self, connection_file: str) -> None:
        info = json.loads(Path(connection_file).read_bytes())
        separator = "-" if info["transport"] == "ipc" else ":"
        context, signer, ids = zmq.Context(), Signer(info["key"].encode()), count()
        self.channels: dict[str, Channel] = {}
        self.poller = zmq.Poller()
        for name in ("shell", "control", "stdin", "iopub", "hb"):
            channel = Channel(context, zmq.XPUB if name == "iopub" else zmq.ROUTER, signer, ids)
            channel.socket.bind(f"{info['transport']}://{info['ip']}{separator}{info[f'{name}_port']}")
            self.channels[name] = channel
            if name == "hb":
                # A thread of its own: some clients give a kernel up that does not answer while it is busy.
                Thread(target=zmq.proxy, args=(channel.socket, channel.socket), daemon=True).start()
            else:
                self.poller.register(channel.socket, zmq.POLLIN)
        # So that a client which subscribes while the last one's subscription is not gone yet is greeted, too.
        self.channels["iopub"].socket.xpub_verbose = True
        self.executions = 0
        self.held: deque[tuple[bytes, bytes]] = deque()  # identity and header of requests that wait for their answer

    def run(self) -> None:
        """Answer until a shutdown_request, or until the parent is gone."""
        parent = os.getppid()
        names = {channel.socket: name for name, channel in self.channels.items()}
        # Only when nothing has come for a while: then the parent may have died.
        while (events := self.poller.poll(2000)) or os.getppid() == parent:
            for socket, _ in events:
                frames = socket.recv_multipart()
                name = names[socket]
                if name == "iopub":
                    self.greet(frames[0])
                elif not self.answer(self.channels[name], frames):
                    return

    def greet(self, subscription: bytes) -> None:
        if subscription[0]:  # 1 comes, 0 goes
            topic = subscription[1:]
            content = json.dumps({"subscription": topic.decode()}).encode()
            self.channels["iopub"].send(topic, b"iopub_welcome", b"{}", content)

    def answer(self, channel: Channel, frames: list[bytes]) -> bool:
        """Answer a request; False after a shutdown_request."""
        ident, _, _, parent, _, _, content, *buffers = frames
        publish = self.channels["iopub"].send
        publish(b"status", b"status", parent, BUSY)
        msg_type = json.loads(parent)["msg_type"]
        if msg_type == "execute_request":
            code = json.loads(content)["code"]
            self.executions += 1
            publish(
                b"execute_input",
                b"execute_input",
                parent,
                b'{"code":%s,"execution_count":%d}' % (json.dumps(code).encode(), self.executions),
            )
            if code == "hold":
                self.held.append((ident, parent))
                return True
            self.put_out(code, parent)
            self.settle(channel, ident, parent)
            return True
        content = KERNEL_INFO if msg_type == "kernel_info_request" else b'{"status":"ok"}'
        channel.send(ident, msg_type.replace("_request", "_reply").encode(), parent, content, buffers)
        publish(b"status", b"status", parent, IDLE)
        return msg_type != "shutdown_request"

    def settle(self, channel: Channel, ident: bytes, parent: bytes) -> None:
        channel.send(ident, b"execute_reply", parent, EXECUTE_REPLY % self.executions)
        self.channels["iopub"].send(b"status", b"status", parent, IDLE)

    def put_out(self, code: str, parent: bytes) -> None:
        publish = self.channels["iopub"].send
        match code.split():
            case ["stream", number, size]:
                content = STREAM % (b"x" * int(size))
                for _ in range(int(number)):
                    publish(b"stream", b"stream", parent, content)
            case ["display", number, size]:
                text = b"x" * int(size)
                for index in range(int(number)):
                    publish(b"display_data", b"display_data", parent, DISPLAY % (text, self.executions, index))
            case ["feed", number, size]:
                content = STREAM % (b"x" * int(size))
                for _ in range(int(number)):
                    publish(b"stream", b"stream", self.held[0][1], content)
                    self.held.rotate(-1)
            case ["release"]:
                while self.held:
                    self.settle(self.channels["shell"], *self.held.popleft())


def main(connection_files: list[str]) -> None:
    # All but the last are children of this process, and end with it.
    children: list[int] = []
    for connection_file in connection_files[:-1]:
        if not (pid := os.fork()):
            EchoKernel(connection_file).run()
            return
        children.append(pid)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    try:
        EchoKernel(connection_files[-1]).run()
    finally:
        for pid in children:
            os.kill(pid, signal.SIGTERM)


if __name__ == "__main__":
    main(sys.argv[1:])
