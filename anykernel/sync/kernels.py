"""Blocking twins of kernels: thin, and generated, so that none drifts from its original.

Written by ``python -m tests.sync.generate``; a test says when that is to be done again. What a method does, takes and raises
is told by the original's docstring, which it gets when this is imported.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterable, Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

from anyio.streams.memory import MemoryObjectStreamStatistics

from .. import (
    CommInfoReply,
    CompleteReply,
    ConnectionInfo,
    DebugReply,
    HistoryReply,
    InspectReply,
    IsCompleteReply,
    KernelEvent,
    KernelInfo,
    Message,
    OnOutput,
    Output,
    Result,
    StdinHandler,
    UsageReply,
    Widgets,
)
from .shells import Shell, Subshell
from .streams import Comm, CommStream, Stream
from .twins import Block, Iteration, Twin, as_it_is

if TYPE_CHECKING:  # these need an extra
    from ..server import RunningKernel, ServerKernelSpec

__all__ = ["Kernel"]


class Kernel(Shell):
    def messages(self, *types: str) -> Block[Stream]:
        return Block(lambda: self._portal, lambda: self._inner.messages(*types), Stream)

    def events(self) -> Block[Stream]:
        return Block(lambda: self._portal, lambda: self._inner.events(), Stream)

    def open_comm(
        self,
        target: str,
        data: Any = None,
        *,
        metadata: Mapping[str, Any] | None = None,
        buffers: Iterable[bytes | memoryview] = (),
    ) -> Block[Comm]:
        return Block(
            lambda: self._portal, lambda: self._inner.open_comm(target, data, metadata=metadata, buffers=buffers), Comm
        )

    def comms(self, target: str) -> Block[CommStream]:
        return Block(lambda: self._portal, lambda: self._inner.comms(target), CommStream)

    def widgets(self) -> Block[Widgets]:
        return Block(lambda: self._portal, lambda: self._inner.widgets(), as_it_is)

    def debug(self, command: str, arguments: Mapping[str, Any] | None = None) -> DebugReply:
        result: DebugReply = self._portal.call(lambda _: self._inner.debug(command, arguments))
        return result

    def debug_events(self) -> Block[Stream]:
        return Block(lambda: self._portal, lambda: self._inner.debug_events(), Stream)

    def interrupt(self) -> None:
        self._portal.call(lambda _: self._inner.interrupt())

    def subshell(self) -> Block[Subshell]:
        return Block(lambda: self._portal, lambda: self._inner.subshell(), Subshell)

    def usage(self) -> UsageReply:
        result: UsageReply = self._portal.call(lambda _: self._inner.usage())
        return result

    def restart(self) -> None:
        self._portal.call(lambda _: self._inner.restart())

    def shutdown(self) -> None:
        self._portal.call(lambda _: self._inner.shutdown())

    @property
    def info(self) -> KernelInfo:
        value: KernelInfo = self._inner.info
        return value

    @property
    def connection(self) -> ConnectionInfo:
        value: ConnectionInfo = self._inner.connection
        return value

    @property
    def id(self) -> str | None:
        value: str | None = self._inner.id
        return value

    @property
    def is_alive(self) -> bool:
        value: bool = self._inner.is_alive
        return value

    @property
    def pid(self) -> int | None:
        value: int | None = self._inner.pid
        return value

    @property
    def returncode(self) -> int | None:
        value: int | None = self._inner.returncode
        return value

    @property
    def execution_state(self) -> str:
        value: str = self._inner.execution_state
        return value

    @property
    def pending(self) -> int:
        value: int = self._inner.pending
        return value

    @property
    def supports_subshells(self) -> bool:
        value: bool = self._inner.supports_subshells
        return value
