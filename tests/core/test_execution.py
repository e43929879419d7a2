"""Executions against a scripted kernel: what kernels do in orders that cannot be had from a real one at will."""

from __future__ import annotations

import asyncio
import datetime as dt
import math

import anyio
import anyio.lowlevel
import pytest

import anykernel._core.halves
import anykernel._core.kernel
import anykernel._core.router
import anykernel._core.stopping
from anykernel import (
    ArgumentError,
    ConnectionClosedError,
    ExecutionAbortedError,
    ExecutionError,
    ExecutionTimeoutError,
    KernelDiedError,
    KernelRestartedError,
    ProtocolError,
    StdinError,
    Stream,
)

from ..helpers.scripted import INFO, scripted_kernel


@pytest.fixture(autouse=True)
def constants(monkeypatch):
    # Endless where a test does not ask for an end: a slow machine must not end what the test says is still running.
    monkeypatch.setattr(anykernel._core.router, "GRACE", math.inf)
    monkeypatch.setattr(anykernel._core.stopping, "INTERRUPT_INTERVAL", 0.1)
    monkeypatch.setattr(anykernel._core.stopping, "START_GRACE", 0.02)
    monkeypatch.setattr(anykernel._core.owner, "INTERRUPT_TIMEOUT", 0.5)


@pytest.fixture
def short_idle(monkeypatch):
    monkeypatch.setattr(anykernel._core.executor, "IDLE_TIMEOUT", 0.1)


@pytest.fixture
def short_grace(monkeypatch):
    monkeypatch.setattr(anykernel._core.router, "GRACE", 0.4)


pytestmark = pytest.mark.limit(20)


def router(kernel):
    return kernel._link.connection.router


async def settled_turns():
    """Let every task that can run do so."""
    await anyio.wait_all_tasks_blocked()


@pytest.mark.parametrize("reply_first", [True, False])
async def test_an_execution_is_done_at_reply_and_idle_in_either_order(reply_first):
    async with scripted_kernel() as (kernel, script):
        execution = await kernel.submit("code")
        assert execution.state == "sent"
        request = await script.next()
        script.start(request)
        script.publish(request, "stream", name="stdout", text="out")
        await settled_turns()
        assert execution.state == "running"
        steps = [lambda: script.reply(request, execution_count=7), lambda: script.status(request, "idle")]
        first, second = steps if reply_first else reversed(steps)
        first()
        await settled_turns()
        assert execution.state == "running"
        second()
        result = await execution.wait()
        assert (result.ok, result.complete, result.execution_count, result.stdout) == (True, True, 7, "out")
        assert result.duration is not None
        assert len(router(kernel)) == 0


@pytest.mark.usefixtures("short_grace")
async def test_a_reply_whose_idle_never_comes_ends_after_a_silence_and_says_incomplete():
    async with scripted_kernel() as (kernel, script):
        execution = await kernel.submit("code")
        request = await script.next()
        script.start(request)
        script.reply(request)
        result = await execution.wait()
        assert (result.ok, result.complete) == (True, False)
        assert len(router(kernel)) == 0


@pytest.mark.usefixtures("short_grace")
async def test_output_that_still_comes_holds_the_end_of_a_reply_without_idle_back():
    async with scripted_kernel() as (kernel, script):
        execution = await kernel.submit("code")
        request = await script.next()
        script.start(request)
        script.reply(request)
        for _ in range(4):
            await anyio.sleep(0.2)  # half of the silence that would end it
            script.publish(request, "stream", name="stdout", text=".")
        assert execution.state == "running"
        script.status(request, "idle")
        assert (await execution.wait()).stdout == "...."
        assert execution.result.complete


@pytest.mark.usefixtures("short_grace")
async def test_what_others_put_out_holds_no_end_back_for_ever(monkeypatch):
    monkeypatch.setattr(anykernel._core.router, "PATIENCE", 0.3)
    async with scripted_kernel() as (kernel, script), anyio.create_task_group() as tasks:

        async def others():
            while True:
                script.publish(None, "stream", name="stdout", text="of a thread")
                await anyio.sleep(0.01)

        tasks.start_soon(others)
        execution = await kernel.submit("idle without a reply")
        request = await script.next()
        script.start(request)
        script.status(request, "idle")
        await script.answer_fence()
        with pytest.raises(ProtocolError, match="without a reply"):
            await execution.wait()
        tasks.start_soon(script.answer_nothing, "unknown_request")
        with pytest.raises(ProtocolError, match="without a reply"):
            await kernel.request("unknown_request", {})
        execution = await kernel.submit("a reply without idle")
        request = await script.next()
        script.start(request)
        script.reply(request)
        assert not (await execution.wait()).complete
        tasks.cancel_scope.cancel()


@pytest.mark.usefixtures("short_grace")
async def test_idle_without_a_reply_is_an_error_not_a_hang():
    async with scripted_kernel() as (kernel, script):
        execution = await kernel.submit("code")
        request = await script.next()
        script.start(request)
        script.publish(request, "stream", name="stdout", text="partial")
        script.status(request, "idle")
        await script.answer_fence()
        with pytest.raises(ProtocolError) as caught:
            await execution.wait()
        assert caught.value.result.stdout == "partial"

        async with anyio.create_task_group() as tasks:

            async def unknown():
                with pytest.raises(ProtocolError, match="odd_request"):
                    await kernel.request("odd_request", {})

            tasks.start_soon(unknown)
            request = await script.next("odd_request")
            script.status(request, "busy")
            script.status(request, "idle")
        assert len(router(kernel)) == 0


async def test_second_replies_late_replies_and_unknown_replies_are_counted_and_dropped():
    async with scripted_kernel() as (kernel, script):
        dropped = script.transport.dropped
        before = dropped["unknown"]
        execution = await kernel.submit("code")
        request = await script.next()
        script.start(request)
        script.reply(request, execution_count=1)
        script.reply(request, execution_count=2)
        script.status(request, "idle")
        assert (await execution.wait()).execution_count == 1
        assert dropped["repeated"] == 1
        script.reply(request)
        script.transport.answer(None, "shell", "execute_reply", {"status": "ok"})
        await settled_turns()
        assert dropped["unknown"] == before + 2


@pytest.mark.parametrize(
    ("msg_type", "content"),
    [
        ("stream", {"name": "stdout"}),
        ("stream", {"name": "stdout", "text": 5}),
        ("display_data", {}),
        ("execute_result", {"data": "text"}),
        ("update_display_data", {"data": 1}),
        ("status", {}),
        ("status", {"execution_state": {}}),
    ],
)
async def test_malformed_content_is_counted_and_the_readers_live_on(msg_type, content):
    async with scripted_kernel() as (kernel, script):
        execution = await kernel.submit("code")
        request = await script.next()
        script.start(request)
        script.publish(request, msg_type, **content)
        script.publish(request, "stream", name="stdout", text="after")
        script.finish(request)
        assert (await execution.wait()).stdout == "after"
        assert script.transport.dropped["content"] >= 1
        assert script.transport.dropped["error"] == 0


async def test_executions_are_sent_one_at_a_time_in_order():
    async with scripted_kernel() as (kernel, script):
        executions = [await kernel.submit(f"code {i}") for i in range(5)]
        assert [e.state for e in executions] == ["sent"] + 4 * ["queued"]
        for i, execution in enumerate(executions):
            request = await script.next()
            assert request.content["code"] == f"code {i}"
            await settled_turns()
            assert script.nothing_sent()
            script.start(request)
            script.finish(request)
            await execution.wait()


async def test_a_larger_max_in_flight_pipelines():
    async with scripted_kernel(max_in_flight=3) as (kernel, script):
        executions = [await kernel.submit("code") for _ in range(5)]
        assert [e.state for e in executions] == 3 * ["sent"] + 2 * ["queued"]
        for execution in executions:
            request = await script.next()
            script.start(request)
            script.finish(request)
            await execution.wait()


async def test_a_long_queue_is_sent_without_recursion():
    async with scripted_kernel() as (kernel, _):
        executions = [await kernel.submit("code") for _ in range(3000)]
        router(kernel).end(lambda result: KernelDiedError("gone", result=result))
        for execution in executions:
            with pytest.raises(KernelDiedError):
                await execution.wait()


async def test_queued_code_that_is_cancelled_is_never_sent():
    async with scripted_kernel() as (kernel, script):
        first = await kernel.submit("first")
        with anyio.move_on_after(0.05) as scope:
            await kernel.execute("second")
        assert scope.cancelled_caught
        with pytest.raises(ExecutionTimeoutError, match="queued") as caught:
            await kernel.execute("third", timeout=0.05)
        assert caught.value.settled
        assert caught.value.result.status == "aborted"
        fourth = await kernel.submit("fourth")
        assert await fourth.cancel()
        assert (await fourth.wait()).status == "aborted"
        with pytest.raises(ExecutionAbortedError):
            fourth.result.raise_for_error()
        request = await script.next()
        script.start(request)
        script.finish(request)
        await first.wait()
        await settled_turns()
        assert script.nothing_sent()


async def test_sent_code_is_interrupted_only_once_it_runs():
    async with scripted_kernel() as (kernel, script), anyio.create_task_group() as tasks:
        execution = await kernel.submit("code")
        request = await script.next()
        tasks.start_soon(execution.cancel)
        await anyio.sleep(0.2)  # far longer than an interrupt would take
        assert script.nothing_sent()
        script.status(request, "busy")
        interrupt = await script.next("interrupt_request")
        assert interrupt.channel == "control"
        script.reply(interrupt)
        script.finish(request, status="error", ename="KeyboardInterrupt", evalue="")
        assert (await execution.wait()).error.ename == "KeyboardInterrupt"


async def test_the_next_code_waits_until_the_interrupt_is_known_to_be_over():
    async with scripted_kernel() as (kernel, script), anyio.create_task_group() as tasks:
        execution = await kernel.submit("code")
        following = await kernel.submit("following")
        request = await script.next()
        script.start(request)
        tasks.start_soon(execution.cancel)
        interrupt = await script.next("interrupt_request")
        # It settles by itself before the interrupt is delivered.
        script.finish(request)
        await execution.wait()
        await settled_turns()
        script.reply(interrupt)
        fence = await script.next("kernel_info_request")
        await settled_turns()
        assert following.state == "queued"
        script.status(fence, "idle")  # late, the interrupt hit this, which therefore has no reply
        request = await script.next()
        assert request.content["code"] == "following"
        script.start(request)
        script.finish(request)
        assert (await following.wait()).ok
        assert script.nothing_sent()


async def test_settled_code_is_not_interrupted():
    async with scripted_kernel() as (kernel, script):
        execution = await kernel.submit("code")
        request = await script.next()
        script.start(request)
        script.finish(request)
        await execution.wait()
        assert await execution.cancel()
        assert script.nothing_sent()


@pytest.mark.parametrize("reply_first", [True, False])
async def test_code_that_has_ended_is_not_interrupted_though_half_of_that_is_still_to_come(reply_first):
    async with scripted_kernel() as (kernel, script), anyio.create_task_group() as tasks:
        execution = await kernel.submit("code")
        request = await script.next()
        script.start(request)
        steps = [lambda: script.reply(request), lambda: script.status(request, "idle")]
        first, second = steps if reply_first else reversed(steps)
        first()
        await settled_turns()
        tasks.start_soon(execution.cancel)
        await settled_turns()
        assert script.nothing_sent()
        second()
        assert (await execution.wait()).ok


async def test_code_that_ignores_interrupts_gets_more_and_its_caller_is_told():
    async with scripted_kernel(interrupt_timeout=0.5) as (kernel, script), anyio.create_task_group() as tasks:
        interrupts = 0

        async def kernel_side():
            nonlocal interrupts
            request = await script.next()
            script.start(request)
            script.publish(request, "stream", name="stdout", text="partial")
            while True:
                interrupt = await script.next("interrupt_request")
                interrupts += 1
                script.reply(interrupt)

        tasks.start_soon(kernel_side)
        with pytest.raises(ExecutionTimeoutError, match="ignored interrupts") as caught:
            await kernel.execute("code", timeout=0.05)
        assert not caught.value.settled
        assert caught.value.result.stdout == "partial"
        assert interrupts > 2
        tasks.cancel_scope.cancel()


async def test_code_runs_again_when_what_ignored_the_interrupt_is_done():
    async with scripted_kernel(interrupt_timeout=0.1) as (kernel, script):
        async with anyio.create_task_group() as tasks:

            async def kernel_side():
                nonlocal request
                request = await script.next()
                script.start(request)
                await script.next("interrupt_request")

            request = None
            tasks.start_soon(kernel_side)
            with pytest.raises(ExecutionTimeoutError):
                await kernel.execute("code", timeout=0.05)
            tasks.cancel_scope.cancel()
        following = await kernel.submit("following")
        assert following.state == "queued"
        script.finish(request)
        request = await script.next()
        assert request.content["code"] == "following"
        script.start(request)
        script.finish(request)
        assert (await following.wait()).ok
        assert len(router(kernel)) == 0


async def test_an_interrupt_that_is_answered_late_holds_what_comes_next(monkeypatch):
    monkeypatch.setattr(anykernel._core.owner, "INTERRUPT_TIMEOUT", 0.1)
    async with scripted_kernel(interrupt_timeout=0.1) as (kernel, script):
        execution = await kernel.submit("code")
        following = await kernel.submit("following")
        request = await script.next()
        script.start(request)
        assert not await execution.cancel()  # as code that holds the interpreter lock
        fence, interrupt = await script.receive(), await script.receive()
        assert interrupt.msg_type == "interrupt_request"
        await anyio.sleep(0.3)  # while the code runs, no time counts
        script.finish(request)
        await execution.wait()
        assert following.state == "queued"  # the interrupt would hit it
        script.reply(interrupt)
        behind = await script.receive()
        script.finish(fence)
        assert following.state == "queued"
        script.finish(behind)
        assert (await script.next()).content["code"] == "following"


async def test_an_idle_kernel_is_not_interrupted():
    async with scripted_kernel() as (kernel, script), anyio.create_task_group() as tasks:
        tasks.start_soon(kernel.interrupt)
        script.finish(await script.receive(), **INFO)  # it answers, so it runs nothing
        tasks.start_soon(kernel.complete, "x")
        script.finish(await script.receive(), matches=[])
        assert script.nothing_sent()


@pytest.mark.usefixtures("short_idle")
async def test_what_another_client_runs_can_be_interrupted_though_the_state_last_heard_is_idle():
    async with scripted_kernel() as (kernel, script), anyio.create_task_group() as tasks:
        tasks.start_soon(kernel.interrupt)
        for _ in range(2):  # unanswered, as the shell is busy: the question, and what is sent with the interrupt
            assert (await script.receive()).msg_type == "kernel_info_request"
        script.reply(await script.next("interrupt_request"))
        script.finish(await script.next("kernel_info_request"), **INFO)


async def test_sent_code_is_interrupted_by_hand_when_it_begins():
    async with scripted_kernel() as (kernel, script), anyio.create_task_group() as tasks:
        await kernel.submit("code")
        request = await script.next()
        tasks.start_soon(kernel.interrupt)
        await settled_turns()
        assert script.nothing_sent()
        script.start(request)
        script.reply(await script.next("interrupt_request"))
        script.finish(request)


async def test_a_kernel_that_loses_the_request_behind_an_interrupt_is_asked_again(monkeypatch):
    monkeypatch.setattr(anykernel._core.executor, "FENCE_PATIENCE", 0.05)
    async with scripted_kernel() as (kernel, script):
        following = await kernel.submit("following")
        first = await script.next()
        script.start(first)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(kernel.interrupt)
            interrupt = await script.next("interrupt_request")
            script.finish(first)
            script.reply(interrupt)
        await following.wait()
        following = await kernel.submit("following")
        lost = [await script.receive() for _ in range(3)]
        assert [message.msg_type for message in lost] == 3 * ["kernel_info_request"]
        assert following.state == "queued"
        script.finish(lost[0])  # too late: only the last one counts
        await settled_turns()
        assert following.state == "queued"
        script.finish(lost[2])  # (and `next` answers what may have come meanwhile)
        assert (await script.next()).content["code"] == "following"


async def test_code_that_the_kernel_has_not_begun_with_is_not_said_to_ignore_interrupts():
    async with scripted_kernel(interrupt_timeout=0.05) as (kernel, script):
        with pytest.raises(ExecutionTimeoutError, match="has not begun") as caught:
            await kernel.execute("code", timeout=0.05)
        assert not caught.value.settled
        script.finish(await script.next())


async def test_an_interrupt_timeout_too_short_for_anything_still_brings_one_interrupt():
    async with scripted_kernel(interrupt_timeout=0) as (kernel, script), anyio.create_task_group() as tasks:

        async def kernel_side():
            request = await script.next()
            script.status(request, "busy")
            script.reply(await script.next("interrupt_request"))
            script.finish(request, status="error", ename="KeyboardInterrupt")

        tasks.start_soon(kernel_side)
        with pytest.raises(ExecutionTimeoutError):
            await kernel.execute("code", silent=True, timeout=0.05)
        tasks.start_soon(kernel_side)
        with pytest.raises(ExecutionTimeoutError):
            await kernel.execute("code", silent=True, timeout=0.05)


async def test_code_that_starts_after_its_canceller_gave_up_is_interrupted_then():
    async with scripted_kernel(interrupt_timeout=0.1) as (kernel, script):
        execution = await kernel.submit("code")
        request = await script.next()
        assert not await execution.cancel()
        assert script.nothing_sent()
        script.start(request)
        interrupt = await script.next("interrupt_request")
        script.reply(interrupt)
        script.finish(request, status="error", ename="KeyboardInterrupt", evalue="")
        await execution.wait()


@pytest.mark.usefixtures("short_grace")
@pytest.mark.usefixtures("short_idle")
async def test_a_request_that_an_interrupt_hit_by_accident_is_asked_again():
    async with scripted_kernel() as (kernel, script), anyio.create_task_group() as tasks:
        replies = []

        async def complete():
            replies.append(await kernel.complete("x"))

        tasks.start_soon(complete)
        request = await script.next("complete_request")
        script.status(request, "busy")
        tasks.start_soon(kernel.interrupt)
        await script.receive()  # a question, unanswered as the completion is under way
        script.reply(await script.next("interrupt_request"))
        script.status(request, "idle")  # as ipykernel does when a KeyboardInterrupt ends the handler
        again = await script.next("complete_request")
        assert again.msg_id != request.msg_id
        script.reply(again, matches=["xylophone"])
        with anyio.fail_after(5):
            while not replies:
                await anyio.lowlevel.checkpoint()
        assert replies[0].matches == ["xylophone"]
        assert len(router(kernel)) == 0


@pytest.mark.usefixtures("short_grace")
async def test_so_is_one_that_was_sent_while_the_interrupt_was_under_way():
    async with scripted_kernel() as (kernel, script), anyio.create_task_group() as tasks:
        execution = await kernel.submit("code")
        request = await script.next()
        script.start(request)
        tasks.start_soon(execution.cancel)
        interrupt = await script.next("interrupt_request")
        tasks.start_soon(kernel.complete, "x")
        completion = await script.next("complete_request")
        script.finish(request)  # by itself, so that the interrupt hits the completion
        script.status(completion, "busy")
        script.status(completion, "idle")
        script.reply(interrupt)
        script.finish(await script.next("complete_request"), matches=[])


async def test_an_abandoned_request_leaves_the_table():
    async with scripted_kernel() as (kernel, script):
        with anyio.move_on_after(0.05):
            await kernel.complete("x")
        assert len(router(kernel)) == 0
        await script.next("complete_request")


async def test_the_timeout_counts_no_longer_once_the_code_has_settled():
    async with scripted_kernel() as (kernel, script), anyio.create_task_group() as tasks:
        seen = []

        async def slow(output):
            await anyio.sleep(0.3)
            seen.append(output.text)

        async def kernel_side():
            request = await script.next()
            script.start(request)
            script.publish(request, "stream", name="stdout", text="a")
            script.publish(request, "stream", name="stderr", text="b")
            script.finish(request)

        tasks.start_soon(kernel_side)
        result = await kernel.execute("code", timeout=0.2, on_output=slow)
        assert result.ok
        assert seen == ["a", "b"]


async def test_what_on_output_raises_stops_the_code_and_reaches_the_caller_bare():
    async with scripted_kernel() as (kernel, script), anyio.create_task_group() as tasks:

        def broken(output):
            raise LookupError("mine")

        async def kernel_side():
            for _ in range(2):
                request = await script.next()
                script.start(request)
                script.publish(request, "stream", name="stdout", text="a")
                script.reply(await script.next("interrupt_request"))
                script.finish(request, status="error", ename="KeyboardInterrupt", evalue="")

        tasks.start_soon(kernel_side)
        with pytest.raises(LookupError, match="mine"):
            await kernel.execute("code", on_output=broken)
        execution = await kernel.submit("code", on_output=broken)
        with pytest.raises(LookupError, match="mine"):
            await execution.wait()


async def test_stdin_handlers_plain_async_raising_and_wrong():
    async with scripted_kernel() as (kernel, script), anyio.create_task_group() as tasks:
        answers = []
        asked = []

        async def kernel_side():
            while True:
                request = await script.next()
                script.start(request)
                script.ask(request, "name: ", password=True)
                message = await script.next("input_reply", "interrupt_request")
                if message.msg_type == "input_reply":
                    answers.append((message.channel, message.content["value"], message.parent_id == request.msg_id))
                    script.finish(request)
                else:
                    script.reply(message)
                    script.finish(request, status="error", ename="KeyboardInterrupt", evalue="")

        def plain(prompt, password):
            asked.append((prompt, password))
            return "plain"

        async def slow(prompt, password):
            await anyio.lowlevel.checkpoint()
            return "slow"

        def end(prompt, password):
            raise EOFError

        def broken(prompt, password):
            raise LookupError("mine")

        tasks.start_soon(kernel_side)
        for handler in (plain, slow, end):
            assert (await kernel.execute("input()", stdin=handler)).ok
        assert answers == [("stdin", "plain", False), ("stdin", "slow", False), ("stdin", "\x04", False)]
        assert asked == [("name: ", True)]
        with pytest.raises(LookupError, match="mine"):
            await kernel.execute("input()", stdin=broken)
        with pytest.raises(StdinError, match="must return a str"):
            await kernel.execute("input()", stdin=lambda prompt, password: 5)
        with pytest.raises(StdinError, match="no stdin handler"):
            await kernel.execute("input()")
        tasks.cancel_scope.cancel()


async def test_a_stdin_handler_is_cancelled_when_its_code_settles():
    async with scripted_kernel() as (kernel, script), anyio.create_task_group() as tasks:
        left = anyio.Event()

        async def forever(prompt, password):
            try:
                await anyio.sleep_forever()
            finally:
                left.set()

        async def kernel_side():
            request = await script.next()
            script.start(request)
            script.ask(request)
            await anyio.sleep(0.05)
            script.finish(request, status="error", ename="KeyboardInterrupt", evalue="")

        tasks.start_soon(kernel_side)
        result = await kernel.execute("input()", stdin=forever)
        assert result.error.ename == "KeyboardInterrupt"
        assert left.is_set()


async def test_iterating_gives_outputs_as_they_come_to_any_number_of_tasks():
    async with scripted_kernel() as (kernel, script), anyio.create_task_group() as tasks:
        seen = {"early": [], "late": []}

        async def watch(name):
            async for output in execution:
                seen[name].append(output)

        execution = await kernel.submit("code")
        tasks.start_soon(watch, "early")
        request = await script.next()
        script.start(request)
        script.publish(request, "stream", name="stdout", text="a")
        await settled_turns()
        assert seen["early"] == [Stream("stdout", "a")]
        script.publish(request, "stream", name="stdout", text="b")
        await settled_turns()
        tasks.start_soon(watch, "late")
        await settled_turns()
        assert seen["late"] == [Stream("stdout", "ab")]
        script.publish(request, "stream", name="stderr", text="c")
        script.finish(request)
        await execution.wait()
        await settled_turns()
        assert seen["early"][1:] == [Stream("stdout", "b"), Stream("stderr", "c")]
        assert [o async for o in execution] == [Stream("stdout", "ab"), Stream("stderr", "c")]


async def test_a_stream_left_early_is_cancelled_and_the_next_code_runs():
    async with scripted_kernel() as (kernel, script), anyio.create_task_group() as tasks:

        async def kernel_side():
            request = await script.next()
            script.start(request)
            script.publish(request, "stream", name="stdout", text="a")
            script.reply(await script.next("interrupt_request"))
            script.finish(request, status="error", ename="KeyboardInterrupt", evalue="")
            request = await script.next()
            script.start(request)
            script.finish(request)

        tasks.start_soon(kernel_side)
        async with kernel.stream("code") as execution:
            async for output in execution:
                assert output == Stream("stdout", "a")
                break
        assert execution.state == "settled"
        assert (await kernel.execute("next")).ok


async def test_check_raises_and_iteration_ends_with_the_same_error():
    async with scripted_kernel() as (kernel, script), anyio.create_task_group() as tasks:

        async def kernel_side():
            while True:
                request = await script.next()
                script.start(request)
                script.publish(request, "stream", name="stdout", text="before")
                script.finish(request, status="error", ename="ValueError", evalue="no", traceback=["tb"])

        tasks.start_soon(kernel_side)
        with pytest.raises(ExecutionError, match="ValueError: no") as caught:
            await kernel.execute("code", check=True)
        assert caught.value.result.stdout == "before"
        assert caught.value.traceback == ["tb"]
        seen = []
        with pytest.raises(ExecutionError):
            async for output in await kernel.submit("code", check=True):
                seen.append(output)
        assert seen == [Stream("stdout", "before")]
        assert (await kernel.execute("code")).error.ename == "ValueError"
        tasks.cancel_scope.cancel()


async def test_outputs_beyond_the_limit_are_dropped_from_the_middle():
    async with scripted_kernel(output_limit=1000) as (kernel, script), anyio.create_task_group() as tasks:

        async def kernel_side():
            request = await script.next()
            script.start(request)
            for i in range(500):
                script.publish(request, "stream", name="stdout", text=f"{i:09}\n")
            script.finish(request)

        tasks.start_soon(kernel_side)
        result = await kernel.execute("code")
        assert result.truncated
        assert result.stdout.startswith("000000000\n000000001\n")
        assert result.stdout.endswith("000000498\n000000499\n")
        assert len(result.stdout) <= 1000
        assert "left out" in result.text


async def test_a_display_is_updated_from_another_execution_also_after_it_returned():
    async with scripted_kernel() as (kernel, script), anyio.create_task_group() as tasks:

        async def kernel_side():
            request = await script.next()
            script.start(request)
            transient = {"display_id": "d"}
            script.publish(request, "display_data", data={"text/plain": "old"}, metadata={}, transient=transient)
            script.finish(request)
            request = await script.next()
            script.start(request)
            script.publish(request, "update_display_data", data={"text/plain": "new"}, metadata={}, transient=transient)
            script.finish(request)

        tasks.start_soon(kernel_side)
        first = await kernel.execute("display")
        assert first.outputs[0].data == {"text/plain": "old"}
        second = await kernel.execute("update")
        assert first.outputs[0].data == {"text/plain": "new"}
        assert second.outputs == []


async def test_messages_gives_every_iopub_message_also_orphans_and_unknown_types():
    async with scripted_kernel() as (kernel, script):
        async with kernel.messages() as everything, kernel.messages("odd_event") as odd:
            script.publish(None, "odd_event", x=1)
            script.publish(None, "stream", name="stdout", text="late")
            assert (await everything.receive()).content == {"x": 1}
            assert (await everything.receive()).content["text"] == "late"
            assert (await odd.receive()).msg_type == "odd_event"
        with pytest.raises(anyio.EndOfStream):
            await everything.receive()


@pytest.mark.parametrize("word", ["abort", "aborted"])
async def test_what_has_begun_is_not_told_as_what_never_ran(word):
    async with scripted_kernel() as (kernel, script):
        for publish in (script.start, lambda request: script.publish(request, "stream", name="stdout", text="out")):
            execution = await kernel.submit("code")
            request = await script.next()
            script.status(request, "busy")
            # The reply may be here before what was published ahead of it.
            script.reply(request, status=word)
            await settled_turns()
            publish(request)
            script.status(request, "idle")
            result = await execution.wait()
            assert (result.status, result.error.ename) == ("error", "KeyboardInterrupt")


@pytest.mark.usefixtures("short_grace")
async def test_an_idle_that_is_not_the_kernels_changes_nothing(monkeypatch):
    monkeypatch.setattr(anykernel._core.halves, "AHEAD", 0.1)  # the reply comes later than that
    async with scripted_kernel() as (kernel, script):
        execution = await kernel.submit("code")
        request = await script.next()
        script.start(request)
        script.status(request, "idle")  # a child's
        fence = await script.receive()
        assert fence.msg_type == "kernel_info_request"
        assert execution.state == "running"
        monkeypatch.setattr(anykernel._core.router, "GRACE", 60)  # what is missing is waited for
        script.publish(request, "stream", name="stdout", text="more")
        script.reply(request)
        await settled_turns()
        script.publish(request, "stream", name="stdout", text=", and the rest")
        script.status(request, "idle")
        script.finish(fence)
        result = await execution.wait()
        assert (result.ok, result.complete, result.stdout) == (True, True, "more, and the rest")
        assert len(router(kernel)) == 0


@pytest.mark.usefixtures("short_grace")
async def test_code_whose_idle_was_not_the_kernels_can_be_stopped():
    async with scripted_kernel() as (kernel, script), anyio.create_task_group() as tasks:
        execution = await kernel.submit("code")
        request = await script.next()
        script.start(request)
        script.status(request, "idle")
        assert (await script.receive()).msg_type == "kernel_info_request"
        tasks.start_soon(execution.cancel)
        interrupt = await script.next("interrupt_request")
        script.finish(interrupt)
        script.finish(request, status="error", ename="KeyboardInterrupt")
        assert (await execution.wait()).error.ename == "KeyboardInterrupt"


async def test_a_missed_heartbeat_is_no_death_while_the_kernel_answers_or_when_it_never_beat():
    async with (
        scripted_kernel(heartbeat_interval=0.05, heartbeat_misses=2) as (kernel, script),
        kernel.events() as events,
    ):
        await settled_turns()
        script.transport.beating = False
        assert (await events.receive()).kind == "disconnected"
        for _ in range(2):
            await script.answer_fence()
        assert kernel.is_alive
        script.transport.beating = True
        with anyio.fail_after(5), anyio.CancelScope() as scope:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(lambda: answering(script))
                assert (await events.receive()).kind == "reconnected"
                scope.cancel()
        assert kernel.is_alive


async def test_a_lost_heartbeat_ends_pending_calls():
    async with scripted_kernel(heartbeat_interval=0.05, heartbeat_misses=3) as (kernel, script):
        execution = await kernel.submit("code")
        request = await script.next()
        script.start(request)
        script.publish(request, "stream", name="stdout", text="partial")
        await settled_turns()
        script.transport.beating = False
        with pytest.raises(KernelDiedError, match="heartbeat") as caught:
            await execution.wait()
        assert caught.value.result.stdout == "partial"
        with pytest.raises(KernelDiedError):
            await kernel.execute("1")
        assert not kernel.is_alive
        assert kernel.execution_state == "dead"


@pytest.mark.parametrize("announced", [True, False])
async def test_a_kernel_that_goes_away_ends_pending_calls(announced):
    async with scripted_kernel() as (kernel, script):
        running = await kernel.submit("code")
        queued = await kernel.submit("queued")
        await script.next()
        if announced:
            script.publish(None, "shutdown_reply", status="ok", restart=True)
        await settled_turns()
        script.transport.gone.set()
        for execution in (running, queued):
            with pytest.raises(KernelRestartedError if announced else KernelDiedError):
                await execution.wait()


async def test_calls_after_the_block_and_from_other_tasks_are_refused():
    async with scripted_kernel() as (kernel, _):
        pending = await kernel.submit("code")
    with pytest.raises(ConnectionClosedError):
        await pending.wait()
    for call in (kernel.execute("1"), kernel.complete("x"), kernel.interrupt(), kernel.submit("1")):
        with pytest.raises(ConnectionClosedError):
            await call
    with pytest.raises(ConnectionClosedError):
        async with kernel.messages():
            pass
    with pytest.raises(ConnectionClosedError):
        async with kernel.stream("1"):
            pass


async def test_bad_arguments_are_refused_before_anything_is_sent():
    async with scripted_kernel() as (kernel, script):
        for call in (
            kernel.execute(b"1"),
            kernel.execute(None),
            kernel.execute("1", timeout=-1),
            kernel.execute("1", timeout=float("nan")),
            kernel.execute("1", timeout="1"),
            kernel.execute("1", stdin="yes"),
            kernel.execute("1", user_expressions={"x": object()}),
            kernel.request("x_request", {"a": {1, object()}}),
            kernel.request("x_request", {}, channel="iopub"),
            kernel.request("x_request", None),
            kernel.evaluate(5),
        ):
            with pytest.raises(ArgumentError):
                await call
        assert script.nothing_sent()
        assert len(router(kernel)) == 0


async def test_arguments_of_the_wrong_type_are_told_by_name():
    async with scripted_kernel() as (kernel, script):
        for call in (
            lambda: kernel.execute("1", user_expressions=5),
            lambda: kernel.complete(5),
            lambda: kernel.inspect(None),
            lambda: kernel.is_complete(b"1"),
            lambda: kernel.history("all"),
            lambda: kernel.evaluate(" "),
        ):
            with pytest.raises(ArgumentError):
                await call()
        for wrong in ({"metadata": 5}, {"buffers": 5}):
            with pytest.raises(ArgumentError, match=next(iter(wrong))):
                async with kernel.open_comm("target", **wrong):
                    pass
        assert script.nothing_sent()


async def test_the_users_own_error_leaves_the_block_bare():
    with pytest.raises(LookupError, match="mine"):
        async with scripted_kernel() as (kernel, _):
            await kernel.submit("code")
            raise LookupError("mine")


async def answering(script, *, outputs=0, interrupted=True):
    """A kernel that runs each code until it is interrupted (or at once), for ever."""
    while True:
        request = await script.next()
        script.start(request)
        for i in range(outputs):
            script.publish(request, "stream", name="stdout", text=f"{i}\n")
        if interrupted:
            script.reply(await script.next("interrupt_request"))
            script.finish(request, status="error", ename="KeyboardInterrupt", evalue="")
        else:
            script.finish(request)


async def test_whoever_waits_for_submitted_code_gets_its_timeout_whatever_task_runs_first():
    async with scripted_kernel() as (kernel, script), anyio.create_task_group() as tasks:
        tasks.start_soon(answering, script)
        for _ in range(15):
            execution = await kernel.submit("code", timeout=0.01)
            with pytest.raises(ExecutionTimeoutError):
                await execution.wait()
            async with kernel.stream("code", timeout=0.01) as execution:
                with pytest.raises(ExecutionTimeoutError):
                    async for _output in execution:
                        pass
        tasks.cancel_scope.cancel()


async def test_submitted_code_is_done_when_on_output_is_and_its_errors_are_not_lost():
    async with scripted_kernel() as (kernel, script), anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: answering(script, outputs=1, interrupted=False))
        seen = []

        async def late(output):
            await anyio.sleep(0.05)
            seen.append(output)
            if len(seen) == 2:
                raise LookupError("mine")

        await (await kernel.submit("code", on_output=late)).wait()
        assert len(seen) == 1
        with pytest.raises(LookupError, match="mine"):
            await (await kernel.submit("code", on_output=late)).wait()
        assert (await kernel.execute("code", on_output=late, timeout=float("inf"))).ok
        assert len(seen) == 3
        tasks.cancel_scope.cancel()


async def test_outputs_do_not_squeeze_a_question_out_and_what_a_slow_consumer_misses_is_told():
    async with scripted_kernel(output_limit=20_000) as (kernel, script), anyio.create_task_group() as tasks:
        asked = []

        taken, flooded = anyio.Event(), anyio.Event()

        async def slow(output):
            taken.set()
            await flooded.wait()

        async def kernel_side():
            request = await script.next()
            script.start(request)
            script.publish(request, "stream", name="stdout", text="first")
            await taken.wait()
            script.ask(request)
            for i in range(200):
                script.publish(request, "stream", name="stdout", text=f"{i}")
            await settled_turns()
            flooded.set()
            await script.next("input_reply")
            script.finish(request)

        def answer(prompt, password):
            asked.append(prompt)
            return "yes"

        tasks.start_soon(kernel_side)
        result = await kernel.execute("code", on_output=slow, stdin=answer)
        assert asked == ["? "]
        assert result.truncated
        assert result.stdout.endswith("199")


async def test_messages_end_with_the_kernel():
    async with scripted_kernel() as (kernel, script), kernel.messages() as stream:
        await settled_turns()
        script.transport.gone.set()
        with pytest.raises(KernelDiedError):
            while True:
                await stream.receive()


async def test_content_that_breaks_when_it_is_written_holds_nobody_up():
    class Broken(dt.tzinfo):
        def utcoffset(self, when):
            raise KeyError("mine")

    async with scripted_kernel() as (kernel, script), anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: answering(script, interrupted=False))
        with pytest.raises(KeyError, match="mine"):
            await kernel.execute("1", user_expressions={"x": dt.datetime.now(Broken())})
        assert (await kernel.execute("1")).ok
        tasks.cancel_scope.cancel()


@pytest.mark.usefixtures("short_grace")
async def test_replies_with_unknown_statuses():
    async with scripted_kernel() as (kernel, script), anyio.create_task_group() as tasks:
        statuses = ["abort", "splendid"]

        async def kernel_side():
            for status in statuses:
                request = await script.next()
                if status == "splendid":
                    script.start(request)
                else:
                    script.status(request, "busy")
                script.finish(request, status=status)
                if status == "splendid":
                    await script.answer_fence()

        tasks.start_soon(kernel_side)
        with pytest.raises(ExecutionAbortedError):
            await kernel.execute("1", check=True)
        with pytest.raises(ProtocolError):
            await kernel.execute("1")


async def test_tasks_of_asyncio_can_be_cancelled_natively_at_any_moment(anyio_backend_name):
    if anyio_backend_name != "asyncio":
        pytest.skip("asyncio's own cancellation")

    async def run():
        async with scripted_kernel() as (kernel, script):
            execution = await kernel.submit("code")
            request = await script.next()
            script.start(request)
            script.finish(request)
            await execution.wait()
            await asyncio.sleep(10)

    for moment in range(60):
        task = asyncio.create_task(run())
        for _ in range(moment):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, 5)
