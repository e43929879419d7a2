"""Kernels that jupyter_client's provisioners start: on this machine, in a container, on a cluster.

How this works. Provisioners are written for asyncio, and many of them block (SSH, clients of Kubernetes), which cannot be
seen from outside. So each runs in an asyncio of its own, in a thread that ends with the kernel; that is the same under every
event loop, and none of them waits for it. The provisioner gets what it may expect: a `KernelManager` of jupyter_client as its
parent, which has never started anything. It makes the connection file, in a directory of this user's that the guard watches.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import Future
from contextlib import asynccontextmanager
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, TypeVar

import anyio
import anyio.from_thread
import anyio.to_thread
from anyio.from_thread import BlockingPortal

from .._core import Home
from .._protocol import AnyKernelError, ConnectionInfo, KernelSpecError, KernelStartError
from .connection import load_connection
from .directory import made, new_directory
from .guard import open_guard
from .launcher import LaunchOrder
from .tail import Tail

__all__ = ["ProvisionerLauncher"]

logger = logging.getLogger("anykernel")

T = TypeVar("T")

GROUP = "jupyter_client.kernel_provisioners"
# Those that kernelspecs name, and the package that brings them.
_GATEWAY = "gateway_provisioners"
PACKAGES = {
    "yarn-provisioner": _GATEWAY,
    "kubernetes-provisioner": _GATEWAY,
    "custom-resource-provisioner": _GATEWAY,
    "spark-operator-provisioner": _GATEWAY,
    "docker-provisioner": _GATEWAY,
    "docker-swarm-provisioner": _GATEWAY,
    "distributed-provisioner": _GATEWAY,
}

# Seconds between two looks at a process.
_LOOK_INTERVAL = 0.05
# How long the rest of the output may take after the exit, in seconds: children may hold the pipe for ever.
_LAST_WORDS_TIMEOUT = 0.05
# How long a provisioner may take to end a process, in seconds.
_END_TIMEOUT = 5.0


class ProvisionerLauncher:
    """Starts kernels by a provisioner of jupyter_client.

    A kernelspec whose metadata name a ``kernel_provisioner`` gets one by itself; pass one to start others by it.

    Args:
        name: of the provisioner, such as ``"kubernetes-provisioner"``; None: what the kernelspec says, or else jupyter_client's
            default.
        config: what the provisioner is told, as ``config`` in a kernelspec; with a name only.
    """

    def __init__(self, name: str | None = None, config: Mapping[str, Any] | None = None) -> None:
        self._name = name
        self._config = dict(config or {})

    @asynccontextmanager
    async def launch(self, order: LaunchOrder) -> AsyncIterator[Provisioned]:
        """Start a kernel, for the length of a block; see `Launcher`.

        Raises:
            KernelSpecError: the provisioner is not installed; says which, and which package usually brings it.
            KernelStartError: the provisioner could not start the kernel.
        """
        stanza = order.metadata.get("kernel_provisioner")
        if self._name is not None:
            stanza = {"provisioner_name": self._name, "config": self._config}
        metadata = {**order.metadata, "kernel_provisioner": stanza or {}}
        _check_installed(order.name, metadata["kernel_provisioner"])
        directory = new_directory()
        async with open_guard(directory) as guard, _open_portal() as portal:
            with made(directory):
                process = Provisioned(portal)
                try:
                    await process.start(order, metadata, directory)
                    yield process
                finally:
                    with anyio.CancelScope(shield=True):
                        await process.end()
                    guard.forget()


def _check_installed(kernel: str, stanza: Mapping[str, Any]) -> None:
    name = str(
        stanza.get("provisioner_name") or os.environ.get("JUPYTER_DEFAULT_PROVISIONER_NAME") or "local-provisioner"
    )
    if not entry_points(group=GROUP, name=name):
        package = PACKAGES.get(name)
        cure = f"it usually comes with the package {package}" if package else "see where its kernelspec came from"
        raise KernelSpecError(
            f"the kernel {kernel!r} is to be started by the provisioner {name!r}, which is not installed: {cure}; "
            "to start it on this machine all the same, pass its command as a list"
        )


@asynccontextmanager
async def _open_portal() -> AsyncIterator[BlockingPortal]:
    """An asyncio in a thread of its own. Its start and end are awaited in threads, too, as they block."""
    opened = anyio.from_thread.start_blocking_portal("asyncio")
    with anyio.CancelScope(shield=True):  # a moment
        portal = await anyio.to_thread.run_sync(opened.__enter__)
    try:
        yield portal
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(opened.__exit__, None, None, None)


class Provisioned:
    """A kernel's process that a provisioner has started; made by `ProvisionerLauncher.launch`."""

    connection: ConnectionInfo
    returncode: int | None = None
    reason: str | None = None

    def __init__(self, portal: BlockingPortal) -> None:
        self._home = Home()
        self._portal = portal
        self._manager: Any = None
        self._output: int | None = None
        self._tail = Tail()

    @property
    def pid(self) -> int | None:
        """As the provisioner tells it."""
        pid = getattr(self._provisioner, "pid", None)
        return pid if isinstance(pid, int) else None

    @property
    def stderr(self) -> str:
        """The end of its output, if the provisioner starts it on this machine."""
        return self._tail.text

    @property
    def _provisioner(self) -> Any:
        return getattr(self._manager, "provisioner", None)

    async def start(self, order: LaunchOrder, metadata: dict[str, Any], directory: Path) -> None:
        """Start it; the connection file is in the directory."""
        self._manager = await anyio.to_thread.run_sync(_new_manager, order, metadata, directory)
        self._output, theirs = os.pipe()
        os.set_blocking(self._output, False)
        try:
            options: dict[str, Any] = {"env": {**os.environ, **order.env}, "stdout": theirs, "stderr": theirs}
            if order.cwd is not None:
                options["cwd"] = order.cwd
            info = await self._run(_launch, self._manager, options)
        except AnyKernelError:
            raise
        except Exception as exc:
            raise KernelStartError(f"the provisioner could not start the kernel: {exc!r:.1000}") from exc
        finally:
            os.close(theirs)
        self.connection = load_connection(info)

    async def wait(self) -> None:
        """Wait until it has ended."""
        async with anyio.create_task_group() as tasks:

            async def read() -> None:
                await self._read()
                said.set()

            said = anyio.Event()
            tasks.start_soon(read)
            self.returncode = await self._run(_until_gone, self._provisioner)
            with anyio.move_on_after(_LAST_WORDS_TIMEOUT):
                await said.wait()
            tasks.cancel_scope.cancel()

    async def signal(self, signum: int) -> None:
        """Send it a signal."""
        with contextlib.suppress(ProcessLookupError):
            await self._run(self._provisioner.send_signal, signum)

    async def end(self) -> None:
        """Kill it, and let the provisioner clean up."""
        try:
            if self._provisioner is not None:
                with anyio.move_on_after(_END_TIMEOUT) as timeout:
                    returncode = await self._run(_end, self._provisioner)
                    if self.returncode is None:
                        self.returncode = returncode
                if timeout.cancelled_caught:
                    logger.warning("a provisioner did not end its kernel within %g s", _END_TIMEOUT)
        except Exception as exc:  # noqa: BLE001 - whatever it is, it is a provisioner's, and the end goes on
            logger.warning("a provisioner could not end its kernel: %r", exc)
        finally:
            if self._output is not None:
                os.close(self._output)

    async def _read(self) -> None:
        assert self._output is not None
        while True:
            await anyio.wait_readable(self._output)
            with contextlib.suppress(BlockingIOError):
                chunk = os.read(self._output, 65536)
                if not chunk:
                    return
                self._tail.add(chunk)

    async def _run(self, function: Callable[..., Awaitable[T]], *args: Any) -> T:
        """Run something in the provisioner's own event loop."""
        done, home = anyio.Event(), self._home

        def wake(_: Future[T]) -> None:
            home.call(done.set)

        future: Future[T] = self._portal.start_task_soon(function, *args)
        future.add_done_callback(wake)
        try:
            await done.wait()
        finally:
            future.cancel()
        return future.result()


def _new_manager(order: LaunchOrder, metadata: dict[str, Any], directory: Path) -> Any:
    from jupyter_client.kernelspec import KernelSpec  # noqa: PLC0415

    # What is added to the environment is passed as such.
    spec = KernelSpec(argv=order.argv, display_name=order.name, interrupt_mode=order.interrupt_mode, metadata=metadata)
    manager = _manager_class()(given=spec, connection_file=str(directory / "kernel.json"))
    if manager.has_trait("transport_encryption"):  # since jupyter_client 8.9
        manager.transport_encryption = "auto" if order.encrypted else "disabled"
    return manager


@functools.lru_cache(maxsize=1)
def _manager_class() -> Any:
    from jupyter_client.manager import AsyncKernelManager  # noqa: PLC0415

    class Manager(AsyncKernelManager):
        """A provisioner's parent: it knows a kernelspec that may be installed nowhere."""

        def __init__(self, given: Any, **options: Any) -> None:
            self.given = given
            super().__init__(**options)

        @property
        def kernel_spec(self) -> Any:
            return self.given

    return Manager


async def _launch(manager: Any, options: dict[str, Any]) -> Mapping[str, Any]:
    command, options = await manager.pre_start_kernel(**options)
    info: Mapping[str, Any] = await manager.provisioner.launch_kernel(command, **options)
    await manager.provisioner.post_launch(**options)
    return info


async def _until_gone(provisioner: Any) -> int | None:
    while True:
        returncode: int | None = await provisioner.poll()
        if returncode is not None:
            return returncode
        await anyio.sleep(_LOOK_INTERVAL)


async def _end(provisioner: Any) -> int | None:
    returncode: int | None = None
    if provisioner.has_process:
        await provisioner.kill()  # also after its end: its children may have survived it
        returncode = await provisioner.wait()
    await provisioner.cleanup()
    return returncode
