"""Requests that lie unread in a kernel that is free: it is made to look.

ipykernel 7.0 to 7.3 loses sight of a request that arrives while it sends a reply: the send takes libzmq's one sign that
there is something to read, and later requests of the same client give no other, so that all of them lie there for ever. What
another peer does is a sign again, and to connect is enough. Kernels do not say which version of ipykernel they are, or are
built on, so all of them are watched that have subshells, as these have.
"""

from __future__ import annotations

import anyio

from .._protocol import KernelInfo
from .router import Router
from .subshell import SUBSHELLS

__all__ = ["may_lose_sight", "nudge"]

# Seconds between two looks at the table: a request is nudged for when it is unheard of in two of them.
INTERVAL = 0.5


def may_lose_sight(info: KernelInfo) -> bool:
    """Whether this may be a kernel that is to be nudged."""
    return SUBSHELLS in info.supported_features


async def nudge(router: Router) -> None:
    """Nudge the kernel for requests that it says nothing of though nothing of ours runs before them, until cancelled.

    Another client's code may run before them, so they are nudged for ever more seldom.
    """
    looks: dict[object, int] = {}
    while True:
        await anyio.sleep(INTERVAL)
        looks = {request: looks.get(request, 0) + 1 for request in router.unheard()}
        if any(count > 1 and count.bit_count() == 1 for count in looks.values()):
            await router.transport.nudge()
