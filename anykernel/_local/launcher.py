"""The seam between a kernel's client and whatever starts its process: this machine, a provisioner, an engine."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

import msgspec

from .._protocol import ConnectionInfo

__all__ = ["LaunchOrder", "LaunchedProcess", "Launcher"]


class LaunchOrder(msgspec.Struct, frozen=True, kw_only=True):
    """What a `Launcher` is to start."""

    name: str
    """Of the kernel, for people."""
    argv: list[str]
    """The command. In one of its arguments is ``{connection_file}``, for the path of one that the launcher has written."""
    env: dict[str, str] = {}
    """Variables to add to the environment, wherever the kernel starts."""
    cwd: str | None = None
    """Its working directory; None means whatever is usual there."""
    encrypted: bool = False
    """Whether the kernel can do CurveZMQ, and is to have keys for it."""
    interrupt_mode: str = "signal"
    metadata: dict[str, Any] = {}
    """The kernelspec's."""


class LaunchedProcess(Protocol):
    """A kernel's process that a `Launcher` has started; all of this is used in the event loop that it was started in."""

    @property
    def connection(self) -> ConnectionInfo:
        """Where the kernel listens, or is going to, as seen from here; with its keys."""
        ...

    @property
    def pid(self) -> int | None:
        """Its process id on its own machine; None where nobody knows."""
        ...

    @property
    def returncode(self) -> int | None:
        """Exit status, negative for a signal; None while it runs, or where nobody knows."""
        ...

    @property
    def stderr(self) -> str:
        """The end of what it wrote to its stdout and stderr; empty where nobody reads that."""
        ...

    @property
    def reason(self) -> str | None:
        """What else is known of why it ended, such as that its machine is gone; for `KernelDiedError.reason`."""
        ...

    async def wait(self) -> None:
        """Wait until it has ended, or is out of reach for good. Called once; may be cancelled."""
        ...

    async def signal(self, signum: int) -> None:
        """Send it a signal. One that has ended gets none, and nothing is raised."""
        ...


class Launcher(Protocol):
    """Starts kernels; what `open_kernel` and `open_pool` take as ``launcher``. One launcher may start any number at once.

    Everything else (connection, readiness, heartbeat, requests, the polite end) is done for it.
    """

    def launch(self, order: LaunchOrder) -> AbstractAsyncContextManager[LaunchedProcess]:
        """Start a process, for the length of a block: ``async with launcher.launch(order) as process``.

        Entering waits until it is known where the kernel will listen, and is cancelled when ``startup_timeout`` is over.
        When the block ends, or entering it does, for whatever reason, the process must be gone with its children and its
        files, and what it held (a worker, a machine) must be free: at once, as it has had its time to end by itself.

        Raises:
            KernelSpecError: the kernel cannot be started by this launcher.
            KernelStartError: it could not be started.
        """
        ...
