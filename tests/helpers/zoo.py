"""The kernels that tests are run on.

ipykernel 7, xeus-python, bash_kernel and async-kernel come with the tests' dependencies. ipykernel 6 needs an
environment of its own: the variable ANYKERNEL_TEST_IPYKERNEL6 names its Python.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import sys

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


def installed(name):
    """A case, or the test is skipped."""
    case = CASES[name]
    if not case.installed:
        pytest.skip(f"{name} is not installed")
    return case
