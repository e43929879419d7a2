"""Requests that are done with their reply: how they are sent, and waited for."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import anyio
import msgspec

from .._protocol import END_OF_INPUT, AnyKernelError, Message, ProtocolError, is_idle
from .request import Ending, Request
from .router import GRACE, Router

__all__ = ["Fence", "Reply", "ask", "ask_optional"]

# Requests that change nothing in the kernel, and so may be sent again.
_REPEATABLE = frozenset(
    f"{name}_request" for name in ("complete", "inspect", "is_complete", "history", "comm_info", "kernel_info")
)


class Reply(Request):
    """A request that is done with its reply."""

    __slots__ = ("_done", "_error", "_interrupts", "_message", "_reply", "_router")

    def __init__(self, router: Router, message: Message) -> None:
        self._router = router
        self._message = message
        self._interrupts = 0
        self._done = anyio.Event()
        self._reply: Message | None = None
        self._error: AnyKernelError | None = None

    def send(self) -> None:
        """Send it, or send it again."""
        self._interrupts = self._router.interrupts_of(self._message.header)
        self._router.send(self, self._message)

    async def wait(self) -> Message:
        """Wait for the reply; whoever waits no longer must call `Router.forget`."""
        await self._done.wait()
        if self._error is not None:
            raise self._error
        assert self._reply is not None
        return self._reply

    def on_reply(self, message: Message) -> None:
        if message.left_out is not None:
            text = f"the reply to {self.header['msg_type']!r} cannot be had as a whole: left out is {message.left_out}"
            self._fail(ProtocolError(text))
            return
        self._reply = message
        self._router.forget(self)
        self._done.set()

    def on_iopub(self, message: Message) -> None:
        if is_idle(message):
            self._router.half_done(self, idle=True)

    def on_input(self, message: Message) -> None:
        self._router.answer(message, END_OF_INPUT)  # nobody else will

    def on_grace_over(self) -> None:
        msg_type = self.header["msg_type"]
        if self._interrupts != self._router.interrupts_of(self.header) and msg_type in _REPEATABLE:
            # An interrupt meant for the cell before it may have hit this request instead.
            self._router.forget(self)
            header = {**self.header, "msg_id": self._router.new_header(msg_type)["msg_id"]}
            self._message = msgspec.structs.replace(self._message, header=header)
            self.send()
            return
        self._fail(
            ProtocolError(
                f"the kernel finished {msg_type!r} without a reply: "
                "it does not know this request, or could not read its content"
            )
        )

    def on_end(self, ending: Ending) -> None:
        self._fail(ending(None))

    def _fail(self, error: AnyKernelError) -> None:
        self._error = error
        self._router.forget(self)
        self._done.set()


class Fence(Request):
    """A request that changes nothing, sent behind an interrupt; ``on_passed`` is called when the kernel is past it."""

    __slots__ = ("_on_passed", "_router")

    def __init__(self, router: Router, on_passed: Callable[[], None]) -> None:
        self._router = router
        self._on_passed = on_passed
        self.header = {}

    def send(self, channel: str = "shell", **route: str) -> None:
        """Send it, or send it again; where the connection has ended, there is nothing to wait for."""
        if self.header:
            self._router.forget(self)
        try:
            self._router.send(self, Message(channel, self._router.new_header("kernel_info_request", **route)))
        except AnyKernelError:
            self._on_passed()

    def on_reply(self, message: Message) -> None:  # noqa: ARG002
        self._router.forget(self)
        self._on_passed()

    def on_iopub(self, message: Message) -> None:
        # An interrupt that hits it leaves it without a reply.
        if is_idle(message):
            self.on_reply(message)

    def on_end(self, ending: Ending) -> None:  # noqa: ARG002
        self._on_passed()


async def ask(
    router: Router,
    msg_type: str,
    content: dict[str, Any],
    *,
    channel: str = "shell",
    parent: dict[str, Any] | None = None,
    metadata: dict[str, Any] | None = None,
    buffers: Iterable[bytes | memoryview] = (),
    **header: str,
) -> Message:
    """Send a request and wait for its reply; ``header`` has what its header is to hold besides the usual."""
    new_header = router.new_header(msg_type, **header)
    reply = Reply(router, Message(channel, new_header, parent or {}, metadata or {}, content, tuple(buffers)))
    reply.send()
    try:
        return await reply.wait()
    finally:
        router.forget(reply)


async def ask_optional(
    router: Router, msg_type: str, *, channel: str = "control", beside: str = "control", patience: float = GRACE
) -> Message:
    """Send a request that a kernel may leave unanswered, and wait for its reply.

    Time counts from when the kernel has answered something else that was sent on the channel ``beside`` at the same
    time: before, it may just be busy.

    Raises:
        ProtocolError: it has not been answered for ``patience`` seconds.
    """
    with anyio.CancelScope() as scope:

        def start_clock() -> None:
            scope.deadline = anyio.current_time() + patience

        Fence(router, start_clock).send(beside)
        return await ask(router, msg_type, {}, channel=channel)
    raise ProtocolError(f"the kernel has not answered {msg_type!r} for {patience:g} s")
