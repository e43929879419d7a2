"""Fixtures of all tests, and the rules they keep.

- Every async test runs on asyncio, asyncio with uvloop, and trio.
- Every test leaves nothing behind: a fixture compares processes (orphans included), descriptors, threads and
  temporary directories with those before. Whatever is left fails the test.
- Tests that need nothing of a kernel but that it runs code share one, the fixture `kernel`: starting one is most of what
  they take.
- No test waits without a bound: each gets a minute, or what its mark `limit` says. No sleep stands in for synchronisation.
- What a real kernel can be made to do is tested with a real kernel; the rest with `scripted`.
"""

from __future__ import annotations

import asyncio
import ctypes
import functools
import inspect
import os
import re
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import anyio
import psutil
import pytest
import uvloop

from anykernel import open_kernel

BACKENDS = [
    pytest.param(("asyncio", {"use_uvloop": False}), id="asyncio"),
    pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop"),
    pytest.param(("trio", {}), id="trio"),
]

# Seconds that what was killed gets to disappear from the process table.
SETTLE = 2.0


# Seconds that a test may take, if it is not marked with `limit`.
LIMIT = 60.0


@pytest.hookimpl(tryfirst=True)  # before `-m` chooses
def pytest_collection_modifyitems(items) -> None:
    for item in items:
        once = item.get_closest_marker("once")
        if once is not None and not re.search(rf"\b{once.args[0]}\b", item.name.partition("[")[2]):
            item.add_marker("heavy")
        if inspect.iscoroutinefunction(getattr(item, "obj", None)):
            marker = item.get_closest_marker("limit")
            item.obj = _bounded(item.obj, marker.args[0] if marker else LIMIT)


def _bounded(test, limit: float):
    @functools.wraps(test)
    async def wrapper(*args, **kwargs):
        with anyio.fail_after(limit):
            await test(*args, **kwargs)

    return wrapper


@pytest.fixture(params=BACKENDS, scope="module")  # so that the tests of a module can share a kernel
def anyio_backend(request):
    return request.param


@pytest.fixture(scope="module")
async def kernel(anyio_backend):
    """An ipykernel for the tests of a module, one on each event loop; each test leaves it free, and alive."""
    async with open_kernel() as kernel:
        yield kernel


@pytest.fixture(scope="session", autouse=True)
def environment(tmp_path_factory) -> None:
    """A home of their own for the kernels, and us as the heir of every orphan, so that none is overlooked."""
    os.environ["TMPDIR"] = str(tmp_path_factory.mktemp("tmp"))
    tempfile.tempdir = None  # so that TMPDIR is looked at again
    ipython = tmp_path_factory.mktemp("ipython")
    os.environ["IPYTHONDIR"] = str(ipython)
    # IPython 8 writes each cell into its history at once, and prints into what runs then when it finds two subshells' cells
    # under one number. So it writes at its end, as IPython 9 does.
    profile = ipython / "profile_default"
    profile.mkdir()
    (profile / "ipython_kernel_config.py").write_text("c.HistoryManager.db_cache_size = 10**6\n")
    # Kernelspecs come from the environment the tests run in, and from nowhere else.
    os.environ["JUPYTER_PATH"] = str(Path(sys.prefix) / "share" / "jupyter")
    if sys.platform == "linux":
        pr_set_child_subreaper = 36
        ctypes.CDLL(None).prctl(pr_set_child_subreaper, 1, 0, 0, 0)

    async def spawn() -> None:
        await (await asyncio.create_subprocess_exec("true")).wait()

    # libuv makes one pipe for the whole process, at its first spawn.
    loop = uvloop.new_event_loop()
    loop.run_until_complete(spawn())
    loop.close()


def _children() -> set[int]:
    found = set()
    for process in psutil.Process().children(recursive=True):
        try:
            # What is dead is gone. It is not reaped here: that is for the event loop that started it, which a module's
            # tests share, and which would wait for it for ever.
            if process.status() != psutil.STATUS_ZOMBIE:
                found.add(process.pid)
        except psutil.NoSuchProcess:
            continue
    return found


def _command(pid: int) -> list[str] | None:
    """What a process runs, or None if it has gone meanwhile."""
    try:
        return psutil.Process(pid).cmdline() or ["?"]
    except psutil.NoSuchProcess:  # or dead, which is one of these
        return None


def _descriptors() -> dict[str, str]:
    found = {}
    for fd in Path("/proc/self/fd").iterdir():
        try:
            found[fd.name] = str(fd.readlink())
        except OSError:
            continue  # the one that listed the directory
    return found


def _threads() -> set[str]:
    # Those that wait for work are the event loops' own and end by themselves: trio's after 10 s.
    return {t.name for t in threading.enumerate() if not t.name.startswith(("Trio thread", "AnyIO worker"))}


def _files() -> set[str]:
    return {path.name for path in Path(tempfile.gettempdir()).glob("anyk-*")}


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    before = _children(), _descriptors(), _threads(), _files()
    yield
    deadline = time.monotonic() + SETTLE
    while True:
        left = {
            "processes": [command for pid in _children() - before[0] if (command := _command(pid))],
            "descriptors": [v for k, v in _descriptors().items() if k not in before[1]],
            "threads": sorted(_threads() - before[2]),
            "files": sorted(_files() - before[3]),
        }
        if not any(left.values()):
            return
        if time.monotonic() > deadline:
            break
        time.sleep(0.01)  # not for synchronisation: the kernel's process table has no event to wait for
    pytest.fail(f"left behind: { {k: v for k, v in left.items() if v} }")
