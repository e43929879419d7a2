"""A client whose tests have stopped the clock (freezegun); what its event loop waits by must go on."""

from __future__ import annotations

import subprocess
import sys
from datetime import datetime, timedelta, timezone

import anyio
import pytest
from freezegun import freeze_time

from anykernel import ExecutionTimeoutError, ProtocolError, open_kernel
from anykernel._core import router as router_module

from ..helpers.scripted import scripted_kernel

FROZEN = datetime(2020, 1, 2, 3, 4, 5, tzinfo=timezone.utc)


def frozen():
    return freeze_time(FROZEN, real_asyncio=True, ignore=["trio"])


async def test_everything_works_while_the_clock_stands_still():
    with frozen():
        async with open_kernel() as kernel:
            result = await kernel.execute("6 * 7")
            assert result.data["text/plain"] == "42"
            assert (result.queued_at, result.sent_at) == (FROZEN, FROZEN)
            # The kernel's clock goes on, and durations are measured by one that does.
            assert result.started_at is not None
            assert timedelta(0) <= result.ended_at - result.started_at < timedelta(seconds=60)
            assert result.ended_at.year > FROZEN.year
            assert 0 < result.duration < 60
            with pytest.raises(ExecutionTimeoutError) as caught:
                await kernel.execute("import time; time.sleep(100)", timeout=0.1)
            assert caught.value.settled
            async with kernel.events() as events:
                await kernel.restart()
                assert (await events.receive()).time == FROZEN
            assert await kernel.evaluate("1 + 1") == 2


async def test_a_request_that_is_never_answered_ends_all_the_same(monkeypatch):
    monkeypatch.setattr(router_module, "GRACE", 0.1)
    with frozen():
        async with scripted_kernel() as (kernel, script), anyio.create_task_group() as tasks:
            tasks.start_soon(script.answer_nothing, "complete_request")
            with pytest.raises(ProtocolError):
                await kernel.complete("x")


def test_what_is_imported_while_the_clock_stands_still_works_too():
    program = """
from freezegun import freeze_time
with freeze_time("2020-01-02", real_asyncio=True):
    import anyio
    from anykernel import open_kernel
    async def main():
        async with open_kernel() as kernel:
            result = await kernel.execute("6 * 7")
            print(result.text, result.queued_at, result.started_at is not None)
    anyio.run(main)
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (run.stdout, run.stderr) == ("42 2020-01-02 00:00:00+00:00 True\n", "")
