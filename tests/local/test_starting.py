"""How a kernel's process is started and awaited: from a clean state, whatever the host is in, and beside whatever it does."""

from __future__ import annotations

import os
import resource
import signal
import sys
import threading
from pathlib import Path

import anyio
import pytest
import uvloop

import anykernel._local.child
from anykernel import KernelDiedError, KernelStartError, open_kernel
from anykernel._local.child import Child

ECHO = [sys.executable, str(Path(__file__).parents[2] / "benchmarks" / "echo_kernel.py"), "{connection_file}"]


async def said(argv, **options):
    """What a process of ours prints."""
    child = Child(argv, output=True, **options)
    try:
        text = b""
        while chunk := await child.receive():
            text += chunk
        await child.wait()
        return text.decode(), child.returncode
    finally:
        child.close()


@pytest.fixture
def dirty_host():
    """A host that blocks and ignores signals, and leaves a descriptor open for its children."""
    ignored = {
        number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM)
    }
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGUSR1, signal.SIGTERM})
    descriptor = os.open(os.devnull, os.O_RDONLY)
    os.set_inheritable(descriptor, True)
    yield descriptor
    os.close(descriptor)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    for number, handler in ignored.items():
        signal.signal(number, handler)


async def test_a_process_starts_with_no_signal_blocked_or_ignored_and_without_our_descriptors(dirty_host):
    text, returncode = await said(["grep", "-E", "SigBlk|SigIgn", "/proc/self/status"])
    assert [int(line.split()[1], 16) for line in text.splitlines()] == [0, 0]
    assert returncode == 0
    # One of its own is the directory that it lists.
    text, _ = await said(["find", "/proc/self/fd", "-lname", os.devnull, "-printf", "%f "])
    assert text == "0 ", dirty_host


async def test_what_it_should_inherit_it_does(dirty_host, tmp_path, monkeypatch):
    # The same by both ways of starting: the signals are what the other is for.
    assert dirty_host
    monkeypatch.setenv("LC_ALL", "C")
    env = {**{name: value for name, value in os.environ.items() if name != "LC_CTYPE"}, "A.B-C": "x y", "PS1": "$"}
    umask, soft = os.umask(0o027), resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    try:
        # `env` prints what it has, to the letter; no shell stands between.
        text, _ = await said(["/usr/bin/env", "-0"], env=env, cwd=tmp_path)
        assert dict(entry.split("=", 1) for entry in text.split("\0")[:-1]) == env
        text, _ = await said(["/bin/sh", "-c", "umask; ulimit -Sn; pwd -P; nice"], cwd=tmp_path)
    finally:
        os.umask(umask)
    assert text.split() == ["0027", str(soft), str(tmp_path.resolve()), str(os.nice(0))]


async def test_a_command_that_cannot_be_run_is_told_by_a_clean_host():
    with pytest.raises(KernelStartError, match="No such file"):
        await said(["/nowhere/at/all"])


async def test_a_command_that_cannot_be_run_is_told_by_another(dirty_host):
    assert dirty_host
    with pytest.raises(KernelStartError, match="cannot run '/nowhere/at/all': No such file"):
        async with open_kernel(["/nowhere/at/all", "{connection_file}"]):
            pass


async def test_a_kernel_of_a_host_that_ignores_and_blocks_is_interrupted_and_knows_how_its_children_end(dirty_host):
    assert dirty_host
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        async with open_kernel() as kernel:
            assert await kernel.evaluate("__import__('subprocess').run(['false']).returncode") == 1
            with anyio.move_on_after(0.3):
                await kernel.execute("import time; time.sleep(60)")
            assert await kernel.evaluate("6 * 7") == 42
            # Nobody knows how it ended: SIGCHLD is ignored.
            with pytest.raises(KernelDiedError, match="went away"):
                await kernel.execute("import os; os._exit(3)")
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert kernel.returncode is None


async def test_the_umask_takes_nothing_away_from_the_kernels_directory():
    umask = os.umask(0o277)
    try:
        async with open_kernel(ECHO) as kernel:
            assert (await kernel.execute("1")).ok
    finally:
        os.umask(umask)


async def test_a_kernel_that_somebody_else_reaps_is_seen_to_die():
    async with open_kernel(ECHO) as kernel:
        os.kill(kernel.pid, signal.SIGKILL)
        # Which of us is first is chance, and either is well.
        try:
            os.waitpid(kernel.pid, 0)
        except ChildProcessError:
            pytest.fail("it was reaped before anything else could run")
        with pytest.raises(KernelDiedError):
            await kernel.execute("1", timeout=5)


async def test_a_system_without_pidfds_is_looked_at(monkeypatch):
    def refuse(pid):
        raise PermissionError(pid)

    monkeypatch.setattr(anykernel._local.child.os, "pidfd_open", refuse, raising=False)
    async with open_kernel(ECHO) as kernel:
        assert (await kernel.execute("1")).ok
        os.kill(kernel.pid, signal.SIGKILL)
        with pytest.raises(KernelDiedError, match="SIGKILL"):
            await kernel.execute("1", timeout=5)


async def test_a_process_that_writes_for_ever_leaves_time_for_others():
    child = Child(["/usr/bin/yes"], output=True)
    try:
        with anyio.fail_after(5), anyio.move_on_after(0.1):
            while await child.receive():
                pass
        os.kill(child.pid, signal.SIGKILL)
        await child.wait()
        assert child.returncode == -signal.SIGKILL
    finally:
        child.close()


def test_any_number_of_threads_start_kernels_each_in_its_own_uvloop():
    outcomes = []

    async def start():
        async with open_kernel(ECHO) as kernel:
            return (await kernel.execute("1")).status

    def run():
        try:
            outcomes.append(uvloop.run(start()))
        except BaseException as exc:  # noqa: BLE001 - whatever it is, it is not what is expected
            outcomes.append(exc)

    threads = [threading.Thread(target=run) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert outcomes == ["ok"] * 6
