"""Widgets are followed as a front end does."""

from __future__ import annotations

import pytest

from anykernel import ConnectionClosedError, KernelDiedError, Message, open_kernel

from ..helpers.scripted import scripted_kernel
from ..helpers.zoo import each, installed

VIEW = "application/vnd.jupyter.widget-view+json"


async def test_widgets_of_a_real_kernel_are_followed_with_buffers_and_the_models_within_them(kernel):
    async with kernel.widgets() as widgets:
        code = """
from ipywidgets import HBox, Image, IntSlider, link
slider = IntSlider(3, description="n")
image = Image(value=b"\\x00\\xff" * 1000, format="raw")
box = HBox([slider, image])
box
"""
        result = await kernel.execute(code, check=True)
        box = widgets[result.data[VIEW]["model_id"]]
        assert (box.model_name, box.model_module) == ("HBoxModel", "@jupyter-widgets/controls")
        slider, image = (widgets[reference] for reference in box.state["children"])
        assert (slider.model_name, slider.state["value"]) == ("IntSliderModel", 3)
        assert widgets[slider.state["layout"]].model_name == "LayoutModel"
        assert image.state["value"] == b"\x00\xff" * 1000
        await kernel.execute("slider.value = 7; image.value = b'new'", check=True)
        assert (slider.state["value"], image.state["value"]) == (7, b"new")
        saved = widgets.state()
        assert (saved["version_major"], saved["version_minor"]) == (2, 0)
        assert set(saved["state"]) == set(widgets)
        assert saved["state"][image.model_id]["buffers"] == [{"path": ["value"], "data": "bmV3", "encoding": "base64"}]
        await kernel.execute("slider.close()", check=True)
        assert slider.model_id not in widgets
        with pytest.raises(KeyError):
            widgets[slider.model_id]
    await kernel.execute("image.value = b'unseen'", check=True)
    assert image.state["value"] == b"new"
    assert "IntSliderModel" not in repr(widgets)


async def test_output_widgets_capture_what_they_would_in_a_front_end_and_the_kernel_is_told(kernel):
    async with kernel.widgets() as widgets:
        code = """
from ipywidgets import Output
from IPython.display import clear_output, display
one, two = Output(), Output()
print("cell")
with one:
    print("in one")
    with two:
        print("in two")
        display("shown")
    print("again")
    clear_output(wait=True)
    print("after clearing")
print("cell again")
with two:
    1 / 0
"""
        result = await kernel.execute(code, check=True)
        one, two = [widgets[model_id] for model_id in await kernel.evaluate("one.model_id, two.model_id")]
        assert one.outputs() == [{"output_type": "stream", "name": "stdout", "text": "after clearing\n"}]
        assert [output["output_type"] for output in two.outputs()] == ["stream", "display_data", "error"]
        assert two.outputs()[2]["ename"] == "ZeroDivisionError"
        assert result.to_nbformat(captured=False) == [
            {"output_type": "stream", "name": "stdout", "text": "cell\ncell again\n"}
        ]
        assert "in two" in result.stdout
        assert await kernel.evaluate("one.outputs[0]['text']") == "after clearing\n"
        assert await kernel.evaluate("[output['output_type'] for output in two.outputs]") == [
            "stream", "display_data", "error",
        ]  # fmt: skip
        await kernel.execute("one.append_stdout('appended')", check=True)
        assert "".join(output["text"] for output in one.outputs()) == "after clearing\nappended"
        assert widgets.state()["state"][one.model_id]["state"]["outputs"] == one.outputs()
        await kernel.execute("one.outputs = ()", check=True)
        assert one.outputs() == []


async def test_a_thread_that_goes_on_after_its_cell_is_captured(kernel):
    code = """
import threading
from ipywidgets import Output
out, gate = Output(), threading.Event()
def work():
    gate.wait()
    with out:
        print("from the thread", flush=True)
"""
    async with kernel.widgets() as widgets, kernel.messages("stream") as messages:
        await kernel.execute(code + "thread = threading.Thread(target=work); thread.start()", check=True)
        await kernel.execute("gate.set(); thread.join()", check=True)
        assert (await messages.receive()).content["text"] == "from the thread\n"
        out = widgets[await kernel.evaluate("out.model_id")]
        assert out.outputs()[0]["text"] == "from the thread\n"


async def test_a_restart_ends_all_widgets_and_after_a_death_they_can_be_looked_at():
    async with open_kernel() as kernel, kernel.widgets() as widgets:
        await kernel.execute("from ipywidgets import Text\ntext = Text('old')", check=True)
        assert {widget.model_name for widget in widgets.values()} >= {"TextModel"}
        await kernel.restart()
        assert len(widgets) == 0
        await kernel.execute("from ipywidgets import Text\ntext = Text('new')", check=True)
        (text,) = (widget for widget in widgets.values() if widget.model_name == "TextModel")
        with pytest.raises(KernelDiedError):
            await kernel.execute("import os; os._exit(3)")
        assert widgets.state()["state"][text.model_id]["state"]["value"] == "new"
        with pytest.raises(KernelDiedError):
            async with kernel.widgets():
                pass


@pytest.mark.parametrize("name", each(["xeus-python", "async-kernel", "ipykernel 6"]))
async def test_other_kernels_have_widgets_too(name):
    async with installed(name).open() as kernel, kernel.widgets() as widgets:
        tried = await kernel.execute("from ipywidgets import Output, Text")
        if not tried.ok:
            pytest.skip(f"{name} has no ipywidgets: {tried.error.evalue}")
        await kernel.execute("text = Text('there')\nout = Output()\nwith out: print('captured')", check=True)
        found = {widget.model_name: widget for widget in widgets.values()}
        assert found["TextModel"].state["value"] == "there"
        assert found["OutputModel"].outputs()[0]["text"] == "captured\n"


def comm(comm_id, name, **state):
    data = {"state": {"_model_name": name, "_model_module": "@jupyter-widgets/output", **state}, "buffer_paths": []}
    return {"comm_id": comm_id, "target_name": "jupyter.widget", "data": data}


async def test_the_kernel_is_told_once_for_each_request_and_only_of_our_own():
    async with scripted_kernel() as (kernel, script), kernel.widgets() as widgets:
        execution = await kernel.submit("x")
        request = await script.next()
        script.start(request)
        for name in ("one", "two"):
            script.publish(request, "comm_open", **comm(name, "OutputModel", msg_id=""))
        for number in range(3):
            script.publish(
                request, "comm_msg", comm_id="one", data={"method": "update", "state": {"msg_id": request.msg_id}}
            )
            script.publish(request, "stream", name="stdout", text=f"{number}\n")
            script.publish(request, "comm_msg", comm_id="one", data={"method": "update", "state": {"msg_id": ""}})
        assert script.nothing_sent()
        script.finish(request)
        await execution.wait()
        said = await script.receive()
        assert (said.msg_type, said.content["comm_id"]) == ("comm_msg", "one")
        assert said.content["data"]["state"]["outputs"][0]["text"] == "0\n1\n2\n"
        script.status(request, "idle")
        # Another client's output: followed, and left to that client.
        others = {**request.header, "session": "another", "msg_id": "another"}
        script.publish(None, "comm_msg", comm_id="two", data={"method": "update", "state": {"msg_id": "another"}})
        theirs = Message("shell", others)
        script.publish(theirs, "stream", name="stdout", text="theirs")
        script.status(theirs, "idle")
        execution = await kernel.submit("y")
        request = await script.next()  # and no comm_msg before it
        script.start(request)
        script.finish(request)
        await execution.wait()
        assert widgets["two"].outputs()[0]["text"] == "theirs"


async def test_models_follow_output_limit():
    async with scripted_kernel(output_limit=50_000) as (kernel, script), kernel.widgets() as widgets:
        execution = await kernel.submit("x")
        request = await script.next()
        script.start(request)
        for number in range(20):
            script.publish(request, "comm_open", **comm(str(number), "Model", data="x" * 10_000))
        script.finish(request)
        await execution.wait()
        assert widgets.dropped > 0
        assert 0 < len(widgets) < 10


async def test_the_kernels_block_ends_the_following():
    async with scripted_kernel() as (kernel, _):
        pass
    with pytest.raises(ConnectionClosedError):
        async with kernel.widgets():
            pass
