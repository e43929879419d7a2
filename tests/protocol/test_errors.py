"""Errors: each is the package's own, and can be copied and sent to another process."""

from __future__ import annotations

import copy
import pickle

import pytest

import anykernel
from anykernel import AnyKernelError, Result
from anykernel._protocol import Record
from anykernel._protocol.fold import OutputFold
from anykernel._protocol.outputs import Stream

ARGUMENTS = {
    "CellError": (("cell 1 failed",), {"index": 1, "source": "1 / 0", "report": None}),
    "DebugError": (("command", "refused", {"success": False}), {}),
    "ExecutionError": (("NameError", "x", ["line"]), {}),
    "ExecutionTimeoutError": (("too long",), {"settled": True}),
    "KernelDiedError": (("dead",), {"returncode": -9, "stderr": "last words"}),
    "KernelStartError": (("no start",), {"returncode": 1, "stderr": "why"}),
    "KernelStartTimeoutError": (("no start",), {"stderr": "why"}),
}
ERRORS = [
    error
    for name in anykernel.__all__
    if isinstance(error := getattr(anykernel, name), type) and issubclass(error, AnyKernelError)
]


@pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.__name__)
def test_an_error_survives_copying_and_pickling(kind):
    arguments, keywords = ARGUMENTS.get(kind.__name__, (("text",), {}))
    fold = OutputFold(100)
    fold.add(Stream("stdout", "partial"), 7)
    if kind.__name__ == "ExecutionTimeoutError":
        keywords = {**keywords, "result": Result("id", Record(fold))}
    error = kind(*arguments, **keywords)
    for other in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert type(other) is kind
        assert str(other) == str(error)
        assert vars(other).keys() == vars(error).keys()
        for name, value in vars(error).items():
            if isinstance(value, Result):
                assert getattr(other, name).stdout == "partial"
            else:
                assert getattr(other, name) == value
