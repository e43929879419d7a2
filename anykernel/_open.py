"""`open_kernel` and `connect_kernel`: the doors to everything.

What only a call needs is imported by the call: it costs as much again as the rest of the package.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Literal

from ._connection import ConnectionInfo, load_connection
from ._exceptions import ArgumentError, UnsupportedError
from ._kernel import Kernel
from ._messages import as_dict
from ._tasks import open_task_group

if TYPE_CHECKING:
    from jupyter_client.kernelspec import KernelSpec

__all__ = ["connect_kernel", "open_kernel"]


@asynccontextmanager
async def open_kernel(
    kernel: str | Sequence[str] | KernelSpec = "python3",
    *,
    cwd: str | os.PathLike[str] | None = None,
    env: Mapping[str, str] | None = None,
    transport: Literal["tcp", "ipc"] = "tcp",
    encryption: Literal["auto", "required", "disabled"] = "auto",
    startup_timeout: float = 60.0,
    shutdown_timeout: float = 5.0,
    interrupt_timeout: float = 5.0,
    output_limit: int = 64 * 2**20,
    max_in_flight: int = 1,
    heartbeat_interval: float = 3.0,
    heartbeat_misses: int = 4,
    on_death: Literal["raise", "restart"] = "raise",
    record_to: str | os.PathLike[str] | None = None,
) -> AsyncIterator[Kernel]:
    """Start a kernel that lives for the length of a block.

    ``async with open_kernel() as kernel:`` waits until the kernel is ready. When the block ends, however it ends, the
    kernel, its child processes, its files and all tasks are gone. It must end in the task that entered it; to keep a
    kernel for longer than a function, give it a task of its own.

    Args:
        kernel: a kernelspec's name, a jupyter_client ``KernelSpec``, or a command (a list of strings) with
            ``{connection_file}`` in one of its arguments.
        cwd: the kernel's working directory; None means this process's.
        env: variables added to the inherited environment.
        transport: ``"tcp"`` on the loopback address, or ``"ipc"``: sockets in a directory of this user's. Not
            every kernel can do IPC.
        encryption: CurveZMQ. ``"auto"`` means: with kernels that say they support it, on TCP.
        startup_timeout: seconds until the kernel must be ready.
        shutdown_timeout: seconds that it gets to end by itself, before SIGTERM, and a second later SIGKILL; ipykernel
            gets one second once its heart has stopped, which it does last.
        interrupt_timeout: seconds that code which is cancelled or timed out gets to settle after its interrupt.
        output_limit: bytes of output kept for each execution; beyond it the middle is dropped.
        max_in_flight: how many execute requests may lie in the kernel at once. With 1, nobody's error or
            interrupt can abort anybody else's code; more save the round trip between short cells.
        heartbeat_interval: seconds between heartbeats, and that each may take.
        heartbeat_misses: how many in a row must stay unanswered for the kernel to be taken for dead (and killed).
        on_death: ``"restart"`` starts a kernel that died again (pending calls fail all the same), at most 3 times
            in a minute.
        record_to: a new file to which every message is written, for `replay_kernel`. Only this user can read it:
            it holds the code and its output, but no keys and no answers to password prompts.

    Raises:
        ArgumentError: an option has an unusable value, or there is a file at ``record_to``, or cannot be.
        KernelSpecError: there is no such kernelspec, or its command cannot be used.
        UnsupportedError: encryption is required and the kernel or the transport does not have it.
        KernelStartError: the kernel could not be started, or exited before it was ready.
        KernelStartTimeoutError: it was not ready in time.
    """
    import zmq  # noqa: PLC0415

    from ._kernelspec import resolve_kernel  # noqa: PLC0415
    from ._lifecycle import Launched  # noqa: PLC0415
    from ._record import open_recorder  # noqa: PLC0415

    _check_choice("transport", transport, ("tcp", "ipc"))
    _check_choice("encryption", encryption, ("auto", "required", "disabled"))
    _check_choice("on_death", on_death, ("raise", "restart"))
    env = as_dict("env", env)
    if not isinstance(cwd, str | os.PathLike | None):
        raise ArgumentError(f"cwd must be a path, not {cwd!r:.200}")
    for name, value in env.items():
        if not (isinstance(name, str) and isinstance(value, str)) or "\0" in name + value or "=" in name:
            raise ArgumentError(f"env must map names to strings: {name!r} to {value!r}")
    if cwd is not None and not os.path.isdir(cwd):  # noqa: ASYNC240, PTH112 - a single stat
        raise ArgumentError(f"cwd is no directory: {os.fspath(cwd)!r}")
    spec = await resolve_kernel(kernel)
    encrypted = encryption != "disabled" and transport == "tcp" and spec.supports_curve and bool(zmq.has("curve"))
    if encryption == "required" and not encrypted:
        lacking = "the ipc transport" if transport == "ipc" else f"the kernel {spec.name!r} (or this ZMQ)"
        raise UnsupportedError(f"encryption is required, and {lacking} has none")
    with open_recorder(record_to) as recorder:
        async with open_task_group() as tasks:
            owner = Launched(
                spec, tasks,
                cwd=cwd, env=env, transport=transport, encrypted=encrypted,
                startup_timeout=startup_timeout, shutdown_timeout=shutdown_timeout,
                interrupt_timeout=interrupt_timeout, output_limit=output_limit, max_in_flight=max_in_flight,
                heartbeat_interval=heartbeat_interval, heartbeat_misses=heartbeat_misses, recorder=recorder,
                restart_on_death=on_death == "restart",
            )  # fmt: skip
            async with owner.opened() as kernel_:
                yield kernel_


@asynccontextmanager
async def connect_kernel(
    connection: str | os.PathLike[str] | Mapping[str, Any] | ConnectionInfo,
    *,
    startup_timeout: float = 60.0,
    shutdown_timeout: float = 5.0,
    interrupt_timeout: float = 5.0,
    output_limit: int = 64 * 2**20,
    max_in_flight: int = 1,
    heartbeat_interval: float = 3.0,
    heartbeat_misses: int = 4,
    record_to: str | os.PathLike[str] | None = None,
) -> AsyncIterator[Kernel]:
    """Use a kernel that runs already, for the length of a block; leaving never stops it.

    Waits until the kernel has answered; one that is busy answers too, if it answers requests on its control
    channel meanwhile (ipykernel does).

    Args:
        connection: a connection file's path, a mapping with its fields (such as what a jupyter_client manager's
            ``get_connection_info()`` returns), or a `ConnectionInfo` (such as `Kernel.connection`).
        startup_timeout: seconds until the kernel must have answered.
        shutdown_timeout: seconds that `Kernel.shutdown` gives it to go.
        interrupt_timeout: as for `open_kernel`, and so are the others.
        output_limit: bytes kept for each execution.
        max_in_flight: execute requests of ours in the kernel at once.
        heartbeat_interval: seconds.
        heartbeat_misses: how many in a row end the connection.
        record_to: a new file to record to, as for `open_kernel`.

    Raises:
        ArgumentError: ``connection`` or an option is unusable, or there is a file at ``record_to``, or cannot be.
        KernelStartError: the connection information cannot be used, or its key is not the kernel's.
        KernelStartTimeoutError: the kernel did not answer in time.
    """
    from ._lifecycle import Connected  # noqa: PLC0415
    from ._record import open_recorder  # noqa: PLC0415
    from ._zmq import ZmqTransport  # noqa: PLC0415

    info = load_connection(connection)
    with open_recorder(record_to) as recorder:
        async with open_task_group() as tasks:
            owner = Connected(
                info, tasks, lambda: ZmqTransport(info),
                startup_timeout=startup_timeout, shutdown_timeout=shutdown_timeout,
                interrupt_timeout=interrupt_timeout, output_limit=output_limit, max_in_flight=max_in_flight,
                heartbeat_interval=heartbeat_interval, heartbeat_misses=heartbeat_misses, recorder=recorder,
            )  # fmt: skip
            async with owner.opened() as kernel_:
                yield kernel_


def _check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ArgumentError(f"{name} must be one of {', '.join(map(repr, choices))}, not {value!r}")
