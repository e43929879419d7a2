"""`open_pool`, and the pool as its users hold it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterable as AsyncIterableABC
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any

import anyio
import msgspec

from .._core import Kernel, OnOutput, StdinHandler, block, open_task_group
from .._open import open_kernel
from .._protocol import (
    AnyKernelError,
    ArgumentError,
    InstalledKernelSpec,
    KernelDiedError,
    PoolTimeoutError,
    Result,
    as_integer,
    as_seconds,
    as_timeout,
)
from .keeping import Keeper
from .mapping import Mapped, open_mapping

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jupyter_client.kernelspec import KernelSpec

__all__ = ["Pool", "PoolStatistics", "open_pool"]


class PoolStatistics(msgspec.Struct, frozen=True):
    """How a pool fares, from `Pool.statistics`."""

    idle: int
    """Kernels that are ready and not lent."""
    lent: int
    starting: int
    waiting: int
    """Calls that wait for a kernel."""
    started: int
    """Kernels that became ready, since the pool was opened; likewise the following."""
    died: int
    """Kernels that died, lent or not."""
    replaced: int
    """Kernels that were replaced: used up, dead, or left busy by their borrower."""


class Pool:
    """Kernels that are lent one by one; made by `open_pool`, usable by any number of tasks until its block ends."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper

    @block
    async def kernel(self, *, timeout: float | None = None) -> AsyncIterator[Kernel]:
        """Borrow a kernel for the length of a block: ``async with pool.kernel() as kernel``.

        Nobody else has it meanwhile. Who waits is served in the order of the calls. What becomes of it in the block, its death
        or `Kernel.shutdown` included, costs the pool only this kernel. One that is left with code that still runs is not
        lent again.

        Args:
            timeout: seconds to wait for a free one; None for no limit.

        Raises:
            PoolTimeoutError: none was free in time.
            KernelStartError: none could be started.
            ExecutionError: the setup code failed.
            ConnectionClosedError: the pool's block has ended.
        """
        timeout = as_timeout("timeout", timeout)
        try:
            place = await self._keeper.borrow(timeout)
        except AnyKernelError:
            raise
        except TimeoutError:
            raise PoolTimeoutError(f"no kernel of the pool was free within {timeout} s") from None
        try:
            assert place.kernel is not None
            yield place.kernel
        finally:
            self._keeper.give_back(place)

    async def execute(
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
        """Run code in a kernel that is borrowed for it; takes what `Kernel.execute` takes.

        ``timeout`` are seconds from this call, the waiting for a kernel included. ``retries`` is how often it is run again, in
        another kernel, if the kernel dies; never after an error of the code.

        Raises:
            PoolTimeoutError: no kernel was free in time.
            KernelDiedError: the kernel died, and so did those of the retries.
            AnyKernelError: what `Kernel.execute` and `kernel` raise.
        """
        _check_count("retries", retries, least=0)
        timeout = as_timeout("timeout", timeout)
        deadline = None if timeout is None else anyio.current_time() + timeout
        while True:
            async with self.kernel(timeout=timeout) as kernel:
                left = timeout if deadline is None else max(0, deadline - anyio.current_time())
                try:
                    return await kernel.execute(
                        code,
                        timeout=left,
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
                except KernelDiedError:
                    if retries == 0:
                        raise
                    retries -= 1
            if deadline is not None:
                timeout = max(0, deadline - anyio.current_time())

    def map(
        self,
        function: str | Callable[..., Any],
        items: Iterable[Any] | AsyncIterableABC[Any],
        *,
        retries: int = 0,
        timeout: float | None = None,
        ordered: bool = True,
        max_pending: int | None = None,
        return_exceptions: bool = False,
        on_progress: Callable[[int, int | None], object] | None = None,
    ) -> AbstractAsyncContextManager[Mapped]:
        """Call a function for each item, in as many kernels as there are: ``async with pool.map(f, items) as results``.

        ``async for value in results`` gives what it returns. The first failing item's error comes out of the iteration; then,
        and when the block is left, the items under way are stopped, and the rest never run. A kernel is borrowed once for as
        many items as it takes. Items and values travel as those of `Kernel.call` do.

        Args:
            function: a name or an expression in the kernels (whose setup code may define it), or a Python function, which is
                sent by cloudpickle (to be installed here and there), and is called with each item. One that is async is
                awaited.
            items: an iterable, or an async one; read as far as there is room.
            retries: how often an item is tried again, in another kernel, if its kernel died.
            timeout: seconds that each item may take; then it fails with `TimeoutError`.
            ordered: give values in the order of the items; else as they come.
            max_pending: how many items may be under way, or done and not yet taken, at once; None: twice the pool's size.
            return_exceptions: give errors in the place of values, and go on.
            on_progress: called after each item with how many are done, and how many there are (None where that is not
                known); what it raises ends the iteration.

        Raises:
            ArgumentError: an argument is unusable.
            MissingDependencyError: a function is to be sent, and cloudpickle is not installed here.
        """
        _check_count("retries", retries, least=0)
        if max_pending is not None:
            _check_count("max_pending", max_pending, least=1)
        timeout = as_timeout("timeout", timeout)
        return open_mapping(
            self.kernel,
            function,
            items,
            workers=min(self._keeper.size, max_pending or self._keeper.size),
            retries=retries,
            timeout=timeout,
            ordered=ordered,
            max_pending=max_pending or 2 * self._keeper.size,
            return_exceptions=return_exceptions,
            on_progress=on_progress,
        )

    def statistics(self) -> PoolStatistics:
        """How many kernels there are of each kind, now, and have been."""
        keeper = self._keeper
        return PoolStatistics(
            idle=len(keeper.idle),
            lent=len(keeper.lent),
            starting=len(keeper.starting),
            waiting=len(keeper.waiters),
            started=keeper.started,
            died=keeper.died,
            replaced=keeper.replaced,
        )

    def __repr__(self) -> str:
        return f"<Pool of {self._keeper.size}: {len(self._keeper.idle)} idle, {len(self._keeper.lent)} lent>"


@block
async def open_pool(
    kernel: str | Sequence[str] | KernelSpec | InstalledKernelSpec = "python3",
    *,
    size: int | None = None,
    spares: int = 1,
    uses: int | None = 1,
    setup: str | None = None,
    max_starting: int | None = None,
    idle_timeout: float = 300.0,
    **options: Any,
) -> AsyncIterator[Pool]:
    """Keep kernels for the length of a block, some of them warm.

    Waits until the first is ready. At the end, however the block ends, all kernels are gone, lent or not: the pool waits for
    no borrower, whose calls then raise `ConnectionClosedError`.

    Args:
        kernel: what `open_kernel` takes.
        size: kernels at most, those that are lent included; None: as many as there are CPUs.
        spares: warm kernels kept ready beyond those lent (and within ``size``). The next one starts when one is lent.
        uses: how often a kernel is lent before it is replaced; None: no limit.
        setup: code run once in every new kernel, before it is lent.
        max_starting: kernels that may start at once; None: as many as there are CPUs.
        idle_timeout: seconds after which an idle kernel beyond the spares is closed.
        **options: of `open_kernel`, for each kernel.

    Raises:
        ArgumentError: an option has an unusable value.
        KernelStartError: the first kernel could not be started.
        ExecutionError: the setup code failed in it.
    """
    cpus = os.cpu_count() or 1
    size = cpus if size is None else size
    max_starting = cpus if max_starting is None else max_starting
    _check_count("size", size, least=1)
    _check_count("spares", spares, least=0)
    _check_count("max_starting", max_starting, least=1)
    if uses is not None:
        _check_count("uses", uses, least=1)
    if not (setup is None or isinstance(setup, str)):
        raise ArgumentError(f"setup must be code, a str, not {type(setup).__name__}")
    idle_seconds = as_seconds(idle_timeout)
    if idle_seconds is None:
        raise ArgumentError(f"idle_timeout must be seconds (a number >= 0), not {idle_timeout!r}")
    async with open_task_group() as tasks:
        keeper = Keeper(
            tasks,
            lambda: open_kernel(kernel, **options),
            size=size,
            spares=spares,
            uses=uses,
            setup=setup,
            max_starting=max_starting,
            idle_timeout=idle_seconds,
        )
        try:
            await keeper.first()
            yield Pool(keeper)
        finally:
            keeper.close()


def _check_count(name: str, value: object, *, least: int) -> None:
    if (number := as_integer(value)) is None or number < least:
        raise ArgumentError(f"{name} must be an integer of at least {least}, not {value!r}")
