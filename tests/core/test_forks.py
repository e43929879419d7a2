"""A client that forks: what it opened is its own, and its children may open kernels themselves."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

# Python warns of forking beside threads, and trio of the wake-up descriptor that its child has from its parent.
OPTIONS = ["-W", "error", "-W", "ignore::DeprecationWarning", "-W", "ignore:It looks like Trio:RuntimeWarning"]

RUN = {
    "asyncio": "asyncio.run(main())",
    "uvloop": "uvloop.run(main())",
    "trio": "trio.run(main)",
}

PROGRAM = """
import asyncio, os, sys, traceback
import anyio, trio, uvloop
from anyio import to_thread
from anykernel import UnsupportedError, open_kernel
from tests.helpers.held import Held, refused

async def open_another():
    async with open_kernel() as kernel:
        return await kernel.evaluate("6 * 7")

def forked(child):
    "The exit status of a child that runs a function and nothing else."
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    try:
        child()
        sys.stdout.flush()
        os._exit(0)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)
"""


def run(program, loop):
    done = subprocess.run(
        [sys.executable, *OPTIONS, "-c", f"{PROGRAM}\n{program}\n{RUN[loop]}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert (done.stderr, done.returncode) == ("", 0)
    return done.stdout.split("\n")[:-1]


@pytest.mark.parametrize("loop", RUN)
def test_in_a_forked_child_every_call_is_refused_and_it_may_open_kernels_of_its_own(loop):
    # From a worker thread, because trio cannot be run again in a child of its own thread.
    program = f"""
async def main():
    async with open_kernel() as kernel, Held(kernel) as held:
        def child():
            run = {"trio.run" if loop == "trio" else "lambda main: asyncio.run(main())"}
            outcomes = run(held.use_elsewhere)
            print(refused(outcomes, "forked child") or outcomes)
            print(run(open_another))
        print(await to_thread.run_sync(forked, child))
        print(await held.subshell.evaluate("6 * 7"))
    print("left as usual")
"""
    assert run(program, loop) == ["True", "42", "0", "42", "left as usual"]


@pytest.mark.parametrize("loop", RUN)
def test_a_call_in_the_midst_of_a_forked_task_is_refused_at_once(loop):
    program = """
async def refuse(kernel):
    try:
        await kernel.execute("1", timeout=2)
    except UnsupportedError as exc:
        print("forked child" in str(exc))

async def main():
    async with open_kernel() as kernel:
        def child():
            try:
                refuse(kernel).send(None)
            except StopIteration:
                pass  # it did not wait
        print(forked(child))
        print(await kernel.evaluate("6 * 7"))
    print("left as usual")
"""
    assert run(program, loop) == ["True", "0", "42", "left as usual"]


@pytest.mark.parametrize("loop", RUN)
def test_a_block_that_a_forked_child_runs_out_of_stays_its_parents(loop):
    program = """
async def main():
    block = open_kernel()
    kernel = await block.__aenter__()
    def child():
        try:
            block.__aexit__(None, None, None).send(None)
        except UnsupportedError as exc:
            print("forked child" in str(exc))
    print(forked(child))
    print(await kernel.evaluate("6 * 7"), os.path.exists(kernel_file(kernel)))
    await block.__aexit__(None, None, None)
    print("left as usual")

def kernel_file(kernel):
    import psutil
    return psutil.Process(kernel.pid).cmdline()[-1]
"""
    assert run(program, loop) == ["True", "0", "42 True", "left as usual"]
