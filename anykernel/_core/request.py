"""One request as the router's table has it, and why a connection ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .._protocol import AnyKernelError, ConnectionClosedError, Message, Result

__all__ = ["Ending", "Request", "closed_ending", "same"]

Ending = Callable[[Result | None], AnyKernelError]
"""Makes the error with which one request ends when its connection does; each gets its own partial result."""


def closed_ending(reason: str) -> Ending:
    """The end of what the client itself has closed."""
    return lambda result: ConnectionClosedError(reason, result=result)


def same(error: Exception) -> Callable[[], Exception]:
    """Makes this very error."""
    return lambda: error


class Request:
    """One request in the table. Methods named ``on_...`` are called by the router; they neither wait nor raise."""

    __slots__ = ("header", "heard")

    header: dict[str, Any]
    heard: bool
    """Whether the kernel has said anything of it since it was sent."""

    @property
    def route(self) -> dict[str, str]:
        """What the header of another request holds that is to reach the same shell."""
        return {"subshell_id": self.header["subshell_id"]} if "subshell_id" in self.header else {}

    def on_reply(self, message: Message) -> None:
        """The reply came on shell or control."""

    def on_iopub(self, message: Message) -> None:
        """Something that this request caused was published."""

    def on_input(self, message: Message) -> None:
        """The kernel asks for input on behalf of this request."""

    def on_missed(self, reason: str) -> None:
        """Some of what this request caused may not have arrived."""

    def on_grace_over(self) -> None:
        """IOPub was silent for so long that the missing half will not come."""

    def on_end(self, ending: Ending) -> None:
        """The connection ended; the request is no longer in the table."""
