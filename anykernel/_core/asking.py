"""Requests that are done with their reply: how they are sent, and waited for."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import anyio
import msgspec

from .._protocol import END_OF_INPUT, AnyKernelError, Message, ProtocolError, is_idle
from .clock import monotonic
from .request import Ending, Request
from .router import GRACE, PATIENCE, Router

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
        self.withdraw()
        try:
            self._router.send(self, Message(channel, self._router.new_header("kernel_info_request", **route)))
        except AnyKernelError:
            self._on_passed()

    def withdraw(self) -> None:
        """Nobody waits for it any more."""
        if self.header:
            self._router.forget(self)

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
    header: Mapping[str, str] | None = None,
    bounded: bool = True,
) -> Message:
    """Send a request and wait for its reply; ``header`` has what its header is to hold besides the usual.

    Raises:
        ProtocolError: the kernel ended it without a reply; or, where the waiting is ``bounded``, ignores it.
    """
    new_header = router.new_header(msg_type, **(header or {}))
    reply = Reply(router, Message(channel, new_header, parent or {}, metadata or {}, content, tuple(buffers)))
    reply.send()
    try:
        return await (_wait_bounded(router, reply, channel) if bounded else reply.wait())
    finally:
        router.forget(reply)


async def _wait_bounded(router: Router, reply: Reply, channel: str) -> Message:
    """Wait for a reply, until it is known that none will come.

    Kernels ignore what they do not know, some without a word. So when one has said nothing for a while, what each of them
    knows is sent behind it. Once that is answered, there is nothing to wait for; or, where a kernel answers nothing at all
    on this channel, long after it is answered on shell. That is believed of a shell only while it is free: kernels may
    answer in another order than they are asked.
    """
    with anyio.move_on_after(GRACE):
        return await reply.wait()
    passed: dict[str, float] = {}
    fences = {where: Fence(router, partial(_note, passed, where)) for where in dict.fromkeys((channel, "shell"))}
    try:
        for where, fence in fences.items():
            fence.send(where, **(reply.route if where == "shell" else {}))
        while not reply.heard:
            with anyio.move_on_after(GRACE):
                return await reply.wait()
            now, free = monotonic(), router.execution_state != "busy" and reply in router.unheard()
            behind = now - passed.get(channel, math.inf) >= GRACE / 2 and (free or channel == "control")
            if behind or (free and now - passed.get("shell", math.inf) >= PATIENCE):
                raise ProtocolError(
                    f"the kernel has not answered {reply.header['msg_type']!r}, and answers what was sent behind it: "
                    "it does not know this request"
                )
        return await reply.wait()
    finally:
        for fence in fences.values():
            fence.withdraw()


def _note(passed: dict[str, float], where: str) -> None:
    passed[where] = monotonic()


async def ask_optional(
    router: Router,
    msg_type: str,
    *,
    channel: str = "control",
    beside: Iterable[str] = ("control", "shell"),
    patience: float = GRACE,
) -> Message:
    """Send a request that a kernel may leave unanswered, and wait for its reply.

    Time counts from when the kernel has answered something else that was sent on a channel of ``beside`` at the same
    time: before, it may just be busy.

    Raises:
        ProtocolError: it has not been answered for ``patience`` seconds.
    """
    with anyio.CancelScope() as scope:

        def start_clock() -> None:
            scope.deadline = min(scope.deadline, anyio.current_time() + patience)

        fences = [(Fence(router, start_clock), where) for where in beside]
        try:
            for fence, where in fences:
                fence.send(where)
            return await ask(router, msg_type, {}, channel=channel, bounded=False)
        finally:
            for fence, _ in fences:
                fence.withdraw()
    raise ProtocolError(f"the kernel has not answered {msg_type!r} for {patience:g} s")
