"""Kernels as tasks of Dask."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import anyio
import anyio.to_thread

from .._core import Home
from .._local import LaunchOrder
from .._protocol import AnyKernelError, ArgumentError, KernelStartError
from .hosting import Hosted, Sealed, attached, host, seal

__all__ = ["DaskLauncher"]


class DaskLauncher:
    """Starts kernels on the workers of a Dask cluster, each as a task that lasts as long as its kernel.

    A kernel takes one of a worker's threads, and the ``resources`` that are named, until it ends. It starts in the worker's
    Python, where anykernel-client and the kernel must be installed, and is reached by TCP at the worker's address.

    Args:
        client: a ``distributed.Client`` that is not asynchronous. It stays the caller's, who closes it.
        resources: of the worker that a kernel takes, such as ``{"GPU": 1}``.
        workers: names or addresses of those that may have kernels; None: all.
        retries: how often a start that fails on a worker is tried again.

    Raises:
        ArgumentError: the client is an asynchronous one.
    """

    def __init__(
        self,
        client: Any,
        *,
        resources: Mapping[str, float] | None = None,
        workers: Sequence[str] | None = None,
        retries: int = 0,
    ) -> None:
        if client.asynchronous:
            raise ArgumentError("DaskLauncher takes a distributed.Client that is not asynchronous")
        self._client = client
        self._options = {"resources": resources, "workers": workers, "retries": retries}
        self._topic = f"anykernel-{secrets.token_hex(8)}"
        self._starts: dict[str, _Start] = {}
        self._subscribed = False

    @asynccontextmanager
    async def launch(self, order: LaunchOrder) -> AsyncIterator[Hosted]:
        """Start a kernel, for the length of a block; see `Launcher`.

        Raises:
            KernelStartError: it could not be started on its worker, or the worker cannot be reached.
        """
        if not self._subscribed:
            self._subscribed = True
            self._client.subscribe_topic(self._topic, self._on_event)
        name, start, sealed = f"anykernel-{secrets.token_hex(8)}", _Start(), seal(order)
        self._starts[name] = start
        future = None
        try:
            future = self._client.submit(_host_on_worker, sealed, self._topic, key=name, pure=False, **self._options)
            future.add_done_callback(start.on_done)
            await start.told.wait()
            if start.announced is None:
                raise await anyio.to_thread.run_sync(_what_happened, future, abandon_on_cancel=True)
            async with attached(start.announced, sealed) as process:
                yield process
        finally:
            del self._starts[name]
            if future is not None:
                with anyio.CancelScope(shield=True):
                    await anyio.to_thread.run_sync(future.cancel)

    def _on_event(self, event: tuple[float, dict[str, Any]]) -> None:
        # In the client's own thread.
        start = self._starts.get(event[1]["name"])
        if start is not None:
            start.on_announced(event[1]["announced"])


class _Start:
    """A start under way. It is told of by Dask's threads."""

    def __init__(self) -> None:
        self.told = anyio.Event()
        self.announced: dict[str, Any] | None = None
        self._home = Home()

    def on_announced(self, announced: dict[str, Any]) -> None:
        """It runs. What comes later is from another try, after the worker of the first has died."""
        if self.announced is None:
            self.announced = announced
        self._home.call(self.told.set)

    def on_done(self, _: object) -> None:
        """It has ended, well or not."""
        self._home.call(self.told.set)


def _what_happened(future: Any) -> AnyKernelError:
    if future.cancelled():
        return KernelStartError("Dask cancelled the kernel's task")
    error = future.exception()
    if isinstance(error, AnyKernelError):
        return error
    return KernelStartError(f"Dask could not run the kernel's task: {error!r:.1000}")


def _host_on_worker(sealed: Sealed, topic: str) -> None:
    from distributed import get_worker  # noqa: PLC0415  # pyright: ignore[reportMissingImports]
    from distributed.worker import thread_state  # noqa: PLC0415  # pyright: ignore[reportMissingImports]

    worker, name = get_worker(), thread_state.key
    ip = urlsplit(worker.address).hostname

    def announce(announced: dict[str, Any]) -> None:
        worker.log_event(topic, {"name": name, "announced": announced})

    def wanted() -> bool:
        task = worker.state.tasks.get(name)
        return task is not None and task.state in ("executing", "long-running")

    anyio.run(host, sealed, ip, announce, wanted)
