"""Promise 3: cancel means exactly this one. On a real kernel."""

from __future__ import annotations

import random
import time

import anyio
import pytest

from anykernel import ExecutionTimeoutError, KernelDiedError, open_kernel


async def usable(kernel):
    """The kernel answers, and the client waits for nothing."""
    assert (await kernel.execute("1 + 1")).data["text/plain"] == "2"
    assert len(kernel._link.connection.router) == 0
    assert not kernel._link.connection.dispatcher.busy


# What runs, and what its end is called; the kernel raises it where the code is.
INTERRUPTIBLE = {
    "sleep": ("import time; time.sleep(100)", "KeyboardInterrupt"),
    "busy loop": ("while True: pass", "KeyboardInterrupt"),
    "await": ("import asyncio; await asyncio.sleep(100)", "CancelledError"),
    "read": ("import os; r, w = os.pipe(); os.read(r, 1)", "KeyboardInterrupt"),
    "child": ("import subprocess; subprocess.run(['sleep', '100'])", "KeyboardInterrupt"),
    "shell": ("!sleep 100", "KeyboardInterrupt"),
    "join": ("import threading; threading.Event().wait()", "KeyboardInterrupt"),
}


async def test_code_of_every_interruptible_kind_settles_after_its_timeout():
    async with open_kernel() as kernel:  # of its own: dead children of its code stay
        for name, (code, ename) in INTERRUPTIBLE.items():
            start = time.monotonic()
            with pytest.raises(ExecutionTimeoutError, match="interrupted") as caught:
                await kernel.execute(f"print({name!r}, flush=True)\n{code}", timeout=0.5)
            assert caught.value.settled, name
            assert caught.value.result.stdout.startswith(name)
            if name != "shell":  # IPython ends the cell without an exception
                assert caught.value.result.error.ename == ename, name
            assert time.monotonic() - start < 4, name
            await usable(kernel)


async def test_a_cancelled_caller_leaves_when_its_code_has_settled():
    async with open_kernel() as kernel:  # of its own: dead children of its code stay
        for name in ("sleep", "await", "child"):
            code, _ = INTERRUPTIBLE[name]
            async with kernel.messages("execute_input") as started, anyio.create_task_group() as tasks:
                tasks.start_soon(kernel.execute, code)
                await started.receive()
                tasks.cancel_scope.cancel()
            await usable(kernel)


async def test_code_that_catches_the_interrupt_is_told_apart_and_restart_always_works():
    code = """
import time
while True:
    try:
        time.sleep(0.01)
    except KeyboardInterrupt:
        print("ignored", flush=True)
"""
    async with open_kernel(interrupt_timeout=1.5, shutdown_timeout=0.5) as kernel:
        with pytest.raises(ExecutionTimeoutError, match=r"ignored interrupts.*restart") as caught:
            await kernel.execute(code, timeout=0.5)
        assert not caught.value.settled
        assert "ignored" in caught.value.result.stdout
        with pytest.raises(ExecutionTimeoutError, match="queued"):
            await kernel.execute("1 + 1", timeout=0.2)
        await kernel.restart()
        await usable(kernel)
        await kernel.submit(code)
        start = time.monotonic()
    assert time.monotonic() - start < 5


async def test_a_c_call_that_holds_the_interpreter_settles_when_it_is_over():
    # A single multiplication; nothing can interrupt it, and the interrupt waits for its end.
    code = "x = 7 ** 4_000_000; y = x * x; print('not reached') if False else str(y % 10)\nimport time; time.sleep(100)"
    async with open_kernel(interrupt_timeout=20) as kernel:
        with pytest.raises(ExecutionTimeoutError) as caught:
            await kernel.execute(code, timeout=0.2)
        assert caught.value.settled
        await usable(kernel)


async def test_cleanup_of_the_code_is_not_interrupted_again_at_once(kernel):
    code = """
import time
try:
    time.sleep(100)
finally:
    time.sleep(0.5)
    print("clean")
"""
    with pytest.raises(ExecutionTimeoutError) as caught:
        await kernel.execute(code, timeout=0.3)
    assert caught.value.result.stdout == "clean\n"


async def test_only_the_cancelled_of_many_is_stopped(kernel):
    results = {}

    async def run(i):
        results[i] = await kernel.execute(f"import time; time.sleep(0.01); print({i})")

    async with anyio.create_task_group() as tasks:
        for i in range(10):
            tasks.start_soon(run, i)
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(ExecutionTimeoutError):
            await kernel.execute("import time; time.sleep(100)", timeout=2)
        for i in range(10, 20):
            tasks.start_soon(run, i)
    assert {i: r.stdout for i, r in results.items()} == {i: f"{i}\n" for i in range(20)}
    await usable(kernel)


@pytest.mark.limit(180)
@pytest.mark.parametrize("max_in_flight", [1, 8])
async def test_half_of_50_cancelled_at_random_moments_touch_nobody_else(max_in_flight):
    rng = random.Random(20261122)
    rounds, cancelled_count, kept_count = 4, 0, 0
    async with open_kernel(max_in_flight=max_in_flight, interrupt_timeout=20) as kernel:
        await kernel.execute("import time, asyncio")

        async def kept(i):
            nonlocal kept_count
            result = await kernel.execute(f"time.sleep(0.001); print({i})")
            # With several in the kernel, an interrupt may hit the one behind its target: the price of pipelining.
            if max_in_flight == 1:
                assert (result.ok, result.stdout) == (True, f"{i}\n")
            kept_count += 1

        async def cancelled(i, delay):
            nonlocal cancelled_count
            body = rng.choice(["time.sleep(0.02)", "await asyncio.sleep(0.02)", "pass", "print('x')"])
            with anyio.move_on_after(delay) as scope:
                await kernel.execute(body)
            cancelled_count += scope.cancelled_caught

        for _ in range(rounds):
            async with anyio.create_task_group() as tasks:
                for i in range(25):
                    tasks.start_soon(kept, i)
                    tasks.start_soon(cancelled, i, rng.uniform(0, 0.4))
            await usable(kernel)
    assert kept_count == rounds * 25
    assert cancelled_count > rounds * 5


async def test_the_moment_between_settling_and_interrupting_never_hits_the_next_cell():
    rng = random.Random(1)
    deaths = 0
    async with open_kernel() as kernel:
        for _ in range(20):
            async with anyio.create_task_group() as tasks:

                async def victim():
                    with anyio.move_on_after(rng.uniform(0.001, 0.012)):
                        await kernel.execute("import time; time.sleep(0.004)")

                async def bystander():
                    nonlocal deaths
                    try:
                        result = await kernel.execute("import time; time.sleep(0.002); 'fine'")
                    except KernelDiedError as exc:
                        # One interrupt in thousands finds ipykernel between its signal handlers, and ends its event loop.
                        if exc.returncode != 0:
                            raise
                        deaths += 1
                        await kernel.restart()
                    else:
                        assert result.data["text/plain"] == "'fine'"

                tasks.start_soon(victim)
                await anyio.lowlevel.checkpoint()
                tasks.start_soon(bystander)
        await usable(kernel)
    assert deaths < 3


async def test_streams_left_early_and_consumers_that_raise(kernel):
    endless = "import itertools, time\nfor i in itertools.count(): print(i, flush=True); time.sleep(0.01)"
    async with kernel.stream(endless) as execution:
        async for _ in execution:
            break
    assert execution.state == "settled"
    await usable(kernel)
    with pytest.raises(LookupError, match="mine"):
        async with kernel.stream(endless) as execution:
            async for _ in execution:
                raise LookupError("mine")
    await usable(kernel)
    execution = await kernel.submit(endless)
    assert await execution.cancel()
    assert (await execution.wait()).error.ename == "KeyboardInterrupt"
    await usable(kernel)


async def test_an_error_or_an_interrupt_aborts_nobody_elses_code(kernel):
    executions = [await kernel.submit("1 / 0", stop_on_error=True)]
    executions += [await kernel.submit(f"{i}") for i in range(5)]
    results = [await e.wait() for e in executions]
    assert [r.status for r in results] == ["error", *(5 * ["ok"])]


async def test_a_caller_cancelled_while_the_kernel_waits_for_input(kernel):
    asked = anyio.Event()

    async def never(prompt, password):
        asked.set()
        await anyio.sleep_forever()

    async with anyio.create_task_group() as tasks:

        async def run():
            await kernel.execute("input()", stdin=never)

        tasks.start_soon(run)
        await asked.wait()
        tasks.cancel_scope.cancel()
    await usable(kernel)
    assert (await kernel.execute("input()", stdin=lambda *_: "fresh")).data["text/plain"] == "'fresh'"
