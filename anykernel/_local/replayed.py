"""Replaying a recording: its connections, one after another, as those of a kernel."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from anyio.abc import TaskGroup

from .._core import Connection, Ending, OpenOptions, Router
from .._protocol import (
    ConnectionInfo,
    KernelDiedError,
    KernelRestartedError,
    KernelStartError,
    ReplayError,
)
from .._transports import Line, ReplayTransport, Session
from .restartable import Restartable

__all__ = ["Replayed"]

_INFO = ConnectionInfo(shell_port=0, iopub_port=0, stdin_port=0, control_port=0, hb_port=0)


class Replayed(Restartable):
    """Plays the connections of a recording, one after another."""

    def __init__(
        self, sessions: list[Session], tasks: TaskGroup, options: OpenOptions, *, restart_on_death: bool
    ) -> None:
        super().__init__(tasks, options, restart_on_death=restart_on_death)
        self._sessions = iter(sessions)
        self._transport: ReplayTransport | None = None

    @property
    def returncode(self) -> int | None:  # type: ignore[override]
        last = self._transport.last if self._transport is not None else None
        return last.returncode if last is not None else None

    async def interrupt(self, connection: Connection, *, everybody: bool = False) -> None:  # noqa: ARG002
        assert self._transport is not None
        if self._transport.expects_interrupt_request:
            await self._request_interrupt(connection.router)
        else:
            self._transport.interrupt()

    def interrupts_subshell(self, subshell_id: str) -> None:
        assert self._transport is not None
        self._transport.interrupt(subshell_id)

    @asynccontextmanager
    async def _launch(self) -> AsyncIterator[Connection]:
        session = next(self._sessions, None)
        if session is None:
            raise KernelStartError("the recording has no further start of the kernel")
        self._transport = transport = ReplayTransport(session)

        async def watch(router: Router) -> None:
            await transport.ended.wait()
            assert transport.last is not None
            if transport.last.event == "died":
                self._end_dead(router, _death(transport.last))
            else:
                # No death that a restart could mend.
                super(Restartable, self)._end_dead(
                    router, lambda result: ReplayError("the recording was cut off here", result=result)
                )

        try:
            async with self._connection(transport, _INFO, watch=watch) as connection:
                yield connection
        except (KernelDiedError, KernelRestartedError, ReplayError) as exc:
            last = transport.last
            assert last is not None
            text = f"{last.text or 'the recording was cut off'} before it was ready"
            raise KernelStartError(text, returncode=last.returncode, stderr=last.stderr) from exc


def _death(line: Line) -> Ending:
    if line.error == "KernelRestartedError":
        return lambda result: KernelRestartedError(line.text, result=result)
    return lambda result: KernelDiedError(line.text, returncode=line.returncode, stderr=line.stderr, result=result)
