"""Stopping an execution that nobody wants any more.

How this works. (What is still queued on our side is just taken out.) An interrupt names no target: it
hits what the kernel runs when it arrives. So one is sent only while the target runs (its own busy has come, neither its
reply nor its idle has), and the dispatcher holds what comes next until the target has settled and a `Fence` sent behind
the interrupt has been passed. An interrupt may be lost (it falls between busy and the start of the code) or ignored (the
code catches it), so it is repeated, every ``INTERRUPT_INTERVAL`` seconds, until the target settles or
``interrupt_timeout`` is over. One that comes as the code ends may hit ipykernel where it changes its signal handlers, and
end it (as 4 of 14,000 that were timed so did): nothing here can tell, but what is known to have ended gets none.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import anyio

from ._exceptions import AnyKernelError

if TYPE_CHECKING:
    from ._execution import Execution

__all__ = ["stop"]

logger = logging.getLogger("anykernel")

# Seconds between two interrupts of code that does not settle: long enough for the code's own clean-up.
INTERRUPT_INTERVAL = 1.0
# Seconds from busy to the first interrupt where nothing else shows that the code has started: kernels say busy
# before they can be interrupted, and an interrupt in between is lost.
START_GRACE = 0.05


async def stop(execution: Execution) -> None:
    """Stop what was sent, and wait until it has settled, for at most ``interrupt_timeout`` seconds.

    To be run in a task of the kernel's: whoever waits for it may be torn away.
    """
    interrupts = 0

    async def interrupt() -> None:
        nonlocal interrupts
        interrupts += 1
        try:
            await execution._owner.interrupt()
        except AnyKernelError as exc:
            # It cannot be interrupted; that it did not settle is what the caller gets told.
            logger.debug("could not interrupt the kernel: %s", exc)

    with anyio.move_on_after(execution._owner.interrupt_timeout):
        if execution._stopping:
            await execution._wait_until(lambda: execution.state == "settled")
            return
        execution._stopping = True
        try:
            await execution._wait_until(lambda: execution.state in ("running", "settled"))
            if not execution._code_started:
                with anyio.move_on_after(START_GRACE):
                    await execution._wait_until(lambda: execution._code_started or execution._ended)
            while not execution._ended:
                await interrupt()
                with anyio.move_on_after(INTERRUPT_INTERVAL):
                    await execution._wait_until(lambda: execution._ended)
            # One of reply and idle is still to come, or lost: an interrupt would hit what follows.
            await execution._wait_until(lambda: execution.state == "settled")
        finally:
            execution._stopping = False
    if execution.state == "running" and not execution._ended and not interrupts:
        await interrupt()  # the time was too short even for one
    execution._doomed = execution.state == "sent"
