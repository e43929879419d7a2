"""What an execution needs from its shell."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from .._protocol import Displays
from .home import Home
from .tasks import StartSoon

__all__ = ["Context", "Limits"]


class Limits:
    """Those of a kernel, shared by all its shells."""

    __slots__ = ("interrupt_timeout", "output_limit")

    def __init__(self, *, output_limit: int, interrupt_timeout: float) -> None:
        self.output_limit = output_limit
        """Bytes of output kept for each execution, and for each stream of messages."""
        self.interrupt_timeout = interrupt_timeout
        """Seconds that stopped code gets to settle."""


class Context:
    """One for each shell, made with it."""

    __slots__ = ("displays", "home", "interrupt", "limits", "start_soon")

    def __init__(
        self,
        limits: Limits,
        displays: Displays,
        home: Home,
        start_soon: StartSoon,
        interrupt: Callable[[], Awaitable[None]],
    ) -> None:
        self.limits = limits
        self.displays = displays
        """The kernel's, of all its shells."""
        self.home = home
        """Where the kernel may be used."""
        self.start_soon = start_soon
        """Runs an async function in a task of the kernel's block, while that has any."""
        self.interrupt = interrupt
        """Interrupts what the shell runs."""
