"""The errors with which calls end when their kernel, or their connection to it, does."""

from __future__ import annotations

from .errors import KernelProcessError, ResultCarryingError
from .result import Result

__all__ = [
    "ConnectionClosedError",
    "KernelDiedError",
    "KernelRestartedError",
    "OutcomeUnknownError",
    "ReplayError",
    "StdinError",
]


class KernelDiedError(KernelProcessError):
    """Raised by every pending call when the kernel's process exits or its heartbeat stops."""

    def __init__(
        self,
        message: str,
        *,
        returncode: int | None = None,
        stderr: str = "",
        result: Result | None = None,
        reason: str | None = None,
    ) -> None:
        super().__init__(message, returncode=returncode, stderr=stderr)
        self.result = result
        """What an execution had put out until then; None for other requests."""
        self.reason = reason
        """What is known of why: the limit that it ran into, ``"memory"`` or ``"cpu_seconds"``; otherwise None."""


class KernelRestartedError(ResultCarryingError):
    """Raised by every call that was pending when the kernel was restarted; nothing is sent again."""

    result: Result | None


class ConnectionClosedError(ResultCarryingError):
    """Raised by calls on a kernel whose block has ended, or that was shut down."""

    result: Result | None


class OutcomeUnknownError(ResultCarryingError):
    """Raised by calls whose connection to a server was lost, when it cannot be told what became of them.

    The code may have run, whole or in part, or run still; it is never sent twice.
    """

    result: Result | None


class ReplayError(ResultCarryingError):
    """Raised when a recording cannot be read, and by calls that it has no answer to."""

    result: Result | None


class StdinError(ResultCarryingError):
    """Raised when the kernel asks for input that the caller does not provide."""

    result: Result | None
