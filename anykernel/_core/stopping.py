"""Stopping an execution that nobody wants any more.

How this works. (What is still queued on our side is just taken out.) An interrupt names no target: it
hits what the kernel runs when it arrives. So one is sent only while the target runs (its own busy has come, neither its
reply nor its idle has), and the dispatcher holds what comes next until the target has settled and a `Fence` sent behind
the interrupt has been passed. An interrupt may be lost (it falls between busy and the start of the code) or ignored (the
code catches it), so it is repeated, every ``INTERRUPT_INTERVAL`` seconds, until the target settles or
``interrupt_timeout`` is over. Code that stands at a breakpoint is let go by its debugger, too. One that comes as the code ends may hit ipykernel where it changes its signal handlers, and
end it (as 4 of 14,000 that were timed so did): nothing here can tell, but what is known to have ended gets none.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

import anyio

from .._protocol import AnyKernelError
from .context import Context

__all__ = ["Stoppable", "stop"]

logger = logging.getLogger("anykernel")

# Seconds between two interrupts of code that does not settle: long enough for the code's own clean-up.
INTERRUPT_INTERVAL = 1.0
# Seconds from an interrupt of code at a breakpoint until its debugger is detached.
BREAKPOINT_GRACE = 0.5
# The same as the interval where it stood at a breakpoint: its traceback takes a debugged kernel a second or two.
BREAKPOINT_INTERVAL = 3.0
# Seconds from busy to the first interrupt where nothing else shows that the code has started: kernels say busy
# before they can be interrupted, and an interrupt in between is lost.
START_GRACE = 0.05


class Stoppable(Protocol):
    """What can be stopped: something that was sent to a kernel and runs there."""

    context: Context
    """Has how to interrupt it, and how long that may take."""
    stopping: bool
    """Whether some task is at work to stop it."""
    doomed: bool
    """Whether it is to be stopped when it starts."""

    @property
    def state(self) -> str:
        """``"sent"``, ``"running"`` or ``"settled"``."""
        ...

    @property
    def ended(self) -> bool:
        """Whether the kernel has ended its code, as far as we know: then it must not be interrupted any more."""
        ...

    @property
    def code_started(self) -> bool:
        """Whether its code is known to have started."""
        ...

    async def wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait until something about it has become true."""


async def stop(target: Stoppable) -> None:
    """Stop what was sent, and wait until it has settled, for at most ``interrupt_timeout`` seconds.

    To be run in a task of the kernel's: whoever waits for it may be torn away.
    """
    interrupts = 0

    async def interrupt() -> None:
        nonlocal interrupts
        interrupts += 1
        try:
            await target.context.interrupt()
        except AnyKernelError as exc:
            # It cannot be interrupted; that it did not settle is what the caller gets told.
            logger.debug("could not interrupt the kernel: %s", exc)

    with anyio.move_on_after(target.context.limits.interrupt_timeout):
        if target.stopping:
            await target.wait_until(lambda: target.state == "settled")
            return
        target.stopping = True
        try:
            await target.wait_until(lambda: target.state in ("running", "settled"))
            if not target.code_started:
                with anyio.move_on_after(START_GRACE):
                    await target.wait_until(lambda: target.code_started or target.ended)
            while not target.ended:
                debugger = target.context.breakpoints()
                standing = debugger is not None and debugger.stands
                await interrupt()
                if debugger is not None and standing:
                    # Behind the interrupt, so that the code does not run on from there. And not at once: from Python 3.12
                    # on, the interrupt takes it only to where the debugger stops it again, and tells nobody.
                    with anyio.move_on_after(BREAKPOINT_GRACE):
                        await target.wait_until(lambda: target.ended)
                    await debugger.detach()
                with anyio.move_on_after(BREAKPOINT_INTERVAL if standing else INTERRUPT_INTERVAL):
                    await target.wait_until(lambda: target.ended)
            # One of reply and idle is still to come, or lost: an interrupt would hit what follows.
            await target.wait_until(lambda: target.state == "settled")
        finally:
            target.stopping = False
    if target.state == "running" and not target.ended and not interrupts:
        await interrupt()  # the time was too short even for one
    target.doomed = target.state == "sent"
