"""What a kernel's process may use, and what its command is run by."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys

import pytest

from anykernel import ArgumentError, ExecutionTimeoutError, KernelDiedError, KernelStartError, Limits, open_kernel
from anykernel._local.dying import why_it_ended

MANY = Limits(memory=4 * 2**30, cpu_seconds=1000, open_files=200, processes=100_000)


async def test_limits_are_set_in_the_kernel_and_not_here():
    names = ("RLIMIT_AS", "RLIMIT_CPU", "RLIMIT_NOFILE", "RLIMIT_NPROC")
    before = [resource.getrlimit(getattr(resource, name)) for name in names]
    async with open_kernel(limits=MANY) as kernel:
        await kernel.execute("import resource")
        found = [await kernel.evaluate(f"resource.getrlimit(resource.{name})") for name in names]
        result = await kernel.execute("bytearray(8 * 2**30)")
        assert result.error.ename == "MemoryError"
        assert await kernel.evaluate("6 * 7") == 42
    most = [hard if hard != resource.RLIM_INFINITY else 2**62 for _, hard in before]
    wanted = [4 * 2**30, 1000, 200, 100_000]
    assert [soft for soft, _ in found] == [min(pair) for pair in zip(wanted, most, strict=True)]
    assert found[1][1] == 1001
    assert [resource.getrlimit(getattr(resource, name)) for name in names] == before


@pytest.mark.once("asyncio")  # it takes what it uses up
async def test_a_kernel_that_used_up_its_cpu_time_is_told_to_have_died_of_that():
    async with open_kernel(limits=Limits(cpu_seconds=2)) as kernel:
        with pytest.raises(KernelDiedError, match="SIGXCPU, at its limit of cpu_seconds") as caught:
            await kernel.execute("print('here', flush=True)\nwhile True: pass")
    assert caught.value.reason == "cpu_seconds"
    assert caught.value.returncode == kernel.returncode == -signal.SIGXCPU
    assert caught.value.result.stdout == "here\n"


async def test_a_kernel_that_got_no_more_memory_and_died_of_it_is_told_to():
    # It becomes a program that does not survive what an interactive Python does.
    code = "import os, sys; os.execv(sys.executable, [sys.executable, '-c', 'bytearray(8 * 2**30)'])"
    async with open_kernel(limits=Limits(memory=4 * 2**30)) as kernel:
        with pytest.raises(KernelDiedError, match="status 1, at its limit of memory") as caught:
            # What ipykernel captures of its own stderr is no longer read by anybody.
            await kernel.execute(f"import os; os.dup2(os.open('/proc/self/fd/2', os.O_WRONLY), 2); {code}")
    assert caught.value.reason == "memory"


async def test_a_death_of_another_cause_has_no_reason():
    async with open_kernel(limits=MANY) as kernel:
        with pytest.raises(KernelDiedError) as caught:
            await kernel.execute("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    assert caught.value.reason is None


@pytest.mark.parametrize(
    ("limits", "returncode", "stderr", "seconds", "reason"),
    [
        (Limits(cpu_seconds=3), -signal.SIGXCPU, "", 3.0, "cpu_seconds"),
        (Limits(cpu_seconds=3), -signal.SIGXCPU, "", 0.5, None),  # somebody sent it
        (Limits(cpu_seconds=3), -signal.SIGKILL, "", 4.0, "cpu_seconds"),  # it took the first signal
        (Limits(cpu_seconds=3), 1, "", 4.0, None),
        (Limits(memory=3), -signal.SIGABRT, "what():  std::bad_alloc", 0.0, "memory"),
        (Limits(memory=3), 0, "MemoryError", 0.0, None),
        (Limits(memory=3), -signal.SIGSEGV, "", 0.0, None),
        (Limits(open_files=3), 1, "MemoryError", 9.0, None),
        (None, -signal.SIGXCPU, "MemoryError", 9.0, None),
    ],
)
def test_a_reason_takes_two_witnesses(limits, returncode, stderr, seconds, reason):
    assert why_it_ended(limits, returncode, stderr, seconds) == reason


@pytest.mark.parametrize("limit", [{"memory": 0}, {"cpu_seconds": 1.5}, {"open_files": -1}, {"processes": "many"}])
def test_a_limit_that_is_none_is_refused(limit):
    with pytest.raises(ArgumentError, match=next(iter(limit))):
        Limits(**limit)


async def test_a_kernel_that_cannot_start_within_its_limits_says_why():
    with pytest.raises(KernelStartError, match="status 1, at its limit of memory"):
        async with open_kernel(
            [sys.executable, "-c", "bytearray(2 * 2**30)", "{connection_file}"], limits=Limits(memory=2**30)
        ):
            pytest.fail("there is not as much")


@pytest.mark.parametrize(
    ("wrap", "expression", "value"),
    [
        (["nice", "-n", "7"], "__import__('os').nice(0)", 7),
        (["env", "-u", "HOME", "WRAPPED=yes"], "__import__('os').environ['WRAPPED']", "yes"),
        (["prlimit", "--nofile=123", "--"], "__import__('resource').getrlimit(7)", (123, 123)),
    ],
)
async def test_the_kernels_command_is_run_by_what_it_is_wrapped_in(wrap, expression, value):
    async with open_kernel(wrap=wrap, limits=Limits(cpu_seconds=1000)) as kernel:
        assert await kernel.evaluate(expression) == value
        assert await kernel.evaluate("__import__('resource').getrlimit(0)[0]") == 1000
        await kernel.restart()
        assert await kernel.evaluate(expression) == value


@pytest.mark.skipif(
    not shutil.which("bwrap") or subprocess.run(["bwrap", "--dev-bind", "/", "/", "true"], check=False).returncode != 0,
    reason="bubblewrap is not installed, or may do nothing here",
)
async def test_a_kernel_in_bubblewrap_is_interrupted_and_ends_with_its_children(tmp_path):
    wrap = [
        "env",
        "-u",
        "JPY_PARENT_PID",
        "bwrap",
        "--ro-bind",
        "/",
        "/",
        "--dev",
        "/dev",
        "--proc",
        "/proc",
        "--unshare-pid",
    ]
    places = [
        argument for path in (os.environ["TMPDIR"], os.environ["IPYTHONDIR"]) for argument in ("--bind", path, path)
    ]
    async with open_kernel(wrap=[*wrap, *places]) as kernel:
        assert (await kernel.execute(f"open({str(tmp_path / 'file')!r}, 'w')")).error.ename == "OSError"
        with pytest.raises(ExecutionTimeoutError) as caught:
            await kernel.execute("import time; time.sleep(60)", timeout=0.3)
        assert caught.value.settled
        await kernel.execute("import subprocess; child = subprocess.Popen(['sleep', '1000'])", check=True)


async def test_a_wrapping_program_that_is_not_there_is_named():
    for limits in (None, MANY):
        with pytest.raises(KernelStartError, match="cannot run '/no/such/wrap': No such file"):
            async with open_kernel(wrap=["/no/such/wrap"], limits=limits):
                pytest.fail("there is none")


@pytest.mark.parametrize("options", [{"wrap": "nice"}, {"wrap": [1]}, {"limits": {"memory": 1}}])
async def test_what_is_no_wrap_and_no_limits_is_refused(options):
    with pytest.raises(ArgumentError, match=next(iter(options))):
        async with open_kernel([sys.executable, "{connection_file}"], **options):
            pytest.fail("it must not be started")
