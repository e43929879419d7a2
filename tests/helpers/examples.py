"""The examples of the documentation: found in its pages, and run.

They are of four kinds, told apart by how they begin:

- a file, ``# name.py``: saved under that name beside all others of its page, which may import it; if it is a program, it is
  run, and if it holds tests, pytest runs them;
- a program, which calls ``.run(main``: run as it is, in a process of its own;
- a cell, ``# In [1]:``: run after the cells before it, in one kernel that stands for a notebook's;
- a fragment, everything else: the inside of a block that has opened ``kernel``.

Each ``print(...)  # text`` says what it prints. Most of what an example takes is to start Python, to import, and to start a
kernel. So the fragments and cells of a page are run by one process, ``python -W error examples.py PAGE``, and share a
kernel, from which all names are wiped after each, as each has names of its own here: none can live on what another has
set. One that opens its own ``kernel`` gets none.
"""

from __future__ import annotations

import ast
import gc
import inspect
import re
import subprocess
import sys
import traceback
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import anyio

import anykernel
from anykernel import Kernel, open_kernel

# Seconds that one example may take.
LIMIT = 60

# Stands before what an example writes, to stdout and to stderr.
MARK = "\0{}\n"


@dataclass
class Example:
    """One block of Python in a page."""

    page: Path
    line: int
    """Where its first line stands in the page."""
    code: str

    @property
    def name(self) -> str | None:
        """The name of the file it is to be saved as."""
        found = re.match(r"# (\w+\.py)\n", self.code)
        return found and found[1]

    @property
    def kind(self) -> Literal["test", "program", "module", "cell", "fragment"]:
        if self.name is not None and self.name.startswith("test_"):
            return "test"
        if ".run(main" in self.code:
            return "program"
        if self.name is not None:
            return "module"
        return "cell" if self.code.startswith("# In [") else "fragment"

    @property
    def expected(self) -> list[str]:
        """The lines that its comments say it prints."""
        return re.findall(r"^ *print\(.*\)  # (.*)$", self.code, re.MULTILINE)

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def examples_of(page: Path) -> list[Example]:
    """The examples of a page, in order."""
    text = page.read_text()
    return [
        Example(page, text.count("\n", 0, found.start(1)) + 1, found[1])
        for found in re.finditer(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    ]


def notebooks_of(examples: list[Example]) -> list[list[Example]]:
    """The cells among these, by notebook: each begins with a cell number 1."""
    notebooks: list[list[Example]] = []
    for example in examples:
        if example.kind == "cell":
            if example.code.startswith("# In [1]:"):
                notebooks.append([])
            notebooks[-1].append(example)
    return notebooks


def failure(example: Example, stdout: str, stderr: str) -> str | None:
    """What is wrong with what an example wrote."""
    if stderr:
        return f"{example} wrote to stderr:\n{stderr}"
    if stdout.splitlines() != example.expected:
        return f"{example} says that it prints {example.expected}, and printed {stdout.splitlines()}"
    return None


def save_files(page: Path, directory: Path) -> None:
    """Save the files of a page."""
    for example in examples_of(page):
        if example.name is not None:
            (directory / example.name).write_text(example.code)


def run_page(page: Path, directory: Path) -> list[str]:
    """Run the fragments and cells of a page in a process of their own, in this directory; what is wrong with them."""
    done = subprocess.run(
        [sys.executable, "-W", "error", __file__, str(page)],
        cwd=directory, capture_output=True, text=True, timeout=LIMIT * 10, check=False,
    )  # fmt: skip
    failures = [] if done.returncode == 0 else [f"{page.name} ended with {done.returncode}: {done.stderr[-1000:]}"]
    for example in examples_of(page):
        if example.kind in ("fragment", "cell"):
            stdout, stderr = (_written_by(example, stream) for stream in (done.stdout, done.stderr))
            failures.append(failure(example, stdout, stderr) or "")
    return [text for text in failures if text]


def _written_by(example: Example, stream: str) -> str:
    return stream.partition(MARK.format(example.line))[2].partition("\0")[0]


def run_program(example: Example, directory: Path) -> str | None:
    """Run a program in a process of its own, in this directory; what is wrong with it."""
    path = directory / (example.name or "program.py")
    path.write_text(example.code)
    done = subprocess.run(
        [sys.executable, "-W", "error", path],
        cwd=directory, capture_output=True, text=True, timeout=LIMIT, check=False,
    )  # fmt: skip
    return failure(example, done.stdout, done.stderr)


def run_tests(example: Example, directory: Path) -> str | None:
    """Run an example's tests by pytest, in a process of its own, in this directory; what is wrong with them."""
    assert example.name is not None
    # Not our own settings, and the one that the recipe for pytest-asyncio tells to make.
    (directory / "pytest.ini").write_text("[pytest]\nasyncio_default_fixture_loop_scope = module\n")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", example.name],
        cwd=directory, capture_output=True, text=True, timeout=LIMIT, check=False,
    )  # fmt: skip
    tests = len(re.findall(r"^(?:async )?def test_", example.code, re.MULTILINE))
    passed = re.search(r"^(\d+) passed in ", done.stdout, re.MULTILINE)  # and nothing else
    if done.stderr or not passed or int(passed[1]) < tests:
        return f"{example}, of {tests} tests:\n{done.stdout}{done.stderr}"
    return None


def _mark(example: Example) -> None:
    for stream in (sys.stdout, sys.stderr):
        stream.write(MARK.format(example.line))
        stream.flush()


# Names that code has set, and the last results, are gone; nothing of it is in the history.
WIPE = "get_ipython().reset(new_session=False)"


class Runner:
    """Runs the fragments and notebooks of a page; opens the kernel that they share when the first wants it."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self._stack = stack
        self._kernel: Kernel | None = None

    async def run(self, examples: list[Example]) -> None:
        """Run a fragment, or the cells of a notebook."""
        _mark(examples[0])
        try:
            kernel = None if "as kernel:" in examples[0].code else await self._wiped_kernel()
            with anyio.fail_after(LIMIT):
                if examples[0].kind == "cell":
                    await self._run_notebook(examples, kernel)
                else:
                    await self._run_fragment(examples[0], kernel)
        except Exception:  # noqa: BLE001
            traceback.print_exc()
        gc.collect()  # so that what it forgot to close is told of it, and not of the next

    async def _wiped_kernel(self) -> Kernel:
        if self._kernel is None:
            self._kernel = await self._stack.enter_async_context(open_kernel())
        await self._kernel.execute(WIPE, silent=True, check=True)
        return self._kernel

    async def _run_fragment(self, example: Example, kernel: Kernel | None) -> None:
        names = {name: getattr(anykernel, name) for name in anykernel.__all__}
        # Tracebacks point to the lines of the page.
        source = "\n" * (example.line - 1) + example.code
        flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        code = compile(source, example.page, "exec", flags=flags, dont_inherit=True)
        ran = eval(code, {"__name__": "__main__", "anyio": anyio, "kernel": kernel, **names})
        if code.co_flags & inspect.CO_COROUTINE:
            await ran

    async def _run_notebook(self, cells: list[Example], kernel: Kernel) -> None:
        await kernel.execute("__import__('warnings').simplefilter('error')", silent=True, check=True)
        for cell in cells:
            if cell is not cells[0]:
                _mark(cell)
            result = await kernel.execute(cell.code)
            sys.stdout.write(result.stdout)
            sys.stderr.write(result.stderr + ("" if result.ok else result.text))


async def _main(page: Path) -> None:
    examples = examples_of(page)
    async with AsyncExitStack() as stack:
        runner = Runner(stack)
        for example in examples:
            if example.kind == "fragment":
                await runner.run([example])
        for cells in notebooks_of(examples):
            await runner.run(cells)


if __name__ == "__main__":
    anyio.run(_main, Path(sys.argv[1]))
