"""One kernel as its client sees it: requests, executions, outputs, shells, comms, and the end of all of them.

It may import `anykernel._protocol` and anyio, and knows neither sockets nor processes, files or HTTP: messages come and go
by a `Transport`, and who owns the kernel's process is an `Owner`. A newcomer begins with ``router``, then ``run`` and
``dispatcher``; ``shell`` and ``kernel`` are what callers see of them.
"""

from .asking import ask
from .blocks import block
from .comms import Comm
from .connection import Connection
from .events import KernelEvent
from .execution import Execution
from .handlers import OnOutput, StdinHandler
from .home import Home
from .kernel import Kernel
from .loops import running_asyncio_loop
from .observing import ExecutionObserver, Observer, observe
from .options import OpenOptions
from .owner import Owner, Witness
from .request import Ending, closed_ending
from .router import Router
from .streams import ByteBoundedStream
from .subshell import Subshell
from .tasks import Signal, open_task_group
from .transport import Receiver, Transport
from .widgets import Widgets

__all__ = [
    "ByteBoundedStream",
    "Comm",
    "Connection",
    "Ending",
    "Execution",
    "ExecutionObserver",
    "Home",
    "Kernel",
    "KernelEvent",
    "Observer",
    "OnOutput",
    "OpenOptions",
    "Owner",
    "Receiver",
    "Router",
    "Signal",
    "StdinHandler",
    "Subshell",
    "Transport",
    "Widgets",
    "Witness",
    "ask",
    "block",
    "closed_ending",
    "observe",
    "open_task_group",
    "running_asyncio_loop",
]
