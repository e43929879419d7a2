"""The same three operations through each client's public API, timed in a process of their own.

``python -m benchmarks.clients CLIENT OPERATION COUNT CONNECTION_FILE`` connects to a running kernel, runs the operation
once to warm up and once for the clock, and prints the cost of one execute or one stream message. All libraries are
imported by the client that needs them, so no process pays for another's.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from .harness import Stopwatch, print_samples

CODE = "pass"
TEXT_SIZE = 100


class AnyKernel:
    def __init__(self, kernel) -> None:
        self.kernel = kernel

    @classmethod
    @asynccontextmanager
    async def connect(cls, info: dict[str, Any], *, max_in_flight: int):
        from anykernel import connect_kernel

        async with connect_kernel(info, max_in_flight=max_in_flight) as kernel:
            yield cls(kernel)

    async def run(self) -> None:
        assert (await self.kernel.execute(CODE)).ok

    async def one_by_one(self, count: int) -> None:
        for _ in range(count):
            await self.run()

    async def at_once(self, count: int) -> None:
        import anyio

        async with anyio.create_task_group() as tasks:
            for _ in range(count):
                tasks.start_soon(self.run)

    async def stream(self, count: int) -> None:
        result = await self.kernel.execute(f"stream {count} {TEXT_SIZE}")
        assert len(result.stdout) == count * TEXT_SIZE


class JupyterClient:
    """jupyter_client's AsyncKernelClient. It gives replies to whoever asks first, so only one by one."""

    def __init__(self, client) -> None:
        self.client = client

    @classmethod
    @asynccontextmanager
    async def connect(cls, info: dict[str, Any]):
        from jupyter_client.asynchronous import AsyncKernelClient

        client = AsyncKernelClient()
        client.load_connection_info(info)
        client.start_channels()
        try:
            await client.wait_for_ready(timeout=30)
            yield cls(client)
        finally:
            client.stop_channels()

    async def run(self, code: str = CODE) -> int:
        """Execute, wait for reply and idle; the length of the text that came."""
        msg_id, size = self.client.execute(code), 0
        while True:
            message = await self.client.get_iopub_msg()
            if message["parent_header"].get("msg_id") != msg_id:
                continue
            if message["msg_type"] == "stream":
                size += len(message["content"]["text"])
            elif message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
                break
        while (reply := await self.client.get_shell_msg())["parent_header"].get("msg_id") != msg_id:
            pass
        assert reply["content"]["status"] == "ok"
        return size

    async def one_by_one(self, count: int) -> None:
        for _ in range(count):
            await self.run()

    async def stream(self, count: int) -> None:
        assert await self.run(f"stream {count} {TEXT_SIZE}") == count * TEXT_SIZE


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

    async def run(self) -> None:
        assert (await self.client.reply(CODE))["content"]["status"] == "ok"

    async def one_by_one(self, count: int) -> None:
        for _ in range(count):
            await self.run()

    async def at_once(self, count: int) -> None:
        await asyncio.gather(*(self.run() for _ in range(count)))

    async def stream(self, count: int) -> None:
        size = 0
        async for message in self.client.run(f"stream {count} {TEXT_SIZE}"):
            if message["msg_type"] == "stream":
                size += len(message["content"]["text"])
        assert size == count * TEXT_SIZE


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
            socket.rcvtimeo = 30_000
            socket.connect(f"tcp://{info['ip']}:{info[f'{channel}_port']}")

    @classmethod
    @asynccontextmanager
    async def connect(cls, info: dict[str, Any]):
        raw = cls(info)
        try:
            while raw.receive(raw.iopub)[0]["msg_type"] != "iopub_welcome":
                pass
            yield raw
        finally:
            raw.context.destroy(linger=0)

    def sign(self, parts: list[bytes]) -> bytes:
        mac = self.hmac.copy()
        for part in parts:
            mac.update(part)
        return mac.hexdigest().encode()

    def execute(self, code: str) -> None:
        self.ids += 1
        header = {
            "msg_id": f"{self.session}_{self.ids}",
            "msg_type": "execute_request",
            "username": "raw",
            "session": self.session,
            "date": "2025-01-01T00:00:00+00:00",
            "version": "5.4",
        }
        content = {
            "code": code,
            "silent": False,
            "store_history": True,
            "user_expressions": {},
            "allow_stdin": False,
            "stop_on_error": False,
        }
        parts = [json.dumps(part).encode() for part in (header, {}, {}, content)]
        self.shell.send_multipart([b"<IDS|MSG>", self.sign(parts), *parts])

    def receive(self, socket) -> list[dict[str, Any]]:
        frames = socket.recv_multipart()
        start = frames.index(b"<IDS|MSG>") + 1
        parts = frames[start + 1 : start + 5]
        assert self.sign(parts) == frames[start]
        return [json.loads(part) for part in parts]

    def settle(self, count: int) -> int:
        """Receive until ``count`` executions have gone idle and replied; the length of their text."""
        idle = size = 0
        while idle < count:
            header, _, _, content = self.receive(self.iopub)
            if header["msg_type"] == "stream":
                size += len(content["text"])
            elif content.get("execution_state") == "idle":
                idle += 1
        for _ in range(count):
            assert self.receive(self.shell)[3]["status"] == "ok"
        return size

    async def one_by_one(self, count: int) -> None:
        for _ in range(count):
            self.execute(CODE)
            self.settle(1)

    async def at_once(self, count: int) -> None:
        for _ in range(count):
            self.execute(CODE)
        self.settle(count)

    async def stream(self, count: int) -> None:
        self.execute(f"stream {count} {TEXT_SIZE}")
        assert self.settle(1) == count * TEXT_SIZE


@dataclass(frozen=True)
class Client:
    connect: Callable[[dict[str, Any]], AbstractAsyncContextManager[Any]]
    backend: str = "asyncio"
    backend_options: dict[str, Any] = field(default_factory=dict)


BACKENDS: dict[str, tuple[str, dict[str, Any]]] = {
    "asyncio": ("asyncio", {}),
    "uvloop": ("asyncio", {"use_uvloop": True}),
    "trio": ("trio", {}),
}
IN_FLIGHT = 64


def anykernel_name(backend: str, max_in_flight: int = 1) -> str:
    return f"anykernel {backend}" + (f", {max_in_flight} in flight" if max_in_flight > 1 else "")


CLIENTS: dict[str, Client] = {
    "raw pyzmq": Client(Raw.connect),
    **{
        anykernel_name(name, number): Client(partial(AnyKernel.connect, max_in_flight=number), *backend)
        for number in (1, IN_FLIGHT)
        for name, backend in BACKENDS.items()
    },
    "jupyter_client": Client(JupyterClient.connect),
    "conkernelclient": Client(ConKernelClient.connect),
}
"""By the name the tables show; the first is what the others are compared with."""

ONE_IN_FLIGHT = [name for name in CLIENTS if not name.endswith("in flight")]


async def measure(client: Client, operation: str, count: int, info: dict[str, Any]) -> dict[str, float]:
    async with client.connect(info) as connected:
        run = getattr(connected, operation)
        await run(count // 10 + 1)  # caches, and the memory that is asked for only once
        watch = Stopwatch()
        await run(count)
        return watch.read(count)


def main(name: str, operation: str, count: str, connection_file: str) -> None:
    import anyio

    client, info = CLIENTS[name], json.loads(Path(connection_file).read_bytes())
    sample = anyio.run(
        partial(measure, client, operation, int(count), info),
        backend=client.backend,
        backend_options=client.backend_options,
    )
    print_samples({operation: sample})


if __name__ == "__main__":
    main(*sys.argv[1:])
