"""Under asyncio's own runners, and with its own cancellation, which knows nothing of cancel scopes and shields."""

from __future__ import annotations

import asyncio
import logging

import pytest
import uvloop

from anykernel import AnyKernelError, ExecutionError, UnsupportedError, open_kernel
from anykernel._core import router as router_module

from ..helpers.scripted import scripted_kernel


@pytest.fixture(params=[asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def run(request, caplog):
    """Run a program, in which nothing may go wrong behind its back."""

    def run(main):
        async def bounded():
            return await asyncio.wait_for(main(), 30)

        with caplog.at_level(logging.ERROR):
            result = request.param(bounded())
        assert caplog.text == ""
        return result

    return run


def test_requests_that_are_never_answered_end_in_time(run, monkeypatch):
    monkeypatch.setattr(router_module, "GRACE", 0.2)

    async def main():
        async with scripted_kernel() as (kernel, script):
            asked = asyncio.ensure_future(script.next("usage_request"))  # it answers what is asked beside it
            with pytest.raises(UnsupportedError):
                await kernel.usage()
            await asked

    run(main)


def test_a_block_is_left_as_usual_where_a_task_group_has_failed(run):
    if not hasattr(asyncio, "TaskGroup"):
        pytest.skip("new in Python 3.11")

    async def main():
        async with open_kernel() as kernel:
            with pytest.raises(BaseExceptionGroup) as caught:  # noqa: F821 - as new as TaskGroup
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(kernel.execute("1 / 0", check=True))
            assert isinstance(caught.value.exceptions[0], ExecutionError)
            assert await kernel.evaluate("1 + 1") == 2
        return "behind the block"

    assert run(main) == "behind the block"


def test_code_is_stopped_though_its_canceller_is_torn_away(run):
    code = """
import time
print("runs", flush=True)
try:
    time.sleep(60)
except KeyboardInterrupt:
    pass
while True:
    time.sleep(0.05)
"""

    async def main():
        async with open_kernel() as kernel:
            execution = await kernel.submit(code)
            async for _ in execution:
                break
            cancelling = asyncio.create_task(execution.cancel())
            await asyncio.sleep(0)
            for _ in range(2):
                cancelling.cancel()
                await asyncio.sleep(0)
            with pytest.raises(asyncio.CancelledError):
                await cancelling
            assert execution.state == "running"
            # This waits until the second interrupt has come, which nobody waits for.
            assert await kernel.evaluate("1 + 1") == 2
            assert execution.state == "settled"

    run(main)


def test_code_that_is_not_running_yet_is_stopped_too_when_it_is(run):
    async def main():
        async with scripted_kernel() as (kernel, script):
            caller = asyncio.create_task(kernel.execute("code"))
            request = await script.next()
            for _ in range(2):
                caller.cancel()
                await asyncio.sleep(0.01)
            with pytest.raises(asyncio.CancelledError):
                await caller
            assert script.nothing_sent()
            script.start(request)
            script.reply(await script.next("interrupt_request"))
            script.finish(request, status="error", ename="KeyboardInterrupt")
            following = await kernel.submit("following")
            script.finish(await script.next())
            assert (await following.wait()).ok

    run(main)


def test_a_subshell_is_deleted_though_its_block_is_torn_away(run):
    async def main():
        async with open_kernel() as kernel:
            entered = asyncio.Event()

            async def use():
                async with kernel.subshell() as subshell:
                    await subshell.submit("import time\nwhile True: time.sleep(0.01)")
                    entered.set()
                    await asyncio.sleep(60)

            user = asyncio.create_task(use())
            await entered.wait()
            for _ in range(3):
                user.cancel()
                await asyncio.sleep(0)
            with pytest.raises(asyncio.CancelledError):
                await user
            while (await kernel.request("list_subshell_request", {}, channel="control")).content["subshell_id"]:
                pass
            assert len(kernel._link.connection.dispatchers) == 1

    run(main)


def test_a_cancelled_future_in_a_function_of_the_users_ends_its_execution_and_no_more(run):
    async def cancelled(*_):
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        await future

    async def main():
        async with open_kernel() as kernel:
            for execution in (
                await kernel.submit("print(1)", on_output=cancelled),
                await kernel.submit("input()", stdin=cancelled),
            ):
                with pytest.raises(AnyKernelError, match="CancelledError"):
                    await execution.wait()
            assert await kernel.evaluate("1 + 1") == 2
        return "behind the block"

    assert run(main) == "behind the block"
