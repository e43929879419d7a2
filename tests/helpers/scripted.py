"""A kernel that says what a test tells it to, over a transport in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from anykernel import ConnectionInfo, Kernel, Message
from anykernel._core import OpenOptions, open_task_group
from anykernel._local import Connected
from anykernel._transports import MemoryTransport

INFO = {
    "status": "ok",
    "protocol_version": "5.4",
    "implementation": "scripted",
    "language_info": {"name": "python"},
    "supported_features": ["kernel subshells"],
}


class Script:
    """The kernel's side of a connection."""

    def __init__(self, transport: MemoryTransport) -> None:
        self.transport = transport

    async def next(self, *msg_types: str) -> Message:
        """The client's next message, which must be of one of these types (by default an execute request)."""
        msg_types = msg_types or ("execute_request",)
        while True:
            message = await self.receive()
            if message.msg_type in msg_types:
                return message
            # Such are sent with interrupts.
            assert message.msg_type == "kernel_info_request", message
            self.finish(message, **INFO)

    async def answer_nothing(self, msg_type: str) -> None:
        """Take a request, and say no more than that it is over."""
        request = await self.next(msg_type)
        self.status(request, "busy")
        self.status(request, "idle")

    async def answer_fence(self) -> None:
        """Answer what is sent to see whether the kernel still answers."""
        request = await self.receive()
        assert request.msg_type == "kernel_info_request", request
        self.finish(request, **INFO)

    async def receive(self) -> Message:
        return await self.transport.receive()

    def nothing_sent(self) -> bool:
        return self.transport._sent.statistics().current_buffer_used == 0

    def status(self, request: Message | None, state: str) -> None:
        self.publish(request, "status", execution_state=state)

    def publish(self, request: Message | None, msg_type: str, **content: Any) -> None:
        self.transport.answer(request, "iopub", msg_type, content, size=100)

    def reply(self, request: Message, **content: Any) -> None:
        reply_type = request.msg_type.replace("_request", "_reply")
        self.transport.answer(request, request.channel, reply_type, {"status": "ok", **content})

    def start(self, request: Message) -> None:
        self.status(request, "busy")
        self.publish(request, "execute_input", code=request.content["code"], execution_count=1)

    def finish(self, request: Message, **content: Any) -> None:
        self.reply(request, **content)
        self.status(request, "idle")

    def ask(self, request: Message, prompt: str = "? ", *, password: bool = False) -> None:
        content = {"prompt": prompt, "password": password}
        self.transport.answer(request, "stdin", "input_request", content)

    async def greet(self) -> None:
        """Get the client through its start."""
        for _ in range(2):
            request = await self.next("kernel_info_request")
            self.status(request, "busy")
            self.reply(request, **INFO)
            self.status(request, "idle")


@asynccontextmanager
async def scripted_kernel(**options: Any) -> AsyncIterator[tuple[Kernel, Script]]:
    transport = MemoryTransport()
    info = ConnectionInfo(shell_port=1, iopub_port=2, stdin_port=3, control_port=4, hb_port=5)
    defaults: dict[str, Any] = {"startup_timeout": 5, "shutdown_timeout": 1, "output_limit": 2**20}
    async with open_task_group() as tasks:
        owner = Connected(info, tasks, lambda: transport, OpenOptions(**{**defaults, **options}))
        script = Script(transport)
        tasks.start_soon(script.greet)
        async with owner.opened() as kernel:
            yield kernel, script
