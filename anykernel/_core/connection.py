"""One connection to one kernel process, and what a kernel can ask of the one who owns that process."""

from __future__ import annotations

from .._protocol import ConnectionInfo, KernelInfo
from .comms import Comms
from .debugger import Debugger
from .dispatcher import Dispatcher, Dispatchers
from .router import Router

__all__ = ["Connection", "Lifecycle"]


class Connection:
    """One connection to one kernel process, ready for use."""

    def __init__(
        self,
        router: Router,
        info: ConnectionInfo | None,
        kernel_info: KernelInfo,
        max_in_flight: int,
        reply_id: str,
    ) -> None:
        self.router = router
        self.info = info
        self.kernel_info = kernel_info
        self.reply_id = reply_id
        """The message id with which the kernel said that; some tell the process by it."""
        self.dispatchers = Dispatchers(router, max_in_flight)
        self.dispatcher: Dispatcher = self.dispatchers.add()
        """The main shell's."""
        self.comms = Comms(self.dispatchers)
        self.debugger = Debugger(router, kernel_info)


class Lifecycle:
    """What a kernel can ask of the one who owns its process."""

    id: str | None = None
    """The name that a server has for it."""
    pid: int | None = None
    returncode: int | None = None

    async def interrupt(self, connection: Connection, *, everybody: bool = False) -> None:
        """Interrupt what the kernel runs, by signal or by message; with ``everybody``, its child processes as well."""
        raise NotImplementedError

    def interrupts_subshell(self, subshell_id: str) -> None:
        """The code of a subshell is about to be interrupted."""

    async def restart(self) -> None:
        raise NotImplementedError

    async def shutdown(self) -> None:
        raise NotImplementedError
