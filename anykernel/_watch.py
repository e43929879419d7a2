"""The outputs of an execution as a list that changes: what a front end draws."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio.lowlevel

from ._outputs import Output, OutputFold

if TYPE_CHECKING:
    from ._execution import Execution

__all__ = ["Watch"]


class Watch:
    """Iterates over the states of an execution's outputs, as `Execution.watch` describes it.

    (No async generator: trio warns of those that a consumer leaves early.)
    """

    def __init__(self, execution: Execution, fold: OutputFold) -> None:
        self._execution = execution
        self._fold = fold
        self._seen: list[Output] | None = None

    def __aiter__(self) -> Watch:
        return self

    async def __anext__(self) -> list[Output]:
        await anyio.lowlevel.checkpoint()
        seen = self._seen
        if seen is not None:
            await self._execution._wait_until(lambda: self._execution._released or self._fold.has_changed(seen))
            if not self._fold.has_changed(seen):
                self._execution._outcome()
                raise StopAsyncIteration
        self._seen = self._fold.outputs
        return self._seen
