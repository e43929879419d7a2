"""Subshells: they answer while the main shell runs code, and what they cannot do is told."""

from __future__ import annotations

import statistics
import time

import anyio
import anyio.lowlevel
import pytest

from anykernel import (
    ConnectionClosedError,
    ExecutionTimeoutError,
    KernelDiedError,
    KernelRestartedError,
    StdinError,
    UnsupportedError,
    open_kernel,
)

from ..helpers.scripted import scripted_kernel

# Code that runs until the test lets it go on, in a way that an interrupt ends.
BLOCK = "import threading, time\ngate = threading.Event()\nprint('runs', flush=True)\nwhile not gate.wait(0.01): pass"

# What no interrupt stops.
DEAF = """
import threading
gate = threading.Event()
print('runs', flush=True)
while not gate.is_set():
    try:
        gate.wait()
    except KeyboardInterrupt:
        pass
"""


async def runs(execution):
    async for output in execution:
        assert output.text.startswith("runs")
        return


async def subshells_of(kernel):
    return (await kernel.request("list_subshell_request", {}, channel="control")).content["subshell_id"]


async def test_a_subshell_answers_while_the_main_shell_runs(kernel):
    async with kernel.subshell() as subshell:
        main = await kernel.submit(BLOCK)
        await runs(main)
        seconds = []

        async def timed(method, *args):
            started = time.monotonic()
            reply = await method(*args)
            seconds.append(time.monotonic() - started)
            return reply

        async def ask(i):
            assert (await timed(subshell.execute, f"print({i}); {i}")).text == f"{i}\n{i}"
            assert (await timed(subshell.complete, "gat")).matches == ["gate"]
            assert (await timed(subshell.inspect, "gate")).found

        for i in range(34):
            await ask(i)
        assert statistics.median(seconds) < 0.5
        assert await subshell.evaluate("gate.is_set()") is False
        assert main.state == "running"
        await subshell.execute("gate.set()")
        assert (await main.wait()).ok
        assert await kernel.evaluate("gate.is_set()") is True  # one namespace
    assert await subshells_of(kernel) == []
    with pytest.raises(ConnectionClosedError, match="subshell was deleted"):
        await subshell.execute("1")
    with pytest.raises(ConnectionClosedError, match="subshell was deleted"):
        await subshell.complete("x")
    with pytest.raises(ConnectionClosedError, match="subshell was deleted"):
        await subshell.interrupt()


async def test_a_hundred_callers_of_subshells_each_get_their_own(kernel):
    async with kernel.subshell() as one, kernel.subshell() as other, anyio.create_task_group() as tasks:

        async def ask(shell, i):
            assert (await shell.execute(f"print('out', {i})")).stdout == f"out {i}\n"

        for i in range(99):
            tasks.start_soon(ask, (kernel, one, other)[i % 3], i)


@pytest.mark.parametrize(
    ("code", "ename"),
    [("while True: pass", "KeyboardInterrupt"), ("import asyncio\nawait asyncio.sleep(100)", "CancelledError")],
)
async def test_code_in_a_subshell_is_interrupted_and_no_other(kernel, code, ename):
    async with kernel.subshell() as subshell, kernel.subshell() as other:
        main, beside = await kernel.submit(BLOCK), await other.submit(BLOCK)
        await runs(main)
        await runs(beside)
        with pytest.raises(ExecutionTimeoutError) as caught:
            await subshell.execute(code, timeout=1)  # by when it runs, and asyncio waits
        assert caught.value.settled
        assert caught.value.result.error.ename == ename
        assert await subshell.evaluate("1 + 1") == 2
        assert (main.state, beside.state) == ("running", "running")
        assert await subshell.evaluate("gate.set()") is None
        assert await main.wait()
        assert await beside.cancel()
        await subshell.interrupt()  # where nothing runs, nothing happens
        assert await subshell.evaluate("1 + 1") == 2
        assert len(await subshells_of(kernel)) == 2


async def test_an_expression_in_a_subshell_is_interrupted_like_a_cell(kernel):
    async with kernel.subshell() as subshell:
        with anyio.move_on_after(0.3) as scope:
            await subshell.evaluate("[None for _ in iter(int, 1)]")
        assert scope.cancelled_caught
        assert await subshell.evaluate("1 + 1") == 2


async def test_an_interrupt_of_the_main_shell_does_not_reach_a_subshell(kernel):
    async with kernel.subshell() as subshell:
        beside = await subshell.submit(BLOCK)
        await runs(beside)
        with pytest.raises(ExecutionTimeoutError):
            await kernel.execute("while True: pass", timeout=0.3)
        assert beside.state == "running"
        await kernel.execute("gate.set()")
        assert (await beside.wait()).ok


async def test_leaving_stops_what_runs_there_and_fails_what_is_pending(kernel):
    errors = []

    async def expect(method, *args):
        with pytest.raises(ConnectionClosedError, match="subshell was deleted") as caught:
            await method(*args)
        errors.append(caught.value)

    async with anyio.create_task_group() as tasks, kernel.subshell() as subshell:
        running = await subshell.submit(BLOCK)
        await runs(running)
        tasks.start_soon(expect, subshell.execute, "queued")
        tasks.start_soon(expect, subshell.complete, "waits behind it")
        tasks.start_soon(expect, running.wait)
        await anyio.wait_all_tasks_blocked()
    assert len(errors) == 3
    assert {error.result.stdout for error in errors if error.result} == {"", "runs\n"}
    assert await subshells_of(kernel) == []
    assert await kernel.evaluate("1 + 1") == 2
    assert len(kernel._link.connection.router) == 0
    assert len(kernel._link.connection.dispatchers) == 1


async def test_one_whose_code_cannot_be_stopped_is_deleted_when_it_ends(kernel, monkeypatch):
    monkeypatch.setattr(kernel, "interrupt_timeout", 0.2)
    async with kernel.subshell() as subshell:
        running = await subshell.submit(DEAF)
        await runs(running)
        await anyio.sleep(0.5)  # until it waits, too: of that there is no event
        with pytest.raises(ExecutionTimeoutError) as caught:
            await subshell.execute("never runs", timeout=0.1)
        assert caught.value.settled
    with pytest.raises(ConnectionClosedError):
        await running.wait()
    assert running.state == "running"
    # Control answers. (The subshell through which this one was interrupted goes first.)
    while await subshells_of(kernel) != [subshell.id]:
        await anyio.lowlevel.checkpoint()
    await kernel.execute("gate.set()")
    with anyio.fail_after(10):
        while await subshells_of(kernel):
            await anyio.lowlevel.checkpoint()


async def test_opening_and_leaving_can_be_cancelled_anywhere(kernel):
    for checkpoints in range(12):
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as tasks:

                async def cancel(scope=scope, checkpoints=checkpoints):
                    for _ in range(checkpoints**2):
                        await anyio.lowlevel.checkpoint()
                    scope.cancel()

                tasks.start_soon(cancel)
                async with kernel.subshell() as subshell:
                    await subshell.execute(BLOCK)
        with anyio.fail_after(10):
            while await subshells_of(kernel):
                await anyio.lowlevel.checkpoint()
    assert await kernel.evaluate("1 + 1") == 2
    assert len(kernel._link.connection.dispatchers) == 1


async def test_restart_and_death_end_subshells():
    async with open_kernel() as kernel, kernel.subshell() as subshell:
        running = await subshell.submit(BLOCK)
        await runs(running)
        await kernel.restart()
        with pytest.raises(KernelRestartedError):
            await running.wait()
        with pytest.raises(KernelRestartedError):
            await subshell.execute("1")
        async with kernel.subshell() as following:
            assert await following.evaluate("1 + 1") == 2
            with pytest.raises(KernelDiedError):
                await following.execute("import os; os._exit(3)")
            with pytest.raises(KernelDiedError):
                await following.interrupt()


async def test_input_in_two_shells_at_once(kernel):
    async with kernel.subshell() as subshell:
        prompts = []
        answered = anyio.Event()

        async def answer_late(prompt, password):
            prompts.append(prompt)
            await answered.wait()
            return "late"

        async with anyio.create_task_group() as tasks:

            async def main():
                result = await kernel.execute("[input('a? '), input('b? ')]", stdin=answer_late)
                assert result.data["text/plain"] == "['late', 'late']"

            tasks.start_soon(main)
            while not prompts:
                await anyio.lowlevel.checkpoint()
            # That this one takes no input does not take it away from the other.
            assert (await subshell.execute("1 + 1")).ok
            # The kernel would give the answers to whoever reads them first, so this one waits.
            execution = await subshell.submit("input('c? ')", stdin=lambda *_: "soon")
            assert execution.state == "queued"
            answered.set()
            assert (await execution.wait()).data["text/plain"] == "'soon'"
        assert prompts == ["a? ", "b? "]
        assert (await kernel.execute("input()")).error.ename == "StdinNotImplementedError"


async def open_scripted(script, thread="None", subshell_id="sub"):
    """The kernel's side of opening a subshell: without a thread of its own, or with one of this number."""
    script.reply(await script.next("create_subshell_request"), subshell_id=subshell_id)
    where = await script.next()
    script.finish(where, user_expressions={"value": {"status": "ok", "data": {"text/plain": repr(thread)}}})


async def test_an_interrupt_of_a_subshell_explains_no_missing_reply_of_another_shell():
    async with scripted_kernel() as (kernel, script), anyio.create_task_group() as tasks:
        tasks.start_soon(open_scripted, script, "7")
        async with kernel.subshell() as subshell:
            main = await kernel.submit("main")
            request = await script.next()
            script.start(request)
            tasks.start_soon(subshell.interrupt)
            await open_scripted(script, subshell_id="helper")  # the one through which it is interrupted
            script.reply(await script.next("delete_subshell_request"))
            fence = await script.receive()
            assert (fence.msg_type, fence.header["subshell_id"]) == ("kernel_info_request", "sub")
            script.finish(fence)
            script.status(request, "idle")
            # Longer than an interrupted request waits for its reply, and by far not as long as others do.
            with anyio.move_on_after(0.5):
                await main.wait()
            script.reply(request)
            assert (await main.wait()).ok

            async def delete():
                script.reply(await script.next("delete_subshell_request"))

            tasks.start_soon(delete)
        assert list(kernel._link.connection.router.interrupts) == [None]


async def test_what_asks_for_input_is_sent_when_no_beginning_code_can_take_it_away():
    async with scripted_kernel() as (kernel, script), anyio.create_task_group() as tasks:
        tasks.start_soon(open_scripted, script)
        async with kernel.subshell() as subshell:
            for end in (script.start, script.finish):  # it begins, or ends without that
                plain = await kernel.submit("1")
                request = await script.next()
                assert request.content["allow_stdin"] is False
                asking = await subshell.submit("input()", stdin=lambda *_: "")
                assert script.nothing_sent()
                end(request)
                prompt = await script.next()
                assert (prompt.header.get("subshell_id"), prompt.content["allow_stdin"]) == ("sub", True)
                script.finish(request)
                script.finish(prompt)
                assert (await plain.wait()).ok
                assert (await asking.wait()).ok

            async def delete():
                script.reply(await script.next("delete_subshell_request"))

            tasks.start_soon(delete)


async def test_an_answer_is_not_lost_to_the_code_of_another_shell_that_asks_unasked():
    async with scripted_kernel() as (kernel, script), anyio.create_task_group() as tasks:
        tasks.start_soon(open_scripted, script)
        async with kernel.subshell() as subshell:
            answering = anyio.Event()

            async def answer(prompt, password):
                await answering.wait()
                return prompt * 2

            asking = await kernel.submit("input()", stdin=answer)
            asks = await script.next()
            script.start(asks)
            for late in (True, False):  # the answer comes while the other asks, or before
                thief = await subshell.submit("input()")
                begs = await script.next()
                assert begs.content["allow_stdin"] is True  # or it would be taken from all shells
                script.start(begs)
                prompt = f"{late} "
                script.ask(asks, prompt)
                if late:
                    script.ask(begs)
                    with pytest.raises(StdinError):
                        await thief.wait()
                    answering.set()
                else:
                    assert (await script.next("input_reply")).content["value"] == prompt * 2
                    script.ask(begs)
                script.reply(await script.next("interrupt_request"))
                assert script.nothing_sent() or (await script.next("kernel_info_request"))
                script.finish(begs, status="error", ename="KeyboardInterrupt")
                answered = await script.next("input_reply")
                assert (answered.content["value"], answered.parent_header["msg_id"]) == (
                    prompt * 2,
                    "kernel-input_request",
                )
            script.publish(asks, "stream", name="stdout", text="goes on")
            script.finish(asks)
            assert (await asking.wait()).ok

            async def delete():
                script.reply(await script.next("delete_subshell_request"))

            tasks.start_soon(delete)


async def test_code_that_asks_unasked_in_another_shell_is_stopped_and_takes_no_answer(kernel):
    # One after the other: ipykernel's threads share a socket for stdin that is not made for that, and libzmq may abort
    # the kernel in which two use it at once.
    async with kernel.subshell() as subshell:
        asking = await kernel.submit(f"{BLOCK}\ninput('mine? ')", stdin=lambda *_: "mine")
        await runs(asking)
        for _ in range(3):
            with pytest.raises(StdinError):
                await subshell.execute("input('unasked? ')", check=True)
        await subshell.execute("gate.set()")
        assert (await asking.wait()).data["text/plain"] == "'mine'"


async def test_code_that_outlives_its_subshell_still_keeps_others_from_asking(kernel, monkeypatch):
    monkeypatch.setattr(kernel, "interrupt_timeout", 0.2)
    async with kernel.subshell() as subshell:
        running = await subshell.submit(DEAF, stdin=lambda *_: "")
        await runs(running)
        await anyio.sleep(0.5)  # until it waits, too: of that there is no event
        asking = await kernel.submit("input()", stdin=lambda *_: "mine")
    following = await kernel.submit("1")
    assert (asking.state, following.state) == ("queued", "queued")
    async with kernel.subshell() as other:
        await other.execute("gate.set()")
    assert (await asking.wait()).data["text/plain"] == "'mine'"
    assert (await following.wait()).ok
    while await subshells_of(kernel):
        await anyio.lowlevel.checkpoint()
    assert len(kernel._link.connection.dispatchers) == 1


async def test_input_behind_code_that_takes_some_raises_in_the_kernel():
    async with open_kernel(max_in_flight=2) as kernel:
        first = await kernel.submit("input()", stdin=lambda *_: "")
        assert (await kernel.execute("input()")).error.ename == "StdinNotImplementedError"
        assert (await first.wait()).ok


async def test_a_kernel_without_subshells_says_so():
    async with open_kernel("xpython") as kernel:
        assert not kernel.supports_subshells
        with pytest.raises(UnsupportedError, match="no subshells"):
            async with kernel.subshell():
                pass


async def test_the_subshell_is_named_in_the_header_and_nowhere_else():
    async with scripted_kernel() as (kernel, script), anyio.create_task_group() as tasks:

        async def kernel_side():
            create = await script.next("create_subshell_request")
            assert create.channel == "control"
            script.reply(create, subshell_id="sub")
            where = await script.next()
            script.finish(where, user_expressions={"value": {"status": "ok", "data": {"text/plain": "'None'"}}})
            request = await script.next("complete_request")
            assert request.header["subshell_id"] == "sub"
            assert "subshell_id" not in request.content
            script.finish(request, matches=["x"])
            request = await script.next("usage_request")
            assert "subshell_id" not in request.header  # on control, there is only one
            script.finish(request)
            delete = await script.next("delete_subshell_request")
            assert (delete.channel, delete.content) == ("control", {"subshell_id": "sub"})
            script.reply(delete, status="error")  # of what is gone already

        tasks.start_soon(kernel_side)
        async with kernel.subshell() as subshell:
            assert (await subshell.complete("x")).matches == ["x"]
            await subshell.request("usage_request", {}, channel="control")


@pytest.mark.parametrize("left", ["shut down", "with its kernel's block"])
async def test_an_error_of_the_users_leaves_a_subshells_block_bare_when_the_kernel_is_gone(left):
    async with scripted_kernel() as (kernel, script), anyio.create_task_group() as tasks:
        tasks.start_soon(open_scripted, script)
        opened = kernel.subshell()
        subshell = await opened.__aenter__()
        if left == "shut down":

            async def end():
                script.reply(await script.next("shutdown_request"))
                script.transport.gone.set()

            tasks.start_soon(end)
            await kernel.shutdown()
            with pytest.raises(ValueError, match="mine"):
                await leave_by_error(opened, subshell)
    if left != "shut down":
        with pytest.raises(ValueError, match="mine"):
            await leave_by_error(opened, subshell)


async def leave_by_error(block, subshell):
    with pytest.raises(ConnectionClosedError):
        await subshell.execute("1")
    error = ValueError("mine")
    if not await block.__aexit__(ValueError, error, None):
        raise error


async def test_an_error_of_the_users_is_not_swallowed_by_a_subshell_whose_kernel_was_shut_down():
    with pytest.raises(ValueError, match="mine"):
        async with open_kernel() as kernel, kernel.subshell() as subshell:
            assert await subshell.evaluate("1 + 1") == 2
            await kernel.shutdown()
            raise ValueError("mine")
