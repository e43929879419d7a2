"""Kernels that lose sight of a request are made to look, and only then."""

from __future__ import annotations

import anyio
import anyio.lowlevel
import pytest

from anykernel import Message
from anykernel._core import nudging
from anykernel._core.context import Limits
from anykernel._core.request import Request
from anykernel._core.router import Router
from anykernel._transports import MemoryTransport

from ..helpers import scripted
from ..helpers.scripted import scripted_kernel


class Quiet(Request):
    """A request that takes what comes."""


@pytest.fixture
def router():
    router = Router(MemoryTransport(), lambda *_: None, Limits(output_limit=2**20, interrupt_timeout=5))
    yield router
    router.transport.close()


def send(router, **route):
    request = Quiet()
    router.send(request, Message("shell", router.new_header("x_request", **route)))
    return request


def hear(router, request, channel="iopub", msg_type="status", **content):
    router.deliver(Message(channel, {"msg_type": msg_type}, request.header, {}, content))


@pytest.mark.parametrize("how", ["busy", "reply"])
def test_what_the_kernel_has_said_something_of_is_not_unheard(router, how):
    request, other = send(router), send(router, subshell_id="s")
    assert router.unheard() == [request, other]
    if how == "busy":
        hear(router, request, execution_state="busy")
    else:
        hear(router, request, "shell", "x_reply")
    assert router.unheard() == [other]


def test_what_waits_behind_a_request_of_ours_is_not_unheard_until_that_is_done(router):
    before = send(router)
    hear(router, before, execution_state="busy")
    behind, beside = send(router), send(router, subshell_id="s")
    assert router.unheard() == [beside]
    router.forget(before)
    assert router.unheard() == [behind, beside]


async def test_a_kernel_that_stays_silent_is_nudged_ever_more_seldom(router, monkeypatch):
    monkeypatch.setattr(nudging, "INTERVAL", 0)
    looks, nudged = 0, []

    class Looked:
        transport = router.transport

        def unheard(self):
            nonlocal looks
            looks += 1
            return router.unheard()

    async def note():
        nudged.append(looks)

    monkeypatch.setattr(router.transport, "nudge", note)
    request = send(router)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(nudging.nudge, Looked())
        while len(nudged) < 5:
            await anyio.lowlevel.checkpoint()
        assert nudged == [2, 4, 8, 16, 32]
        hear(router, request, execution_state="busy")
        start = looks
        while looks < start + 50:
            await anyio.lowlevel.checkpoint()
        assert len(nudged) == 5
        # Each has a count of its own.
        router.forget(request)
        send(router)
        start = looks
        while len(nudged) < 6:
            await anyio.lowlevel.checkpoint()
        assert nudged[5] <= start + 3
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize(("features", "nudged"), [(["kernel subshells"], True), ([], False)])
async def test_only_kernels_that_may_lose_sight_are_nudged(monkeypatch, features, nudged):
    monkeypatch.setattr(nudging, "INTERVAL", 0.001)
    monkeypatch.setitem(scripted.INFO, "supported_features", features)
    async with scripted_kernel() as (kernel, script):
        execution = await kernel.submit("lies there")
        if nudged:
            with anyio.fail_after(10):
                while not script.transport.nudges:
                    await anyio.sleep(0.001)
        request = await script.next()
        script.start(request)
        script.finish(request)
        assert (await execution.wait()).ok
        assert bool(script.transport.nudges) is nudged
