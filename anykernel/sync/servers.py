"""Blocking twins of servers: thin, and generated, so that none drifts from its original.

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
from .kernels import Kernel
from .twins import Block, Iteration, Twin, as_it_is

if TYPE_CHECKING:  # these need an extra
    from ..server import RunningKernel, ServerKernelSpec

__all__ = ["Server"]


class Server(Twin):
    @property
    def url(self) -> str:
        value: str = self._inner.url
        return value

    def kernelspecs(self) -> dict[str, ServerKernelSpec]:
        result: dict[str, ServerKernelSpec] = self._portal.call(lambda _: self._inner.kernelspecs())
        return result

    def kernels(self) -> list[RunningKernel]:
        result: list[RunningKernel] = self._portal.call(lambda _: self._inner.kernels())
        return result

    def open_kernel(
        self,
        kernel: str | None = "python3",
        *,
        path: str | None = None,
        env: Mapping[str, str] | None = None,
        startup_timeout: float = 60.0,
        shutdown_timeout: float = 5.0,
        interrupt_timeout: float = 5.0,
        output_limit: int = 67108864,
        max_in_flight: int = 1,
        record_to: str | os.PathLike[str] | None = None,
    ) -> Block[Kernel]:
        return Block(
            lambda: self._portal,
            lambda: self._inner.open_kernel(
                kernel,
                path=path,
                env=env,
                startup_timeout=startup_timeout,
                shutdown_timeout=shutdown_timeout,
                interrupt_timeout=interrupt_timeout,
                output_limit=output_limit,
                max_in_flight=max_in_flight,
                record_to=record_to,
            ),
            Kernel,
        )

    def connect_kernel(
        self,
        kernel_id: str,
        *,
        startup_timeout: float = 60.0,
        shutdown_timeout: float = 5.0,
        interrupt_timeout: float = 5.0,
        output_limit: int = 67108864,
        max_in_flight: int = 1,
        record_to: str | os.PathLike[str] | None = None,
    ) -> Block[Kernel]:
        return Block(
            lambda: self._portal,
            lambda: self._inner.connect_kernel(
                kernel_id,
                startup_timeout=startup_timeout,
                shutdown_timeout=shutdown_timeout,
                interrupt_timeout=interrupt_timeout,
                output_limit=output_limit,
                max_in_flight=max_in_flight,
                record_to=record_to,
            ),
            Kernel,
        )

    def shutdown_kernel(self, kernel_id: str) -> None:
        self._portal.call(lambda _: self._inner.shutdown_kernel(kernel_id))
