"""The kernel's debugger: requests of the Debug Adapter Protocol, as they are, on the control channel."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Mapping
from typing import Any

import anyio

from .._protocol import (
    AnyKernelError,
    ArgumentError,
    DebugError,
    DebugReply,
    KernelInfo,
    Message,
    ProtocolError,
    UnsupportedError,
    as_dict,
    read_reply,
)
from .asking import ask
from .router import Router

__all__ = ["Debugger"]

logger = logging.getLogger("anykernel")

# Seconds that the debugger gets to let go of the code.
DETACH_TIMEOUT = 1.0

_DETACH = {"restart": False, "terminateDebuggee": False}

# Commands after which what stood at a breakpoint goes on.
_RESUMING = frozenset({"continue", "next", "stepIn", "stepOut", "disconnect", "terminate"})


class Debugger:
    """The debugger of one kernel process, as one connection sees it."""

    def __init__(self, router: Router, kernel_info: KernelInfo) -> None:
        self._router = router
        # How it is said today, how kernels said it before, and the one that has it without saying so (ipykernel 6).
        self._supported = (
            "debugger" in kernel_info.supported_features
            or kernel_info.content.get("debugger") is True
            or kernel_info.implementation == "ipython"
        )
        self.stands = False
        """Whether code stands at a breakpoint, or where else the debugger has stopped it; whoever uses the debugger."""
        self._answered = False
        self._sequence = itertools.count(1)

    async def request(self, command: str, arguments: Mapping[str, Any] | None) -> DebugReply:
        """Send one command and wait for its answer, as `Kernel.debug` describes it."""
        if not isinstance(command, str):
            raise ArgumentError(f"a debugger's command must be a str, not {type(command).__name__}")
        if not self._supported:
            raise UnsupportedError("the kernel says that it has no debugger")
        content = self._command(command, as_dict("arguments", arguments))
        try:
            reply = (await ask(self._router, "debug_request", content, channel="control")).content
        except ProtocolError as exc:
            if self._answered:
                raise
            # Kernels built upon ipykernel (bash_kernel) say that they have what only ipykernel has.
            raise UnsupportedError(f"the kernel has no debugger, or cannot read this command: {exc}") from exc
        self._answered = True
        if command in _RESUMING and reply.get("success") is True:
            self.stands = False
        if not reply:  # ipykernel and xeus-python, before `initialize`
            raise DebugError(command, "the debugger has not been started; initialize and attach first", reply)
        if reply.get("status") == "error":  # async-kernel
            raise DebugError(command, f"{reply.get('ename')}: {reply.get('evalue')}", reply)
        if reply.get("success") is False:
            raise DebugError(command, str(reply.get("message", "refused without a reason")), reply)
        return read_reply(reply, DebugReply)

    async def detach(self) -> None:
        """Let the code go that stands at a breakpoint, or has been interrupted there, by detaching the debugger.

        In Python 3.12 and newer, it is stopped again where the interrupt takes it, and each further interrupt may hit the
        kernel's own code there.
        """
        try:
            with anyio.move_on_after(DETACH_TIMEOUT):
                await self.request("disconnect", _DETACH)
        except AnyKernelError as exc:
            logger.debug("could not detach the debugger: %s", exc)

    def farewell(self) -> Message | None:
        """What is to be sent to a kernel that is to end, so that code at a breakpoint does not keep it from that."""
        if not self.stands:
            return None
        return Message(
            "control", self._router.new_header("debug_request"), content=self._command("disconnect", _DETACH)
        )

    def on_event(self, event: Mapping[str, Any]) -> None:
        """The debugger tells something, on IOPub."""
        kind = event.get("event")
        if kind == "stopped":
            self.stands = True
        elif kind in ("continued", "terminated"):
            self.stands = False

    def _command(self, command: str, arguments: dict[str, Any]) -> dict[str, Any]:
        return {"type": "request", "seq": next(self._sequence), "command": command, "arguments": arguments}
