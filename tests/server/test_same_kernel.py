"""Everything that a kernel does, the same over ZMQ and behind each kind of server."""

from __future__ import annotations

from contextlib import asynccontextmanager

import anyio
import pytest

from anykernel import (
    ArgumentError,
    ExecutionError,
    ExecutionTimeoutError,
    KernelRestartedError,
    StdinError,
    UnsupportedError,
    open_kernel,
    open_server,
)

from .servers import TOKEN

# By default the most usual server only, on every event loop. Not yet a server behind whose `--gateway-url` is another: there,
# questions that are asked while nothing runs may stay without an answer.
PLACES = [
    "jupyter",
    *(pytest.param(name, marks=pytest.mark.heavy) for name in ("zmq", "legacy", "gateway", "enterprise")),
]


@pytest.fixture(scope="module", params=PLACES)
def place(request, anyio_backend):
    """Where the kernel is to run: a running server, or here (None)."""
    return None if request.param == "zmq" else request.getfixturevalue(request.param)


@asynccontextmanager
async def open_at(place):
    if place is None:
        async with open_kernel() as kernel:
            yield kernel
        return
    async with open_server(place.url, token=TOKEN) as server, server.open_kernel() as kernel:
        yield kernel


@pytest.fixture(scope="module")
async def kernel(place, anyio_backend):
    """A kernel at each place, on each event loop; each test leaves it free, and alive."""
    async with open_at(place) as kernel:
        yield kernel


@pytest.fixture
async def own_kernel(place):
    """One for a test that leaves something behind in it."""
    async with open_at(place) as kernel:
        yield kernel


@pytest.fixture
def is_legacy(request):
    return "legacy" in request.node.name or "behind" in request.node.name


async def test_each_of_many_at_once_gets_its_own_output_and_reply(kernel):
    async def run(n):
        result = await kernel.execute(f"print({n}); {n} * 2")
        assert (result.stdout, result.data["text/plain"], result.complete) == (f"{n}\n", str(n * 2), True)

    async with anyio.create_task_group() as tasks:
        for n in range(40):
            tasks.start_soon(run, n)


async def test_outputs_come_as_they_are_made(kernel):
    seen = []
    async with kernel.stream("for i in range(3): print(i, flush=True)\n1 / 0") as execution:
        async for output in execution:
            seen.append(output.text)
    assert "".join(seen).startswith("0\n1\n2\n")
    assert execution.result.error.ename == "ZeroDivisionError"


async def test_an_error_is_told_and_is_raised_on_request(kernel):
    with pytest.raises(ExecutionError, match="ValueError: no"):
        await kernel.execute("raise ValueError('no')", check=True)


async def test_timed_out_code_is_stopped_and_nothing_else(kernel):
    after = []

    async def run_after():
        after.append(await kernel.evaluate("6 * 7"))

    async with anyio.create_task_group() as tasks:
        with pytest.raises(ExecutionTimeoutError) as caught:
            tasks.start_soon(run_after)
            await kernel.execute("print('started', flush=True)\nwhile True: pass", timeout=0.7)
    assert caught.value.settled
    assert caught.value.result.stdout == "started\n" or caught.value.result.status == "aborted"
    assert after == [42]


async def test_a_cancelled_caller_takes_its_code_with_it(kernel):
    code = "import time\ntry:\n    print('in', flush=True)\n    time.sleep(30)\nfinally:\n    stopped = True"
    async with anyio.create_task_group() as tasks:
        async with kernel.messages("stream") as outputs:
            tasks.start_soon(kernel.execute, code)
            await outputs.receive()
        tasks.cancel_scope.cancel()
    assert await kernel.evaluate("stopped") is True


async def test_input_is_asked_of_the_caller(kernel):
    result = await kernel.execute("input('name: ')", stdin=lambda prompt, password: f"{prompt}Ada {password}")
    assert result.data["text/plain"] == "'name: Ada False'"
    with pytest.raises((StdinError, ExecutionError)):
        await kernel.execute("input()", check=True)


async def test_a_subshell_works_beside_the_main_shell(kernel):
    if not kernel.supports_subshells:  # ipykernel 6, which an Enterprise Gateway's environment has
        with pytest.raises(UnsupportedError):
            async with kernel.subshell():
                pass
        return
    long = await kernel.submit("import time\nwhile True: time.sleep(0.01)")
    async with kernel.subshell() as subshell:
        assert await subshell.evaluate("1 + 1") == 2
        with pytest.raises(ExecutionTimeoutError) as caught:
            await subshell.execute("while True: pass", timeout=0.5)
        assert caught.value.settled
        assert long.state == "running"
    await long.cancel()
    assert long.state == "settled"


async def test_values_travel_both_ways_in_binary(kernel, is_legacy):
    if is_legacy:
        # Behind a server's --gateway-url, a message with buffers would silence the connection.
        with pytest.raises(UnsupportedError, match="subprotocol"):
            await kernel.push(x=1)
        return
    np = pytest.importorskip("numpy")
    await kernel.push(array=np.arange(1000), table={"a": [1, (2.5, b"raw")]})
    array, table = await kernel.pull("array", "table")
    assert array.sum() == 499_500
    assert table == {"a": [1, (2.5, b"raw")]}
    assert await kernel.call("sorted", [3, 1, 2]) == [1, 2, 3]


@pytest.mark.once("uvloop")
async def test_what_is_larger_than_a_server_takes_at_once_arrives(kernel, is_legacy, request):
    if "behind" in request.node.name:
        return  # what is too much between the two servers: see the tests of losses
    if not is_legacy:
        np = pytest.importorskip("numpy")
        big = np.arange(3_000_000)  # 24 MB
        await kernel.push(big=big)
        assert await kernel.evaluate("int(big.sum())") == int(big.sum())
        assert ((await kernel.pull("big")) == big).all()
    result = await kernel.execute("display({'text/plain': 'x' * 12_000_000}, raw=True)")
    assert len(result.outputs[0].data["text/plain"]) == 12_000_000


async def test_a_comm_carries_messages_both_ways(kernel, is_legacy):
    code = """
def echo(comm, opening):
    comm.on_msg(lambda message: comm.send(message["content"]["data"]))
__import__("comm").get_comm_manager().register_target("echo", echo)
"""
    await kernel.execute(code, check=True)
    async with kernel.open_comm("echo") as comm:
        await comm.send({"x": [1]})
        assert (await comm.receive()).content["data"] == {"x": [1]}
    with pytest.raises(UnsupportedError):
        async with kernel.open_comm("unknown"):
            pass


async def test_widgets_are_followed_with_their_buffers(kernel):
    code = "from ipywidgets import Image, Output\nimage = Image(value=b'\\x00\\xff')\nout = Output()\nwith out: print('captured')"
    async with kernel.widgets() as widgets:
        result = await kernel.execute(code)
        if result.error is not None and result.error.ename == "ModuleNotFoundError":
            pytest.skip(f"the server's kernel lacks it: {result.error.evalue}")
        result.raise_for_error()
        found = {widget.model_name: widget for widget in widgets.values()}
        assert found["ImageModel"].state["value"] == b"\x00\xff"
        assert found["OutputModel"].outputs()[0]["text"] == "captured\n"
        assert await kernel.evaluate("out.outputs[0]['text']") == "captured\n"


async def test_questions_are_answered(kernel):
    await kernel.execute("numbers = [1, 2, 3]")
    assert (await kernel.complete("numbers.rev")).matches == ["reverse"]
    assert (await kernel.inspect("numbers")).found
    assert (await kernel.is_complete("for x in y:")).status == "incomplete"
    assert (await kernel.history("tail", n=1)).history[0][2] == "numbers = [1, 2, 3]"
    assert (await kernel.usage()).kernel_memory > 2**20
    reply = await kernel.request("kernel_info_request", {}, channel="control", msg_id="mine")
    assert (reply.content["implementation"], reply.parent_id) == ("ipython", "mine")


@pytest.mark.once("trio")
async def test_the_debugger_works(own_kernel):
    code = "def double(a):\n    b = a * 2\n    return b\nprint(double(21))"
    async with own_kernel.debug_events() as events:
        await own_kernel.debug("initialize", {"adapterID": "python"})
        await own_kernel.debug("attach")
        cell = await own_kernel.debug("dumpCell", {"code": code})
        source = {"path": cell.body["sourcePath"]}
        await own_kernel.debug("setBreakpoints", {"source": source, "breakpoints": [{"line": 2}]})
        await own_kernel.debug("configurationDone")
        async with own_kernel.stream(code) as execution:
            async for event in events:
                if event["event"] == "stopped":
                    break
            thread = {"threadId": event["body"]["threadId"]}
            stack = await own_kernel.debug("stackTrace", thread)
            assert [frame["name"] for frame in stack.body["stackFrames"]] == ["double", "<module>"]
            await own_kernel.debug("continue", thread)
            assert (await execution.wait()).text.strip() == "42"
        await own_kernel.debug("disconnect")


@pytest.mark.once("asyncio")
async def test_thousands_of_displays_all_arrive_in_order(kernel):
    result = await kernel.execute("for i in range(4_000): display(i)")
    assert [output.text for output in result.outputs] == [str(i) for i in range(4_000)]
    assert result.complete
    assert result.incomplete_reason is None


async def test_bad_input_is_refused_before_anything_is_sent(kernel):
    with pytest.raises(ArgumentError):
        await kernel.execute(1)
    with pytest.raises(ArgumentError):
        await kernel.execute("1", timeout=-1)
    assert await kernel.evaluate("1") == 1


@pytest.mark.once("uvloop")
async def test_a_restart_ends_what_is_pending_and_goes_on_with_a_new_process(own_kernel):
    await own_kernel.execute("before = 1")
    execution = await own_kernel.submit("import time; time.sleep(30)")
    async with own_kernel.events() as events:
        await own_kernel.restart()
        assert [(await events.receive()).kind for _ in range(2)] == ["restarting", "restarted"]
    with pytest.raises(KernelRestartedError):
        await execution.wait()
    assert (await own_kernel.execute("before")).error.ename == "NameError"
    assert own_kernel.is_alive
