"""The kernels that tests are run on.

ipykernel 7, xeus-python, bash_kernel, async-kernel and Deno come with the tests' dependencies. ipykernel 6 needs an
environment of its own: the variable ANYKERNEL_TEST_IPYKERNEL6 names its Python. R's comes with the system (Debian:
r-cran-irkernel).
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from jupyter_client.kernelspec import KernelSpec

from anykernel import open_kernel

IPYKERNEL = tuple(map(int, importlib.metadata.version("ipykernel").split(".")[:2]))
"""The version of the ipykernel that most tests use."""

IPYKERNEL6 = os.environ.get("ANYKERNEL_TEST_IPYKERNEL6")

PYTHON = {
    "print": "print('out')",
    "value": "6 * 7",
    "error": "1 / 0",
    "sleep": "import time; time.sleep(60)",
    "busy": "while True: pass",
    "show": "print({})",
    "begin": "prin",
}


def _find_deno():
    beside = Path(sys.executable).with_name("deno")
    return str(beside) if beside.exists() else shutil.which("deno")


def _find_r():
    """R, where it has its kernel."""
    r = shutil.which("R")
    if r is None:
        return None
    asked = subprocess.run([r, "--slave", "-e", "find.package('IRkernel')"], capture_output=True, check=False)
    return r if asked.returncode == 0 else None


class Case:
    def __init__(
        self,
        argv,
        module,
        code=PYTHON,
        *,
        interrupt_mode="signal",
        interruptible=True,
        shutdown_timeout=5,
        ipc=True,
        late=False,
    ):
        self.spec = KernelSpec(argv=[arg or "" for arg in argv], interrupt_mode=interrupt_mode)
        self.code = code
        self.interruptible = interruptible
        self.ipc, self.late = ipc, late
        self.options = {"shutdown_timeout": shutdown_timeout}
        self.installed = argv[0] is not None and (module is None or importlib.util.find_spec(module) is not None)

    def open(self, **options):
        return open_kernel(self.spec, **self.options, **options)


CASES = {
    "ipykernel 7": Case([sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"], "ipykernel"),
    "ipykernel 6": Case([IPYKERNEL6, "-m", "ipykernel_launcher", "-f", "{connection_file}"], None),
    # As its wheel has it, it ends on SIGINT, and answers interrupt requests without doing anything.
    "xeus-python": Case(
        [sys.executable, "-m", "xpython_launcher", "-f", "{connection_file}"], "xpython_launcher", interruptible=False
    ),
    # Its bash ignores SIGTERM, for which the kernel waits at its end.
    "bash_kernel": Case(
        [sys.executable, "-m", "bash_kernel", "-f", "{connection_file}"],
        "bash_kernel",
        {
            "print": "echo out",
            "value": None,
            "error": "false",
            "sleep": "sleep 60",
            "busy": "while true; do :; done",
            "show": "echo {}",
            "begin": "ech",
        },
        shutdown_timeout=0.5,
    ),
    "async-kernel": Case(
        [sys.executable, "-m", "async_kernel", "start", "--connection_file={connection_file}", "--name=async"],
        "async_kernel",
        interrupt_mode="message",
    ),
    # One thread does everything: while code runs, its heart stands still.
    "R": Case(
        [_find_r(), "--slave", "-e", "IRkernel::main()", "--args", "{connection_file}"],
        None,
        {
            "print": 'cat("out\\n")',
            "value": None,
            "error": 'stop("no")',
            "sleep": "Sys.sleep(60)",
            "busy": "while (TRUE) {}",
            "show": "cat({})",
            "begin": "prin",
        },
    ),
    # It ends on SIGINT.
    "Deno": Case(
        [_find_deno(), "jupyter", "--kernel", "--conn", "{connection_file}"],
        None,
        {
            "print": 'console.log("out")',
            "value": None,
            "error": 'throw new Error("no")',
            "sleep": "await new Promise((done) => setTimeout(done, 60000))",
            "busy": "while (true) {}",
            "show": "console.log({})",
            "begin": "consol",
        },
        interruptible=False,
        ipc=False,
        late=True,
    ),
}


def each(names=tuple(CASES)):
    """These kernels as a test's parameters: the first on all event loops, each other one on one of them, and the rest heavy."""
    loops = ("asyncio", "uvloop", "trio")
    return [pytest.param(name, marks=[pytest.mark.once(loops[n % 3])] if n else []) for n, name in enumerate(names)]


def installed(name):
    """A case, or the test is skipped."""
    case = CASES[name]
    if not case.installed:
        pytest.skip(f"{name} is not installed")
    return case
