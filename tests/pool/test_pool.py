"""Pools: kernels kept warm, lent, replaced; most of it with kernels that are scripted, the promises with real ones."""

from __future__ import annotations

import os
import signal
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

import anykernel.pool.keeping
from anykernel import (
    ArgumentError,
    ConnectionClosedError,
    ExecutionError,
    KernelDiedError,
    KernelSpecError,
    KernelStartError,
    PoolTimeoutError,
    UnsupportedError,
    open_pool,
)
from anykernel._core import open_task_group
from anykernel.pool import Pool
from anykernel.pool.keeping import Keeper

from ..helpers.scripted import scripted_kernel


class Kernels:
    """Opens scripted kernels, when it may, or fails to."""

    def __init__(self) -> None:
        self.opened = []
        self.may_open = anyio.Event()
        self.may_open.set()
        self.error = None
        self.attempts = 0

    @asynccontextmanager
    async def open(self):
        self.attempts += 1
        await self.may_open.wait()
        if self.error is not None:
            raise self.error
        async with scripted_kernel() as (kernel, script):
            self.opened.append((kernel, script))
            yield kernel


@asynccontextmanager
async def scripted_pool(kernels, *, size=2, spares=1, uses=1, setup=None, max_starting=2, idle_timeout=300):
    async with open_task_group() as tasks:
        keeper = Keeper(
            tasks, kernels.open, size=size, spares=spares, uses=uses, setup=setup, max_starting=max_starting,
            idle_timeout=idle_timeout,
        )  # fmt: skip
        try:
            await keeper.first()
            yield Pool(keeper)
        finally:
            keeper.close()


async def until(condition):
    with anyio.fail_after(10):
        while not condition():
            await anyio.lowlevel.checkpoint()


async def test_a_spare_is_started_when_one_is_lent_and_never_more_than_the_size():
    kernels = Kernels()
    async with scripted_pool(kernels, size=3, spares=1) as pool:
        assert pool.statistics().idle == 1
        async with pool.kernel():
            await until(lambda: pool.statistics().idle == 1)
            async with pool.kernel():
                await until(lambda: pool.statistics().idle == 1)
                async with pool.kernel():
                    await anyio.wait_all_tasks_blocked()
                    statistics = pool.statistics()
                    assert (statistics.idle, statistics.lent, statistics.starting) == (0, 3, 0)
                    with pytest.raises(PoolTimeoutError):
                        async with pool.kernel(timeout=0.05):
                            pytest.fail("there is none")
                    assert pool.statistics().waiting == 0
        await until(lambda: pool.statistics().idle == 1)
        assert pool.statistics().replaced == 3
    assert kernels.attempts == 4


async def test_a_kernel_is_lent_as_often_as_it_may_and_to_one_at_a_time():
    kernels = Kernels()
    async with scripted_pool(kernels, size=1, spares=1, uses=2) as pool:
        had = []
        for _ in range(4):
            async with pool.kernel() as kernel:
                had.append(kernel)
        assert had[0] is had[1]
        assert had[2] is had[3]
        assert had[1] is not had[2]


async def test_who_waits_is_served_in_the_order_of_the_calls_and_a_cancelled_one_takes_nothing():
    kernels, order = Kernels(), []
    async with scripted_pool(kernels, size=1, uses=None) as pool, anyio.create_task_group() as tasks:
        scope = anyio.CancelScope()

        async def borrow(name):
            with scope if name == "cancelled" else anyio.CancelScope():
                async with pool.kernel():
                    order.append(name)

        async with pool.kernel():
            for name in ("a", "cancelled", "b", "c"):
                tasks.start_soon(borrow, name)
                await anyio.wait_all_tasks_blocked()
            scope.cancel()
            await anyio.wait_all_tasks_blocked()
            assert pool.statistics().waiting == 3
        await until(lambda: len(order) == 3)
    assert order == ["a", "b", "c"]
    assert kernels.attempts == 1


async def test_one_that_is_cancelled_in_the_moment_it_is_served_gives_the_kernel_back():
    kernels = Kernels()
    async with scripted_pool(kernels, size=1, uses=None) as pool:
        for _ in range(20):
            with anyio.CancelScope() as scope:
                async with anyio.create_task_group() as tasks:

                    async def borrow():
                        async with pool.kernel():
                            await anyio.sleep_forever()

                    async with pool.kernel():
                        tasks.start_soon(borrow)
                        await anyio.wait_all_tasks_blocked()
                    scope.cancel()  # it has been lent the kernel, and has not run since
            statistics = pool.statistics()
            assert (statistics.idle, statistics.lent, statistics.waiting) == (1, 0, 0)


async def test_a_start_that_fails_ends_who_waits_at_once_and_makes_no_storm(monkeypatch):
    monkeypatch.setattr(anykernel.pool.keeping, "BACK_OFF", 0.05)
    kernels = Kernels()
    async with scripted_pool(kernels, size=2, spares=0, uses=1) as pool:
        async with pool.kernel():
            pass
        kernels.error = KernelStartError("no such thing")
        before = kernels.attempts
        for _ in range(3):
            with pytest.raises(KernelStartError, match="no such thing"):
                async with pool.kernel():
                    pytest.fail("it cannot be started")
        assert kernels.attempts == before + 3
        kernels.error = None
        async with pool.kernel() as kernel:
            assert kernel.is_alive


async def test_a_kernel_that_dies_idle_is_replaced_and_one_that_dies_lent_costs_only_itself():
    kernels = Kernels()
    async with scripted_pool(kernels, size=2, spares=1, uses=None) as pool:
        kernels.opened[0][1].transport.gone.set()
        await until(lambda: pool.statistics().idle == 1 and pool.statistics().died == 1)
        async with pool.kernel() as kernel:
            kernels.opened[1][1].transport.gone.set()
            with pytest.raises(KernelDiedError):
                await kernel.execute("x")
            async with pool.kernel() as other:
                assert other is not kernel
        await until(lambda: pool.statistics().idle == 1)
        assert pool.statistics().died == 2


async def test_a_kernel_that_is_left_with_running_code_is_not_lent_again():
    kernels = Kernels()
    async with scripted_pool(kernels, size=1, uses=None) as pool:
        async with pool.kernel() as kernel:
            await kernel.submit("goes on")
        async with pool.kernel() as other:
            assert other is not kernel


async def test_leaving_waits_for_no_borrower_whose_calls_then_say_so():
    kernels, raised = Kernels(), []
    async with anyio.create_task_group() as tasks:

        async def borrow(pool):
            try:
                async with pool.kernel() as kernel:
                    await kernel.execute("never answered")
            except ConnectionClosedError as exc:
                raised.append(exc)

        async with scripted_pool(kernels, size=1) as pool:
            for _ in range(3):
                tasks.start_soon(borrow, pool)
            await until(lambda: pool.statistics().waiting == 2)
    assert len(raised) == 3


async def test_idle_kernels_beyond_the_spares_are_closed_after_a_while():
    kernels = Kernels()
    async with scripted_pool(kernels, size=3, spares=1, uses=None, idle_timeout=0.05) as pool:
        async with pool.kernel(), pool.kernel(), pool.kernel():
            pass
        assert pool.statistics().idle == 3
        await until(lambda: pool.statistics().idle == 1)


@pytest.mark.parametrize(
    "options",
    [{"size": 0}, {"size": 1.5}, {"spares": -1}, {"uses": 0}, {"setup": 5}, {"idle_timeout": -1}, {"max_starting": 0}],
)
async def test_unusable_options_are_refused(options):
    with pytest.raises(ArgumentError):
        async with open_pool(**options):
            pytest.fail("it cannot be opened")


async def test_what_cannot_start_comes_out_of_opening():
    with pytest.raises(KernelSpecError):
        async with open_pool("no such kernel"):
            pytest.fail("there is no such kernel")


async def test_a_setup_that_fails_comes_out_of_opening():
    with pytest.raises(ExecutionError, match="ZeroDivisionError"):
        async with open_pool(setup="1 / 0", size=1):
            pytest.fail("the setup fails")


OPTIONS = {"size": 2, "spares": 1, "uses": None, "setup": "import time, os\ndef double(x): return 2 * x"}


@pytest.fixture(scope="module")
async def pool(anyio_backend):
    """A pool for the tests of this module whose kernels live on."""
    async with open_pool(**OPTIONS) as pool:
        async with pool.kernel(), pool.kernel():  # both are there from now on
            pass
        yield pool


@pytest.fixture
async def own_pool(anyio_backend):
    """A pool for a test whose kernels do not."""
    async with open_pool(**OPTIONS) as pool:
        yield pool


async def test_code_runs_in_kernels_that_are_set_up(pool):
    assert (await pool.execute("double(21)")).data["text/plain"] == "42"
    async with pool.kernel() as one, pool.kernel() as two:
        assert one.pid != two.pid
        assert await one.call("double", 4) == 8


async def test_execute_is_tried_again_after_a_death_and_never_after_an_error(own_pool, tmp_path):
    flag = tmp_path / "flag"
    code = f"import pathlib\nif not pathlib.Path({str(flag)!r}).exists():\n    pathlib.Path({str(flag)!r}).touch()\n    os._exit(3)\n'again'"
    assert (await own_pool.execute(code, retries=1)).data["text/plain"] == "'again'"
    flag.unlink()
    with pytest.raises(KernelDiedError):
        await own_pool.execute(code)
    assert not (await own_pool.execute("1 / 0", retries=5)).ok


async def test_map_gives_values_in_order_or_as_they_come(pool):
    async with pool.map("double", range(20)) as results:
        assert [value async for value in results] == [2 * n for n in range(20)]
    async with pool.map("lambda n: time.sleep(n) or n", [0.2, 0.0], ordered=False) as results:
        assert [value async for value in results] == [0.0, 0.2]

    async def items():
        for n in range(5):
            yield n

    progress = []
    shift = 100
    async with pool.map(lambda n: n + shift, items(), on_progress=lambda *args: progress.append(args)) as results:
        assert [value async for value in results] == [100, 101, 102, 103, 104]
    assert progress == [(n, None) for n in range(1, 6)]


async def test_map_reads_no_further_than_there_is_room(pool):
    taken = []

    def items():
        for n in range(100):
            taken.append(n)
            yield n

    async with pool.map("double", items(), max_pending=3) as results:
        assert await anext(results) == 0
        await until(lambda: len(taken) == 4)
        await anyio.wait_all_tasks_blocked()
        assert len(taken) == 4
    assert len(taken) == 4


async def test_the_first_failing_item_ends_a_map_or_is_given_in_its_place(pool):
    with pytest.raises(ExecutionError, match="ZeroDivisionError"):
        async with pool.map("lambda n: 1 // n", [1, 0, 1]) as results:
            assert [value async for value in results] == []
    async with pool.map("lambda n: 1 // n", [1, 0, 1], return_exceptions=True) as results:
        values = [value async for value in results]
    assert (values[0], values[1].ename, values[2]) == (1, "ZeroDivisionError", 1)
    async with pool.map("time.sleep", [0, 60], timeout=0.3, return_exceptions=True) as results:
        values = [value async for value in results]
    assert values[0] is None
    assert isinstance(values[1], TimeoutError)


async def test_an_item_whose_kernel_dies_is_tried_again_on_another(own_pool, tmp_path):
    flag = str(tmp_path / "flag")
    code = f"lambda n: n if n != 2 or os.path.exists({flag!r}) else (open({flag!r}, 'w').close(), os._exit(1))"
    async with own_pool.map(code, range(5), retries=1) as results:
        assert [value async for value in results] == [0, 1, 2, 3, 4]
    Path(flag).unlink()
    with pytest.raises(KernelDiedError):
        async with own_pool.map(code, range(5)) as results:
            async for _ in results:
                pass


async def test_a_borrowed_kernel_that_is_killed_costs_only_itself(own_pool):
    died = own_pool.statistics().died
    async with own_pool.kernel() as kernel:
        os.kill(kernel.pid, signal.SIGKILL)
        with pytest.raises(KernelDiedError):
            await kernel.execute("1")
    assert (await own_pool.execute("double(2)")).data["text/plain"] == "4"
    assert own_pool.statistics().died == died + 1


async def test_a_pool_of_another_event_loop_cannot_be_used():
    async with scripted_pool(Kernels(), size=1) as pool, pool.map("f", []) as results:

        async def use():
            with anyio.fail_after(5):
                with pytest.raises(UnsupportedError, match="from_thread"):
                    await pool.execute("1")
                with pytest.raises(UnsupportedError, match="from_thread"):
                    async with pool.kernel():
                        pytest.fail("it must not be lent")
                with pytest.raises(UnsupportedError, match="from_thread"):
                    await anext(results)

        await anyio.to_thread.run_sync(anyio.run, use)
