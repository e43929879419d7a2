"""Outputs that change: while the code runs, and after it has settled."""

from __future__ import annotations

import gc
import weakref

import anyio
import anyio.lowlevel
import pytest

from anykernel import DisplayData, KernelDiedError

from ..helpers.scripted import scripted_kernel


def display(script, request, msg_type, text, display_id):
    content = {"data": {"text/plain": text}, "metadata": {}, "transient": {"display_id": display_id}}
    script.publish(request, msg_type, **content)


def shown(outputs):
    return [output.text for output in outputs]


async def test_the_outputs_of_an_execution_are_watched_as_a_list_that_changes():
    async with scripted_kernel() as (kernel, script), anyio.create_task_group() as tasks:
        execution = await kernel.submit("code")
        request = await script.next()
        seen = []

        async def watch():
            async for outputs in execution.watch():
                seen.append(shown(outputs))

        async def sees(*texts):
            await anyio.wait_all_tasks_blocked()
            assert seen[-1] == list(texts)

        tasks.start_soon(watch)
        await sees()
        script.start(request)
        script.publish(request, "stream", name="stdout", text="a")
        await sees("a")
        script.publish(request, "stream", name="stdout", text="b")
        display(script, request, "display_data", "one", "id")
        await sees("ab", "one")
        display(script, None, "update_display_data", "two", "id")  # whoever caused it
        await sees("ab", "two")
        script.publish(request, "clear_output", wait=True)
        await sees("ab", "two")
        display(script, request, "display_data", "alone", "id")
        await sees("alone")
        script.publish(request, "clear_output", wait=False)
        await sees()
        count = len(seen)
        script.publish(request, "stream", name="stderr", text="e")
        script.finish(request)
        await execution.wait()
        await sees("e")
        assert len(seen) == count + 1
        tasks.cancel_scope.cancel()


async def test_watching_ends_with_the_execution_and_raises_what_it_raises():
    async with scripted_kernel() as (kernel, script):
        execution = await kernel.submit("code")
        script.start(await script.next())
        script.transport.gone.set()
        seen = []
        with pytest.raises(KernelDiedError):
            async for outputs in execution.watch():
                seen.append(outputs)
        assert seen == [[]]
        with pytest.raises(KernelDiedError):
            async for _ in execution.watch():
                pass


async def test_watching_can_be_left_early():
    async with scripted_kernel() as (kernel, script):
        execution = await kernel.submit("code")
        async for outputs in execution.watch():
            assert outputs == []
            break
        gc.collect()  # trio warns of async generators that were left
        script.finish(await script.next())
        assert (await execution.wait()).ok


async def test_an_iteration_that_is_given_up_keeps_nothing_and_disturbs_no_other():
    async with scripted_kernel() as (kernel, script):
        execution = await kernel.submit("code")
        request = await script.next()
        given_up, other = aiter(execution), aiter(execution)
        script.start(request)
        script.publish(request, "stream", name="stdout", text="a")
        assert [(await anext(given_up)).text, (await anext(other)).text] == ["a", "a"]
        gone = weakref.ref(given_up)
        del given_up
        gc.collect()
        assert gone() is None
        script.publish(request, "stream", name="stdout", text="b")
        assert (await anext(other)).text == "b"
        third = aiter(execution)
        script.publish(request, "stream", name="stdout", text="c")
        script.finish(request)
        assert [output.text async for output in other] == ["c"]
        assert "".join([output.text async for output in third]) == "abc"


async def test_a_busy_watcher_gets_many_changes_as_one():
    async with scripted_kernel() as (kernel, script):
        execution = await kernel.submit("code")
        request = await script.next()
        script.start(request)
        for _ in range(1000):
            script.publish(request, "stream", name="stdout", text="x")
        script.finish(request)
        seen = []
        async for outputs in execution.watch():
            seen.append(shown(outputs))
            await execution.wait()
        assert seen[-1] == ["x" * 1000]
        assert len(seen) <= 2


async def test_output_after_the_end_reaches_the_result_that_the_kernel_names():
    async with scripted_kernel() as (kernel, script):
        execution = await kernel.submit("code")
        request = await script.next()
        script.start(request)
        script.finish(request)
        result = await execution.wait()
        async with kernel.messages() as messages:
            script.publish(request, "stream", name="stdout", text="late")
            display(script, request, "display_data", "one", "id")
            display(script, None, "update_display_data", "two", "id")
            script.publish(None, "stream", name="stdout", text="orphan")
            script.publish(request, "stream")  # malformed; it is in `messages` all the same
            got = [await messages.receive() for _ in range(5)]
        assert [m.content.get("text") for m in got] == ["late", None, None, "orphan", None]
        assert shown(result.outputs) == ["late", "two"]
        assert kernel._link.connection.router.transport.dropped["content"] == 1


async def test_a_task_that_goes_on_after_its_cell_may_clear_what_it_showed(kernel):
    code = """
import asyncio
from IPython.display import clear_output

async def count():
    for i in range(3):
        await go.wait()
        clear_output(wait=True)
        print("step", i, flush=True)

go = asyncio.Event()
running = asyncio.ensure_future(count())
"""
    async with kernel.messages("stream") as messages:
        result = await kernel.execute(code, check=True)
        await kernel.execute("go.set()\nawait running", check=True)
        while "step 2" not in (await messages.receive()).content["text"]:
            pass
        assert result.text == "step 2\n"


async def test_threads_and_tasks_of_a_real_kernel_go_on_after_their_cell(kernel):
    code = """
import asyncio, threading
from IPython.display import display
gate = threading.Event()
handle = display("before", display_id=True)

def work():
    gate.wait()
    print("from the thread", flush=True)
    handle.update("after")

async def task():
    while not gate.is_set():
        await asyncio.sleep(0.01)
    print("from the task", flush=True)

threading.Thread(target=work).start()
running = asyncio.ensure_future(task())
"""
    result = await kernel.execute(code, check=True)
    assert shown(result.outputs) == ["'before'"]
    async with kernel.messages("stream", "update_display_data") as messages:
        opening = await kernel.execute("gate.set()", check=True)
        texts = ""
        updated = False
        with anyio.fail_after(10):
            while not ("thread" in texts and "task" in texts and updated):
                message = await messages.receive()
                texts += message.content.get("text", "")
                updated = updated or message.msg_type == "update_display_data"
    # Which of the cells it names is up to the kernel: ipykernel 7 the one that started a task, the latest for a thread.
    assert "from the thread" in result.stdout + opening.stdout
    assert "from the task" in result.stdout + opening.stdout
    assert result.outputs[0] == DisplayData({"text/plain": "'after'"}, {}, result.outputs[0].display_id)


async def test_a_widget_that_captures_output_clears_nothing_but_its_own(kernel):
    code = """
from ipywidgets import Output
print("header")
out = Output()
for i in range(3):
    with out:
        out.clear_output(wait=True)
        print("captured", i)
print("footer")
"""
    assert (await kernel.execute(code)).stdout == "header\ncaptured 2\nfooter\n"


async def test_a_progress_bar_looks_as_on_a_terminal(kernel):
    code = "from tqdm import tqdm\nfor _ in tqdm(range(50), desc='work', mininterval=0): pass\nprint('done')"
    result = await kernel.execute(code, check=True)
    assert result.stderr.count("\r") > 10
    first, last, *_ = result.text.splitlines()
    assert first.startswith("work: 100%|")
    assert "50/50" in first
    assert last == "done"


async def test_ipython_shows_a_result_as_the_other_kernel_would(kernel):
    from IPython.core.formatters import DisplayFormatter

    formatter = DisplayFormatter()
    code = "from IPython.display import HTML, display\nprint('text')\ndisplay(HTML('<b>bold</b>'))\n6 * 7"
    execution = await kernel.submit(code)
    result = await execution.wait()
    for shown in (result, execution):
        data, metadata = formatter.format(shown)
        assert (data["text/plain"], metadata) == (result.text, {})
        assert data["text/html"] == "<pre>text\n</pre>\n<div><b>bold</b></div>\n<pre>42</pre>"
    data, _ = formatter.format(await kernel.execute("6 * 7"))
    assert data == {"text/plain": "42"}
    data, _ = formatter.format(await kernel.execute("pass"))
    assert data["text/plain"].startswith("<Result ok")
