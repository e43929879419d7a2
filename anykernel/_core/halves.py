"""The two halves of an execution's end: its reply, and the idle that ends its output.

They come over two sockets, in any order. An idle may also be another's: a child that the code forked says it when it comes to
the end of its parent's cell. So one that stays alone is not believed until the kernel has answered what was asked behind it,
and one that came long before the reply not until IOPub has been silent for a while.
"""

from __future__ import annotations

import math

from .asking import Fence
from .clock import monotonic
from .request import Request
from .router import Router

__all__ = ["Halves"]

# Seconds by which the kernel's own idle may be here before its reply.
AHEAD = 0.5


class Halves:
    """What of an execution's end has come."""

    __slots__ = ("_fence", "_idle_time", "_interrupts", "_request", "_router", "idle", "replied")

    def __init__(self, router: Router, request: Request) -> None:
        self._router = router
        self._request = request
        self.replied = self.idle = False
        self._idle_time = -math.inf
        self._fence: Fence | None = None
        # How many interrupts the kernel had been sent when it was sent this.
        self._interrupts = 0

    @property
    def any(self) -> bool:
        """Whether one has come, and is not doubted."""
        return self.replied or (self.idle and self._fence is None)

    @property
    def interrupted(self) -> bool:
        """Whether an interrupt may have hit the execution."""
        return self._interrupts != self._router.interrupts_of(self._request.header)

    def sent(self) -> None:
        """From here on, interrupts may hit it."""
        self._interrupts = self._router.interrupts_of(self._request.header)

    def take_reply(self) -> bool:
        """The reply has come; whether that is all."""
        self.replied = True
        if self.idle and monotonic() - self._idle_time < AHEAD:
            return True
        self._router.half_done(self._request, idle=False)
        return False

    def take_idle(self) -> bool:
        """An idle has come; whether that is all."""
        self.idle, self._idle_time = True, monotonic()
        if self.replied:
            return True
        self.drop()
        self._router.half_done(self._request, idle=True, interrupted=self.interrupted)
        return False

    def doubt(self) -> bool:
        """Ask the kernel behind an idle that stays alone; False if it has answered that already."""
        if self._fence is not None:
            return False
        self._fence = Fence(self._router, self._passed)
        self._fence.send(**self._request.route)
        return True

    def drop(self) -> None:
        """Nothing need be asked any more."""
        if self._fence is not None:
            self._fence.withdraw()
            self._fence = None

    def _passed(self) -> None:
        # The reply is here, or on its way over the other socket, or lost.
        if self._fence is not None and not self.replied and self._router.ending is None:
            self._router.half_done(self._request, idle=True, interrupted=True)
