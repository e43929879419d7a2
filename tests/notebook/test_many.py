"""Many notebooks at once, and two runs compared."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from anykernel import ArgumentError, compare_notebooks, run_notebooks
from anykernel.notebook import CellError


def write(path, *sources):
    nbformat.write(new_notebook(cells=[new_code_cell(source) for source in sources]), path)
    return path


async def test_each_is_run_by_itself_and_reported_as_it_ends(tmp_path):
    paths = [
        write(tmp_path / "slow.ipynb", "import time; time.sleep(1); 'slow'"),
        write(tmp_path / "bad.ipynb", "1 / 0", "2"),
        write(tmp_path / "quick.ipynb", "'quick'"),
        tmp_path / "missing.ipynb",
    ]
    reports = []
    async with run_notebooks(paths, jobs=4, output_dir=tmp_path / "out", junit=tmp_path / "junit.xml") as running:
        async for report in running:
            reports.append(report)
    by_name = {report.source.name: report for report in reports}
    assert set(by_name) == {path.name for path in paths}
    assert reports[0].source.name == "missing.ipynb"
    assert reports[-1].source.name == "slow.ipynb"
    assert {name: report.ok for name, report in by_name.items()} == {
        "slow.ipynb": True, "bad.ipynb": False, "quick.ipynb": True, "missing.ipynb": False,
    }  # fmt: skip
    assert isinstance(by_name["bad.ipynb"].error, CellError)
    assert isinstance(by_name["missing.ipynb"].error, ArgumentError)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["bad.ipynb", "quick.ipynb", "slow.ipynb"]
    suites = {suite.get("name").rsplit("/")[-1]: suite for suite in ET.parse(tmp_path / "junit.xml").getroot()}
    assert "ZeroDivisionError" in suites["bad.ipynb"].find("testcase/failure").text
    assert suites["bad.ipynb"].findall("testcase")[1].find("skipped") is not None
    assert suites["missing.ipynb"].find("testcase/error") is not None


async def test_leaving_early_stops_those_under_way(tmp_path):
    paths = [write(tmp_path / f"{n}.ipynb", "import time; time.sleep(60)" if n else "1") for n in range(2)]
    async with run_notebooks(paths, jobs=2) as running:
        assert (await anext(running)).ok


@pytest.mark.parametrize("options", [{"jobs": 0}, {"output": "x"}, {"check": True}])
async def test_unusable_options_are_refused(options):
    with pytest.raises(ArgumentError):
        async with run_notebooks([], **options):
            pytest.fail("they cannot be used")


async def test_two_that_would_be_written_to_one_file_are_refused(tmp_path):
    (tmp_path / "a").mkdir()
    paths = [write(tmp_path / "x.ipynb", "1"), write(tmp_path / "a" / "x.ipynb", "1")]
    with pytest.raises(ArgumentError, match=r"x\.ipynb"):
        async with run_notebooks(paths, output_dir=tmp_path / "out"):
            pytest.fail("one would be lost")


def notebook(*outputs, source="x", tags=()):
    return new_notebook(cells=[new_code_cell(source, outputs=list(outputs), metadata={"tags": list(tags)})])


def test_notebooks_are_compared_by_what_their_cells_put_out():
    first = notebook(
        new_output("stream", text="a\n"),
        new_output("stream", text="b\n"),
        new_output("display_data", {"text/plain": "1", "image/png": "x"}),
    )
    same = notebook(
        new_output("stream", text="a\nb\n"), new_output("display_data", {"text/plain": "1", "image/png": "y"})
    )
    assert compare_notebooks(first, same) == []
    other = notebook(new_output("stream", text="a\nc\n"), new_output("error", ename="E", evalue="v"))
    found = compare_notebooks(first, other)
    assert [(d.index, d.what) for d in found] == [(0, "stdout"), (0, "text/plain"), (0, "error")]
    assert (found[0].a, found[0].b) == ("a\nb\n", "a\nc\n")
    assert [d.what for d in compare_notebooks(first, new_notebook())] == ["cells"]
    at = [notebook(new_output("stream", text=f"<at 0x7f{n}00> 12:0{n}")) for n in (1, 2)]
    assert compare_notebooks(*at)
    assert compare_notebooks(*at, sanitize={r"\d\d:\d\d": "TIME"}) == []
    ignored = notebook(new_output("stream", text="1"), source="# NBVAL_IGNORE_OUTPUT\nx")
    assert compare_notebooks(ignored, other) == []
    assert compare_notebooks(notebook(tags=["nbval-ignore-output"]), other) == []
