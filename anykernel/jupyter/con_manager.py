"""conkernelclient's manager, and its functions and queues around a client."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
from jupyter_client.kernelspec import KernelSpec
from traitlets import DottedObjectName, Type, default

from .channels import Inbox
from .clients import AsyncKernelManager
from .con_client import ConKernelClient

__all__ = ["ConKernelManager", "JmsgQueues", "reconnect", "run_kernel"]


class JmsgQueues:
    """Queues of all that comes, one of each name; bounded as the client's own are. It sets itself as ``kc.on_jmsg``."""

    def __init__(
        self,
        kc: ConKernelClient,
        queues: Sequence[str] = ("shell", "control", "iopub", "stdin"),
        merge: Mapping[str, str] | None = None,
    ) -> None:
        self.queues = {name: Inbox() for name in queues}
        self.merge = dict(merge or {})
        self.kc = kc
        kc.on_jmsg = self
        kc.jmsgq = self

    def __call__(self, message: dict[str, Any]) -> None:
        channel = str(message["channel"])
        queue = self.queues.get(self.merge.get(channel, channel))
        if queue is not None:
            queue.put(message, 0)

    async def get(self, queue: str, timeout: float | None = None) -> dict[str, Any]:
        """The next message of a queue; `queue.Empty` after ``timeout`` seconds."""
        return await self.queues[queue].get(self.kc.default_timeout if timeout is None else timeout)

    async def get_shell_msg(self, timeout: float | None = None) -> dict[str, Any]:
        return await self.get("shell", timeout)

    async def get_iopub_msg(self, timeout: float | None = None) -> dict[str, Any]:
        return await self.get("iopub", timeout)

    async def get_stdin_msg(self, timeout: float | None = None) -> dict[str, Any]:
        return await self.get("stdin", timeout)

    async def get_control_msg(self, timeout: float | None = None) -> dict[str, Any]:
        return await self.get("control", timeout)


class ConKernelManager(AsyncKernelManager):
    """conkernelclient's class: as `AsyncKernelManager`, with clients that are `ConKernelClient`, and Curve where there is."""

    client_class = DottedObjectName("anykernel.jupyter.ConKernelClient", config=True)
    client_factory = Type(ConKernelClient, config=True)

    def __init__(self, *args: Any, kernel_spec: KernelSpec | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if kernel_spec is not None:
            self._kernel_spec = kernel_spec

    @default("transport_encryption")
    def _transport_encryption_default(self) -> str:
        return "auto"


@asynccontextmanager
async def run_kernel(
    kernel_name: str = "python3",
    argv: list[str] | None = None,
    manager_cls: Callable[..., Any] = ConKernelManager,
    **options: Any,
) -> AsyncIterator[tuple[Any, Any]]:
    """A kernel of this name, or command, for the length of a block: its manager and a client."""
    spec = {} if argv is None else {"kernel_spec": KernelSpec(argv=argv, display_name=kernel_name)}
    manager = manager_cls(kernel_name=kernel_name, **spec)
    await manager.start_kernel(**options)
    try:
        client = await manager.client().start_channels()
        try:
            yield manager, client
        finally:
            with anyio.CancelScope(shield=True):
                await client.astop_channels()
    finally:
        with anyio.CancelScope(shield=True):
            await manager.shutdown_kernel(now=True)


async def reconnect(km: Any, kc: Any = None) -> Any:
    """Restart a manager's kernel, stop the client, and give a new one."""
    if kc is not None:
        kc.stop_channels()
    await km.restart_kernel(now=True)
    return await km.client().start_channels()
