"""What an execution needs from its shell."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from .._protocol import Captures, Displays
from .budget import Budget
from .home import Home
from .tasks import StartSoon

__all__ = ["Breakpoints", "Context", "Limits"]


class Limits:
    """Those of a kernel, shared by all its shells."""

    __slots__ = ("budget", "interrupt_timeout")

    def __init__(self, *, output_limit: int, interrupt_timeout: float) -> None:
        self.budget = Budget(output_limit)
        """What streams keep of what nobody has received yet."""
        self.interrupt_timeout = interrupt_timeout
        """Seconds that stopped code gets to settle."""

    @property
    def output_limit(self) -> int:
        """Bytes of output kept for each execution, and for each stream; all streams together keep at most twice as much."""
        return self.budget.limit

    @output_limit.setter
    def output_limit(self, value: int) -> None:
        self.budget.limit = value


class Breakpoints(Protocol):
    """What stopping code needs of the kernel's debugger."""

    stands: bool
    """Whether code stands at a breakpoint."""

    async def detach(self) -> None:
        """Let it go."""


class Context:
    """One for each shell, made with it."""

    __slots__ = ("breakpoints", "captures", "displays", "home", "interrupt", "limits", "start_soon")

    def __init__(
        self,
        limits: Limits,
        displays: Displays,
        captures: Captures,
        home: Home,
        start_soon: StartSoon,
        interrupt: Callable[[], Awaitable[None]],
        breakpoints: Callable[[], Breakpoints | None],
    ) -> None:
        self.limits = limits
        self.displays = displays
        """The kernel's, of all its shells."""
        self.captures = captures
        """Likewise."""
        self.home = home
        """Where the kernel may be used."""
        self.start_soon = start_soon
        """Runs an async function in a task of the kernel's block, while that has any."""
        self.interrupt = interrupt
        """Interrupts what the shell runs."""
        self.breakpoints = breakpoints
        """The debugger of the kernel's process; None between two of them."""
