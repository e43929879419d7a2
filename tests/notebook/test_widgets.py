"""Widgets are in an executed notebook as a front end would leave them."""

from __future__ import annotations

import copy
from contextlib import suppress
from types import SimpleNamespace

import nbformat
from nbclient import NotebookClient
from nbclient.client import CellExecutionComplete
from nbformat.v4 import new_code_cell, new_notebook, new_output

from anykernel import run_notebook

WIDGET_STATE = "application/vnd.jupyter.widget-state+json"
CELLS = [
    "from ipywidgets import HBox, Image, IntSlider, Output\nfrom IPython.display import clear_output, display",
    "slider = IntSlider(3)\nHBox([slider, Image(value=b'\\x00\\xff', format='raw')])",
    "slider.value = 8",
    "out, inner = Output(), Output()\nprint('before')\nwith out:\n    print('one')\n    print('two')\nprint('behind')\nout",
    "with out:\n    display('shown')\n    with inner:\n        print('inner')\n        print('err', file=__import__('sys').stderr)",
    "with out:\n    clear_output(wait=True)\n    print('three')\nprint(out.outputs[0]['text'], len(out.outputs))",
    "print(out.outputs)",
    "inner.append_stdout('appended')",
]


def of_nbclient(report, messages):
    """The notebook as nbclient makes it of the messages that the kernel has sent."""
    node = new_notebook(cells=[new_code_cell(source) for source in CELLS])
    client = NotebookClient(node, record_timing=False)
    client.reset_execution_trackers()
    client.clear_before_next_output = False
    client.kc = SimpleNamespace(  # to which it would tell what Output widgets show
        session=SimpleNamespace(msg=lambda *_, **__: None), shell_channel=SimpleNamespace(send=lambda _: None)
    )
    cells = {cell.result.msg_id: cell.index for cell in report.cells}
    for message in messages:
        if message.parent_id in cells:
            fields = ("header", "parent_header", "metadata", "content", "buffers", "msg_type", "msg_id")
            index = cells[message.parent_id]
            with suppress(CellExecutionComplete):
                client.process_message(
                    copy.deepcopy({name: getattr(message, name) for name in fields}), node.cells[index], index
                )
    client.set_widgets_metadata()
    return node


def joined(outputs):
    """With adjacent text of one stream as one, as JupyterLab has it, and nbclient has not."""
    found = []
    for output in outputs:
        if output["output_type"] == "stream" and found and found[-1].get("name") == output["name"]:
            found[-1]["text"] += output["text"]
        else:
            found.append(dict(output))
    return found


def comparable(node):
    """The outputs of the cells, and the state of the widgets."""
    state = copy.deepcopy(node.metadata["widgets"][WIDGET_STATE])
    for model in state["state"].values():
        if "outputs" in model["state"]:
            model["state"]["outputs"] = joined(model["state"]["outputs"])
    return [joined(cell.outputs) for cell in node.cells], state


async def test_a_notebook_is_left_as_nbclient_leaves_it(kernel):
    given = new_notebook(cells=[new_code_cell(source) for source in CELLS])
    async with kernel.messages() as messages:
        report = await run_notebook(given, kernel=kernel)
        await kernel.execute("1", silent=True)
        received = [await messages.receive() for _ in range(messages.statistics().current_buffer_used)]
    nbformat.validate(report.notebook)
    outputs, state = comparable(report.notebook)
    assert (outputs, state) == comparable(of_nbclient(report, received))
    shown = [model["state"]["outputs"] for model in state["state"].values() if "outputs" in model["state"]]
    assert [[output["text"] for output in each] for each in shown] == [["three\n"], ["inner\n", "err\n", "appended"]]
    assert outputs[3][0]["text"] == "before\nbehind\n"


async def test_widgets_are_in_the_written_file_and_those_of_an_earlier_run_are_not(kernel, tmp_path):
    output = tmp_path / "out.ipynb"
    given = new_notebook(cells=[new_code_cell("from ipywidgets import Text\nText('a')")])
    given.metadata["widgets"] = {
        WIDGET_STATE: {"state": {"old": {"state": {}}}, "version_major": 2, "version_minor": 0}
    }
    report = await run_notebook(given, kernel=kernel, output=output)
    written = nbformat.read(output, 4)
    assert written == report.notebook
    models = written.metadata["widgets"][WIDGET_STATE]["state"]
    view = written.cells[0].outputs[0].data["application/vnd.jupyter.widget-view+json"]
    assert models[view["model_id"]]["state"]["value"] == "a"
    assert "old" not in models

    kept = new_code_cell("", metadata={"tags": ["skip-execution"]}, outputs=[new_output("stream", text="old")])
    given.cells.append(kept)
    report = await run_notebook(given, kernel=kernel)
    assert "old" in report.notebook.metadata["widgets"][WIDGET_STATE]["state"]

    given.cells = [new_code_cell("from ipywidgets import Text\nt = Text()"), new_code_cell("t.close_all()")]
    report = await run_notebook(given, kernel=kernel)
    assert "widgets" not in report.notebook.metadata
    assert "widgets" in given.metadata
