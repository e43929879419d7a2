"""The kernel's debugger: requests of the Debug Adapter Protocol, as they are, on the control channel."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

from .._protocol import (
    ArgumentError,
    DebugError,
    DebugReply,
    KernelInfo,
    ProtocolError,
    UnsupportedError,
    as_dict,
    read_reply,
)
from .asking import ask
from .router import Router

__all__ = ["Debugger"]


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
        self._answered = False
        self._sequence = itertools.count(1)

    async def request(self, command: str, arguments: Mapping[str, Any] | None) -> DebugReply:
        """Send one command and wait for its answer, as `Kernel.debug` describes it."""
        if not isinstance(command, str):
            raise ArgumentError(f"a debugger's command must be a str, not {type(command).__name__}")
        if not self._supported:
            raise UnsupportedError("the kernel says that it has no debugger")
        content = {
            "type": "request",
            "seq": next(self._sequence),
            "command": command,
            "arguments": as_dict("arguments", arguments),
        }
        try:
            reply = (await ask(self._router, "debug_request", content, channel="control")).content
        except ProtocolError as exc:
            if self._answered:
                raise
            # Kernels built upon ipykernel (bash_kernel) say that they have what only ipykernel has.
            raise UnsupportedError(f"the kernel has no debugger, or cannot read this command: {exc}") from exc
        self._answered = True
        if not reply:  # ipykernel and xeus-python, before `initialize`
            raise DebugError(command, "the debugger has not been started; initialize and attach first", reply)
        if reply.get("status") == "error":  # async-kernel
            raise DebugError(command, f"{reply.get('ename')}: {reply.get('evalue')}", reply)
        if reply.get("success") is False:
            raise DebugError(command, str(reply.get("message", "refused without a reason")), reply)
        return read_reply(reply, DebugReply)
