"""Promise 5: whatever ends the block, nothing is left behind. On real kernels.

The fixture `nothing_left_behind` looks after every test for processes (orphans included), descriptors, threads
and files; what these tests do is to end blocks in every way there is.
"""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import anyio
import psutil
import pytest

from anykernel import KernelStartError, open_kernel
from benchmarks.soak import growth, soak

from ..helpers.scripted import scripted_kernel

ECHO = [sys.executable, "-m", "benchmarks.echo_kernel", "{connection_file}"]


async def turns(count):
    for _ in range(count):
        await anyio.lowlevel.checkpoint()


@pytest.mark.limit(180)
async def test_the_start_can_be_cancelled_at_any_moment():
    # The first turns of the event loop one by one, then moments spread over the rest of the start.
    moments = [("turns", n) for n in range(25)] + [("seconds", 0.02 * n) for n in range(1, 12)]
    for kind, moment in moments:
        async with anyio.create_task_group() as tasks:

            async def start():
                async with open_kernel(ECHO):
                    await anyio.sleep_forever()

            tasks.start_soon(start)
            await (turns(moment) if kind == "turns" else anyio.sleep(moment))
            tasks.cancel_scope.cancel()
        assert not list(Path(tempfile.gettempdir()).glob("anyk-*")), (kind, moment)


@pytest.mark.limit(180)
async def test_the_end_can_be_cancelled_at_any_moment():
    moments = [("turns", n) for n in range(12)] + [("seconds", 0.01 * n) for n in range(1, 6)]
    for kind, moment in moments:
        async with anyio.create_task_group() as tasks:
            ready = anyio.Event()

            async def run():
                async with open_kernel(ECHO) as kernel:
                    await kernel.execute("1")
                    ready.set()

            tasks.start_soon(run)
            await ready.wait()
            await (turns(moment) if kind == "turns" else anyio.sleep(moment))
            tasks.cancel_scope.cancel()
        assert not list(Path(tempfile.gettempdir()).glob("anyk-*")), (kind, moment)


async def test_the_block_can_be_cancelled_whatever_is_under_way():
    for code in ("import time; time.sleep(100)", "await __import__('asyncio').sleep(100)", "while True: print('x')"):
        start = time.monotonic()
        async with anyio.create_task_group() as tasks:

            async def run():
                async with open_kernel() as kernel, anyio.create_task_group() as inner:
                    inner.start_soon(kernel.execute, code)
                    execution = await kernel.submit("1", timeout=50)
                    async with kernel.messages("execute_input") as inputs:
                        await inputs.receive()
                        tasks.cancel_scope.cancel()
                        await execution.wait()

            tasks.start_soon(run)
        assert time.monotonic() - start < 8, code


async def test_every_checkpoint_of_a_connections_life_can_be_cancelled():
    for count in range(60):
        async with anyio.create_task_group() as tasks:

            async def run():
                async with scripted_kernel() as (kernel, script):
                    execution = await kernel.submit("code")
                    request = await script.next()
                    script.start(request)
                    script.finish(request)
                    await execution.wait()

            tasks.start_soon(run)
            await turns(count)
            tasks.cancel_scope.cancel()


async def test_an_error_in_the_block_leaves_it_bare_and_nothing_else():
    with pytest.raises(LookupError, match="mine") as caught:
        async with open_kernel() as kernel:
            await kernel.submit("import time; time.sleep(100)")
            raise LookupError("mine")
    assert caught.value.__context__ is None
    with pytest.raises(KeyboardInterrupt):
        async with open_kernel():
            raise KeyboardInterrupt


async def test_children_of_the_kernel_go_with_it():
    async with open_kernel(shutdown_timeout=1) as kernel:
        result = await kernel.execute("""
import subprocess, sys
shell = subprocess.Popen(["sh", "-c", "trap '' TERM INT HUP; sleep 1000 & echo $!; wait"], stdout=subprocess.PIPE)
grandchild = int(shell.stdout.readline())
[shell.pid, grandchild]
""")
        pids = [int(pid) for pid in result.data["text/plain"].strip("[]").split(",")]
        assert all(psutil.pid_exists(pid) for pid in pids)
    gone(pids)
    async with open_kernel() as kernel:
        pid = int((await kernel.execute("import subprocess; subprocess.Popen(['sleep', '1000']).pid")).text)
        os.kill(kernel.pid, signal.SIGKILL)
    gone([pid])


def gone(pids):
    """A killed process may take a moment; a zombie is one that we inherited."""
    deadline = time.monotonic() + 3
    while time.monotonic() < deadline:
        left = [pid for pid in pids if psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE]
        if not left:
            return
        time.sleep(0.01)
    raise AssertionError(left)


@pytest.mark.parametrize("kernel", ["python3", "deaf to its parent"])
def test_a_client_killed_with_sigkill_leaves_no_kernel_no_child_and_no_file(kernel, tmp_path):
    # "Deaf": the kernel does not look for its parent, as those that are not made with ipykernel do not.
    program = f"""
import anyio, sys
from anykernel import open_kernel
deaf = [sys.executable, "-c", "import os, sys; del os.environ['JPY_PARENT_PID']; "
        "os.execv(sys.executable, [sys.executable, '-m', 'ipykernel_launcher', '-f', sys.argv[1]])",
        "{{connection_file}}"]
async def main():
    async with open_kernel({"deaf" if kernel != "python3" else repr(kernel)}) as kernel:
        child = await kernel.evaluate("__import__('subprocess').Popen(['sleep', '1000']).pid")
        await kernel.submit("import time; time.sleep(1000)")
        print(kernel.pid, child, flush=True)
        await anyio.sleep_forever()
anyio.run(main)
"""
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, env=environment
    ) as client:
        pids = [int(pid) for pid in client.stdout.readline().split()]
        assert list(tmp_path.glob("anyk-*"))
        client.kill()
    gone(pids)
    deadline = time.monotonic() + 3
    while list(tmp_path.glob("anyk-*")):
        assert time.monotonic() < deadline
        time.sleep(0.01)


async def test_a_guard_that_somebody_killed_is_not_missed():
    async with open_kernel() as kernel:
        alive = [p for p in psutil.Process().children() if p.status() != psutil.STATUS_ZOMBIE]
        guards = [p for p in alive if "anykernel-guard" in p.cmdline()]
        assert len(guards) == 1
        guards[0].kill()
        assert (await kernel.execute("1 + 1")).data["text/plain"] == "2"


async def test_a_kernel_that_ignores_sigterm_and_shutdown_is_killed():
    code = """
import signal, threading, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
get_ipython().kernel.control_handlers["shutdown_request"] = lambda *args: None
"""
    async with open_kernel(shutdown_timeout=0.3) as kernel:
        await kernel.execute(code)
        start = time.monotonic()
    assert kernel.returncode == -signal.SIGKILL
    assert time.monotonic() - start < 4


async def test_what_a_kernel_does_at_its_end_gets_its_time(tmp_path):
    async with open_kernel() as kernel:
        await kernel.push(path=str(tmp_path / "done"))
        await kernel.execute("import atexit, time\n@atexit.register\ndef end(): time.sleep(1.5); open(path, 'w')")
    assert (tmp_path / "done").exists()
    assert kernel.returncode == 0


async def test_a_kernel_whose_heart_has_stopped_at_its_end_is_not_waited_for():
    # ipykernel's main thread may wait for its control thread then, which waits for the IOPub thread, which has ended.
    code = """
from ipykernel.kernelapp import IPKernelApp
IPKernelApp.instance().iopub_thread.stop = lambda: __import__("time").sleep(60)
"""
    async with open_kernel(shutdown_timeout=20) as kernel:
        await kernel.execute(code)
        start = time.monotonic()
    assert kernel.returncode == -signal.SIGTERM
    assert time.monotonic() - start < 5


async def test_running_out_of_descriptors_is_an_error_and_leaves_nothing():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len(list(Path("/proc/self/fd").iterdir()))
    outcomes = []
    try:
        for spare in (1, 3, 10, 20, 30, 40, 100):
            resource.setrlimit(resource.RLIMIT_NOFILE, (used + spare, hard))
            try:
                async with open_kernel(ECHO) as kernel:
                    await kernel.execute("1")
                    outcomes.append("started")
            except KernelStartError as exc:
                outcomes.append("refused")
                assert "descriptors" in str(exc)  # noqa: PT017
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert outcomes == [*(6 * ["refused"]), "started"]


@pytest.mark.limit(120)
async def test_memory_descriptors_and_the_request_table_stay_flat():
    samples = await soak(10, 1500)
    assert not growth(samples)
