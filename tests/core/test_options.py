"""Options are written once: the methods that spell them do not drift from each other, nor from the classes that check them."""

from __future__ import annotations

import inspect

import msgspec
import pytest

import anykernel
from anykernel import Kernel, Subshell
from anykernel._core.options import ExecuteOptions, OpenOptions
from anykernel._local import LaunchOptions

# What the doors take that is no option of the kernel's but says which kernel, where it starts, or where it is recorded.
SUBJECTS = {"kernel", "launcher", "connection", "path", "record_to"}


def keywords(function):
    parameters = inspect.signature(function).parameters.values()
    return {p.name: (p.default, p.annotation) for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}


def defaults_of(options):
    return {field.name: field.default for field in msgspec.structs.fields(options)}


@pytest.mark.parametrize("method", ["execute", "submit", "stream"])
@pytest.mark.parametrize("owner", [Kernel, Subshell])
def test_what_runs_code_takes_the_options_of_executing(owner, method):
    given = keywords(getattr(owner, method))
    assert {name: default for name, (default, _) in given.items()} == defaults_of(ExecuteOptions)
    assert given == keywords(Kernel.execute)  # and their types
    assert list(given) == list(keywords(Kernel.execute))


def test_the_doors_take_the_options_of_opening():
    launch = {name: default for name, (default, _) in keywords(anykernel.open_kernel).items() if name not in SUBJECTS}
    assert launch == defaults_of(LaunchOptions)
    connect = {n: default for n, (default, _) in keywords(anykernel.connect_kernel).items() if n not in SUBJECTS}
    assert connect == defaults_of(OpenOptions)
    replay = keywords(anykernel.replay_kernel)
    assert set(replay) <= set(defaults_of(LaunchOptions))
