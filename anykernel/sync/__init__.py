"""The public names without ``async``: ``with open_kernel() as kernel: kernel.execute("1 + 1")``.

For programs without an event loop, from any number of threads, and under a running event loop, such as a notebook's. All
kernels live in one background event loop of the process. Errors, results and outputs are the same; on Ctrl-C a call stops its
code, waits until that has settled, and raises `KeyboardInterrupt`. ``on_output`` and ``stdin`` are called in the calling thread.

A newcomer begins with ``portal``, then ``twins``; the classes are generated from their async originals.
"""

from __future__ import annotations

import inspect as _inspect

import anykernel as _anykernel
from anykernel import (
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
    ExecutionObserver,
    ExecutionTimeoutError,
    HistoryReply,
    Image,
    InspectReply,
    InstalledKernelSpec,
    IsCompleteReply,
    KernelDiedError,
    KernelEvent,
    KernelInfo,
    KernelRestartedError,
    KernelSpecError,
    KernelStartError,
    KernelStartTimeoutError,
    Limits,
    Message,
    MissingDependencyError,
    Observer,
    OnOutput,
    OutcomeUnknownError,
    Output,
    PoolTimeoutError,
    ProtocolError,
    ReplayError,
    Result,
    ServerAuthError,
    ServerError,
    StdinError,
    StdinHandler,
    Stream,
    UnsupportedError,
    UsageReply,
    Widget,
    Widgets,
    __version__,
    compare_notebooks,
    kernelspecs,
    observe,
)

from .. import pool as _pool
from .doors import block_of as _block_of
from .doors import call_of as _call_of
from .kernels import Kernel
from .pools import Pool
from .servers import Server as _Server
from .shells import Subshell
from .streams import Comm, Execution
from .streams import Stream as ByteBoundedStream
from .twins import iteration_of as _iteration_of

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

open_kernel = _block_of(_anykernel.open_kernel, Kernel)
connect_kernel = _block_of(_anykernel.connect_kernel, Kernel)
replay_kernel = _block_of(_anykernel.replay_kernel, Kernel)
open_pool = _block_of(_anykernel.open_pool, Pool)
open_server = _block_of(_anykernel.open_server, _Server)
run_notebooks = _block_of(_anykernel.run_notebooks, _iteration_of)
run_notebook = _call_of(_anykernel.run_notebook, ("on_cell", "stdin"))
inspect_parameters = _call_of(_anykernel.inspect_parameters)


def _document(twin: type, original: type) -> None:
    twin.__doc__ = original.__doc__
    twin.__name__ = twin.__qualname__ = original.__name__
    twin.__module__ = __name__
    for name, value in [(name, value) for kind in reversed(twin.__mro__[:-1]) for name, value in vars(kind).items()]:
        there = getattr(original, name, None)
        if name.startswith("__") or there is None:
            continue
        if isinstance(value, property):
            setattr(twin, name, property(value.fget, value.fset, doc=_inspect.getdoc(there)))
        else:
            value.__doc__ = _inspect.getdoc(there)


for _twin, _original in (
    (Kernel, _anykernel.Kernel),
    (Subshell, _anykernel.Subshell),
    (Execution, _anykernel.Execution),
    (Comm, _anykernel.Comm),
    (ByteBoundedStream, _anykernel.ByteBoundedStream),
    (Pool, _pool.Pool),
):
    _document(_twin, _original)
