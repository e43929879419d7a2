"""The command line, as people type it: what it puts out where, and its exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook


def anykernel(*arguments, stdin=None):
    """What a command puts out, and its exit code."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "anykernel._cli", *map(str, arguments)],
        input=stdin, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def write(path, *sources, tags=()):
    cells = [new_code_cell(source) for source in sources]
    if tags:
        cells[0].metadata["tags"] = list(tags)
    nbformat.write(new_notebook(cells=cells), path)
    return path


def test_exec_puts_the_value_and_the_output_where_they_belong():
    done = anykernel("exec", "import sys; print('out'); print('err', file=sys.stderr); 6*7")
    assert (done.returncode, done.stdout, done.stderr) == (0, "out\n42\n", "err\n")


def test_exec_of_code_that_raises_ends_with_1_and_its_traceback_on_stderr():
    done = anykernel("exec", "-", stdin="print('before')\n1 / 0")
    assert (done.returncode, done.stdout) == (1, "before\n")
    assert "ZeroDivisionError" in done.stderr
    assert "\x1b" not in done.stderr


def test_exec_gives_programs_one_json_object():
    done = anykernel("exec", "--json", "print('x'); 1 + 1")
    found = json.loads(done.stdout)
    assert (done.returncode, found["status"], found["text"]) == (0, "ok", "x\n2")
    assert found["outputs"][1]["data"] == {"text/plain": "2"}


def test_time_that_runs_out_and_a_death_end_with_3():
    done = anykernel("exec", "import time; print('seen', flush=True); time.sleep(60)", "--timeout", "4")
    assert (done.returncode, done.stdout) == (3, "seen\n")
    assert "did not finish within" in done.stderr
    done = anykernel("exec", "import os; os._exit(5)")
    assert done.returncode == 3
    assert "exited with status 5" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["exec"], "Missing argument"),
        (["exec", "1", "-k", "no-such-kernel"], "installed are"),
        (["exec", "1", "--timeout", "-1"], "timeout"),
        (["run", "no-such.ipynb"], "cannot read"),
        (["run", "x.py", "-p", "a", "1"], "cannot read"),
        (["nonsense"], "No such command"),
        (["replay", "no-such-file"], "does not exist"),
    ],
)
def test_wrong_usage_ends_with_2_and_says_what_is_wrong(arguments, told):
    done = anykernel(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_run_prints_a_summary_and_writes_nothing_without_an_output(tmp_path):
    path = write(tmp_path / "a.ipynb", "print('x')", "2")
    before = path.read_bytes()
    done = anykernel("run", path)
    assert done.returncode == 0
    assert "2 ok in" in done.stdout
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["a.ipynb"]


def test_run_takes_parameters_as_literals_or_text_and_from_a_file(tmp_path):
    path = write(tmp_path / "a.ipynb", "a = 0\nb = ''\nc = []\nd = []", "print((a, b, c, d))", tags=["parameters"])
    (tmp_path / "p.yaml").write_text("a: 5\nd: [1, x]\n")
    done = anykernel(
        "run", path, "-o", tmp_path / "out.ipynb", "-f", tmp_path / "p.yaml", "-p", "a", "7", "-p", "b", "some text",
        "-p", "c", "[true]",
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    out = nbformat.read(tmp_path / "out.ipynb", 4)
    assert out.cells[2].outputs[0].text == "(7, 'some text', [True], [1, 'x'])\n"


def test_of_several_notebooks_each_is_run_and_the_worst_decides(tmp_path):
    good, bad = write(tmp_path / "good.ipynb", "1"), write(tmp_path / "bad.ipynb", "1 / 0", "2")
    done = anykernel("run", good, bad, "-j", "2", "-o", tmp_path / "out", "--json")
    assert done.returncode == 1
    found = json.loads(done.stdout)
    assert (found[str(good)]["ok"], found[str(bad)]["ok"]) == (True, False)
    assert [cell["status"] for cell in found[str(bad)]["cells"]] == ["error", "not run"]
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["bad.ipynb", "good.ipynb"]


def test_run_takes_scripts_and_stdin(tmp_path):
    script = tmp_path / "s.py"
    script.write_text("x = 6\nprint(x * 7)\n")
    assert anykernel("run", script).stdout == "42\n"
    assert anykernel("run", "-", stdin="print(1)").stdout == "1\n"
    text = nbformat.writes(new_notebook(cells=[new_code_cell("print('cell')")]))
    assert "1 ok in" in anykernel("run", "-", stdin=text).stdout


def test_an_interrupt_stops_the_cell_saves_and_ends_with_130(tmp_path):
    path = write(tmp_path / "a.ipynb", "print('seen', flush=True)\nimport time; time.sleep(60)")
    out = tmp_path / "out.ipynb"
    argv = [sys.executable, "-m", "anykernel._cli", "run", path, "-o", out, "--live"]
    with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert "cell 0" in process.stderr.readline()
        deadline = time.monotonic() + 30
        while not (out.exists() and "seen" in out.read_text()) and time.monotonic() < deadline:
            time.sleep(0.05)  # for another process
        os.killpg(process.pid, signal.SIGINT)
        rest = process.stderr.read()
    assert process.returncode == 130, rest
    assert nbformat.read(out, 4).cells[0].outputs[0].text == "seen\n"


def test_replay_shows_what_was_run_and_what_it_put_out(tmp_path):
    recording = tmp_path / "session.jsonl"
    code = (
        "import anyio, anykernel\n"
        "async def main():\n"
        f"    async with anykernel.open_kernel(record_to={str(recording)!r}) as kernel:\n"
        "        await kernel.execute(\"print('said')\\n6 * 7\")\n"
        "anyio.run(main)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    done = anykernel("replay", recording)
    assert done.returncode == 0
    assert ">>> print('said')" in done.stdout
    assert "said\n42\n" in done.stdout


def test_doctor_examines_a_kernel_step_by_step():
    done = anykernel("doctor", "--json")
    found = json.loads(done.stdout)
    verdicts = {step["name"]: step["verdict"] for step in found["steps"]}
    assert verdicts["start, until ready"] == verdicts["interrupt while running"] == verdicts["input"] == "ok"
    assert verdicts["subshells"] == verdicts["over IPC"] == verdicts["its death is noticed"] == "ok"
    assert set(verdicts.values()) <= {"ok", "trouble"}  # leaving may take long on a busy machine
    assert found["versions"]["anyio"]
    assert found["info"]["implementation"] == "ipython"


def test_help_costs_nothing_but_the_arguments():
    code = "import sys; sys.argv = ['anykernel', '--help']\nimport anykernel._cli\ntry: anykernel._cli.main()\nexcept SystemExit: pass\n"
    code += "assert not {'zmq', 'nbformat', 'jupyter_client', 'yaml'} & set(sys.modules), sorted(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, capture_output=True)
