"""The same primitives through each client's public API, so that each question is asked of all in the same words.

- ``connect(info, **options)``: a context manager that gives the client, connected to a running kernel;
- ``execute(code)``: run code until reply and idle; gives the characters of output that came;
- ``at_once(count)``: so many executes that do nothing, all at once;
- ``submit(code)``: send code; gives its outputs as they come, to iterate over, while others are under way;
- ``echo(buffer)``: a request with a buffer, which the echo kernel sends back.

A client that lacks one of them cannot do that. All libraries are imported by the client that needs them.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

NOTHING = "pass"


def size_of(message: dict[str, Any]) -> int:
    """The characters of output in a message as jupyter_client has it."""
    content = message["content"]
    match message["msg_type"]:
        case "stream":
            return len(content["text"])
        case "display_data" | "execute_result":
            return len(content["data"]["text/plain"])
    return 0


def is_idle(message: dict[str, Any]) -> bool:
    return message["msg_type"] == "status" and message["content"]["execution_state"] == "idle"


class AnyKernel:
    def __init__(self, kernel) -> None:
        self.kernel = kernel

    @classmethod
    @asynccontextmanager
    async def connect(cls, info: dict[str, Any], **options: Any):
        from anykernel import connect_kernel

        async with connect_kernel(info, **options) as kernel:
            yield cls(kernel)

    async def execute(self, code: str) -> int:
        result = await self.kernel.execute(code)
        assert result.ok
        return sum(len(getattr(output, "text", None) or output.data["text/plain"]) for output in result.outputs)

    async def at_once(self, count: int) -> None:
        import anyio

        async with anyio.create_task_group() as tasks:
            for _ in range(count):
                tasks.start_soon(self.execute, NOTHING)

    async def submit(self, code: str):
        return await self.kernel.submit(code)

    async def echo(self, buffer: bytes) -> int:
        reply = await self.kernel.request("echo_request", {}, buffers=[buffer])
        return len(reply.buffers[0])


class _JupyterClient:
    """What jupyter_client's have in common: they give replies to whoever asks first, so they do one thing at a time."""

    def __init__(self, client) -> None:
        self.client = client

    @classmethod
    @asynccontextmanager
    async def connect(cls, info: dict[str, Any]):
        connected = cls(cls.make())
        client = connected.client
        client.load_connection_info(info)
        client.start_channels()
        try:
            await connected.ready()
            yield connected
        finally:
            client.stop_channels()

    async def execute(self, code: str) -> int:
        msg_id, size = self.client.execute(code), 0
        while True:
            message = await self.next_on_iopub()
            if message["parent_header"].get("msg_id") == msg_id:
                size += size_of(message)
                if is_idle(message):
                    break
        reply = await self._reply(msg_id)
        assert reply["content"]["status"] == "ok"
        return size

    async def _reply(self, msg_id: str) -> dict[str, Any]:
        while (reply := await self.next_on_shell())["parent_header"].get("msg_id") != msg_id:
            pass
        return reply


class AsyncKernelClient(_JupyterClient):
    def __init__(self, client) -> None:
        super().__init__(client)
        self.next_on_iopub, self.next_on_shell = client.get_iopub_msg, client.get_shell_msg

    @staticmethod
    def make():
        from jupyter_client.asynchronous import AsyncKernelClient

        return AsyncKernelClient()

    async def ready(self) -> None:
        await self.client.wait_for_ready(timeout=60)

    async def echo(self, buffer: bytes) -> int:
        session, channel = self.client.session, self.client.shell_channel
        message = session.msg("echo_request", {})
        session.send(channel.socket, message, buffers=[buffer])
        reply = await self._reply(message["header"]["msg_id"])
        return len(reply["buffers"][0])


class BlockingKernelClient(_JupyterClient):
    """Without an event loop of the caller's: it awaits nothing, the calls below block."""

    @staticmethod
    def make():
        from jupyter_client.blocking import BlockingKernelClient

        return BlockingKernelClient()

    async def ready(self) -> None:
        self.client.wait_for_ready(timeout=60)

    async def next_on_iopub(self) -> dict[str, Any]:
        return self.client.get_iopub_msg()

    async def next_on_shell(self) -> dict[str, Any]:
        return self.client.get_shell_msg()


class NbClient:
    """nbclient, a cell at a time."""

    def __init__(self, client) -> None:
        self.client = client

    @classmethod
    @asynccontextmanager
    async def connect(cls, info: dict[str, Any]):
        from nbclient import NotebookClient
        from nbformat.v4 import new_code_cell, new_notebook

        # Else it gives up on output that it has not read 4 seconds after the reply.
        notebook = NotebookClient(new_notebook(cells=[new_code_cell()]), iopub_timeout=600)
        async with AsyncKernelClient.connect(info) as connected:
            notebook.kc = connected.client
            yield cls(notebook)

    async def execute(self, code: str) -> int:
        from nbformat.v4 import new_code_cell

        cell = await self.client.async_execute_cell(new_code_cell(code), 0)
        return sum(len(output.get("text") or output["data"]["text/plain"]) for output in cell["outputs"])


class ConKernelClient:
    def __init__(self, client) -> None:
        self.client = client

    @classmethod
    @asynccontextmanager
    async def connect(cls, info: dict[str, Any]):
        import conkernelclient

        client = conkernelclient.ConKernelClient()
        client.load_connection_info(info)
        await client.start_channels()
        try:
            yield cls(client)
        finally:
            await client.astop_channels()

    async def execute(self, code: str) -> int:
        size = 0
        async for message in self.client.run(code):
            size += size_of(message)
            assert message["msg_type"] != "execute_reply" or message["content"]["status"] == "ok"
        return size

    async def at_once(self, count: int) -> None:
        await asyncio.gather(*(self.execute(NOTHING) for _ in range(count)))

    async def submit(self, code: str):
        messages = self.client.run(code)  # sends now
        return (message async for message in messages if size_of(message))

    async def echo(self, buffer: bytes) -> int:
        return len((await self.client.request("echo_request", buffers=[buffer]))["buffers"][0])


class Raw:
    """The floor: pyzmq without an event loop. It signs, verifies and parses, and knows what comes next."""

    def __init__(self, info: dict[str, Any]) -> None:
        import hmac

        import zmq

        self.hmac = hmac.new(info["key"].encode(), digestmod="sha256")
        self.session = os.urandom(16).hex()  # kernels refuse what they have had before
        self.ids = 0
        self.context = zmq.Context()
        self.shell, self.iopub = self.context.socket(zmq.DEALER), self.context.socket(zmq.SUB)
        self.shell.sndhwm = self.iopub.rcvhwm = 0
        self.iopub.subscribe(b"")
        self.iopub.subscribe(b"raw")  # the kernel greets each new topic
        for socket, channel in ((self.shell, "shell"), (self.iopub, "iopub")):
            socket.rcvtimeo = 60_000
            socket.connect(f"tcp://{info['ip']}:{info[f'{channel}_port']}")

    @classmethod
    @asynccontextmanager
    async def connect(cls, info: dict[str, Any]):
        raw = cls(info)
        try:
            while raw.receive(raw.iopub)["msg_type"] != "iopub_welcome":
                pass
            yield raw
        finally:
            raw.context.destroy(linger=0)

    def sign(self, parts: list[bytes]) -> bytes:
        mac = self.hmac.copy()
        for part in parts:
            mac.update(part)
        return mac.hexdigest().encode()

    def send(self, msg_type: str, content: dict[str, Any], buffers: tuple[bytes, ...] = ()) -> None:
        self.ids += 1
        header = {
            "msg_id": f"{self.session}_{self.ids}",
            "msg_type": msg_type,
            "username": "raw",
            "session": self.session,
            "date": "2025-01-01T00:00:00+00:00",
            "version": "5.4",
        }
        parts = [json.dumps(part).encode() for part in (header, {}, {}, content)]
        self.shell.send_multipart([b"<IDS|MSG>", self.sign(parts), *parts, *buffers])

    def send_execute(self, code: str) -> None:
        self.send(
            "execute_request",
            {
                "code": code,
                "silent": False,
                "store_history": True,
                "user_expressions": {},
                "allow_stdin": False,
                "stop_on_error": False,
            },
        )

    def receive(self, socket) -> dict[str, Any]:
        frames = socket.recv_multipart()
        start = frames.index(b"<IDS|MSG>") + 1
        parts = frames[start + 1 : start + 5]
        assert self.sign(parts) == frames[start]
        header, parent, metadata, content = (json.loads(part) for part in parts)
        return {
            "msg_type": header["msg_type"],
            "parent_header": parent,
            "metadata": metadata,
            "content": content,
            "buffers": frames[start + 5 :],
        }

    def settle(self, count: int) -> int:
        """Receive until ``count`` executions have gone idle and replied; the characters of their output."""
        idle = size = 0
        while idle < count:
            message = self.receive(self.iopub)
            size += size_of(message)
            idle += is_idle(message)
        for _ in range(count):
            assert self.receive(self.shell)["content"]["status"] == "ok"
        return size

    async def execute(self, code: str) -> int:
        self.send_execute(code)
        return self.settle(1)

    async def at_once(self, count: int) -> None:
        for _ in range(count):
            self.send_execute(NOTHING)
        self.settle(count)

    async def echo(self, buffer: bytes) -> int:
        self.send("echo_request", {}, (buffer,))
        while not is_idle(self.receive(self.iopub)):
            pass
        return len(self.receive(self.shell)["buffers"][0])


@dataclass(frozen=True)
class Client:
    kind: type
    needs: str
    """The module without which it is left out."""
    backend: str = "asyncio"
    backend_options: dict[str, Any] = field(default_factory=dict)

    @property
    def connect(self) -> Callable[..., AbstractAsyncContextManager[Any]]:
        return self.kind.connect


FLOOR, ASYNCIO, TRIO, CONKERNEL = "raw pyzmq", "anykernel asyncio", "anykernel trio", "conkernelclient"

CLIENTS: dict[str, Client] = {
    name: client
    for name, client in {
        FLOOR: Client(Raw, "zmq"),
        ASYNCIO: Client(AnyKernel, "anykernel"),
        "anykernel uvloop": Client(AnyKernel, "uvloop", "asyncio", {"use_uvloop": True}),
        TRIO: Client(AnyKernel, "trio", "trio"),
        CONKERNEL: Client(ConKernelClient, "conkernelclient"),
        "jupyter_client async": Client(AsyncKernelClient, "jupyter_client"),
        "jupyter_client blocking": Client(BlockingKernelClient, "jupyter_client"),
        "nbclient": Client(NbClient, "nbclient"),
    }.items()
    if find_spec(client.needs)
}
"""By the name the tables show; the first is what the others are compared with."""

ANYKERNEL = [name for name, client in CLIENTS.items() if client.kind is AnyKernel]


def clients(size: str) -> list[str]:
    """The clients to ask; with ``"quick"``, those that most targets speak of."""
    return [name for name in CLIENTS if size != "quick" or name in (FLOOR, ASYNCIO, CONKERNEL)]


def can(client: str, primitive: str) -> bool:
    """Whether a client has a primitive."""
    return hasattr(CLIENTS[client].kind, primitive)
