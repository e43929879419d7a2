"""Connections that are lost: what comes of code that was under way, and that nothing is sent twice."""

from __future__ import annotations

import os
import signal
import time

import anyio
import pytest

from anykernel import (
    ExecutionTimeoutError,
    KernelDiedError,
    KernelRestartedError,
    OutcomeUnknownError,
    open_server,
)
from anykernel._transports import websocket
from anykernel.server import mending

from .proxy import proxied
from .servers import TOKEN, jupyter_server

pytestmark = pytest.mark.heavy

# Seconds within which the end of a kernel must be known.
KNOWN_WITHIN = 3.5
# Code that prints numbers and takes its time.
COUNTING = "import time\nfor i in range({n}):\n    print(i, flush=True)\n    time.sleep(0.02)\ncounted = {n}"


@pytest.fixture
def proxy(jupyter):
    with proxied(jupyter.port) as proxy:
        yield proxy


@pytest.fixture
async def through(proxy):
    async with open_server(proxy.url, token=TOKEN, reconnect_timeout=20) as server:
        yield server


def numbers(n):
    return [str(i) for i in range(n)]


async def first_output(execution):
    async for _ in execution:
        return


@pytest.mark.once("asyncio")
async def test_a_cut_connection_loses_nothing_and_runs_nothing_twice(proxy, through):
    async with through.open_kernel() as kernel, kernel.events() as events:
        await kernel.execute("runs = 0")
        execution = await kernel.submit("runs += 1\n" + COUNTING.format(n=100))
        queued = [await kernel.submit(f"runs += 1; {n}") for n in range(3)]
        await first_output(execution)
        for _ in range(3):
            proxy.cut()
            assert [(await events.receive()).kind for _ in range(2)] == ["disconnected", "reconnected"]
        result = await execution.wait()
        assert result.stdout.split() == numbers(100)
        assert result.complete
        assert [(await one.wait()).data["text/plain"] for one in queued] == ["0", "1", "2"]
        assert await kernel.evaluate("runs") == 4


@pytest.mark.once("trio")
async def test_what_ended_while_nobody_was_connected_is_read_afterwards(jupyter, proxy, through):
    async with through.open_kernel() as kernel:
        execution = await kernel.submit("import os\n" + COUNTING.format(n=20) + "\nopen('ended', 'w').close()")
        await first_output(execution)
        proxy.refuse()
        with anyio.fail_after(20):
            while not (jupyter.log.parent / "ended").exists():
                await anyio.sleep(0.02)  # there is no other sign of it
        (jupyter.log.parent / "ended").unlink()
        assert execution.state == "running"
        sent_meanwhile = await kernel.submit("'sent meanwhile'")
        proxy.accept()
        result = await execution.wait()
        assert result.stdout.split() == numbers(20)
        assert result.complete
        assert (await sent_meanwhile.wait()).data["text/plain"] == "'sent meanwhile'"


def test_pings_find_a_black_hole_within_30_seconds():
    assert websocket.PING_INTERVAL + websocket.PONG_TIMEOUT <= 30
    assert websocket.PING_INTERVAL <= 20


@pytest.fixture
def impatient(monkeypatch):
    """Black holes are found within five seconds."""
    monkeypatch.setattr(websocket, "PING_INTERVAL", 2.0)
    monkeypatch.setattr(websocket, "PONG_TIMEOUT", 3.0)


@pytest.mark.once("uvloop")
async def test_a_black_hole_is_found_and_loses_nothing(impatient, proxy, through):
    async with through.open_kernel() as kernel, kernel.events() as events:
        await kernel.execute("runs = 0")
        execution = await kernel.submit("runs += 1\n" + COUNTING.format(n=50))
        await first_output(execution)
        proxy.hole()
        swallowed = await kernel.submit("runs += 1; 'swallowed'")
        with anyio.fail_after(15):
            assert (await events.receive()).kind == "disconnected"
        result = await execution.wait()
        assert result.stdout.split() == numbers(50)
        assert result.complete
        assert (await swallowed.wait()).data["text/plain"] == "'swallowed'"  # it was queued here
        proxy.heal()
        assert await kernel.evaluate("runs") == 2


@pytest.mark.heavy
async def test_a_request_that_a_black_hole_took_never_runs_and_its_end_is_told(impatient, proxy):
    # (What comes over a connection that it has replaced, a Jupyter Server takes for the older framing, and is lost in it for
    # seconds: with all its kernels.)
    async with open_server(proxy.url, token=TOKEN) as server, server.open_kernel() as kernel:
        await kernel.execute("ran = False")
        proxy.hole()
        with pytest.raises(OutcomeUnknownError) as caught:
            await kernel.execute("ran = True")
        assert caught.value.result.outputs == []
        proxy.heal()
        assert await kernel.evaluate("ran") is False


@pytest.mark.once("asyncio")
async def test_a_server_that_stays_away_ends_calls_as_unknown(jupyter, proxy):
    before = jupyter.kernels()
    async with open_server(proxy.url, token=TOKEN, reconnect_timeout=0.5) as server, server.open_kernel() as kernel:
        execution = await kernel.submit(COUNTING.format(n=10_000))
        await first_output(execution)
        proxy.refuse()
        with anyio.fail_after(10), pytest.raises(OutcomeUnknownError) as caught:
            await execution.wait()
        assert caught.value.result.stdout.startswith("0\n")
        assert not caught.value.result.complete
        assert not kernel.is_alive
        proxy.accept()
    assert jupyter.kernels() == before  # it is deleted all the same


@pytest.mark.once("uvloop")
async def test_a_timeout_ends_a_call_while_the_server_is_away(proxy, through):
    async with through.open_kernel(interrupt_timeout=0.5) as kernel:
        execution = await kernel.submit(COUNTING.format(n=10_000), timeout=1)
        await first_output(execution)
        proxy.refuse()
        with anyio.fail_after(10), pytest.raises(ExecutionTimeoutError) as caught:
            await execution.wait()
        assert not caught.value.settled
        proxy.accept()
        with pytest.raises((ExecutionTimeoutError, KernelRestartedError)):
            await kernel.restart()
            raise KernelRestartedError("as it should")


@pytest.mark.once("asyncio")
async def test_a_killed_kernel_ends_calls_soon_and_what_was_meant_for_it_never_runs(jupyter, server, tmp_path):
    proof = tmp_path / "ran"
    async with server.open_kernel() as kernel:
        running = await kernel.submit(COUNTING.format(n=10_000))
        queued = await kernel.submit(f"open({str(proof)!r}, 'w')")
        await first_output(running)
        os.kill(jupyter.kernel_process(kernel.id), signal.SIGKILL)
        start = time.monotonic()
        for execution in (running, queued):
            with pytest.raises(KernelRestartedError) as caught:
                await execution.wait()
        assert time.monotonic() - start < KNOWN_WITHIN
        assert running.result.stdout.startswith("0\n")
        assert caught.value.result is queued.result
        assert await kernel.evaluate("1 + 1") == 2  # in the next process, which the server has started
        # And of a kernel that has nothing to do: what is sent before anybody knows.
        os.kill(jupyter.kernel_process(kernel.id), signal.SIGKILL)
        with pytest.raises(KernelRestartedError):
            await kernel.execute(f"open({str(proof)!r}, 'w')")
        assert await kernel.evaluate("1 + 1") == 2
    assert not proof.exists()


@pytest.mark.once("trio")
async def test_a_kernel_that_somebody_restarts_or_deletes_ends_calls_at_once(jupyter, server):
    async with server.open_kernel() as kernel, kernel.events() as events:
        execution = await kernel.submit(COUNTING.format(n=10_000))
        await first_output(execution)
        await anyio.to_thread.run_sync(jupyter.ask, "POST", f"api/kernels/{kernel.id}/restart")
        with anyio.fail_after(KNOWN_WITHIN), pytest.raises(KernelRestartedError):
            await execution.wait()
        execution = await kernel.submit(COUNTING.format(n=10_000))
        await first_output(execution)
        await anyio.to_thread.run_sync(jupyter.ask, "DELETE", f"api/kernels/{kernel.id}")
        with anyio.fail_after(KNOWN_WITHIN), pytest.raises(KernelDiedError):
            await execution.wait()
        with pytest.raises(KernelDiedError):
            await kernel.execute("1")
        assert [(await events.receive()).kind for _ in range(3)] == ["restarting", "restarted", "died"]
        old = kernel.id
        await kernel.restart()  # the server does not know it any more: it gets a new one
        assert kernel.id != old
        assert await kernel.evaluate("1 + 1") == 2


@pytest.mark.once("asyncio")
async def test_a_server_that_is_killed_and_started_again_has_no_kernel_any_more(tmp_path):
    with jupyter_server(tmp_path) as first:
        async with open_server(first.url, token=TOKEN) as server, server.open_kernel() as kernel:
            execution = await kernel.submit(COUNTING.format(n=10_000))
            await first_output(execution)
            os.kill(first.process.pid, signal.SIGKILL)
            await anyio.to_thread.run_sync(first.process.wait)
            with jupyter_server(tmp_path, port=first.port), anyio.fail_after(30), pytest.raises(KernelDiedError):
                await execution.wait()


@pytest.mark.once("uvloop")
@pytest.mark.parametrize("executes", [250, pytest.param(1000, marks=pytest.mark.heavy)])
async def test_cuts_in_the_middle_of_many_executes_lose_and_repeat_nothing(proxy, through, executes):
    async with through.open_kernel() as kernel:
        await kernel.execute("ran = []")
        ended = []

        async def run(n):
            try:
                result = await kernel.execute(f"ran.append({n}); print({n}); {n}")
            except OutcomeUnknownError:
                ended.append((n, "unknown"))
            else:
                assert (result.stdout, result.data["text/plain"]) == (f"{n}\n", str(n))
                ended.append((n, "ok"))

        async with anyio.create_task_group() as tasks:
            for n in range(executes):
                tasks.start_soon(run, n)
            for done in range(executes // 10, executes, executes // 5):
                while len(ended) < done:
                    await anyio.sleep(0.01)  # there is no other sign of it
                proxy.cut()
        ran = await kernel.evaluate("ran")
        assert len(ended) == executes
        assert len(set(ran)) == len(ran)
        assert {n for n, how in ended if how == "ok"} <= set(ran)
        assert len([n for n, how in ended if how == "unknown"]) <= 5


@pytest.mark.heavy
async def test_a_request_that_is_lost_beyond_the_server_is_told(legacy, monkeypatch):
    """As when a server's own connection to a gateway breaks, of which nothing shows here."""
    send = websocket.WebSocketTransport.send

    def send_most(self, message):
        if message.content.get("code") != "'lost'":
            send(self, message)

    monkeypatch.setattr(websocket.WebSocketTransport, "send", send_most)
    monkeypatch.setattr(mending, "FIRST_DOUBT", 0.2)
    async with open_server(legacy.url, token=TOKEN) as server, server.open_kernel() as kernel:
        with anyio.fail_after(10), pytest.raises(OutcomeUnknownError):
            await kernel.execute("'lost'")
        slow = await kernel.execute("import time; time.sleep(1); 'slow'")  # doubted more than once
        assert (slow.data["text/plain"], slow.complete) == ("'slow'", True)
