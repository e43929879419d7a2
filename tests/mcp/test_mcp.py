"""Kernels as tools of the Model Context Protocol, used by the SDK's own client."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time

import anyio
import mcp
import psutil
import pytest

from anykernel import ArgumentError
from anykernel.mcp import serve_http
from anykernel.mcp.tools import make_server


class Agent:
    """A client that calls tools, and reads what they give."""

    def __init__(self, client) -> None:
        self.client = client

    async def call(self, tool, **arguments):
        result = await self.client.call_tool(tool, arguments)
        return result.is_error, "\n".join(block.text for block in result.content if block.type == "text")

    async def run(self, code, **arguments):
        return await self.call("run_code", code=code, **arguments)


@pytest.fixture
async def agent():
    async with mcp.Client(make_server("python3", max_kernels=3, idle_timeout=None)) as client:
        yield Agent(client)


async def test_code_keeps_its_state_and_shows_text_errors_and_images(agent):
    assert await agent.run("x = 20\nprint('\\x1b[1mout\\r\\x1b[0mOUT')\nx + 1") == (False, "OUT\n21\n")
    failed, text = await agent.run("import json\ndef f():\n    json.loads('{')\nf()")
    assert failed
    assert "----> 4 f()" in text
    assert text.rstrip().splitlines()[-1].startswith("JSONDecodeError")
    assert "json/decoder.py" not in text
    png = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
    code = f"from IPython.display import Image, display; import base64; display(Image(base64.b64decode({png!r})))"
    result = await agent.client.call_tool("run_code", {"code": code})
    assert [(block.type, getattr(block, "mime_type", None)) for block in result.content] == [
        ("text", None),
        ("image", "image/png"),
    ]
    assert await agent.run("x") == (False, "20\n")


async def test_long_output_is_cut_and_says_how_to_read_the_rest(agent):
    failed, text = await agent.run("print('begin' + 'x' * 100_000 + 'end')")
    assert not failed
    assert len(text) < 21_000
    assert text.startswith("begin")
    assert text.endswith("end\n")
    name, offset = re.search(r"read_output\(id='([\w-]+)', offset=(\d+)\)", text).groups()
    _, rest = await agent.call("read_output", id=name, offset=int(offset), length=50)
    assert rest.startswith("x" * 50 + "\n[")


async def test_a_death_is_said_with_its_reason_and_the_next_call_gets_a_fresh_kernel(agent):
    await agent.run("x = 1")
    failed, text = await agent.run("import os; os._exit(3)")
    assert failed
    assert "exited with status 3" in text
    assert "state of kernel 'main' is lost" in text
    failed, text = await agent.run("x")
    assert "NameError" in text
    assert "is a fresh one, and the state of the one before is lost" in text
    assert await agent.run("1 + 1") == (False, "2\n")


async def test_code_in_the_background_is_waited_for_and_stopped_by_its_id(agent):
    _, text = await agent.run("import time; print('on', flush=True); time.sleep(600)", background=True)
    name = re.match(r"run-\d+", text)[0]
    _, text = await agent.call("list_variables")  # beside it
    assert "In" not in text
    failed, text = await agent.call("wait_for_code", id=name, timeout=0.5)
    assert (failed, "on\n" in text, "still runs" in text) == (False, True, True)
    failed, text = await agent.call("stop_code", id=name)
    assert (failed, "was stopped" in text) == (False, True)
    assert await agent.run("2") == (False, "2\n")
    assert (await agent.call("wait_for_code", id="nothing"))[0]


async def test_a_call_that_is_cancelled_stops_exactly_its_code(agent):
    await agent.run("done = []")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(agent.run, "import time\nfor _ in range(600): time.sleep(0.1)")
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    with anyio.fail_after(20):
        assert await agent.run("'free'") == (False, "'free'\n")


async def test_kernels_are_started_listed_restarted_and_stopped_by_name(agent):
    await agent.run("x = 1")
    assert (await agent.call("start_kernel", kernel="other"))[0] is False
    assert (await agent.run("x", kernel="other"))[0]
    assert [line.split(":")[0] for line in (await agent.call("list_kernels"))[1].splitlines()] == ["main", "other"]
    assert "its state is lost" in (await agent.call("restart_kernel"))[1]
    assert "NameError" in (await agent.run("x"))[1]
    assert (await agent.call("start_kernel", kernel="third"))[0] is False
    failed, text = await agent.run("1", kernel="fourth")
    assert (failed, "as many as may be" in text) == (True, True)
    assert (await agent.call("stop_kernel", kernel="third"))[0] is False
    failed, text = await agent.call("stop_kernel", kernel="third")
    assert (failed, "there are: main, other" in text) == (True, True)
    failed, text = await agent.call("start_kernel", kernel="r", spec="no-such-kernel")
    assert (failed, "installed are" in text) == (True, True)


async def test_names_are_looked_at_and_calls_at_once_keep_apart(agent):
    await agent.run("def f(a):\n    'Says what f does.'\nvalue = [1, 2]")
    assert "value: list = [1, 2]" in (await agent.call("list_variables"))[1]
    assert "Says what f does" in (await agent.call("inspect_name", name="f"))[1]
    assert (await agent.call("complete_code", code="val"))[1] == "value"
    results = {}

    async def run(n):
        results[n] = (await agent.run(f"print({n})"))[1]

    async with anyio.create_task_group() as tasks:
        for n in range(10):
            tasks.start_soon(run, n)
    assert results == {n: f"{n}\n" for n in range(10)}


def lives(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE  # which is ours to reap, as an orphan
    except psutil.NoSuchProcess:
        return False


def server(*arguments, **options):
    argv = [sys.executable, "-m", "anykernel._cli", "mcp", *arguments]
    return subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, **options)


@pytest.mark.parametrize("how", ["stdin closed", "SIGTERM"])
async def test_once_its_client_is_gone_it_and_its_kernels_are_gone_soon(how, anyio_backend_name):
    if anyio_backend_name == "trio":
        pytest.skip("it is the server's process that is looked at")
    params = mcp.StdioServerParameters(command=sys.executable, args=["-m", "anykernel._cli", "mcp"], env={**os.environ})
    me = psutil.Process()
    async with mcp.Client(mcp.stdio_client(params)) as client:
        agent = Agent(client)
        _, text = await agent.run("import os; os.getpid()")
        kernel = int(text)
        process = psutil.Process(kernel).parent()
        while process.ppid() != me.pid:
            process = process.parent()
        if how == "SIGTERM":
            process.send_signal(signal.SIGTERM)
            with anyio.fail_after(10):
                while lives(kernel):
                    await anyio.sleep(0.05)  # of other processes there is no event
            return
    with anyio.fail_after(10):
        while lives(kernel):
            await anyio.sleep(0.05)


async def test_over_http_a_token_is_needed_where_others_can_reach_it():
    with pytest.raises(ArgumentError, match="set a token"):
        serve_http("python3", host="0.0.0.0")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with server("--http", "--port", str(port), "--token", "secret", stderr=subprocess.DEVNULL) as process:
        try:
            answer = await anyio.to_thread.run_sync(_status_of, port)
            assert answer == 401
        finally:
            process.terminate()


def _status_of(port):
    import urllib.error
    import urllib.request

    deadline = time.monotonic() + 30
    while True:
        try:
            urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{port}/mcp", data=b"{}"), timeout=5)
        except urllib.error.HTTPError as exc:
            exc.close()
            return exc.code
        except (OSError, urllib.error.URLError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)  # until another process listens
