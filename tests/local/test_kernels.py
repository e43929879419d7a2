"""What any kernel can do, on each kernel there is."""

from __future__ import annotations

import os
import signal

import anyio
import pytest

from anykernel import ExecutionTimeoutError, KernelDiedError, UnsupportedError, connect_kernel

from ..helpers.zoo import PYTHON, each, installed


@pytest.fixture(params=each())
def case(request):
    return installed(request.param)


def said(case, text, what):
    """Whether this is what a kernel says; nothing is, of those that may say it when they have said that they are done."""
    return text.strip() == what or (case.late and not text)


async def test_the_main_job_works_on_every_kernel(case):
    async with case.open(interrupt_timeout=5 if case.interruptible else 0.5) as kernel:
        assert kernel.info.protocol_version
        assert kernel.info.language
        result = await kernel.execute(case.code["print"])
        assert (result.ok, result.complete) == (True, True)
        assert said(case, result.text, "out")
        if case.code["value"]:
            assert (await kernel.execute(case.code["value"])).data["text/plain"] == "42"
        failed = await kernel.execute(case.code["error"])
        assert not failed.ok
        assert failed.error is not None

        results = {}

        async def run(i):
            results[i] = await kernel.execute(case.code["show"].format(i))

        async with anyio.create_task_group() as tasks:
            for i in range(30):
                tasks.start_soon(run, i)
        assert all(said(case, results[i].text, str(i)) for i in range(30))
        assert (await kernel.complete(case.code["begin"])).matches
        assert len(kernel._link.connection.router) == 0

        for code in (case.code["sleep"], case.code["busy"]):
            if case.interruptible:
                with pytest.raises(ExecutionTimeoutError) as caught:
                    await kernel.execute(code, timeout=0.5)
                assert caught.value.settled
            else:
                with pytest.raises((KernelDiedError, ExecutionTimeoutError)):  # it ends of it, or runs on
                    await kernel.execute(code, timeout=0.5)
                pid = kernel.pid
                await kernel.restart()
                assert kernel.pid != pid
            assert said(case, (await kernel.execute(case.code["print"])).text, "out")
        if case.code is PYTHON and kernel.supports_subshells:
            async with kernel.subshell() as subshell:
                await subshell.push(pushed=[1, b"2"])
                assert await subshell.pull("pushed") == [1, b"2"]
                with pytest.raises(ExecutionTimeoutError) as caught:
                    await subshell.execute(case.code["busy"], timeout=0.5)
                assert caught.value.settled
                assert await subshell.call("len", (1, 2)) == 2
        if case.code is not PYTHON:
            with pytest.raises(UnsupportedError):
                await kernel.evaluate("x")


async def test_streams_other_clients_input_death_and_restart_are_the_same_on_every_kernel(case):
    async with case.open() as kernel:
        async with kernel.stream(case.code["print"]) as execution:
            assert said(case, "".join([output.text async for output in execution]), "out")
        if case.code is PYTHON:
            # Before another client leaves: async-kernel's stdin may be used in two threads then, at which libzmq aborts.
            asked = await kernel.execute("input('? ')", stdin=lambda prompt, _: f"answer to {prompt}")
            assert asked.data["text/plain"] == "'answer to ? '"
            assert not (await kernel.execute("input()")).ok
        async with connect_kernel(kernel.connection) as other, kernel.messages("stream") as messages:
            assert said(case, (await other.execute(case.code["print"])).text, "out")
            assert (await messages.receive()).content["text"].startswith("out")
        running, queued = await kernel.submit(case.code["sleep"]), await kernel.submit(case.code["print"])
        cancelled = await kernel.submit(case.code["print"])
        assert await cancelled.cancel()
        assert (await cancelled.wait()).status == "aborted"
        os.kill(kernel.pid, signal.SIGKILL)
        for execution in (running, queued):
            with pytest.raises(KernelDiedError) as caught:
                await execution.wait()
            assert caught.value.returncode == -signal.SIGKILL
        await kernel.restart()
        assert said(case, (await kernel.execute(case.code["print"])).text, "out")
        assert len(kernel._link.connection.router) == 0


async def test_ipc_works_where_the_kernel_has_it(case):
    if not case.ipc:
        pytest.skip("it has none")
    async with case.open(transport="ipc") as kernel:
        assert said(case, (await kernel.execute(case.code["print"])).text, "out")
