"""`open_kernel`, `connect_kernel` and `replay_kernel`: the doors to everything; and `kernelspecs`, what can be opened.

What only a call needs is imported by the call: it costs as much again as the rest of the package.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from ._core import Kernel, OpenOptions, block, open_task_group
from ._protocol import ConnectionInfo, InstalledKernelSpec, Limits, UnsupportedError
from ._transports import open_recorder

if TYPE_CHECKING:
    from jupyter_client.kernelspec import KernelSpec

    from ._local import Launcher

__all__ = ["connect_kernel", "kernelspecs", "open_kernel", "replay_kernel"]


def kernelspecs() -> dict[str, InstalledKernelSpec]:
    """The kernelspecs that are installed here, by name: what `open_kernel` takes.

    They are found where Jupyter looks for them, and read anew by each call, which takes a few milliseconds. Those that cannot
    be read are left out, with a warning in the log ``anykernel``. For what a server has, ask it.
    """
    from ._local import list_kernelspecs  # noqa: PLC0415

    return list_kernelspecs()


@block
async def open_kernel(
    kernel: str | Sequence[str] | KernelSpec | InstalledKernelSpec = "python3",
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
    limits: Limits | None = None,
    wrap: Sequence[str] = (),
    launcher: Launcher | None = None,
) -> AsyncIterator[Kernel]:
    """Start a kernel that lives for the length of a block.

    ``async with open_kernel() as kernel:`` waits until the kernel is ready. When the block ends, however it ends, the
    kernel, its child processes, its files and all tasks are gone. It must end in the task that entered it; to keep a
    kernel for longer than a function, give it a task of its own.

    Args:
        kernel: a kernelspec's name (``"python"`` means the Python kernel), a jupyter_client ``KernelSpec`` or one of
            `kernelspecs`, or a command (a list of strings) with ``{connection_file}`` in one of its arguments.
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
        heartbeat_misses: how many in a row must stay unanswered for `Kernel.events` to tell that the kernel is
            ``"disconnected"``. While its process lives, calls wait for it: some kernels have no heartbeat while code runs.
        on_death: ``"restart"`` starts a kernel that died again (pending calls fail all the same), at most 3 times
            in a minute.
        record_to: a new file to which every message is written, for `replay_kernel`. Only this user can read it:
            it holds the code and its output, but no keys and no answers to password prompts.
        limits: what the kernel's process may use of the machine. A death at one is told by `KernelDiedError.reason`.
        wrap: a program, with its arguments, that runs the kernel's command, which is put behind it: ``["nice"]``,
            ``["bwrap", ...]``. It must let the kernel see its connection file (in a directory of ``TMPDIR``) and our
            loopback address. Limits hold for it as well. Neither is a sandbox by itself.
        launcher: what starts the kernel's process elsewhere (see `anykernel.launchers`). None: this machine, or the
            provisioner that a kernelspec names. ``cwd`` is a path there.

    Raises:
        ArgumentError: an option has an unusable value, or there is a file at ``record_to``, or cannot be.
        KernelSpecError: there is no such kernelspec, its command cannot be used, or it names a provisioner that is not
            installed.
        UnsupportedError: encryption is required and the kernel or the transport does not have it.
        KernelStartError: the kernel could not be started, or exited before it was ready.
        KernelStartTimeoutError: it was not ready in time.
    """
    import zmq  # noqa: PLC0415

    from ._local import Launched, LaunchedBy, LaunchOptions, ProvisionerLauncher, resolve_kernel  # noqa: PLC0415

    options = LaunchOptions(
        cwd=cwd, env=env, transport=transport, encryption=encryption, on_death=on_death, limits=limits, wrap=wrap,
        startup_timeout=startup_timeout, shutdown_timeout=shutdown_timeout, interrupt_timeout=interrupt_timeout,
        output_limit=output_limit, max_in_flight=max_in_flight,
        heartbeat_interval=heartbeat_interval, heartbeat_misses=heartbeat_misses,
    )  # fmt: skip
    spec = await resolve_kernel(kernel)
    encrypted = encryption != "disabled" and transport == "tcp" and spec.supports_curve and bool(zmq.has("curve"))
    if encryption == "required" and not encrypted:
        lacking = "the ipc transport" if transport == "ipc" else f"the kernel {spec.name!r} (or this ZMQ)"
        raise UnsupportedError(f"encryption is required, and {lacking} has none")
    if launcher is None and spec.provisioner is not None:
        launcher = ProvisionerLauncher()
    with open_recorder(record_to) as recorder:
        async with open_task_group() as tasks:
            owner = (
                Launched(spec, tasks, options, recorder, encrypted=encrypted)
                if launcher is None
                else LaunchedBy(launcher, spec, tasks, options, recorder, encrypted=encrypted)
            )
            async with owner.opened() as kernel_:
                yield kernel_


@block
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
        heartbeat_misses: how many in a row must stay unanswered for the kernel to be asked what it is; if it does not
            answer that either, for as long again, it is taken for dead. A kernel whose heart stands still while code
            runs (R's) needs more than its longest cell takes. One that never beat is not judged by it.
        record_to: a new file to record to, as for `open_kernel`.

    Raises:
        ArgumentError: ``connection`` or an option is unusable, or there is a file at ``record_to``, or cannot be.
        KernelStartError: the connection information cannot be used, or its key is not the kernel's.
        KernelStartTimeoutError: the kernel did not answer in time.
    """
    from ._local import Connected, load_connection  # noqa: PLC0415
    from ._transports import ZmqTransport  # noqa: PLC0415

    options = OpenOptions(
        startup_timeout=startup_timeout, shutdown_timeout=shutdown_timeout, interrupt_timeout=interrupt_timeout,
        output_limit=output_limit, max_in_flight=max_in_flight,
        heartbeat_interval=heartbeat_interval, heartbeat_misses=heartbeat_misses,
    )  # fmt: skip
    info = load_connection(connection)
    with open_recorder(record_to) as recorder:
        async with (
            open_task_group() as tasks,
            Connected(info, tasks, lambda: ZmqTransport(info), options, recorder).opened() as kernel_,
        ):
            yield kernel_


@block
async def replay_kernel(
    path: str | os.PathLike[str],
    *,
    startup_timeout: float = 10.0,
    interrupt_timeout: float = 5.0,
    output_limit: int = 64 * 2**20,
    max_in_flight: int = 1,
    on_death: Literal["raise", "restart"] = "raise",
) -> AsyncIterator[Kernel]:
    """Use a recording (``record_to`` of `open_kernel` and `connect_kernel`) as a kernel, for the length of a block.

    The kernel answers what the recording has, as it did then, and without taking time for it. Requests are found
    again by channel, type, subshell, content and buffers; equal ones in the order in which they were recorded. So the
    calls must be those that were recorded, but tasks may make them in another order, except that subshells are known
    by the order in which they are opened. Code that was interrupted runs on
    until it is interrupted again, so a timeout takes its time. `Kernel.restart` goes on with the next process in the
    recording, and where the kernel died, it dies.

    A request that the recording does not have raises `ReplayError`; so does the connection's end, where the
    recording was cut off in the middle of a request.

    Args:
        path: the recording.
        startup_timeout: seconds until the kernel must have answered.
        interrupt_timeout: as for `open_kernel`, and so are the others. They are no part of the recording.
        output_limit: bytes kept for each execution.
        max_in_flight: execute requests in the kernel at once.
        on_death: ``"restart"`` goes on with the next process by itself.

    Raises:
        ArgumentError: an option has an unusable value.
        ReplayError: the file cannot be read, is damaged, or has another version of the format.
        KernelStartError: the recorded kernel did not become ready, or the recording ends before it did.
    """
    from ._local import Replayed  # noqa: PLC0415
    from ._transports import read_recording, read_sessions  # noqa: PLC0415

    options = OpenOptions(
        startup_timeout=startup_timeout, shutdown_timeout=0, interrupt_timeout=interrupt_timeout,
        output_limit=output_limit, max_in_flight=max_in_flight, heartbeat_interval=60, heartbeat_misses=1,
    )  # fmt: skip
    sessions = read_sessions(read_recording(path))
    async with (
        open_task_group() as tasks,
        Replayed(sessions, tasks, options, restart_on_death=on_death == "restart").opened() as kernel,
    ):
        yield kernel
