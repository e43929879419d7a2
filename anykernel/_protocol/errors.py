"""Every error that anykernel raises.

    AnyKernelError
    ├── ArgumentError (TypeError, ValueError)     an argument that cannot be sent
    ├── CellError                                 a cell of a notebook failed
    │   └── ConnectionFileExistsError (FileExistsError)
    ├── MissingDependencyError (ImportError)      the extra that brings a feature is not installed
    ├── KernelSpecError                           no such kernelspec, or one that cannot be launched
    ├── KernelStartError                          the kernel could not be started or connected to
    │   └── KernelStartTimeoutError (TimeoutError)
    ├── PoolTimeoutError (TimeoutError)           no kernel of a pool was free in time
    ├── KernelDiedError                           the process exited, or its heartbeat stopped
    ├── KernelRestartedError                      the kernel was restarted under the request
    ├── ConnectionClosedError                     the block that owned the kernel has ended
    ├── ProtocolError                             the kernel broke the protocol
    ├── ExecutionError                            the code raised (only on request)
    ├── ExecutionTimeoutError (TimeoutError)      the code took longer than its timeout
    ├── ExecutionAbortedError                     the code never ran (only on request)
    ├── CommClosedError                           the comm is closed
    ├── DebugError                                the debugger refused a command
    ├── ServerError                               a server refused, or could not be reached
    │   └── ServerAuthError                       it does not know us, or forbids what was asked
    ├── OutcomeUnknownError                       the connection was lost; what became of the code cannot be told
    ├── ReplayError                               a recording cannot be read, or does not have what is asked
    ├── StdinError                                the kernel's question could not be answered
    └── UnsupportedError                          the kernel (or platform) lacks the feature

Errors about one execution carry its partial ``result``: no output that arrived is lost with the error. Here are those
that need not know what a result is; those of code stand beside `Result`, and those of a kernel's end in ``ends``.
"""

from __future__ import annotations

from typing import Any

from .text import printable

__all__ = [
    "AnyKernelError",
    "ArgumentError",
    "CellError",
    "CommClosedError",
    "ConnectionFileExistsError",
    "DebugError",
    "KernelProcessError",
    "KernelSpecError",
    "KernelStartError",
    "KernelStartTimeoutError",
    "MissingDependencyError",
    "PoolTimeoutError",
    "ProtocolError",
    "ResultCarryingError",
    "ServerAuthError",
    "ServerError",
    "UnsupportedError",
]


class AnyKernelError(Exception):
    """Base class of every error of this package."""

    def __reduce__(self) -> tuple[Any, ...]:
        # Without calling __init__, which wants more than the text.
        return _rebuild, (type(self), self.args, self.__dict__)


def _rebuild(kind: type[AnyKernelError], args: tuple[Any, ...], attributes: dict[str, Any]) -> AnyKernelError:
    # The first __new__ of those that are errors of the system, too, is that of TypeError, which makes no such.
    error: AnyKernelError = (OSError if issubclass(kind, OSError) else kind).__new__(kind)
    error.args = args
    error.__dict__.update(attributes)
    return error


class ArgumentError(AnyKernelError, TypeError, ValueError):
    """Raised when an argument has the wrong type or value; nothing was sent."""


class ConnectionFileExistsError(ArgumentError, FileExistsError):
    """Raised when a connection file is to be written where there is a file; that is left as it is."""


class MissingDependencyError(AnyKernelError, ImportError):
    """Raised when something is used whose extra is not installed; says which ``pip install`` cures it."""

    def __init__(self, message: str, *, name: str | None = None) -> None:
        super().__init__(message, name=name)  # the library that is missing


class KernelSpecError(AnyKernelError):
    """Raised when there is no such kernelspec, or it does not say how to launch a kernel."""


class KernelProcessError(AnyKernelError):
    """What a kernel process left behind: how it ended and the last it wrote."""

    def __init__(self, message: str, *, returncode: int | None = None, stderr: str = "") -> None:
        last_lines = "\n".join(printable(stderr).rstrip().splitlines()[-15:])
        super().__init__(f"{message}; the end of its output:\n{last_lines}" if last_lines else message)
        self.returncode = returncode
        """Exit status; negative for the signal that ended it; None where there is no process of ours."""
        self.stderr = stderr
        """The end of what the process wrote to its stdout and stderr (at most 16 KiB), as it wrote it."""


class KernelStartError(KernelProcessError):
    """Raised when a kernel cannot be started, or cannot be connected to."""


class KernelStartTimeoutError(KernelStartError, TimeoutError):
    """Raised when a kernel was not ready within ``startup_timeout``."""


class CellError(AnyKernelError):
    """Raised when a cell of a notebook fails; the error of the code, the timeout or the kernel's death is its cause."""

    def __init__(self, message: str, *, index: int, source: str, report: Any) -> None:
        super().__init__(message)
        self.index = index
        """Place of the cell in the executed notebook, from 0."""
        self.source = source
        """The cell's code."""
        self.report = report
        """What came of the notebook until then, a `NotebookReport`."""


class PoolTimeoutError(AnyKernelError, TimeoutError):
    """Raised when no kernel of a pool was free in time; nothing was run."""


class ResultCarryingError(AnyKernelError):
    """An error about one execution, with its partial result; of other requests there is none."""

    result: Any
    """What an execution had put out until then, a `Result`; None for other requests."""

    def __init__(self, message: str, *, result: Any = None) -> None:
        super().__init__(message)
        self.result = result


class ProtocolError(ResultCarryingError):
    """Raised when the kernel's answer breaks the Jupyter protocol, or when it gives none."""


class CommClosedError(AnyKernelError):
    """Raised when something is sent on a comm that is closed."""


class DebugError(AnyKernelError):
    """Raised when the kernel's debugger refuses a command, or cannot do it."""

    def __init__(self, command: str, message: str, reply: dict[str, Any]) -> None:
        super().__init__(printable(f"{command}: {message}"))
        self.command = command
        """What was asked for."""
        self.message = message
        """What the debugger says."""
        self.reply = reply
        """The whole reply of the kernel."""


class UnsupportedError(AnyKernelError):
    """Raised when the kernel, its transport or the platform lacks a feature that was asked for."""


class ServerError(AnyKernelError):
    """Raised when a server refuses what it was asked, cannot do it, or cannot be reached."""

    def __init__(self, reason: str, *, status: int | None = None, url: str = "") -> None:
        told = f" (status {status})" if status is not None else ""
        super().__init__(f"{url}: {reason}{told}" if url else f"{reason}{told}")
        self.status = status
        """The status of its answer; None where there was none."""
        self.reason = reason
        """What it said, or what kept it from answering."""
        self.url = url
        """Whom was asked what, without anything secret."""


class ServerAuthError(ServerError):
    """Raised when a server does not know us (the token is wrong, has expired or is missing), or forbids something."""
