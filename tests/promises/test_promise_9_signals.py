"""Promise 9: no single signal is believed against the others."""

from __future__ import annotations

import contextlib
import time

import anyio
import pytest

import anykernel._core.asking
from anykernel import ExecutionTimeoutError, ProtocolError, UnsupportedError, open_kernel

from ..helpers.zoo import each, installed


@pytest.mark.once("asyncio")
async def test_a_heart_that_stands_still_while_code_runs_is_no_death():
    async with (
        installed("R").open(heartbeat_interval=0.1, heartbeat_misses=2) as kernel,
        kernel.events() as events,
    ):
        assert (await kernel.execute('Sys.sleep(1); cat("done")')).stdout == "done"
        assert (await events.receive()).kind == "disconnected"
        assert (await events.receive()).kind == "reconnected"
    async with installed("async-kernel").open(heartbeat_interval=0.1, heartbeat_misses=2) as kernel:
        # libzmq's own threads need no lock of Python's, but its heart does.
        held = "import ctypes; ctypes.PyDLL(None).usleep(900_000); 6 * 7"
        assert (await kernel.execute(held)).data["text/plain"] == "42"


@pytest.mark.once("trio")
async def test_a_forked_child_that_says_idle_changes_nothing_for_its_parents_cell():
    code = "import os, time\nif os.fork(): time.sleep(3); print('parent')\nelse: print('child', flush=True)"
    async with open_kernel() as kernel:
        result = await kernel.execute(code)
        assert (result.ok, result.complete) == (True, True)
        assert "parent" in result.stdout
        assert (await kernel.execute("6 * 7")).data["text/plain"] == "42"


@pytest.mark.parametrize("name", each(["ipykernel 7", "R", "bash_kernel", "async-kernel"]))
async def test_interrupted_code_is_not_told_as_code_that_never_ran(name):
    case = installed(name)
    async with case.open() as kernel:
        with pytest.raises(ExecutionTimeoutError) as caught:
            await kernel.execute(case.code["sleep"], timeout=0.5)
        assert caught.value.settled
        assert caught.value.result.status == "error"
        assert "never" not in str(caught.value)


@pytest.mark.parametrize("name", each(["ipykernel 7", "R", "bash_kernel", "async-kernel", "xeus-python", "Deno"]))
async def test_requests_that_no_kernel_knows_end_on_every_channel(name, monkeypatch):
    monkeypatch.setattr(anykernel._core.asking, "GRACE", 0.5)
    monkeypatch.setattr(anykernel._core.asking, "PATIENCE", 1)
    async with installed(name).open() as kernel:
        start = time.monotonic()
        async with anyio.create_task_group() as tasks:

            async def refused(channel):
                with pytest.raises(ProtocolError):
                    await kernel.request("unheard_of_request", {}, channel=channel)

            async def used():
                with contextlib.suppress(UnsupportedError):
                    assert (await kernel.usage()).pid

            tasks.start_soon(refused, "shell")
            tasks.start_soon(refused, "control")
            tasks.start_soon(used)
        assert time.monotonic() - start < 10
        assert len(kernel._link.connection.router) == 0
