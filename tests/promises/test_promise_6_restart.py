"""Promise 6: restart never replays. On a real kernel."""

from __future__ import annotations

import os
import signal
import sys

import anyio
import pytest

import anykernel
from anykernel import (
    ConnectionClosedError,
    ExecutionTimeoutError,
    KernelDiedError,
    KernelRestartedError,
    KernelStartError,
    open_kernel,
)


async def test_restart_ends_what_is_pending_and_the_same_object_goes_on(tmp_path):
    trace = tmp_path / "trace"
    async with open_kernel() as kernel:
        pid, connection = kernel.pid, kernel.connection
        await kernel.execute("x = 1")
        running = await kernel.submit("print('partial', flush=True); import time; time.sleep(100)")
        async for _ in running:
            break
        queued = [await kernel.submit(f"open({str(trace)!r}, 'a').write('ran')") for _ in range(50)]
        await kernel.restart()
        for execution in (running, *queued):
            with pytest.raises(KernelRestartedError) as caught:
                await execution.wait()
            assert caught.value.result is execution.result
        assert running.result.stdout == "partial\n"
        assert kernel.pid != pid
        assert kernel.connection != connection
        result = await kernel.execute("x")
        assert result.error.ename == "NameError"
        assert result.execution_count == 1
        assert not trace.exists()


async def test_two_restarts_at_once_are_one_and_calls_meanwhile_wait():
    async with open_kernel() as kernel:
        pids = set()
        results = []

        async def restart():
            await kernel.restart()
            pids.add(kernel.pid)

        async def execute():
            await anyio.wait_all_tasks_blocked()
            results.append((await kernel.execute("1 + 1")).data["text/plain"])

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(restart)
            tasks.start_soon(restart)
            tasks.start_soon(execute)
        assert len(pids) == 1
        assert results == ["2"]


async def test_a_cancelled_restart_still_leads_to_a_kernel():
    async with open_kernel() as kernel:
        pid = kernel.pid
        with anyio.move_on_after(0.05):
            await kernel.restart()
        assert (await kernel.execute("1 + 1")).data["text/plain"] == "2"
        assert kernel.pid != pid


async def test_a_dead_kernel_can_be_restarted():
    async with open_kernel() as kernel:
        os.kill(kernel.pid, signal.SIGKILL)
        with pytest.raises(KernelDiedError):
            await kernel.execute("import time; time.sleep(100)")
        await kernel.restart()
        assert (await kernel.execute("1 + 1")).data["text/plain"] == "2"
        assert kernel.is_alive


async def test_messages_go_on_over_a_restart():
    async with open_kernel() as kernel, kernel.messages("stream") as stream:
        await kernel.execute("print('before')")
        await kernel.restart()
        await kernel.execute("print('after')")
        texts = []
        while len(texts) < 2:
            message = await stream.receive()
            if message.content["name"] == "stdout":
                texts.append(message.content["text"])
        assert texts == ["before\n", "after\n"]


async def test_a_restart_that_fails_is_told_and_can_be_tried_again(tmp_path):
    broken = tmp_path / "broken"
    code = f"""
import os, pathlib, sys
if pathlib.Path({str(broken)!r}).exists():
    sys.exit("broken for now")
os.execv(sys.executable, [sys.executable, "-m", "ipykernel_launcher", "-f", sys.argv[1]])
"""
    async with open_kernel([sys.executable, "-c", code, "{connection_file}"]) as kernel:
        broken.write_text("")
        for _ in range(2):
            with pytest.raises(KernelStartError, match="broken for now"):
                await kernel.restart()
            with pytest.raises(KernelDiedError, match="could not be started again"):
                await kernel.execute("1")
            assert not kernel.is_alive
        broken.unlink()
        await kernel.restart()
        assert (await kernel.execute("1 + 1")).data["text/plain"] == "2"


@pytest.mark.parametrize("by_itself", [True, False])
async def test_a_restart_that_cannot_even_begin_ends_messages_too(tmp_path, by_itself):
    launcher = tmp_path / "launch"
    launcher.write_text(f"#!/bin/sh\nexec {sys.executable} -m ipykernel_launcher -f $1\n")
    launcher.chmod(0o755)
    options = {"on_death": "restart"} if by_itself else {}
    async with (
        open_kernel([str(launcher), "{connection_file}"], **options) as kernel,
        kernel.messages("none") as stream,
    ):
        launcher.unlink()
        if by_itself:
            with pytest.raises(KernelDiedError):
                await kernel.execute("import os; os._exit(1)")
        else:
            with pytest.raises(KernelStartError):
                await kernel.restart()
        with pytest.raises(KernelDiedError, match="could not be started again"):
            await stream.receive()


async def test_after_shutdown_nothing_is_answered_any_more():
    async with open_kernel() as kernel:
        pending = await kernel.submit("import time; time.sleep(100)")
        await kernel.shutdown()
        assert kernel.returncode is not None
        assert not kernel.is_alive
        with pytest.raises(ConnectionClosedError):
            await pending.wait()
        for call in (kernel.execute("1"), kernel.restart()):
            with pytest.raises(ConnectionClosedError):
                await call
        await kernel.shutdown()
    with pytest.raises(ConnectionClosedError):
        await kernel.restart()


async def test_a_timeout_counts_while_the_kernel_restarts():
    async with open_kernel() as kernel, anyio.create_task_group() as tasks:
        tasks.start_soon(kernel.restart)
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(ExecutionTimeoutError, match="never runs") as caught:
            await kernel.execute("1", timeout=0.01)
        assert caught.value.settled
        assert (await kernel.execute("1", timeout=60)).ok


async def test_a_shutdown_during_a_restart_ends_it():
    for turns in (0, 3, 30, 300):
        async with open_kernel() as kernel, anyio.create_task_group() as tasks:

            async def restart():
                with pytest.raises(ConnectionClosedError):
                    await kernel.restart()

            tasks.start_soon(restart)
            for _ in range(turns):
                await anyio.lowlevel.checkpoint()
            await anyio.wait_all_tasks_blocked()
            await kernel.shutdown()
            assert not kernel.is_alive


async def test_a_kernel_restarts_by_itself_a_bounded_number_of_times(monkeypatch, caplog):
    monkeypatch.setattr(anykernel._local.restartable, "RESTART_TRIES", 2)
    async with open_kernel(on_death="restart") as kernel:
        for _ in range(2):
            with pytest.raises(KernelDiedError):
                await kernel.execute("import os; os._exit(1)")
            assert (await kernel.execute("1 + 1")).data["text/plain"] == "2"
        with pytest.raises(KernelDiedError):
            await kernel.execute("import os; os._exit(1)")
        with pytest.raises(KernelDiedError):
            await kernel.execute("1 + 1")
        assert "died 3 times" in caplog.text
        await kernel.restart()
        assert (await kernel.execute("1 + 1")).data["text/plain"] == "2"


async def test_restarts_in_a_row_leave_one_process():
    async with open_kernel() as kernel:
        for _ in range(3):
            await kernel.restart()
            assert (await kernel.execute("1 + 1")).data["text/plain"] == "2"
