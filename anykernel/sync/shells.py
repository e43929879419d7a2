"""Blocking twins of shells: thin, and generated, so that none drifts from its original.

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
from .streams import Execution
from .twins import Block, Iteration, Twin, as_it_is

if TYPE_CHECKING:  # these need an extra
    from ..server import RunningKernel, ServerKernelSpec

__all__ = ["Shell", "Subshell"]


class Shell(Twin):
    def request(
        self,
        msg_type: str,
        content: dict[str, Any],
        *,
        channel: Literal["shell", "control"] = "shell",
        metadata: Mapping[str, Any] | None = None,
        buffers: Iterable[bytes | memoryview] | None = None,
        msg_id: str | None = None,
        parent: Mapping[str, Any] | None = None,
    ) -> Message:
        result: Message = self._portal.call(
            lambda _: self._inner.request(
                msg_type, content, channel=channel, metadata=metadata, buffers=buffers, msg_id=msg_id, parent=parent
            )
        )
        return result

    def complete(self, code: str, cursor_pos: int | None = None) -> CompleteReply:
        result: CompleteReply = self._portal.call(lambda _: self._inner.complete(code, cursor_pos))
        return result

    def inspect(self, code: str, cursor_pos: int | None = None, *, detail_level: int = 0) -> InspectReply:
        result: InspectReply = self._portal.call(
            lambda _: self._inner.inspect(code, cursor_pos, detail_level=detail_level)
        )
        return result

    def is_complete(self, code: str) -> IsCompleteReply:
        result: IsCompleteReply = self._portal.call(lambda _: self._inner.is_complete(code))
        return result

    def history(
        self,
        hist_access_type: Literal["tail", "range", "search"] = "tail",
        *,
        output: bool = False,
        raw: bool = True,
        n: int | None = 10,
        session: int = 0,
        start: int = 1,
        stop: int | None = None,
        pattern: str = "*",
        unique: bool = False,
    ) -> HistoryReply:
        result: HistoryReply = self._portal.call(
            lambda _: self._inner.history(
                hist_access_type,
                output=output,
                raw=raw,
                n=n,
                session=session,
                start=start,
                stop=stop,
                pattern=pattern,
                unique=unique,
            )
        )
        return result

    def comm_info(self, target_name: str | None = None) -> CommInfoReply:
        result: CommInfoReply = self._portal.call(lambda _: self._inner.comm_info(target_name))
        return result

    def kernel_info(self) -> KernelInfo:
        result: KernelInfo = self._portal.call(lambda _: self._inner.kernel_info())
        return result

    @property
    def output_limit(self) -> int:
        value: int = self._inner.output_limit
        return value

    @output_limit.setter
    def output_limit(self, value: int) -> None:
        self._inner.output_limit = value

    @property
    def interrupt_timeout(self) -> float:
        value: float = self._inner.interrupt_timeout
        return value

    @interrupt_timeout.setter
    def interrupt_timeout(self, value: float) -> None:
        self._inner.interrupt_timeout = value

    def execute(
        self,
        code: str,
        *,
        timeout: float | None = None,
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

    def submit(
        self,
        code: str,
        *,
        timeout: float | None = None,
        silent: bool = False,
        store_history: bool = True,
        user_expressions: Mapping[str, str] | None = None,
        stop_on_error: bool = False,
        stdin: StdinHandler | None = None,
        check: bool = False,
        on_output: OnOutput | None = None,
        msg_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Execution:
        return Execution(
            self._portal.call(
                lambda _: self._inner.submit(
                    code,
                    timeout=timeout,
                    silent=silent,
                    store_history=store_history,
                    user_expressions=user_expressions,
                    stop_on_error=stop_on_error,
                    stdin=stdin,
                    check=check,
                    on_output=on_output,
                    msg_id=msg_id,
                    metadata=metadata,
                )
            ),
            self._portal,
        )

    def stream(
        self,
        code: str,
        *,
        timeout: float | None = None,
        silent: bool = False,
        store_history: bool = True,
        user_expressions: Mapping[str, str] | None = None,
        stop_on_error: bool = False,
        stdin: StdinHandler | None = None,
        check: bool = False,
        on_output: OnOutput | None = None,
        msg_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Block[Execution]:
        return Block(
            lambda: self._portal,
            lambda: self._inner.stream(
                code,
                timeout=timeout,
                silent=silent,
                store_history=store_history,
                user_expressions=user_expressions,
                stop_on_error=stop_on_error,
                stdin=stdin,
                check=check,
                on_output=on_output,
                msg_id=msg_id,
                metadata=metadata,
            ),
            Execution,
        )

    def evaluate(self, expression: str) -> Any:
        result: Any = self._portal.call(lambda _: self._inner.evaluate(expression))
        return result

    def push(self, /, **variables: Any) -> None:
        self._portal.call(lambda _: self._inner.push(**variables))

    def pull(self, name: str, /, *names: str) -> Any:
        result: Any = self._portal.call(lambda _: self._inner.pull(name, *names))
        return result

    def call(self, function: str, /, *args: Any, **kwargs: Any) -> Any:
        result: Any = self._portal.call(lambda _: self._inner.call(function, *args, **kwargs))
        return result

    def set_env(self, /, **variables: str | None) -> None:
        self._portal.call(lambda _: self._inner.set_env(**variables))


class Subshell(Shell):
    def interrupt(self) -> None:
        self._portal.call(lambda _: self._inner.interrupt())

    @property
    def id(self) -> str:
        value: str = self._inner.id
        return value
