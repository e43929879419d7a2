"""Every error that anykernel raises.

    AnyKernelError
    ├── ArgumentError (TypeError, ValueError)     an argument that cannot be sent
    ├── KernelSpecError                           no such kernelspec, or one that cannot be launched
    ├── KernelStartError                          the kernel could not be started or connected to
    │   └── KernelStartTimeoutError (TimeoutError)
    ├── KernelDiedError                           the process exited, or its heartbeat stopped
    ├── KernelRestartedError                      the kernel was restarted under the request
    ├── ConnectionClosedError                     the block that owned the kernel has ended
    ├── ProtocolError                             the kernel broke the protocol
    ├── ExecutionError                            the code raised (only on request)
    ├── ExecutionTimeoutError (TimeoutError)      the code took longer than its timeout
    ├── ExecutionAbortedError                     the code never ran (only on request)
    ├── CommClosedError                           the comm is closed
    ├── DebugError                                the debugger refused a command
    ├── ReplayError                               a recording cannot be read, or does not have what is asked
    ├── StdinError                                the kernel's question could not be answered
    └── UnsupportedError                          the kernel (or platform) lacks the feature

Errors about one execution carry its partial ``result``: no output that arrived is lost with the error.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._result import Result

__all__ = [
    "AnyKernelError",
    "ArgumentError",
    "CommClosedError",
    "ConnectionClosedError",
    "DebugError",
    "ExecutionAbortedError",
    "ExecutionError",
    "ExecutionTimeoutError",
    "KernelDiedError",
    "KernelRestartedError",
    "KernelSpecError",
    "KernelStartError",
    "KernelStartTimeoutError",
    "ProtocolError",
    "ReplayError",
    "StdinError",
    "UnsupportedError",
]


class AnyKernelError(Exception):
    """Base class of every error of this package."""

    def __reduce__(self) -> tuple[Any, ...]:
        # Without calling __init__, which wants more than the text.
        return _rebuild, (type(self), self.args, self.__dict__)


def _rebuild(kind: type[AnyKernelError], args: tuple[Any, ...], attributes: dict[str, Any]) -> AnyKernelError:
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(attributes)
    return error


class ArgumentError(AnyKernelError, TypeError, ValueError):
    """Raised when an argument has the wrong type or value; nothing was sent."""


class KernelSpecError(AnyKernelError):
    """Raised when there is no such kernelspec, or it does not say how to launch a kernel."""


class _ProcessError(AnyKernelError):
    """What a kernel process left behind: how it ended and the last it wrote."""

    def __init__(self, message: str, *, returncode: int | None = None, stderr: str = "") -> None:
        last_lines = "\n".join(stderr.rstrip().splitlines()[-15:])
        super().__init__(f"{message}; the end of its output:\n{last_lines}" if last_lines else message)
        self.returncode = returncode
        """Exit status; negative for the signal that ended it; None where there is no process of ours."""
        self.stderr = stderr
        """The end of what the process wrote to its stdout and stderr (at most 16 KiB)."""


class KernelStartError(_ProcessError):
    """Raised when a kernel cannot be started, or cannot be connected to."""


class KernelStartTimeoutError(KernelStartError, TimeoutError):
    """Raised when a kernel was not ready within ``startup_timeout``."""


class KernelDiedError(_ProcessError):
    """Raised by every pending call when the kernel's process exits or its heartbeat stops."""

    def __init__(
        self, message: str, *, returncode: int | None = None, stderr: str = "", result: Result | None = None
    ) -> None:
        super().__init__(message, returncode=returncode, stderr=stderr)
        self.result = result
        """What an execution had put out until then; None for other requests."""


class _ResultError(AnyKernelError):
    def __init__(self, message: str, *, result: Result | None = None) -> None:
        super().__init__(message)
        self.result = result
        """What an execution had put out until then; None for other requests."""


class KernelRestartedError(_ResultError):
    """Raised by every call that was pending when the kernel was restarted; nothing is sent again."""


class ConnectionClosedError(_ResultError):
    """Raised by calls on a kernel whose block has ended, or that was shut down."""


class ProtocolError(_ResultError):
    """Raised when the kernel's answer breaks the Jupyter protocol, or when it gives none."""


class ExecutionError(_ResultError):
    """Raised for code that raised, by ``check=True`` and `Result.raise_for_error`."""

    def __init__(self, ename: str, evalue: str, traceback: list[str], *, result: Result | None = None) -> None:
        super().__init__(f"{ename}: {evalue}", result=result)
        self.ename = ename
        self.evalue = evalue
        self.traceback = traceback


class ExecutionTimeoutError(_ResultError, TimeoutError):
    """Raised when an execution outlives its ``timeout``.

    It was interrupted if it was running, and never runs if it was not.
    """

    result: Result
    """What it had put out until then."""

    def __init__(self, message: str, *, result: Result, settled: bool) -> None:
        super().__init__(message, result=result)
        self.settled = settled
        """Whether the kernel is free again. False: the code ignored the interrupts and runs on."""


class ExecutionAbortedError(_ResultError):
    """Raised for code that never ran, by ``check=True`` and `Result.raise_for_error`."""


class ReplayError(_ResultError):
    """Raised when a recording cannot be read, and by calls that it has no answer to."""


class StdinError(_ResultError):
    """Raised when the kernel asks for input that the caller does not provide."""


class CommClosedError(AnyKernelError):
    """Raised when something is sent on a comm that is closed."""


class DebugError(AnyKernelError):
    """Raised when the kernel's debugger refuses a command, or cannot do it."""

    def __init__(self, command: str, message: str, reply: dict[str, Any]) -> None:
        super().__init__(f"{command}: {message}")
        self.command = command
        """What was asked for."""
        self.message = message
        """What the debugger says."""
        self.reply = reply
        """The whole reply of the kernel."""


class UnsupportedError(AnyKernelError):
    """Raised when the kernel, its transport or the platform lacks a feature that was asked for."""
