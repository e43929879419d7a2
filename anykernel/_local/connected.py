"""A kernel that is somebody else's: only the connection to it is ours."""

from __future__ import annotations

from collections.abc import Callable

import anyio
from anyio.abc import TaskGroup, TaskStatus

from .._core import Connection, OpenOptions, Owner, Router, Transport, Witness, ask
from .._protocol import (
    ConnectionInfo,
    KernelDiedError,
    KernelRestartedError,
    KernelStartError,
    UnsupportedError,
)

__all__ = ["Connected"]


class Connected(Owner):
    """Uses a kernel that is somebody else's."""

    _asked_on = ("shell", "control")  # where a kernel that is busy answers

    def __init__(
        self,
        info: ConnectionInfo,
        tasks: TaskGroup,
        open_transport: Callable[[], Transport],
        options: OpenOptions,
        witness: Witness | None = None,
    ) -> None:
        super().__init__(tasks, options, witness)
        self._info = info
        self._open_transport = open_transport

    async def interrupt(self, connection: Connection, *, everybody: bool = False) -> None:  # noqa: ARG002
        # Only the request reaches a process that may be anywhere; ipykernel takes it whatever its kernelspec says.
        await self._request_interrupt(connection.router)

    async def restart(self) -> None:
        raise UnsupportedError("only a kernel that open_kernel started can be restarted")

    async def shutdown(self) -> None:
        connection = self.link.connection
        assert connection is not None
        router = connection.router
        if router.ending is not None:
            raise router.ending(None)
        with anyio.move_on_after(self.options.shutdown_timeout):
            try:
                await ask(router, "shutdown_request", {"restart": False}, channel="control", bounded=False)
            except KernelDiedError:
                pass  # it was quicker to go than to answer
            else:
                await router.transport.disconnected()
        self.close()

    async def _run(self, task_status: TaskStatus[None]) -> None:
        transport = self._open_transport()

        async def watch(router: Router) -> None:
            await transport.disconnected()
            await transport.drain()
            if router.restart_announced:
                self._end_dead(
                    router, lambda result: KernelRestartedError("somebody restarted the kernel", result=result)
                )
            else:
                self._end_dead(
                    router, lambda result: KernelDiedError("the kernel closed the connection", result=result)
                )

        try:
            async with self._connection(transport, self._info, watch=watch) as connection:
                self.link.attach(connection)
                task_status.started()
                await connection.router.ended.wait()
        except (KernelDiedError, KernelRestartedError) as exc:
            raise KernelStartError(f"the kernel went away before it was ready: {exc}") from exc
