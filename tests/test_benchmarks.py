"""Every question of the benchmarks is answered, with numbers too small to say anything; and how targets are judged.

What the `bench` extra has (conkernelclient, nbclient, matplotlib) is left out where it is not installed.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import harness, report
from benchmarks.__main__ import QUESTIONS
from benchmarks.clients import ASYNCIO, FLOOR
from benchmarks.harness import Job, Table, Target

ROOT = Path(__file__).parent.parent


def ask(*arguments):
    run = subprocess.run(
        [sys.executable, "-m", "benchmarks", *map(str, arguments)],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    return run.stdout


@pytest.mark.heavy
@pytest.mark.parametrize("question", QUESTIONS)
def test_a_question_is_answered_for_every_row(question, tmp_path):
    path = tmp_path / "results.json"
    printed = ask(question, "--quick", "--json", path)
    tables = json.loads(path.read_text())["tables"]
    assert tables
    for table in tables:
        assert table["title"] in printed
        measured = {row: found["medians"] for row, found in table["rows"].items() if found is not None}
        assert measured
        assert all(value >= 0 for medians in measured.values() for value in medians.values())
    assert re.search(r"\d+ targets met, \d+ missed", printed)


def test_the_chart_is_small_and_names_the_clients(tmp_path):
    pytest.importorskip("matplotlib")
    ask("stream", "--quick", "--chart", tmp_path / "chart.svg", tmp_path / "chart.png")
    drawn = (tmp_path / "chart.svg").read_text()
    assert len(drawn) < 100_000
    assert ASYNCIO in drawn
    assert (tmp_path / "chart.png").read_bytes().startswith(b"\x89PNG")


def test_an_unknown_question_is_refused():
    run = subprocess.run(
        [sys.executable, "-m", "benchmarks", "why"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert run.returncode == 2
    assert "no question 'why'" in run.stderr


def test_targets_compare_by_ratio_by_difference_and_by_value():
    table = Table("title", {})
    # The machine is ten times slower in the second round; the third has only one of them.
    table.samples["fast"] = [{"cpu": 1.0, "wall": 3.0}, {"cpu": 10.0, "wall": 30.0}]
    table.samples["slow"] = [{"cpu": 4.0, "wall": 5.0}, {"cpu": 40.0, "wall": 34.0}, {"cpu": 4.0, "wall": 5.0}]
    assert Target("fast", 0.4, "slow").value(table) == 0.25
    assert Target("slow", 0.4, "fast", "wall", over=True).value(table) == 3.0
    assert Target("slow", 0.4, column="wall").value(table) == 5.0
    assert Target("fast", 0.4, "not installed").value(table) is None
    assert Target("not installed", 0.4).value(table) is None
    table.samples["nothing"] = [{"cpu": 0.0, "wall": 1.0}]
    assert table.compare("fast", "nothing", "cpu") is None


def test_rounds_alternate_and_the_median_counts(monkeypatch):
    ran = []

    def run(job, kernels):
        ran.append(job.argv[0])
        return {"operation": {"cpu": float(len(ran)), "wall": 1.0}}

    monkeypatch.setattr(Job, "run", run)
    first, second, once = Job(("a",)), Job(("b",)), Job(("c",), rounds=1)
    table = Table("title", {"first": first, "second": second, "once": once, "cannot": None})
    harness.run([table], 3)
    assert ran == ["a", "b", "c", "b", "a", "a", "b"]
    assert table.medians["first"]["cpu"] == 5.0  # of 1, 5, 6
    assert table.medians["once"]["cpu"] == 3.0
    assert "cannot" in report.text([table], report.environment())


def test_a_job_that_fails_says_why():
    failing = Job(("-c", "1 / 0"), kernel=None)
    with pytest.raises(harness.JobError, match="ZeroDivisionError"):
        failing.run(None)
    table = Table("title", {"fails": failing})
    assert not harness.run([table], 1)
    assert "failed" in report.text([table], report.environment())


def test_the_results_in_the_repository_are_those_of_all_questions():
    found = json.loads((ROOT / "benchmarks/results/results.json").read_text())
    titles = [table["title"] for table in found["tables"]]
    # Those of clients that are not installed here are in it, too.
    assert {table.title for module in QUESTIONS.values() for table in module.tables("full")} <= set(titles)
    assert FLOOR in found["tables"][0]["rows"]
