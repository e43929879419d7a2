"""Blocking twins of pools: thin, and generated, so that none drifts from its original.

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
from ..pool import PoolStatistics
from .kernels import Kernel
from .twins import Block, Iteration, Twin, as_it_is

if TYPE_CHECKING:  # these need an extra
    from ..server import RunningKernel, ServerKernelSpec

__all__ = ["Mapped", "Pool"]


class Mapped(Twin):
    def __iter__(self) -> Iterator[Any]:
        return Iteration(self._inner, self._portal, as_it_is)

    def __next__(self) -> Any:
        item: Any = next(Iteration(self._inner, self._portal, as_it_is))
        return item


class Pool(Twin):
    def kernel(self, *, timeout: float | None = None) -> Block[Kernel]:
        return Block(lambda: self._portal, lambda: self._inner.kernel(timeout=timeout), Kernel)

    def execute(
        self,
        code: str,
        *,
        timeout: float | None = None,
        retries: int = 0,
        silent: bool = False,
        store_history: bool = True,
        user_expressions: Mapping[str, str] | None = None,
        stop_on_error: bool = False,
        stdin: StdinHandler | None = None,
        check: bool = False,
        on_output: OnOutput | None = None,
        msg_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Result:
        result: Result = self._portal.call(
            lambda own: self._inner.execute(
                code,
                timeout=timeout,
                retries=retries,
                silent=silent,
                store_history=store_history,
                user_expressions=user_expressions,
                stop_on_error=stop_on_error,
                stdin=own(stdin),
                check=check,
                on_output=own(on_output),
                msg_id=msg_id,
                metadata=metadata,
            )
        )
        return result

    def map(
        self,
        function: str | Callable[..., Any],
        items: Iterable[Any] | AsyncIterable[Any],
        *,
        retries: int = 0,
        timeout: float | None = None,
        ordered: bool = True,
        max_pending: int | None = None,
        return_exceptions: bool = False,
        on_progress: Callable[[int, int | None], object] | None = None,
    ) -> Block[Mapped]:
        return Block(
            lambda: self._portal,
            lambda: self._inner.map(
                function,
                items,
                retries=retries,
                timeout=timeout,
                ordered=ordered,
                max_pending=max_pending,
                return_exceptions=return_exceptions,
                on_progress=on_progress,
            ),
            Mapped,
        )

    def statistics(self) -> PoolStatistics:
        result: PoolStatistics = self._inner.statistics()
        return result
