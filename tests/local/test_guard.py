"""What ends a client without its code: SIGKILL at any moment, beside forked children; Ctrl-C in the midst of cleaning up."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from anykernel._local.guard import open_guard

ECHO = Path(__file__).parents[2] / "benchmarks" / "echo_kernel.py"

RUN = {"asyncio": "anyio.run(main)", "uvloop": "uvloop.run(main())", "trio": "trio.run(main)"}

PROGRAM = """
import multiprocessing, os, sys, time
import anyio, trio, uvloop
from anykernel import open_kernel

def rest():
    time.sleep(1000)

async def main():
    async with open_kernel([sys.executable, {echo!r}, "{{connection_file}}"]) as kernel:
        print(kernel.pid, flush=True)
        {then}
        await anyio.sleep_forever()
"""


@contextmanager
def client(directory, loop, then="pass"):
    """A program that opens a kernel with its files in a directory; anything of it that is left is ended."""
    program = PROGRAM.format(echo=str(ECHO), then=then) + RUN[loop]
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", program],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env={**os.environ, "TMPDIR": str(directory)},
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.kill()


def left(directory):
    """Files and processes that have to do with a directory; a killed process may take a moment."""
    deadline = time.monotonic() + 5
    while True:
        found = [str(path) for path in directory.glob("anyk-*")]
        for process in psutil.process_iter(["cmdline"]):
            command = process.info["cmdline"] or []
            if any(str(directory) in word for word in command):
                found.append(" ".join(command))
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.01)  # the process table has no event to wait for


@pytest.mark.parametrize("fork", ["multiprocessing", "os.fork", "os.fork and a Python that ends in order"])
def test_a_killed_client_that_has_forked_leaves_no_kernel(fork, tmp_path):
    then = {
        "multiprocessing": "child = multiprocessing.get_context('fork').Process(target=rest); child.start(); pid = child.pid",
        "os.fork": "pid = os.fork() or rest()",
        # Its end closes what it has inherited: coroutines, which stand in our blocks.
        "os.fork and a Python that ends in order": "pid = os.fork() or sys.exit()",
    }[fork]
    with client(tmp_path, "asyncio", f"{then}; print(pid, flush=True)") as process:
        kernel, child = int(process.stdout.readline()), int(process.stdout.readline())
        try:
            if "ends" in fork:
                psutil.wait_procs([psutil.Process(child)], timeout=0.5)
                assert psutil.Process(kernel).status() != psutil.STATUS_ZOMBIE
                assert list(tmp_path.glob("anyk-*/*.json"))
            process.kill()
            assert left(tmp_path) == []
        finally:
            os.kill(child, signal.SIGKILL)


def test_a_client_killed_while_it_starts_a_kernel_leaves_nothing(tmp_path):
    for number in range(4):
        directory = tmp_path / str(number)
        directory.mkdir()
        with client(directory, "asyncio") as process:
            while not list(directory.glob("anyk-*")):
                assert process.poll() is None
            moment = time.perf_counter() + 0.003 * number
            while time.perf_counter() < moment:
                pass
            process.kill()
    assert left(tmp_path) == []


async def test_a_kernel_that_the_guard_was_not_told_of_is_found(tmp_path):
    # As where the client is killed between the kernel's start and the telling.
    directory = tmp_path / "anyk-untold"
    kernel = subprocess.Popen(
        ["sleep", "1000", directory / "kernel.json"], start_new_session=True, stderr=subprocess.DEVNULL
    )
    kernel.kill()
    kernel.wait()
    command = [sys.executable, "-c", "import time; time.sleep(1000)", directory / "kernel.json"]
    bystander = subprocess.Popen([*command[:-1], tmp_path / "anyk-another" / "kernel.json"], start_new_session=True)
    kernel = subprocess.Popen(command, start_new_session=True)
    try:
        async with open_guard(directory):
            directory.mkdir()
            (directory / "kernel.json").touch()
        assert kernel.wait(5) == -signal.SIGKILL
        assert not directory.exists()
        assert bystander.poll() is None
    finally:
        for process in (bystander, kernel):
            process.kill()
            process.wait()


async def test_what_is_known_to_be_gone_is_not_killed(tmp_path):
    directory = tmp_path / "anyk-gone"
    heir = subprocess.Popen(["sleep", "1000"], start_new_session=True)  # has the number that the kernel had
    try:
        async with open_guard(directory) as guard:
            directory.mkdir()
            guard.watch(heir.pid)
            guard.forget()
        assert not directory.exists()
        assert heir.poll() is None
    finally:
        heir.kill()
        heir.wait()


def test_two_interrupts_in_a_row_leave_nothing_under_trio(tmp_path):
    for number in range(3):
        directory = tmp_path / str(number)
        directory.mkdir()
        with client(directory, "trio") as process:
            assert process.stdout.readline()
            process.send_signal(signal.SIGINT)
            moment = time.perf_counter() + 0.006 * number
            while time.perf_counter() < moment:
                pass
            process.send_signal(signal.SIGINT)
            process.wait(20)
    assert left(tmp_path) == []
