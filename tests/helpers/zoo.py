"""The kernels that tests are run on.

ipykernel 7, xeus-python, bash_kernel and async-kernel come with the tests' dependencies. ipykernel 6 needs an
environment of its own: the variable ANYKERNEL_TEST_IPYKERNEL6 names its Python. R's kernel is Debian's r-irkernel; Deno
is PyPI's "deno", or what the variable ANYKERNEL_TEST_DENO names.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import sys
from pathlib import Path

import pytest
from jupyter_client.kernelspec import KernelSpec

from anykernel import open_kernel

IPYKERNEL = tuple(map(int, importlib.metadata.version("ipykernel").split(".")[:2]))
"""The version of the ipykernel that most tests use."""

IPYKERNEL6 = os.environ.get("ANYKERNEL_TEST_IPYKERNEL6")

# R says by its library's directory whether it has the kernel.
HAS_R = shutil.which("R") is not None and any(
    Path(place, "IRkernel").is_dir() for place in ("/usr/lib/R/site-library", "/usr/local/lib/R/site-library")
)
DENO = os.environ.get("ANYKERNEL_TEST_DENO") or shutil.which("deno", path=f"{Path(sys.executable).parent}:{os.defpath}")

PYTHON = {
    "print": "print('out')",
    "value": "6 * 7",
    "error": "1 / 0",
    "sleep": "import time; time.sleep(60)",
    "busy": "while True: pass",
}


class Case:
    def __init__(self, argv, module, code=PYTHON, *, interrupt_mode="signal", interruptible=True, shutdown_timeout=5):
        self.spec = KernelSpec(argv=[arg or "" for arg in argv], interrupt_mode=interrupt_mode)
        self.code = code
        self.interruptible = interruptible
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
        {"print": "echo out", "value": None, "error": "false", "sleep": "sleep 60", "busy": "while true; do :; done"},
        shutdown_timeout=0.5,
    ),
    "async-kernel": Case(
        [sys.executable, "-m", "async_kernel", "start", "--connection_file={connection_file}", "--name=async"],
        "async_kernel",
        interrupt_mode="message",
    ),
}

# Those that only the tests of interrupts and ends are run on.
OTHERS = {
    # Debian's r-irkernel, and what PyPI's "deno" puts beside this Python.
    "R": Case(
        ["R" if HAS_R else None, "--slave", "-e", "IRkernel::main()", "--args", "{connection_file}"],
        None,
        {
            "print": "cat('out\\n')",
            "value": None,
            "error": "stop('no')",
            "sleep": "Sys.sleep(60)",
            "busy": "while (TRUE) {}",
        },
    ),
    # It ends on SIGINT.
    "Deno": Case(
        [DENO, "jupyter", "--kernel", "--conn", "{connection_file}"],
        None,
        {
            "print": "console.log('out')",
            "value": "6 * 7",
            "error": "throw new Error('no')",
            "sleep": "await new Promise(done => setTimeout(done, 60000))",
            "busy": "while (true) {}",
        },
        interruptible=False,
    ),
}


def installed(name):
    """A case, or the test is skipped."""
    case = {**CASES, **OTHERS}[name]
    if not case.installed:
        pytest.skip(f"{name} is not installed")
    return case
