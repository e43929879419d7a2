"""A kernel that does what the code tells it, and all of it wrong: ``python hostile_kernel.py CONNECTION_FILE``.

Each line of the code is one misdeed (see `Kernel.misdeeds`); "no reply" and "no idle" leave out what a kernel owes.
"""

from __future__ import annotations

import hmac
import json
import sys
import uuid
from pathlib import Path

import zmq


class Kernel:
    def __init__(self, info):
        self.key = info["key"].encode()
        self.context = zmq.Context()
        self.sockets = {}
        for name, kind in (
            ("shell", zmq.ROUTER), ("control", zmq.ROUTER), ("stdin", zmq.ROUTER), ("iopub", zmq.PUB), ("hb", zmq.REP),
        ):  # fmt: skip
            self.sockets[name] = self.context.socket(kind)
            self.sockets[name].sndhwm = 0
            self.sockets[name].ipv6 = ":" in info["ip"]
            ip = f"[{info['ip']}]" if ":" in info["ip"] else info["ip"]
            self.sockets[name].bind(f"tcp://{ip}:{info[name + '_port']}")

    def frames(self, msg_type, content, parent, *, raw_content=None):
        header = {"msg_id": uuid.uuid4().hex, "msg_type": msg_type, "session": "hostile", "version": "5.4"}
        parts = [json.dumps(part).encode() for part in (header, parent, {}, content)]
        if raw_content is not None:
            parts[3] = raw_content
        return [b"<IDS|MSG>", self.sign(parts), *parts]

    def sign(self, parts):
        return hmac.digest(self.key, b"".join(parts), "sha256").hex().encode()

    def publish(self, msg_type, content, parent, **options):
        self.sockets["iopub"].send_multipart([b"topic", *self.frames(msg_type, content, parent, **options)])

    def text(self, text, parent):
        self.publish("stream", {"name": "stdout", "text": text}, parent)

    def misdeed(self, name, parent):
        iopub = self.sockets["iopub"]
        frames = self.frames("stream", {"name": "stdout", "text": "FORGED"}, parent)
        if name == "tampered":
            iopub.send_multipart([*frames[:-1], frames[-1].replace(b"FORGED", b"forged")])
        elif name == "unsigned":
            iopub.send_multipart([frames[0], b"", *frames[2:]])
        elif name == "replayed":
            original = self.frames("stream", {"name": "stdout", "text": "once\n"}, parent)
            for _ in range(3):
                iopub.send_multipart(original)
        elif name == "truncated":
            for length in range(1, 6):
                iopub.send_multipart(frames[:length])
        elif name == "oversized":
            parts = [json.dumps({"msg_id": "x", "msg_type": "stream", "pad": "x" * 10**6}).encode(), *frames[3:]]
            iopub.send_multipart([b"<IDS|MSG>", self.sign(parts), *parts])
        elif name == "deep":
            self.publish("stream", {}, parent, raw_content=b'{"text":' + b"[" * 10**6)
        elif name == "not json":
            self.publish("stream", {}, parent, raw_content=b"{not json")
        elif name == "not an object":
            self.publish("stream", {}, parent, raw_content=b"[1, 2]")
        elif name == "not utf-8":
            self.publish("stream", {}, parent, raw_content=b'{"name": "stdout", "text": "broken \xff utf-8\\n"}')
        elif name == "surrogate":
            self.publish("stream", {}, parent, raw_content=rb'{"name": "stdout", "text": "lone \ud800\n"}')
        elif name == "nan":
            self.publish("stream", {}, parent, raw_content=b'{"name": "stdout", "text": "nan\\n", "x": NaN}')
        elif name == "no text":
            self.publish("stream", {"name": "stdout", "text": None}, parent)
        elif name == "wrong types":
            self.publish("display_data", {"data": 5, "metadata": [], "transient": 7}, parent)
            self.publish("status", {"execution_state": ["busy"]}, parent)
            self.publish("update_display_data", {"data": {}, "transient": {"display_id": 9}}, parent)
            self.publish("clear_output", {"wait": "perhaps"}, parent)
        elif name == "unknown parent":
            self.text("not yours\n", {"msg_id": "nobody"})
        elif name == "rubbish":
            iopub.send_multipart([bytes(range(256))])
        elif name == "100 MB":
            self.text("x" * 100_000_000, parent)
        else:
            raise ValueError(name)

    def execute(self, identity, parent, code):
        misdeeds = code.splitlines()
        self.publish("status", {"execution_state": "busy"}, parent)
        for name in misdeeds:
            if name not in ("no reply", "no idle", "two replies", "reply after idle"):
                self.misdeed(name, parent)
        self.text("done", parent)
        reply = self.frames("execute_reply", {"status": "ok", "execution_count": 1}, parent)
        if "no reply" not in misdeeds and "reply after idle" not in misdeeds:
            self.sockets["shell"].send_multipart([identity, *reply])
        if "two replies" in misdeeds:
            second = self.frames("execute_reply", {"status": "error", "execution_count": 2}, parent)
            self.sockets["shell"].send_multipart([identity, *second])
        if "no idle" not in misdeeds:
            self.publish("status", {"execution_state": "idle"}, parent)
        if "reply after idle" in misdeeds:
            self.sockets["shell"].send_multipart([identity, *reply])

    def run(self):
        poller = zmq.Poller()
        for name in ("shell", "control", "hb"):
            poller.register(self.sockets[name], zmq.POLLIN)
        while True:
            for socket, _ in poller.poll():
                if socket is self.sockets["hb"]:
                    socket.send(socket.recv())
                    continue
                identity, _, _, header, _, _, content = socket.recv_multipart()[:7]
                parent = json.loads(header)
                if parent["msg_type"] == "execute_request":
                    self.execute(identity, parent, json.loads(content)["code"])
                elif parent["msg_type"] == "kernel_info_request":
                    self.publish("status", {"execution_state": "busy"}, parent)
                    reply = self.frames("kernel_info_reply", {"status": "ok", "implementation": "hostile"}, parent)
                    socket.send_multipart([identity, *reply])
                    self.publish("status", {"execution_state": "idle"}, parent)
                elif parent["msg_type"] == "shutdown_request":
                    self.context.destroy(linger=0)
                    return


if __name__ == "__main__":
    Kernel(json.loads(Path(sys.argv[1]).read_text())).run()
