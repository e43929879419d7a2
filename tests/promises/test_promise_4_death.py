"""Promises 1 and 4: a dead kernel is noticed at once, and every pending call ends with a reason of its own type."""

from __future__ import annotations

import os
import signal
import sys
import time

import pytest

from anykernel import (
    ExecutionTimeoutError,
    KernelDiedError,
    KernelStartError,
    KernelStartTimeoutError,
    connect_kernel,
    open_kernel,
)

# Seconds from the exit to the error, on a machine that may be busy; idle, it is about 0.01 (see benchmarks).
AT_ONCE = 1.0


async def dies(execution, kernel=None):
    with pytest.raises(KernelDiedError) as caught:
        await execution.wait()
    return caught.value


@pytest.mark.parametrize("when", ["idle", "mid-cell", "mid-flood", "50 queued"])
async def test_kill_9_ends_every_pending_call_at_once(when):
    async with open_kernel() as kernel:
        executions = []
        if when == "mid-cell":
            executions = [await kernel.submit("print('partial', flush=True); import time; time.sleep(100)")]
        elif when == "mid-flood":
            executions = [await kernel.submit("while True: print('partial')")]
        elif when == "50 queued":
            executions = [await kernel.submit("print('partial', flush=True); import time; time.sleep(100)")]
            executions += [await kernel.submit("1") for _ in range(50)]
        if executions:
            async for _ in executions[0]:
                break
        os.kill(kernel.pid, signal.SIGKILL)
        start = time.monotonic()
        if not executions:
            async with kernel.messages() as stream:
                with pytest.raises(KernelDiedError):
                    await kernel.execute("1")
                    await stream.receive()
        for execution in executions:
            error = await dies(execution)
            assert error.returncode == -signal.SIGKILL
            assert "SIGKILL" in str(error)
            assert error.result is execution.result
        assert time.monotonic() - start < AT_ONCE
        if executions:
            assert executions[0].result.stdout.startswith("partial")
            assert executions[0].result.status is None
        for call in (kernel.execute("1"), kernel.complete("x"), kernel.interrupt(), kernel.evaluate("1")):
            with pytest.raises(KernelDiedError):
                await call
        assert not kernel.is_alive
        assert kernel.returncode == -signal.SIGKILL
        assert kernel.execution_state == "dead"


async def test_what_code_does_to_its_own_process_is_told():
    for code, returncode, stderr in (
        ("import os; os.write(2, b'last words'); os._exit(3)", 3, ""),
        ("import ctypes; ctypes.string_at(0)", -signal.SIGSEGV, ""),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", -signal.SIGTERM, ""),
        (
            "import sys; sys.__stderr__.write('last words'); sys.__stderr__.flush(); import os; os.abort()",
            -6,
            "last words",
        ),
    ):
        async with open_kernel() as kernel:
            error = await dies(await kernel.submit(code))
            assert error.returncode == returncode
            assert stderr in error.stderr
            assert str(error.returncode) in str(error) or "killed by SIG" in str(error)


async def test_exit_in_a_cell_leaves_the_kernel_and_says_so_in_the_payload():
    async with open_kernel() as kernel:
        result = await kernel.execute("exit()")
        assert result.payload[0]["source"] == "ask_exit"
        assert (await kernel.execute("1 + 1")).data["text/plain"] == "2"


async def test_a_killed_child_is_the_codes_own_business():
    async with open_kernel() as kernel:
        result = await kernel.execute("import subprocess\np = subprocess.Popen(['sleep', '100']); p.kill(); p.wait()")
        assert result.data["text/plain"] == "-9"
        assert kernel.is_alive


async def test_a_stopped_process_is_told_and_goes_on_where_it_was_stopped():
    async with (
        open_kernel(heartbeat_interval=0.1, heartbeat_misses=3, shutdown_timeout=0.5, interrupt_timeout=0.5) as kernel,
        kernel.events() as events,
    ):
        execution = await kernel.submit("print('partial', flush=True); import time; time.sleep(1); 6 * 7")
        async for _ in execution:
            break
        os.kill(kernel.pid, signal.SIGSTOP)
        event = await events.receive()
        assert (event.kind, "heartbeat" in event.detail) == ("disconnected", True)
        assert kernel.is_alive
        os.kill(kernel.pid, signal.SIGCONT)
        assert (await events.receive()).kind == "reconnected"
        assert (await execution.wait()).data["text/plain"] == "42"
        os.kill(kernel.pid, signal.SIGSTOP)
        with pytest.raises(ExecutionTimeoutError) as caught:
            await kernel.execute("1", timeout=0.1)
        assert not caught.value.settled
        await kernel.restart()
        assert (await kernel.execute("1 + 1")).data["text/plain"] == "2"


async def test_a_busy_kernel_is_not_a_dead_one():
    async with open_kernel(heartbeat_interval=0.1, heartbeat_misses=3) as kernel:
        result = await kernel.execute("import time; time.sleep(0.6); x = 7 ** 2_000_000; y = x * x; 'alive'")
        assert result.data["text/plain"] == "'alive'"
        time.sleep(0.6)  # nor is one whose client was blocked
        assert (await kernel.execute("1 + 1")).data["text/plain"] == "2"


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
async def test_a_kernel_that_was_connected_to_is_found_dead(how):
    async with open_kernel(shutdown_timeout=0.5) as kernel:
        async with connect_kernel(kernel.connection, heartbeat_interval=0.1, heartbeat_misses=5) as other:
            execution = await other.submit("import time; time.sleep(100)")
            queued = await other.submit("1")
            assert await other._link.connection.router.transport.beat(10)  # only a heart that has beaten can stop
            os.kill(kernel.pid, how)
            await dies(execution)
            await dies(queued)
            assert not other.is_alive
        if how == signal.SIGSTOP:
            os.kill(kernel.pid, signal.SIGCONT)


START = {
    "exits 0": ("pass", 0, ""),
    "exits 3": ("import sys; print('no luck', file=sys.stderr); sys.exit(3)", 3, "no luck"),
    "prints garbage": ("import sys; sys.stdout.buffer.write(bytes(range(256)) * 1000); sys.exit(1)", 1, "\\"),
    "kills itself": ("import os; os.kill(os.getpid(), 9)", -9, ""),
}


async def test_a_kernel_that_dies_at_start_is_told_at_once_with_its_output():
    for name, (code, returncode, stderr) in START.items():
        start = time.monotonic()
        with pytest.raises(KernelStartError) as caught:
            async with open_kernel([sys.executable, "-c", code, "{connection_file}"]):
                pass
        assert not isinstance(caught.value, KernelStartTimeoutError)
        assert caught.value.returncode == returncode, name
        assert stderr in caught.value.stderr, name
        assert time.monotonic() - start < 5, name


async def test_a_kernel_that_never_gets_ready_is_a_start_timeout():
    code = "import time; print('thinking', flush=True); time.sleep(100)"
    with pytest.raises(KernelStartTimeoutError, match="nothing answers") as caught:
        async with open_kernel([sys.executable, "-c", code, "{connection_file}"], startup_timeout=1):
            pass
    assert caught.value.stderr == "thinking\n"
    assert isinstance(caught.value, TimeoutError)


async def test_a_start_that_lost_its_ports_is_tried_again_on_others(tmp_path):
    # The first time it finds its address in use, then it becomes a kernel.
    marker = tmp_path / "tried"
    code = f"""
import pathlib, sys, os
marker = pathlib.Path({str(marker)!r})
if not marker.exists():
    marker.write_text("")
    sys.exit("zmq.error.ZMQError: Address already in use (addr='tcp://127.0.0.1:1')")
os.execv(sys.executable, [sys.executable, "-m", "ipykernel_launcher", "-f", sys.argv[1]])
"""
    async with open_kernel([sys.executable, "-c", code, "{connection_file}"]) as kernel:
        assert marker.exists()
        assert (await kernel.execute("1 + 1")).data["text/plain"] == "2"
    with pytest.raises(KernelStartError, match="in use"):
        async with open_kernel([sys.executable, "-c", "exit('Address already in use')", "{connection_file}"]):
            pass


async def test_a_death_ends_messages_and_is_no_error_of_the_block():
    async with open_kernel() as kernel, kernel.messages("no such type") as stream:
        os.kill(kernel.pid, signal.SIGKILL)
        with pytest.raises(KernelDiedError):
            await stream.receive()
    assert kernel.returncode == -signal.SIGKILL
