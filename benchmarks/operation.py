"""One operation, measured: ``python -m benchmarks.operation WHAT CONNECTION_FILES``, as `harness.operation` calls it.

It connects a client to each kernel, runs the operation with a tenth of its numbers to warm up (caches, and memory that
is asked for only once), and then for the sample. All libraries are imported by the client that needs them, so no process
pays for another's.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import resource
import sys
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import psutil

from .clients import CLIENTS
from .harness import Sample, print_samples


async def measure(what: dict[str, Any], files: list[str]) -> dict[str, Sample]:
    function = getattr(importlib.import_module(what["module"]), what["function"])
    numbers = what["numbers"]
    connect = CLIENTS[what["client"]].connect
    async with AsyncExitStack() as stack:
        idle: list[Sample] = [_look()]
        clients = []
        for file in files:
            info = json.loads(Path(file).read_bytes())
            clients.append(await stack.enter_async_context(connect(info, **what["options"])))
            idle.append(_look())
        await function(*clients, **{name: number // 10 + 1 for name, number in numbers.items()})
        gc.collect()
        before = _look()["memory"]
        sample = await function(*clients, **numbers)
        sample["memory"] = _peak_memory() - before
    # From the second on: the first connection pays for the imports.
    first, last = idle[1] if len(files) > 1 else idle[0], idle[-1]
    connection = {column: (last[column] - first[column]) / max(1, len(files) - 1) for column in last}
    return {"operation": sample, "connection": connection}


def _peak_memory() -> int:
    """The most memory that this process has had resident so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _look() -> Sample:
    process = psutil.Process()
    # libzmq's threads are not Python's.
    return {"memory": process.memory_info().rss, "descriptors": process.num_fds(), "threads": process.num_threads()}


def main(what: str, files: str) -> None:
    job = json.loads(what)
    client = CLIENTS[job["client"]]
    samples = anyio.run(
        partial(measure, job, files.split(os.pathsep)), backend=client.backend, backend_options=client.backend_options
    )
    print_samples(samples)


if __name__ == "__main__":
    main(*sys.argv[1:])
