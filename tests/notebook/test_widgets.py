"""Widgets are in an executed notebook as a front end would leave them."""

from __future__ import annotations

import functools
import json
import subprocess
import sys

import nbformat
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
NBCLIENT = """
import sys, nbformat
from nbclient import NotebookClient
node = nbformat.reads(sys.stdin.read(), 4)
NotebookClient(node, record_timing=False, timeout=10).execute()
print(nbformat.writes(node))
"""


@functools.cache
def of_nbclient():
    text = nbformat.writes(new_notebook(cells=[new_code_cell(source) for source in CELLS]))
    for _ in range(3):  # seldom, on a busy machine, it waits for an output that it has missed
        done = subprocess.run(
            [sys.executable, "-c", NBCLIENT], input=text, capture_output=True, text=True, timeout=60, check=False
        )
        if "CellTimeoutError" not in done.stderr:
            break
    assert done.returncode == 0, done.stderr
    return done.stdout


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
    """The state of the widgets and the outputs of the cells, with models named by their kinds: ids differ from run to run."""
    state = node.metadata["widgets"][WIDGET_STATE]
    assert (state["version_major"], state["version_minor"]) == (2, 0)
    for model in state["state"].values():
        if "outputs" in model["state"]:
            model["state"]["outputs"] = joined(model["state"]["outputs"])
    text = json.dumps([list(state["state"].values()), [joined(cell.outputs) for cell in node.cells]], sort_keys=True)
    for model_id, model in state["state"].items():
        text = text.replace(model_id, model["model_name"])
    models, outputs = json.loads(text)
    return sorted(models, key=json.dumps), outputs


async def test_a_notebook_is_left_as_nbclient_leaves_it():
    theirs = nbformat.reads(of_nbclient(), 4)
    report = await run_notebook(new_notebook(cells=[new_code_cell(source) for source in CELLS]))
    nbformat.validate(report.notebook)
    assert comparable(report.notebook) == comparable(theirs)


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
