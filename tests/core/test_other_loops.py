"""More than one event loop in a thread, blocks left in another task than entered, forked processes.

Elsewhere than where a kernel was opened, whoever waited would never be woken; so every call is refused, and says what to do.

(In a module without async tests: while there are such, anyio's plugin tells everything in its thread that it runs trio.)
"""

from __future__ import annotations

import asyncio
import gc

import psutil
import pytest
import trio
import uvloop

from anykernel import ConnectionClosedError, UnsupportedError, connect_kernel, open_kernel, open_pool

from ..helpers.held import Held, refused

LOOPS = [pytest.param(asyncio.new_event_loop, id="asyncio"), pytest.param(uvloop.new_event_loop, id="uvloop")]


@pytest.mark.parametrize("new_event_loop", LOOPS)
def test_every_call_from_another_event_loop_of_the_same_thread_is_refused(new_event_loop):
    with (
        asyncio.Runner(loop_factory=new_event_loop) if hasattr(asyncio, "Runner") else Runner(new_event_loop) as runner
    ):
        end, opened = asyncio.Event(), runner.get_loop().create_future()

        async def own():
            async with open_kernel() as kernel, Held(kernel) as held:
                opened.set_result(held)
                await end.wait()
            return "left as usual"

        async def begin():
            owner = asyncio.ensure_future(own())
            await asyncio.wait([owner, opened], return_when=asyncio.FIRST_COMPLETED, timeout=30)
            return owner, opened.result() if opened.done() else owner.result()

        async def finish():
            end.set()
            return await asyncio.wait_for(owner, 30)

        owner, held = runner.run(begin())
        outcomes = asyncio.run(held.use_elsewhere())
        assert refused(outcomes, "in the same thread"), outcomes
        outcomes = trio.run(held.use_elsewhere)
        assert refused(outcomes, "in the same thread"), outcomes
        assert runner.run(finish()) == "left as usual"


class Runner:
    """As much of `asyncio.Runner`, which is new in Python 3.11, as is needed here."""

    def __init__(self, new_event_loop):
        self._loop = new_event_loop()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()

    def get_loop(self):
        return self._loop

    def run(self, main):
        return self._loop.run_until_complete(main)


async def trio_program():
    async with open_kernel() as kernel, Held(kernel) as held, connect_kernel(kernel.connection) as other:
        assert (await other.usage()).pid == kernel.pid
        async with kernel.stream("1") as execution:
            with trio.move_on_after(0.01):
                await execution.wait()
            assert execution.state == "queued"
        assert await held.subshell.evaluate("6 * 7") == 42
    return "left as usual"


def test_a_kernel_works_in_trio_that_runs_in_a_task_of_asyncios():
    async def main():
        return trio.run(trio_program)

    assert asyncio.run(main()) == "left as usual"


@pytest.mark.parametrize("new_event_loop", LOOPS)
def test_a_kernel_works_in_trio_that_is_a_guest_of_asyncio(new_event_loop):
    async def main():
        loop, done = asyncio.get_running_loop(), asyncio.get_running_loop().create_future()
        trio.lowlevel.start_guest_run(
            trio_program,
            run_sync_soon_threadsafe=loop.call_soon_threadsafe,
            done_callback=done.set_result,
            host_uses_signal_set_wakeup_fd=True,
        )
        async with open_kernel() as kernel:  # and one in the host itself
            assert await kernel.evaluate("1 + 1") == 2
            assert (await done).unwrap() == "left as usual"
            assert await kernel.evaluate("1 + 1") == 2

    loop = new_event_loop()
    loop.run_until_complete(main())
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


# Blocks that are left in another task than the one that entered them.


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def loop(request):
    loop = request.param()
    yield loop
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


async def use(block):
    kernel = await block.__aenter__()
    assert await kernel.evaluate("6 * 7") == 42
    return kernel


async def leave(block, kernel):
    with pytest.raises(UnsupportedError, match=r"anykernel.*another task.*docs/recipes\.md.*is gone"):
        await block.__aexit__(None, None, None)
    assert not psutil.pid_exists(kernel.pid)
    with pytest.raises(ConnectionClosedError):
        await kernel.execute("1")


def test_a_fixture_that_leaves_in_another_task_is_told_so_and_leaves_nothing(loop):
    block = open_kernel()
    kernel = loop.run_until_complete(use(block))
    loop.run_until_complete(leave(block, kernel))


def test_start_and_stop_methods_in_different_tasks_are_told_so_and_the_first_task_goes_on(loop):
    async def main():
        block, entered, left = open_kernel(), loop.create_future(), asyncio.Event()

        async def start():
            entered.set_result(await use(block))
            await left.wait()
            async with open_kernel() as other:
                return await other.evaluate("1 + 1")

        starting = asyncio.ensure_future(start())
        await leave(block, await entered)
        left.set()
        assert await starting == 2

    loop.run_until_complete(main())


def test_trio_is_told_so_too_instead_of_waiting_for_ever():
    async def main():
        block, entered, kernels = open_kernel(), trio.Event(), []

        async def start():
            kernels.append(await use(block))
            entered.set()
            await trio.sleep_forever()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(start)
            await entered.wait()
            with trio.fail_after(30):
                await leave(block, kernels[0])
            nursery.cancel_scope.cancel()

    # Of the task that was left standing in the block, trio says what it thinks.
    with pytest.raises(Exception) as caught:
        trio.run(main)
    errors = [caught.value]
    while hasattr(errors[0], "exceptions"):
        errors = [inner for group in errors for inner in group.exceptions]
    assert ["stack corrupted" in str(error) for error in errors] == [True]


def test_a_pool_that_is_left_in_another_task_is_told_so_and_its_kernels_end(loop):
    block = open_pool(size=1)

    async def enter():
        pool = await block.__aenter__()
        async with pool.kernel() as kernel:
            return kernel

    kernel = loop.run_until_complete(enter())
    with pytest.raises(UnsupportedError, match=r"another task.*docs/recipes\.md"):
        loop.run_until_complete(block.__aexit__(None, None, None))
    loop.run_until_complete(asyncio.wait(asyncio.all_tasks(loop), timeout=30))
    assert not psutil.pid_exists(kernel.pid)


def test_an_error_of_the_users_goes_on_from_another_task_and_what_is_wrong_is_logged(loop, caplog):
    block, error = open_kernel(), ValueError("mine")
    kernel = loop.run_until_complete(use(block))
    assert loop.run_until_complete(block.__aexit__(ValueError, error, None)) is False
    assert not psutil.pid_exists(kernel.pid)
    assert "another task" in caplog.text


def test_a_block_that_is_never_left_leaves_nothing_when_its_event_loop_ends(loop):
    block = open_kernel()
    kernel = loop.run_until_complete(use(block))
    del block
    gc.collect()  # which closes it, in a task of its own
    loop.run_until_complete(asyncio.wait(asyncio.all_tasks(loop), timeout=30))
    assert not psutil.pid_exists(kernel.pid)


def test_a_block_that_is_left_in_another_event_loop_ends_when_its_own_runs(loop):
    block = open_kernel()
    kernel = loop.run_until_complete(use(block))

    async def leave():
        with pytest.raises(UnsupportedError, match=r"docs/recipes\.md.*event loop"):
            await block.__aexit__(None, None, None)

    asyncio.run(leave())
    assert psutil.pid_exists(kernel.pid)
    loop.run_until_complete(asyncio.wait(asyncio.all_tasks(loop), timeout=30))
    assert not psutil.pid_exists(kernel.pid)
