"""Blocking twins of streams, comms and executions: thin, and generated, so that none drifts from its original.

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
from .twins import Block, Iteration, Twin, as_it_is

if TYPE_CHECKING:  # these need an extra
    from ..server import RunningKernel, ServerKernelSpec

__all__ = ["Comm", "CommStream", "Execution", "Stream"]


class Stream(Twin):
    def pin(self, item: Any) -> None:
        result: None = self._inner.pin(item)
        return result

    def drop_oldest(self, keep: int) -> bool:
        result: bool = self._inner.drop_oldest(keep)
        return result

    def close(self) -> None:
        self._portal.call(lambda _: self._inner.aclose())

    def statistics(self) -> MemoryObjectStreamStatistics:
        result: MemoryObjectStreamStatistics = self._inner.statistics()
        return result

    def receive(self) -> Any:
        result: Any = self._portal.call(lambda _: self._inner.receive())
        return result

    def __iter__(self) -> Iterator[Any]:
        return Iteration(self._inner, self._portal, as_it_is)

    def __next__(self) -> Any:
        item: Any = next(Iteration(self._inner, self._portal, as_it_is))
        return item

    @property
    def dropped(self) -> int:
        value: int = self._inner.dropped
        return value


class Comm(Twin):
    @property
    def comm_id(self) -> str:
        value: str = self._inner.comm_id
        return value

    @property
    def target_name(self) -> str:
        value: str = self._inner.target_name
        return value

    @property
    def data(self) -> Any:
        value: Any = self._inner.data
        return value

    @property
    def metadata(self) -> dict[str, Any]:
        value: dict[str, Any] = self._inner.metadata
        return value

    @property
    def buffers(self) -> tuple[bytes | memoryview, ...]:
        value: tuple[bytes | memoryview, ...] = self._inner.buffers
        return value

    @property
    def closed(self) -> bool:
        value: bool = self._inner.closed
        return value

    @property
    def close_data(self) -> Any:
        value: Any = self._inner.close_data
        return value

    @property
    def dropped(self) -> int:
        value: int = self._inner.dropped
        return value

    def send(
        self, data: Any = None, *, metadata: Mapping[str, Any] | None = None, buffers: Iterable[bytes | memoryview] = ()
    ) -> None:
        self._portal.call(lambda _: self._inner.send(data, metadata=metadata, buffers=buffers))

    def receive(self) -> Message:
        result: Message = self._portal.call(lambda _: self._inner.receive())
        return result

    def close(
        self, data: Any = None, *, metadata: Mapping[str, Any] | None = None, buffers: Iterable[bytes | memoryview] = ()
    ) -> None:
        self._portal.call(lambda _: self._inner.close(data, metadata=metadata, buffers=buffers))

    def __iter__(self) -> Iterator[Message]:
        return Iteration(self._inner, self._portal, as_it_is)

    def __next__(self) -> Message:
        item: Message = next(Iteration(self._inner, self._portal, as_it_is))
        return item


class CommStream(Stream):
    def receive(self) -> Comm:
        return Comm(self._portal.call(lambda _: self._inner.receive()), self._portal)

    def __iter__(self) -> Iterator[Comm]:
        return Iteration(self._inner, self._portal, Comm)

    def __next__(self) -> Comm:
        return next(Iteration(self._inner, self._portal, Comm))


class Execution(Twin):
    @property
    def msg_id(self) -> str:
        value: str = self._inner.msg_id
        return value

    @property
    def result(self) -> Result:
        value: Result = self._inner.result
        return value

    @property
    def state(self) -> Literal["queued", "sent", "running", "settled"]:
        value: Literal["queued", "sent", "running", "settled"] = self._inner.state
        return value

    def _repr_mimebundle_(
        self, include: object = None, exclude: object = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        result: tuple[dict[str, Any], dict[str, Any]] = self._inner._repr_mimebundle_(include, exclude)
        return result

    def wait(self) -> Result:
        result: Result = self._portal.call(lambda _: self._inner.wait())
        return result

    def cancel(self) -> bool:
        result: bool = self._portal.call(lambda _: self._inner.cancel())
        return result

    def watch(self) -> Iteration[list[Output]]:
        return Iteration(self._inner.watch, self._portal, as_it_is)

    def __iter__(self) -> Iterator[Output]:
        return Iteration(self._inner, self._portal, as_it_is)
