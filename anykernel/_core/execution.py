"""What callers hold of an execution that they do not wait for at once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anyio.lowlevel

from .._protocol import Output, Result
from .run import Run, State

__all__ = ["Execution"]


class Execution:
    """A running or finished execution; made by `Kernel.submit` and `Kernel.stream`.

    Iterate over it for the outputs as they come: text in the pieces in which the kernel sends it, and a
    `DisplayData` again when this execution updates its own. Any number of tasks may iterate and wait. After the
    last output an iteration raises what `wait` would raise.
    """

    __slots__ = ("__weakref__", "_run")

    def __init__(self, run: Run) -> None:
        self._run = run

    @property
    def msg_id(self) -> str:
        """Id of the request, which is the ``parent_header.msg_id`` of all its messages."""
        return self._run.msg_id

    @property
    def result(self) -> Result:
        """The result as far as it has come."""
        return self._run.result

    @property
    def state(self) -> State:
        """``"queued"`` here, ``"sent"`` to the kernel, ``"running"`` there, or ``"settled"``."""
        return self._run.state

    def _repr_mimebundle_(
        self, include: object = None, exclude: object = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """What a notebook shows where this is a cell's value: the outputs so far, as `Result` shows them."""
        return self._run.result._repr_mimebundle_(include, exclude)

    def __repr__(self) -> str:
        return f"<Execution {self.state} {self.msg_id}>"

    async def wait(self) -> Result:
        """Wait until the execution has settled. Being cancelled here only ends the waiting.

        Raises:
            KernelDiedError, KernelRestartedError, ConnectionClosedError: the kernel went away first.
            ExecutionTimeoutError: the ``timeout`` it was made with is over.
            ExecutionError, ExecutionAbortedError: with ``check=True``.
        """
        self._run.context.home.check()
        await self._run.wait_settled()
        return self._run.outcome()

    async def cancel(self) -> bool:
        """End the execution: it never runs if it has not started, and is interrupted if it has.

        Waits until it has settled, for at most ``interrupt_timeout`` seconds, even if the caller is cancelled.
        Returns whether it has settled; if not, the code ignored the interrupts, and the kernel is still busy
        with it.
        """
        self._run.context.home.check()
        await self._run.stop_apart()
        return self.state == "settled"

    def __aiter__(self) -> AsyncIterator[Output]:
        self._run.context.home.check()
        return self._run.new_stream()

    def watch(self) -> AsyncIterator[list[Output]]:
        """The outputs as a list that changes: ``async for outputs in execution.watch()``.

        Gives `Result.outputs` as it is, and again after changes (text that goes on, ``clear_output``, displays that
        anybody updates), until the execution has settled; then it raises what `wait` would. Changes that come
        while the consumer is busy are given as one. Updates of displays that come later are in `Result.outputs`; for
        when they come, see ``kernel.messages("update_display_data")``.
        """
        self._run.context.home.check()
        self._run.notify_of_changes()
        return _Watch(self._run)


class _Watch:
    """Iterates over the states of an execution's outputs, as `Execution.watch` describes it.

    (No async generator: trio warns of those that a consumer leaves early.)
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._seen: list[Output] | None = None

    def __aiter__(self) -> _Watch:
        return self

    async def __anext__(self) -> list[Output]:
        self._run.context.home.check()
        await anyio.lowlevel.checkpoint()
        run, seen = self._run, self._seen
        if seen is not None:
            await run.wait_until(lambda: run.released or run.fold.has_changed(seen))
            if not run.fold.has_changed(seen):
                run.outcome()
                raise StopAsyncIteration
        self._seen = run.fold.outputs
        return self._seen.copy()  # the consumer's own
