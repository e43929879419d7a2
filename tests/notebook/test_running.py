"""Notebooks are run as a front end would, and saved whatever happens."""

from __future__ import annotations

import copy
import json
import os
import signal
import subprocess
import sys

import anyio
import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output, new_raw_cell

from anykernel import (
    ArgumentError,
    ExecutionError,
    ExecutionTimeoutError,
    KernelDiedError,
    KernelSpecError,
    inspect_parameters,
    open_kernel,
    open_pool,
    run_notebook,
)
from anykernel.notebook import CellError


def notebook(*cells, **metadata):
    cells = [new_code_cell(cell) if isinstance(cell, str) else cell for cell in cells]
    return new_notebook(cells=cells, metadata=metadata)


def tagged(source, *tags):
    return new_code_cell(source, metadata={"tags": list(tags)})


def statuses(report):
    return [cell.status for cell in report.cells]


async def test_cells_run_in_order_and_the_given_notebook_is_not_changed(kernel, tmp_path):
    given = notebook(
        new_markdown_cell("# Title", attachments={"a.png": {"image/png": "aGk="}}, metadata={"mine": 1}),
        new_raw_cell("raw"),
        "x = 20\nprint('out')",
        "x + 1",
        "",
        unknown={"kept": [1]},
    )
    given.cells[2].outputs = [new_output("stream", text="old")]
    before = copy.deepcopy(given)
    output = tmp_path / "out.ipynb"
    report = await run_notebook(given, kernel=kernel, output=output)
    assert given == before
    assert statuses(report) == ["skipped", "skipped", "ok", "ok", "ok"]
    assert (report.ok, report.error) == (True, None)
    assert [cell.index for cell in report.cells] == [0, 1, 2, 3, 4]
    written = nbformat.read(output, 4)
    nbformat.validate(written)
    assert written == report.notebook
    assert written.metadata["unknown"] == {"kept": [1]}
    assert written.metadata["language_info"]["name"] == "python"
    assert written.cells[0] == given.cells[0]
    assert written.cells[2].outputs == [{"output_type": "stream", "name": "stdout", "text": "out\n"}]
    assert written.cells[3].outputs[0].data == {"text/plain": "21"}
    assert written.cells[3].execution_count == written.cells[2].execution_count + 1
    times = written.cells[3].metadata["execution"]
    assert times["iopub.status.busy"] <= times["iopub.status.idle"]
    assert report.cells[3].seconds >= 0
    assert [path.name for path in tmp_path.iterdir()] == ["out.ipynb"]


async def test_a_failing_cell_ends_the_run_saved_and_is_told_by_its_place(kernel, tmp_path):
    given = notebook("print('before')", "print('partial')\n1 / 0", tagged("old", "x"))
    given.cells[2].outputs = [new_output("stream", text="old")]
    with pytest.raises(CellError, match=r"cell 1 .*ZeroDivisionError") as caught:
        await run_notebook(given, kernel=kernel, output=tmp_path / "out.ipynb")
    error = caught.value
    assert (error.index, error.source) == (1, "print('partial')\n1 / 0")
    assert isinstance(error.__cause__, ExecutionError)
    assert statuses(error.report) == ["ok", "error", "not run"]
    assert (error.report.ok, error.report.error) == (False, error)
    written = nbformat.read(tmp_path / "out.ipynb", 4)
    assert [output.output_type for output in written.cells[1].outputs] == ["stream", "error"]
    assert written.cells[2].outputs == []
    report = await run_notebook(given, kernel=kernel, check=False)
    assert isinstance(report.error, CellError)
    report = await run_notebook(given, kernel=kernel, allow_errors=True)
    assert statuses(report) == ["ok", "error", "error"]
    assert (report.ok, report.error) == (False, None)


async def test_tags_say_which_cells_may_fail_and_which_are_left_out(kernel):
    skipped = tagged("1 / 0", "skip-execution")
    skipped.outputs = [new_output("stream", text="kept")]
    report = await run_notebook(notebook(tagged("1 / 0", "raises-exception"), skipped, "'end'"), kernel=kernel)
    assert report.ok
    assert statuses(report)[1:] == ["skipped", "ok"]
    assert report.cells[1].cell.outputs[0].text == "kept"
    assert report.cells[0].result.error.ename == "ZeroDivisionError"


async def test_an_exit_with_status_0_ends_a_notebook_well(kernel):
    report = await run_notebook(notebook("import sys; sys.exit(0)", "1 / 0"), kernel=kernel)
    assert (report.ok, statuses(report)) == (True, ["ok", "not run"])
    with pytest.raises(CellError, match="SystemExit"):
        await run_notebook(notebook("sys.exit(3)"), kernel=kernel)


async def test_time_that_runs_out_ends_the_run_with_what_there_is(kernel, tmp_path):
    given = notebook("print('seen', flush=True)\nwhile True: pass", "1")
    for limit in ({"cell_timeout": 1.0}, {"timeout": 1.0}):
        with pytest.raises(CellError, match="did not end within") as caught:
            await run_notebook(given, kernel=kernel, output=tmp_path / "out.ipynb", **limit)
        assert isinstance(caught.value.__cause__, ExecutionTimeoutError)
        assert statuses(caught.value.report) == ["timeout", "not run"]
        assert nbformat.read(tmp_path / "out.ipynb", 4).cells[0].outputs[0].text == "seen\n"


async def test_a_kernel_that_dies_leaves_what_it_had_put_out(tmp_path):
    raised = []

    async def run(kernel):
        given = notebook("print('seen', flush=True)\nimport time; time.sleep(60)", "1")
        with pytest.raises(CellError, match="SIGKILL") as caught:
            await run_notebook(given, kernel=kernel, output=tmp_path / "out.ipynb")
        raised.append(caught.value)

    async with open_kernel() as kernel, kernel.messages("stream") as messages, anyio.create_task_group() as tasks:
        tasks.start_soon(run, kernel)
        await messages.receive()
        os.kill(kernel.pid, signal.SIGKILL)
    assert isinstance(raised[0].__cause__, KernelDiedError)
    assert statuses(raised[0].report) == ["error", "not run"]
    assert nbformat.read(tmp_path / "out.ipynb", 4).cells[0].outputs[0].text == "seen\n"


async def test_a_cancellation_leaves_what_there_was(kernel, tmp_path):
    output = tmp_path / "out.ipynb"
    async with anyio.create_task_group() as tasks, kernel.messages("stream") as messages:
        given = notebook("1", "print('seen', flush=True)\nimport time; time.sleep(60)")
        tasks.start_soon(lambda: run_notebook(given, kernel=kernel, output=output))
        await messages.receive()
        tasks.cancel_scope.cancel()
    written = nbformat.read(output, 4)
    assert written.cells[0].outputs[0].data["text/plain"] == "1"
    assert written.cells[1].outputs[0].text == "seen\n"
    assert await kernel.evaluate("1 + 1") == 2


async def test_who_watches_is_told_of_each_cell_and_what_it_raises_comes_out_bare(kernel, tmp_path):
    seen = []

    async def on_cell(event):
        seen.append((event.kind, event.index, event.result is not None))
        if len(seen) == 4:
            raise ValueError("enough")

    with pytest.raises(ValueError, match="enough"):
        await run_notebook(
            notebook(new_markdown_cell("m"), "1", "2", "3"), kernel=kernel, on_cell=on_cell, output=tmp_path / "o.ipynb"
        )
    assert seen == [("started", 1, False), ("finished", 1, True), ("started", 2, False), ("finished", 2, True)]
    assert nbformat.read(tmp_path / "o.ipynb", 4).cells[2].outputs[0].data["text/plain"] == "2"


async def test_displays_that_later_cells_update_are_kept_as_they_are_at_the_end(kernel):
    report = await run_notebook(
        notebook("handle = display('before', display_id=True)", "handle.update('after')"), kernel=kernel
    )
    assert report.notebook.cells[0].outputs[0].data["text/plain"] == "'after'"


async def test_parameters_are_found_converted_and_set_behind_their_defaults(kernel):
    given = notebook(
        "before = 1",
        tagged("n: int = 1  # how many\nrate = 0.5\nname = 'x'  # type: str  # who\nother = before", "parameters"),
        "(n, rate, name, other)",
    )
    found = await inspect_parameters(given)
    assert [(p.type, p.default, p.help) for p in found.values()] == [
        ("int", 1, "how many"),
        ("float", 0.5, ""),
        ("str", "x", "who"),
        (None, "before", ""),
    ]
    report = await run_notebook(given, kernel=kernel, parameters={"n": "5", "rate": 2, "name": "it's"})
    assert report.parameters == {"n": 5, "rate": 2.0, "name": "it's"}
    assert report.notebook.cells[3].outputs[0].data["text/plain"] == '(5, 2.0, "it\'s", 1)'
    assert report.notebook.cells[2].metadata["tags"] == ["injected-parameters"]
    assert report.notebook.metadata["papermill"]["parameters"] == {"n": 5, "rate": 2.0, "name": "it's"}
    again = await run_notebook(report.notebook, kernel=kernel, parameters={"n": 6})
    assert len(again.cells) == 4
    assert again.notebook.cells[3].outputs[0].data["text/plain"] == "(6, 0.5, 'x', 1)"
    with pytest.raises(ArgumentError, match="'n' is of type int"):
        await run_notebook(given, kernel=kernel, parameters={"n": "many"})
    with pytest.warns(UserWarning, match="no parameters named unknown"):
        await run_notebook(given, kernel=kernel, parameters={"unknown": 1})


@pytest.mark.parametrize(
    ("language", "source"),
    [
        ("R", 'a <- list(1, TRUE, NULL)\nb <- "it\'s"\nc <- Inf'),
        ("julia", 'a = [1, true, nothing]\nb = "it\'s"\nc = Inf'),
        ("javascript", 'var a = [1, true, null];\nvar b = "it\'s";\nvar c = Infinity;'),
        ("C#", 'var a = new [] { 1, true, null };\nvar b = "it\'s";\nvar c = double.PositiveInfinity;'),
        ("scala", 'val a = Seq(1, true, None)\nval b = "it\'s"\nval c = Double.PositiveInfinity'),
        ("python", "a = [1, True, None]\nb = \"it's\"\nc = float('inf')"),
    ],
)
def test_parameters_are_written_in_the_notebooks_language(language, source):
    from anykernel.notebook.parameters import inject

    node = notebook(language_info={"name": language})
    inject(node, {"a": [1, True, None], "b": "it's", "c": float("inf")})
    assert node.cells[0].source.split("\n", 1)[1] == source


async def test_a_pool_lends_its_kernel_to_a_notebook():
    async with open_pool(size=1, spares=1) as pool:
        report = await run_notebook(notebook("6 * 7"), kernel=pool)
        assert report.cells[0].result.data["text/plain"] == "42"
        assert pool.statistics().lent == 0


BAD = {
    "html": ("<!DOCTYPE html><p>a page", "looks like HTML"),
    "empty": ("", "is empty"),
    "text": ("no json", "not JSON"),
    "other json": ('{"a": 1}', "JSON of another kind"),
    "list": ("[1]", "JSON of another kind"),
    "version 5": ('{"nbformat": 5, "nbformat_minor": 0, "metadata": {}, "cells": []}', "version 5"),
    "no cells": ('{"nbformat": 4, "nbformat_minor": 5, "metadata": {}}', "no list of cells"),
    "bad cell": ('{"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [{"cell_type": "?"}]}', "no valid"),
}


@pytest.mark.parametrize(("text", "message"), BAD.values(), ids=BAD)
async def test_what_is_no_notebook_is_refused_before_a_kernel_starts(text, message, tmp_path):
    path = tmp_path / "bad.ipynb"
    path.write_text(text)
    with pytest.raises(ArgumentError, match=message):
        await run_notebook(path, kernel="no such kernel")


async def test_paths_and_arguments_that_cannot_be_used_are_refused_before_a_kernel_starts(tmp_path):
    good = notebook("1")
    for given, options, message in (
        (tmp_path, {}, "is a directory"),
        (tmp_path / "none.ipynb", {}, "cannot read"),
        (5, {}, "a path, a URL, a mapping"),
        (good, {"output": tmp_path}, "it is a directory"),
        (good, {"output": tmp_path / "no" / "such.ipynb"}, "No such file"),
        (good, {"cell_timeout": -1}, "cell_timeout"),
        (good, {"parameters": [1]}, "parameters must be a mapping"),
        (good, {"on_cell": 5}, "on_cell"),
    ):
        with pytest.raises(ArgumentError, match=message):
            await run_notebook(given, kernel="no such kernel", **options)
    with pytest.raises(KernelSpecError, match="installed are"):
        await run_notebook(notebook("1", kernelspec={"name": "no-such", "display_name": "x"}))


async def test_of_two_runs_that_write_one_file_the_second_is_refused(kernel, tmp_path):
    output = tmp_path / "out.ipynb"
    async with anyio.create_task_group() as tasks, kernel.messages("stream") as messages:
        given = notebook("print('on', flush=True)\nimport time; time.sleep(60)")
        tasks.start_soon(lambda: run_notebook(given, kernel=kernel, output=output))
        await messages.receive()
        with pytest.raises(ArgumentError, match="another run writes"):
            await run_notebook(notebook("1"), kernel="no such kernel", output=output)
        tasks.cancel_scope.cancel()
    await run_notebook(notebook("1"), kernel=kernel, output=output)
    assert [path.name for path in tmp_path.iterdir()] == ["out.ipynb"]


async def test_older_notebooks_and_those_without_ids_are_taken(kernel, tmp_path):
    old = {
        "nbformat": 3,
        "nbformat_minor": 0,
        "metadata": {"name": ""},
        "worksheets": [
            {"cells": [{"cell_type": "code", "input": ["40 + 2"], "outputs": [], "language": "python"}], "metadata": {}}
        ],
    }
    path = tmp_path / "old.ipynb"
    path.write_text(json.dumps(old))
    report = await run_notebook(path, kernel=kernel)
    assert report.cells[0].result.data["text/plain"] == "42"
    assert report.notebook.cells[0].id
    four = {"nbformat": 4, "nbformat_minor": 2, "metadata": {}, "cells": []}
    four["cells"] = [{"cell_type": "code", "source": "1", "metadata": {}, "outputs": [], "execution_count": None}]
    report = await run_notebook(four, kernel=kernel)
    assert (report.notebook.nbformat_minor, bool(report.notebook.cells[0].id)) == (5, True)


async def test_a_killed_run_leaves_a_whole_file(tmp_path):
    output = tmp_path / "out.ipynb"
    program = (
        "import anyio, nbformat.v4 as v4, anykernel\n"
        "cells = [v4.new_code_cell('1'), v4.new_code_cell('import time; time.sleep(60)')]\n"
        "def on_cell(event):\n    if event.kind == 'started' and event.index == 1: print('now', flush=True)\n"
        f"anyio.run(lambda: anykernel.run_notebook(v4.new_notebook(cells=cells), output={str(output)!r}, on_cell=on_cell))"
    )
    # (uvloop's own processes leave it /dev/null open.)
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        assert (await anyio.to_thread.run_sync(process.stdout.readline)).strip() == b"now"
        process.kill()
    assert nbformat.read(output, 4).cells[0].outputs[0].data["text/plain"] == "1"
