"""Whom an interrupt hits: the kernel, once, and only while it runs code; and how soon kernels of all makes are left."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time

import anyio
import psutil
import pytest
from jupyter_client.kernelspec import KernelSpec

from anykernel import ExecutionTimeoutError, open_kernel
from anykernel._local import family

from ..helpers.zoo import each, installed

IPYKERNEL = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]

# A wrapper that passes on what it gets, as `uv run` does.
FORWARDER = """
import signal, subprocess, sys
kernel = subprocess.Popen(sys.argv[1:])
signal.signal(signal.SIGINT, lambda number, frame: kernel.send_signal(number))
sys.exit(kernel.wait())
"""

WRAPPERS = {
    "none": IPYKERNEL,
    "sh -c": ["/bin/sh", "-c", f'{sys.executable} -m ipykernel_launcher -f "$0"; exit $?', "{connection_file}"],
    "forwards": [sys.executable, "-c", FORWARDER, *IPYKERNEL],
}

SERVER = "import subprocess; server = subprocess.Popen(['sleep', '1000']); server.pid"


def alive(pid):
    return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


@pytest.mark.parametrize("wrapper", WRAPPERS)
async def test_a_timeout_hits_the_kernel_once_and_no_earlier_cells_children(wrapper):
    async with open_kernel(WRAPPERS[wrapper]) as kernel:
        server = int((await kernel.execute(SERVER)).text)
        for _ in range(3):
            with pytest.raises(ExecutionTimeoutError) as caught:
                await kernel.execute("import time; time.sleep(60)", timeout=0.1)
            assert caught.value.settled
            assert (await kernel.execute("sum(range(10**5))")).ok
        assert alive(server)
        # What ignores an interrupt while it waits for its child needs the child to have it.
        start = time.monotonic()
        with pytest.raises(ExecutionTimeoutError) as caught:
            await kernel.execute("import os; os.system('sleep 60')", timeout=0.1)
        assert caught.value.settled
        assert time.monotonic() - start < 3
        assert (await kernel.execute("1")).ok
    assert not psutil.pid_exists(server) or not alive(server)


async def test_an_interrupt_by_hand_reaches_the_children_when_it_is_not_enough():
    async with open_kernel() as kernel:
        execution = await kernel.submit("import os; os.system('sleep 60')")
        while execution.state != "running":
            await anyio.lowlevel.checkpoint()
        await kernel.interrupt()
        with anyio.fail_after(5):
            await execution.wait()


@pytest.mark.parametrize("name", each())
async def test_an_idle_kernel_survives_interrupts_and_is_left_soon(name):
    case = installed(name)
    async with open_kernel(case.spec) as kernel:
        assert (await kernel.execute(case.code["print"])).ok
        for _ in range(3):
            await kernel.interrupt()
        result = await kernel.execute(case.code["print"])
        assert result.text.strip() == "out" or (case.late and not result.text)
        start = time.monotonic()
    assert time.monotonic() - start < 1.5


async def test_a_timeout_does_not_end_deno():
    case = installed("Deno")
    async with open_kernel(case.spec) as kernel:
        with pytest.raises(ExecutionTimeoutError) as caught:
            await kernel.execute(case.code["busy"], timeout=0.1)
        assert caught.value.settled
        assert (await kernel.execute("console.log('out')")).ok
        # It mostly loses sight of code that awaits when it is interrupted; a restart helps.
        kernel.interrupt_timeout = 0.2
        with pytest.raises(ExecutionTimeoutError):
            await kernel.execute(case.code["sleep"], timeout=0.1)
        assert kernel.is_alive
        await kernel.restart()
        assert (await kernel.execute("console.log('out')")).ok


BUSY = {
    "ipykernel by message": (KernelSpec(argv=IPYKERNEL, interrupt_mode="message"), "while True: pass"),
    "async-kernel": ("async-kernel", "import time\nwhile True: time.sleep(0.01)"),
    "bash_kernel": ("bash_kernel", "sleep 60"),
    "a child that nobody waited for": (
        KernelSpec(argv=IPYKERNEL),
        "import subprocess; child = subprocess.Popen(['true'])",
    ),
    "a child deaf to SIGTERM": (
        KernelSpec(argv=IPYKERNEL),
        "import subprocess; child = subprocess.Popen(['sh', '-c', 'trap \"\" TERM; sleep 1000'])",
    ),
}


@pytest.mark.parametrize("what", BUSY)
async def test_a_kernel_that_needs_no_more_time_is_left_within_a_second_and_a_half(what):
    kernel, code = BUSY[what]
    spec = installed(kernel).spec if isinstance(kernel, str) else kernel
    async with open_kernel(spec) as kernel:
        execution = await kernel.submit(code)
        while execution.state not in ("running", "settled"):
            await anyio.lowlevel.checkpoint()
        start = time.monotonic()
    assert time.monotonic() - start < 1.5


# A child that says when it is ready for SIGTERM, which it ignores, takes, or has died of by then.
CHILD = "import signal, sys; signal.signal(signal.SIGTERM, {}); print(flush=True); sys.stdin.read()"
PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-I", "-S", "-c", {child!r}], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
child.stdout.readline()
print(flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize(
    ("child", "in_vain"),
    [
        (CHILD.format("signal.SIG_IGN"), True),
        (CHILD.format("lambda *_: None"), False),
        (CHILD.format("signal.SIG_DFL"), False),
        ("pass", True),
    ],
    ids=["deaf", "takes its time", "ends of it", "dead and not reaped"],
)
def test_a_kernel_waits_in_vain_for_children_that_cannot_end_alone(child, in_vain):
    argv = [sys.executable, "-I", "-S", "-c", PARENT.format(child=child)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True) as parent:
        try:
            parent.stdout.readline()
            while child == "pass" and psutil.Process(parent.pid).children()[0].status() != psutil.STATUS_ZOMBIE:
                time.sleep(0.01)  # of a grandchild there is no event
            assert family.waits_in_vain(parent.pid) == in_vain
        finally:
            os.killpg(parent.pid, 9)
    with subprocess.Popen([sys.executable, "-I", "-S", "-c", "input()"], stdin=subprocess.PIPE) as alone:
        assert not family.waits_in_vain(alone.pid)
        alone.communicate(b"\n")


@pytest.mark.skipif(shutil.which("uv") is None, reason="uv is not installed")
async def test_uv_run_passes_an_interrupt_on_once():
    argv = ["uv", "run", "--no-project", "--python", sys.executable, *IPYKERNEL]
    async with open_kernel(argv, env={"UV_OFFLINE": "1", "PATH": os.environ["PATH"]}) as kernel:
        for _ in range(3):
            with pytest.raises(ExecutionTimeoutError):
                await kernel.execute("import time; time.sleep(60)", timeout=0.1)
            assert (await kernel.execute("sum(range(10**5))")).ok
