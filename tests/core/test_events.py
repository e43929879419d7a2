"""What happens to a kernel is told to whoever shows its state."""

from __future__ import annotations

import os
import signal
from datetime import datetime, timezone

import anyio
import pytest

from anykernel import ConnectionClosedError, KernelDiedError, open_kernel

from ..helpers.scripted import scripted_kernel


async def kinds(events, count):
    with anyio.fail_after(30):
        return [(await events.receive()).kind for _ in range(count)]


async def test_a_restart_is_told_when_it_begins_and_when_it_is_over():
    async with open_kernel() as kernel, kernel.events() as events, kernel.events() as others:
        before = datetime.now(timezone.utc)
        await kernel.restart()
        first, second = await events.receive(), await events.receive()
        assert (first.kind, second.kind) == ("restarting", "restarted")
        assert "restart()" in first.detail
        assert before <= first.time <= second.time <= datetime.now(timezone.utc)
        assert await kinds(others, 2) == ["restarting", "restarted"]
        assert events.statistics().current_buffer_used == 0


async def test_a_death_is_told_and_the_stream_goes_on_over_a_restart_after_it():
    async with open_kernel() as kernel, kernel.events() as events:
        os.kill(kernel.pid, signal.SIGKILL)
        died = await events.receive()
        assert (died.kind, "SIGKILL" in died.detail) == ("died", True)
        await kernel.restart()
        assert await kinds(events, 2) == ["restarting", "restarted"]


async def test_a_kernel_that_is_started_again_by_itself_tells_why():
    async with open_kernel(on_death="restart") as kernel, kernel.events() as events:
        with pytest.raises(KernelDiedError):
            await kernel.execute("import os; os._exit(3)")
        assert await kinds(events, 3) == ["died", "restarting", "restarted"]


async def test_events_end_with_the_kernel_and_cannot_be_had_after_it():
    async with scripted_kernel() as (kernel, _):
        async with kernel.events() as events:
            kernel._lifecycle.close()
            assert [event async for event in events] == []
        with pytest.raises(ConnectionClosedError):
            async with kernel.events():
                pytest.fail("the block has ended")


async def test_a_connection_that_is_lost_and_found_again_is_told_and_silence_meanwhile_proves_nothing(monkeypatch):
    monkeypatch.setattr("anykernel._core.router.GRACE", 0.2)
    async with scripted_kernel() as (kernel, script), kernel.events() as events, anyio.create_task_group() as tasks:
        results = []

        async def execute():
            results.append(await kernel.execute("x"))

        tasks.start_soon(execute)
        request = await script.next()
        script.start(request)
        receiver = script.transport.receiver
        receiver.lost()
        receiver.lost()
        script.reply(request)
        # Longer than the grace after which a reply without idle would be all there is.
        with anyio.move_on_after(0.6):
            await anyio.sleep_forever()
        assert results == []
        receiver.missed(request.msg_id, "some of it was dropped")
        script.status(request, "idle")
        receiver.found()
        await anyio.wait_all_tasks_blocked()
        assert (results[0].complete, results[0].incomplete_reason) == (False, "some of it was dropped")
        assert await kinds(events, 2) == ["disconnected", "reconnected"]
        assert events.statistics().current_buffer_used == 0


async def test_time_goes_on_for_half_done_requests_when_the_kernel_is_found(monkeypatch):
    monkeypatch.setattr("anykernel._core.router.GRACE", 0.2)
    async with scripted_kernel() as (kernel, script), anyio.create_task_group() as tasks:

        async def execute():
            result = await kernel.execute("x")
            assert (result.ok, result.complete) == (True, False)
            assert "did not say that it was done" in result.incomplete_reason

        script_receiver = script.transport.receiver
        tasks.start_soon(execute)
        request = await script.next()
        script.start(request)
        script_receiver.lost()
        script.reply(request)
        await anyio.wait_all_tasks_blocked()
        script_receiver.found()  # and ends by itself
