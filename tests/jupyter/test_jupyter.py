"""Programs for jupyter_client and conkernelclient run on this package's classes."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from queue import Empty

import anyio
import jupyter_client
import nbformat.v4 as v4
import pytest
from jupyter_client import AsyncMultiKernelManager
from jupyter_client.session import Session
from jupyter_core.utils import run_sync
from nbclient import NotebookClient

import anykernel.jupyter
from anykernel.jupyter import (
    AsyncKernelClient,
    AsyncKernelManager,
    BlockingKernelClient,
    ConKernelClient,
    ConKernelManager,
    DeadKernelError,
    JmsgQueues,
    KernelManager,
    reconnect,
    run_kernel,
)

# jupyter_client says that what it sends is not encrypted.
pytestmark = pytest.mark.filterwarnings("ignore:.*encrypt.*")


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"], scope="module")
def anyio_backend(request):
    """The event loops that those programs run on."""
    return "asyncio", {"use_uvloop": request.param}


@pytest.fixture(scope="module", autouse=True)
def their_loop():
    """jupyter_core keeps an event loop in each thread that its `run_sync` was used in."""

    async def nothing():
        pass

    run_sync(nothing)()


@pytest.fixture
async def shared(anyio_backend):
    async with run_kernel() as (km, kc):
        yield km, kc


@pytest.fixture
def kc(shared):
    return shared[1]


def test_the_classes_are_theirs_too():
    assert set(anykernel.jupyter.__all__) == {
        "AsyncKernelManager", "AsyncKernelClient", "KernelManager", "BlockingKernelClient", "ConKernelManager", "ConKernelClient",
    }  # fmt: skip
    for name in ("AsyncKernelManager", "AsyncKernelClient", "KernelManager", "BlockingKernelClient"):
        assert issubclass(getattr(anykernel.jupyter, name), getattr(jupyter_client, name))
    assert issubclass(ConKernelManager, AsyncKernelManager)
    assert issubclass(ConKernelClient, AsyncKernelClient)
    assert "jupyter_client" not in subprocess.run(
        [sys.executable, "-c", "import sys, anykernel; print(*sys.modules)"], capture_output=True, text=True, check=True
    ).stdout.split()  # fmt: skip


async def test_the_first_example_of_conkernelclient_runs():
    km = ConKernelManager(session=Session(key=b"x"))
    await km.start_kernel()
    kc = await km.client().start_channels()
    assert await kc.is_alive()
    r = await kc.execute("2+1", timeout=5, reply=True)
    assert r["content"]["status"] == "ok"
    a = kc.execute("x=2", reply=True)
    b = kc.execute("y=3", reply=True)
    r = await asyncio.wait_for(asyncio.gather(a, b), timeout=5)
    assert len(r) == 2
    assert await km.is_alive()
    kc.stop_channels()
    await km.shutdown_kernel()


async def test_replies_of_many_calls_at_once_are_their_own(kc):
    replies = await asyncio.gather(
        *(kc.execute("1", user_expressions={"n": str(n)}, reply=True) for n in range(200)),
    )
    assert [r["content"]["user_expressions"]["n"]["data"]["text/plain"] for r in replies] == [
        str(n) for n in range(200)
    ]
    assert len({r["parent_header"]["msg_id"] for r in replies}) == 200
    assert len(kc.running.inboxes["shell"]) == 0


async def test_what_no_call_waits_for_is_read_from_the_channels(kc):
    await kc.get_pubs()
    sent = kc.execute("print('read later')")
    assert (await kc.get_shell_msg(timeout=10))["parent_header"]["msg_id"] == sent
    streams = [m["content"]["text"] for m in await kc.get_pubs() if m["msg_type"] == "stream"]
    assert streams == ["read later\n"]
    with pytest.raises(Empty):
        await kc.get_shell_msg(timeout=0.05)


async def test_a_call_whose_time_is_over_or_that_is_cancelled_has_its_code_stopped(kc):
    with pytest.raises(TimeoutError):
        await kc.execute("while True: pass", reply=True, timeout=0.5)
    task = asyncio.ensure_future(kc.execute("while True: pass", reply=True))
    await anyio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await kc.eval("len", "abc") == 3


async def test_an_error_aborts_what_was_sent_behind_it(kc):
    failing, behind = kc.execute("1 / 0", reply=True), kc.execute("print('never')", reply=True)
    assert (await failing)["content"]["ename"] == "ZeroDivisionError"
    assert (await behind)["content"]["status"] == "aborted"
    failing, behind = kc.execute("1 / 0", reply=True, stop_on_error=False), kc.execute("2", reply=True)
    assert [(await one)["content"]["status"] for one in (failing, behind)] == ["error", "ok"]


async def test_runs_give_all_their_messages_and_answer_prompts(kc):
    messages = [m async for m in kc.run("print(input('name? '))", on_stdin=lambda message: "Ada")]
    assert {m["msg_type"] for m in messages} >= {"execute_reply", "status", "stream"}
    assert "Ada\n" in [m["content"].get("text") for m in messages]
    assert [o["output_type"] for o in await kc.exec_outs("print(1); 2")] == ["stream", "execute_result"]
    reply, outputs = await kc.exec_ok("3")
    assert reply["content"]["execution_count"] == next(
        m for m in outputs if m["msg_type"] == "execute_result"
    )["content"]["execution_count"]  # fmt: skip
    with pytest.raises(AssertionError):
        await kc.exec_ok("1 / 0")


async def test_every_verb_of_conkernelclient_is_answered(kc):
    matches, start = await kc.complete("import_nothing = 1; prin")
    assert ("print" in matches, start) == (True, 20)
    assert "Return the number of items" in await kc.inspect("len")
    assert await kc.check("for x in y:") == ("incomplete", "    ")
    assert (await kc.history())["msg_type"] == "history_reply"
    assert (await kc.cmd.kernel_info())["content"]["status"] == "ok"
    assert (await kc.ctl.kernel_info())["content"]["status"] == "ok"
    assert await kc.eval("1 / 0", call_=False) != "timeout"
    kc.xpush(pushed=[1, 2])
    assert await kc.retr("pushed", sidecar_=False) == [1, 2]
    assert await kc.eval_expr("sum(pushed)") == 3
    with pytest.raises(ValueError, match="ZeroDivisionError"):
        await kc.eval_expr("1 / 0")
    kc.xenv(A_WORD="word")
    assert await kc.eval_expr("__import__('os').environ['A_WORD']") == "word"
    assert (await kc.user_exprs({"a": "pushed[0]"}))["user_expressions"]["a"]["data"] == {"text/plain": "1"}


async def test_messages_come_to_on_jmsg_and_to_queues(kc):
    queues = JmsgQueues(kc, queues=("all",), merge={"shell": "all", "iopub": "all"})
    try:
        sent = kc.execute("print('queued')")
        found = []
        while "execute_reply" not in found:
            message = await queues.get("all", timeout=10)
            if message["parent_header"].get("msg_id") == sent:
                found.append(message["msg_type"])
        assert "stream" in found
    finally:
        kc.on_jmsg = None


async def test_jupyter_clients_interactive_execution_keeps_tasks_apart(shared):
    km, _ = shared
    kc = AsyncKernelClient(**km.get_connection_info(session=True), parent=km)
    kc.start_channels()
    try:
        await kc.wait_for_ready(timeout=20)

        async def run(n):
            texts = []
            reply = await kc.execute_interactive(
                "print(input('? '))", output_hook=lambda m: texts.append(m["content"].get("text")),
                stdin_hook=lambda m: kc.running.send("stdin", kc.session.msg("input_reply", {"value": str(n)}, parent=m["parent_header"])),
            )  # fmt: skip
            return reply["content"]["status"], [text for text in texts if text]

        assert await asyncio.gather(*map(run, range(3))) == [("ok", [f"{n}\n"]) for n in range(3)]
        assert (await kc.is_complete("1", reply=True))["content"]["status"] == "complete"
        with pytest.raises(TimeoutError):
            await kc.execute_interactive("while True: pass", timeout=0.5)
        assert (await kc.execute("1", reply=True, timeout=10))["content"]["status"] == "ok"
    finally:
        await kc.astop_channels()


async def test_a_death_ends_what_waits_and_is_told():
    async with run_kernel() as (_, kc):
        told = []
        kc.on_dead = told.append
        with pytest.raises(DeadKernelError):
            await kc.execute("import os; os._exit(1)", reply=True)
        with pytest.raises(DeadKernelError):
            await kc.get_shell_msg()
        with pytest.raises(DeadKernelError):
            kc.execute("1")
        assert told[0]["content"]["execution_state"] == "dead"
        assert not await kc.is_alive()


async def test_a_restart_ends_what_waits_and_the_client_goes_on():
    async with run_kernel() as (km, kc):
        waiting = asyncio.ensure_future(kc.execute("import time; time.sleep(60)", reply=True))
        await anyio.sleep(0)
        await km.restart_kernel(now=True)
        with pytest.raises(ConnectionError):
            await waiting
        await kc.wait_for_ready(timeout=20)
        assert (await kc.execute("1", reply=True))["content"]["execution_count"] == 1
        new = await reconnect(km, kc)
        try:
            assert (await new.execute("1", reply=True))["content"]["execution_count"] == 1
        finally:
            await new.astop_channels()


async def test_nbclient_runs_notebooks_on_it():
    cells = [
        v4.new_code_cell("print('out'); 6 * 7"),
        v4.new_code_cell("1 / 0", metadata={"tags": ["raises-exception"]}),
    ]
    done = await NotebookClient(v4.new_notebook(cells=cells), kernel_manager_class=AsyncKernelManager).async_execute()
    assert [output["output_type"] for output in done.cells[0].outputs] == ["stream", "execute_result"]
    assert done.cells[1].outputs[0]["ename"] == "ZeroDivisionError"


async def test_a_multi_kernel_manager_starts_it():
    many = AsyncMultiKernelManager(kernel_manager_class="anykernel.jupyter.AsyncKernelManager", shared_context=False)
    kernel_id = await many.start_kernel()
    kc = many.get_kernel(kernel_id).client()
    assert isinstance(kc, AsyncKernelClient)
    kc.start_channels()
    try:
        await kc.wait_for_ready(timeout=20)
        assert (await kc.execute("1", reply=True))["content"]["status"] == "ok"
    finally:
        await kc.astop_channels()
        await many.shutdown_kernel(kernel_id, now=True)


def test_the_blocking_client_is_for_many_threads():
    km = KernelManager()
    km.start_kernel()
    kc = km.client()
    assert isinstance(kc, BlockingKernelClient)
    kc.start_channels()
    try:
        kc.wait_for_ready(timeout=20)
        counts = {}

        def run(n):
            reply = kc.execute("1", user_expressions={"n": str(n)}, reply=True, timeout=20)
            counts[n] = reply["content"]["user_expressions"]["n"]["data"]["text/plain"]

        threads = [threading.Thread(target=run, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert counts == {n: str(n) for n in range(8)}
        texts = []
        kc.execute_interactive("print('shown')", output_hook=lambda m: texts.append(m["content"].get("text")))
        assert "shown\n" in texts
        sent = kc.execute("2")
        assert kc.get_shell_msg(timeout=10)["parent_header"]["msg_id"] == sent
        with pytest.raises(Empty):
            kc.get_shell_msg(timeout=0.05)
        os.kill(km.provisioner.pid, signal.SIGINT)
        km.restart_kernel(now=True)
        kc.wait_for_ready(timeout=20)
        assert kc.execute("1", reply=True)["content"]["execution_count"] == 1
        assert kc.is_alive()
    finally:
        kc.stop_channels()
        km.shutdown_kernel(now=True)


def test_what_is_not_started_says_so():
    kc = ConKernelClient()
    with pytest.raises(RuntimeError, match="start_channels"):
        kc.execute("1")
    with pytest.raises(NotImplementedError, match="subshell"):
        kc.execute("1", subshell_id="x")
