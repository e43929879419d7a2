"""Promise 2: every output to its caller, in order, none lost by the client. On a real kernel."""

from __future__ import annotations

import time

import anyio
import nbformat
import pytest

from anykernel import ArgumentError, DisplayData, ExecuteResult, Stream, open_kernel


async def test_200_tasks_each_get_their_own_reply_and_output():
    results = {}

    async def run(kernel, i):
        results[i] = await kernel.execute(f"print('out {i}')\n{i} * 1000")

    async with open_kernel() as kernel, anyio.create_task_group() as tasks:
        for i in range(200):
            tasks.start_soon(run, kernel, i)
    assert {i: (r.stdout, r.data["text/plain"], r.complete) for i, r in results.items()} == {
        i: (f"out {i}\n", str(i * 1000), True) for i in range(200)
    }
    assert sorted(r.execution_count for r in results.values()) == list(range(1, 201))


@pytest.mark.once("uvloop")
async def test_20000_outputs_arrive_in_order_though_the_event_loop_is_blocked():
    async with open_kernel(output_limit=2**30) as kernel:
        execution = await kernel.submit("for i in range(20000): display({'text/plain': str(i)}, raw=True)")
        await anyio.wait_all_tasks_blocked()
        time.sleep(3)
        result = await execution.wait()
        assert [o.data["text/plain"] for o in result.outputs] == [str(i) for i in range(20000)]
        assert result.complete
        assert not result.truncated


async def test_outputs_are_typed_and_in_order(kernel):
    code = """
import sys
print("to stdout")
print("to stderr", file=sys.stderr, flush=True)
from IPython.display import Image, HTML
display(HTML("<b>bold</b>"))
display(Image(data=b"\\x89PNG\\r\\n\\x1a\\n", format="png"))
print("\\x1b[31mred\\x1b[0m 10%\\r20%")
{"a": 1}
"""
    result = await kernel.execute(code, user_expressions={"two": "1 + 1", "bad": "1 / 0"})
    assert result.stdout == "to stdout\n\x1b[31mred\x1b[0m 10%\r20%\n"
    assert result.stderr == "to stderr\n"
    displays = [o for o in result.outputs if isinstance(o, DisplayData)]
    assert displays[0].data["text/html"] == "<b>bold</b>"
    assert result.images == [b"\x89PNG\r\n\x1a\n"]
    assert isinstance(result.outputs[-1], ExecuteResult)
    assert result.data["text/plain"] == "{'a': 1}"
    assert result.text.endswith("20% 10%\n{'a': 1}")  # as a terminal shows it
    assert "\x1b" not in result.text
    assert result.user_expressions["two"]["data"]["text/plain"] == "2"
    assert result.user_expressions["bad"]["ename"] == "ZeroDivisionError"

    failed = await kernel.execute("print('before')\n1 / 0")
    assert (failed.status, failed.error.ename) == ("error", "ZeroDivisionError")
    assert failed.text.startswith("before\n")
    assert "ZeroDivisionError: division by zero" in failed.text

    cell = nbformat.v4.new_code_cell("code", outputs=result.to_nbformat() + failed.to_nbformat())
    nbformat.validate(nbformat.v4.new_notebook(cells=[cell]))


async def test_clear_output_and_updates_are_carried_out_across_cells(kernel):
    result = await kernel.execute("""
from IPython.display import clear_output
print("gone"); clear_output(); print("kept")
clear_output(wait=True)
print("instead")
""")
    assert result.stdout == "instead\n"
    first = await kernel.execute("handle = display('old', display_id='d')")
    other = await kernel.execute("display('old', display_id='d');")
    await kernel.execute("handle.update('new')")
    assert [r.outputs[0].data["text/plain"] for r in (first, other)] == ["'new'", "'new'"]
    last = await kernel.execute("display('again', display_id='d'); display('at last', display_id='d');")
    shown = [output.data["text/plain"] for r in (first, other, last) for output in r.outputs]
    assert shown == ["'at last'"] * 4


async def test_output_beyond_the_limit_is_dropped_from_the_middle_and_the_result_says_so():
    async with open_kernel(output_limit=100_000) as kernel:
        result = await kernel.execute("for i in range(20000): print(f'{i:09}')")
        assert result.truncated
        assert result.complete
        assert 90_000 < len(result.stdout) <= 100_000
        assert result.stdout.startswith("000000000\n000000001\n")
        assert result.stdout.endswith("000019998\n000019999\n")
        result = await kernel.execute("print('x' * 10_000_000)")
        assert result.truncated
        assert len(result.stdout) <= 100_000
        assert not (await kernel.execute("print('small')")).truncated


@pytest.mark.once("trio")
async def test_100_mb_in_one_output_and_10_mb_of_code():
    async with open_kernel() as kernel:
        result = await kernel.execute("print('x' * 100_000_000)")
        assert result.truncated
        assert len(result.stdout) == 64 * 2**20
        text = "y" * 10_000_000
        result = await kernel.execute(f"text = '{text}'\nlen(text)")
        assert result.data["text/plain"] == "10000000"


async def test_lone_surrogates_and_nan_neither_hang_nor_lose_what_follows(kernel):
    result = await kernel.execute("'\\ud800'")
    assert result.data["text/plain"] == r"'\ud800'"
    for call in (
        kernel.execute("text = '\ud800'"),  # as code, kernels do not survive it: ipykernel sends no reply, xeus hangs
        kernel.execute("1", user_expressions={"a": "'\ud800'"}),
        kernel.evaluate("'\ud800'"),
        kernel.history("search", pattern="\ud800"),
    ):
        with pytest.raises(ArgumentError, match="half a surrogate pair"):
            await call
    result = await kernel.execute("display({'application/json': {'x': float('nan')}}, raw=True); 1")
    assert result.data["text/plain"] == "1"
    assert (await kernel.execute("1 + 1")).data["text/plain"] == "2"


async def test_a_consumer_that_keeps_up_loses_no_large_output():
    code = "for i in range(60): display({'text/plain': f'{i}' + 'x' * 2**20}, raw=True)"
    async with open_kernel(output_limit=16 * 2**20) as kernel, kernel.stream(code) as execution:
        assert [int(output.data["text/plain"].rstrip("x")) async for output in execution] == list(range(60))


async def test_a_slow_consumer_holds_nobody_up(kernel):
    async with kernel.stream("for i in range(1000): print(i)") as slow:
        async for _ in slow:
            break
        # The consumer has taken one piece and does no more, and yet:
        assert (await kernel.execute("1 + 1")).data["text/plain"] == "2"
        assert (await slow.wait()).stdout == "".join(f"{i}\n" for i in range(1000))


async def test_late_output_reaches_messages_if_not_its_execution(kernel):
    code = """
import threading, time
def late():
    gate.wait()
    print("late")
gate = threading.Event()
threading.Thread(target=late).start()
"""
    async with kernel.messages("stream") as stream:
        first = await kernel.execute(code)
        second = await kernel.execute("gate.set(); time.sleep(0.2)")
        message = await stream.receive()
        assert message.content["text"].strip() == "late"
        assert message.parent_id in (first.msg_id, second.msg_id)


async def test_on_output_and_iteration_see_every_piece(kernel):
    seen = []
    result = await kernel.execute("for i in range(5): print(i, flush=True)\n'end'", on_output=seen.append)
    assert "".join(o.text for o in seen if isinstance(o, Stream)) == "0\n1\n2\n3\n4\n"
    assert isinstance(seen[-1], ExecuteResult)
    execution = await kernel.submit("for i in range(5): print(i, flush=True)\n'end'")
    pieces = [o async for o in execution]
    assert "".join(o.text for o in pieces if isinstance(o, Stream)) == "0\n1\n2\n3\n4\n"
    assert execution.result.stdout == result.stdout
