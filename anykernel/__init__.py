"""A Jupyter kernel client for structured concurrency, on asyncio, uvloop and trio."""

from types import FunctionType
from typing import TYPE_CHECKING

from ._core import (
    ByteBoundedStream,
    Comm,
    Execution,
    ExecutionObserver,
    Kernel,
    KernelEvent,
    Observer,
    OnOutput,
    StdinHandler,
    Subshell,
    Widgets,
    observe,
)
from ._late import late
from ._open import connect_kernel, kernelspecs, open_kernel, replay_kernel
from ._protocol import (
    AnyKernelError,
    ArgumentError,
    CellError,
    CommClosedError,
    CommInfoReply,
    CompleteReply,
    ConnectionClosedError,
    ConnectionFileExistsError,
    ConnectionInfo,
    DebugError,
    DebugReply,
    DisplayData,
    ErrorOutput,
    ExecuteResult,
    ExecutionAbortedError,
    ExecutionError,
    ExecutionTimeoutError,
    HistoryReply,
    Image,
    InspectReply,
    InstalledKernelSpec,
    IsCompleteReply,
    KernelDiedError,
    KernelInfo,
    KernelRestartedError,
    KernelSpecError,
    KernelStartError,
    KernelStartTimeoutError,
    Limits,
    Message,
    MissingDependencyError,
    OutcomeUnknownError,
    Output,
    PoolTimeoutError,
    ProtocolError,
    ReplayError,
    Result,
    ServerAuthError,
    ServerError,
    StdinError,
    Stream,
    UnsupportedError,
    UsageReply,
    Widget,
)
from ._version import __version__

__all__ = [
    "AnyKernelError",
    "ArgumentError",
    "ByteBoundedStream",
    "CellError",
    "Comm",
    "CommClosedError",
    "CommInfoReply",
    "CompleteReply",
    "ConnectionClosedError",
    "ConnectionFileExistsError",
    "ConnectionInfo",
    "DebugError",
    "DebugReply",
    "DisplayData",
    "ErrorOutput",
    "ExecuteResult",
    "Execution",
    "ExecutionAbortedError",
    "ExecutionError",
    "ExecutionObserver",
    "ExecutionTimeoutError",
    "HistoryReply",
    "Image",
    "InspectReply",
    "InstalledKernelSpec",
    "IsCompleteReply",
    "Kernel",
    "KernelDiedError",
    "KernelEvent",
    "KernelInfo",
    "KernelRestartedError",
    "KernelSpecError",
    "KernelStartError",
    "KernelStartTimeoutError",
    "Limits",
    "Message",
    "MissingDependencyError",
    "Observer",
    "OnOutput",
    "OutcomeUnknownError",
    "Output",
    "PoolTimeoutError",
    "ProtocolError",
    "ReplayError",
    "Result",
    "ServerAuthError",
    "ServerError",
    "StdinError",
    "StdinHandler",
    "Stream",
    "Subshell",
    "UnsupportedError",
    "UsageReply",
    "Widget",
    "Widgets",
    "__version__",
    "compare_notebooks",
    "connect_kernel",
    "inspect_parameters",
    "kernelspecs",
    "observe",
    "open_kernel",
    "open_pool",
    "open_server",
    "replay_kernel",
    "run_notebook",
    "run_notebooks",
]

if TYPE_CHECKING:
    from .notebook import compare_notebooks, inspect_parameters, run_notebook, run_notebooks
    from .pool import open_pool
    from .server import open_server
else:
    compare_notebooks = late("notebook", "compare_notebooks", "notebook")
    inspect_parameters = late("notebook", "inspect_parameters", "notebook")
    open_pool = late("pool", "open_pool", "pool")
    open_server = late("server", "open_server", "server")
    run_notebook = late("notebook", "run_notebook", "notebook")
    run_notebooks = late("notebook", "run_notebooks", "notebook")

for _name in __all__:
    _exported = globals()[_name]
    if issubclass(type(_exported), type | FunctionType):  # isinstance takes an alias for a class in Python 3.10
        _exported.__module__ = __name__  # so tracebacks, help() and pickles do not show the rooms


def __dir__() -> list[str]:
    return sorted(__all__)
