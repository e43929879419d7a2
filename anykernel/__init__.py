"""A Jupyter kernel client for structured concurrency, on asyncio, uvloop and trio."""

from typing import TYPE_CHECKING, Any

from ._comms import Comm
from ._connection import ConnectionInfo
from ._exceptions import (
    AnyKernelError,
    ArgumentError,
    CommClosedError,
    ConnectionClosedError,
    DebugError,
    ExecutionAbortedError,
    ExecutionError,
    ExecutionTimeoutError,
    KernelDiedError,
    KernelRestartedError,
    KernelSpecError,
    KernelStartError,
    KernelStartTimeoutError,
    ProtocolError,
    ReplayError,
    StdinError,
    UnsupportedError,
)
from ._execution import Execution
from ._handlers import OnOutput, StdinHandler
from ._kernel import Kernel
from ._messages import (
    CommInfoReply,
    CompleteReply,
    DebugReply,
    HistoryReply,
    InspectReply,
    IsCompleteReply,
    KernelInfo,
    Message,
    UsageReply,
)
from ._open import connect_kernel, open_kernel
from ._outputs import DisplayData, ErrorOutput, ExecuteResult, Output, Stream
from ._queue import ByteBoundedStream
from ._result import Image, Result
from ._subshell import Subshell

if TYPE_CHECKING:
    from ._replay import replay_kernel

__version__ = "0.1.0"

__all__ = [
    "AnyKernelError",
    "ArgumentError",
    "ByteBoundedStream",
    "Comm",
    "CommClosedError",
    "CommInfoReply",
    "CompleteReply",
    "ConnectionClosedError",
    "ConnectionInfo",
    "DebugError",
    "DebugReply",
    "DisplayData",
    "ErrorOutput",
    "ExecuteResult",
    "Execution",
    "ExecutionAbortedError",
    "ExecutionError",
    "ExecutionTimeoutError",
    "HistoryReply",
    "Image",
    "InspectReply",
    "IsCompleteReply",
    "Kernel",
    "KernelDiedError",
    "KernelInfo",
    "KernelRestartedError",
    "KernelSpecError",
    "KernelStartError",
    "KernelStartTimeoutError",
    "Message",
    "OnOutput",
    "Output",
    "ProtocolError",
    "ReplayError",
    "Result",
    "StdinError",
    "StdinHandler",
    "Stream",
    "Subshell",
    "UnsupportedError",
    "UsageReply",
    "connect_kernel",
    "open_kernel",
    "replay_kernel",
]


if not TYPE_CHECKING:  # which would take any name for one of this module's

    def __getattr__(name: str) -> Any:
        if name == "replay_kernel":  # few programs replay anything, so its modules are imported when it is asked for
            from ._replay import replay_kernel  # noqa: PLC0415

            return replay_kernel
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
