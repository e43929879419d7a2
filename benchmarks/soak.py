"""Does anything grow: memory, descriptors, threads, the request table?

``python -m benchmarks soak`` opens and closes kernels, then executes in one kernel, all in one process, and looks at
itself at intervals. The first fifth of each phase is warm-up (caches fill, the replay check remembers its 16,384
digests); from there to the end nothing may grow beyond a slack.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import anyio
import psutil

from anykernel import Kernel, open_kernel

from .clients import ANYKERNEL, CLIENTS
from .kernels import KERNELS, ROOT

# What may be added between the end of the warm-up and the end of a phase. Threads are those of the event loops'
# pools, which come and go.
SLACK = {"rss": 4 * 2**20, "descriptors": 2, "threads": 2, "requests": 0}
# Executions that are under way at once.
CONCURRENT = 10
# What the kernel is asked to do in turn: nothing, print, display.
CODES = ("pass", "stream 5 100", "display 1")


@dataclass(frozen=True)
class Sample:
    phase: Literal["cycles", "executes"]
    count: int
    """How many cycles or executions are behind."""
    rss: int
    """Bytes."""
    descriptors: int
    threads: int
    requests: int
    """In the kernel's request table, when nobody waits for anything."""

    def __str__(self) -> str:
        return (
            f"{self.count:7} {self.phase:9} {self.rss / 2**20:8.1f} MiB {self.descriptors:4} descriptors "
            f"{self.threads:3} threads {self.requests:3} requests"
        )


def _ignore(_: Sample) -> None:
    pass


async def soak(
    cycles: int = 200,
    executes: int = 20_000,
    *,
    kernel: str = "echo",
    intervals: int = 10,
    report: Callable[[Sample], object] = _ignore,
) -> list[Sample]:
    """Open and close a kernel ``cycles`` times, then execute ``executes`` times in one echo kernel; the samples.

    ``kernel`` is ``"echo"`` or ``"ipykernel"``, for the first phase. Each phase gives ``intervals`` samples, handed to
    ``report`` as they are taken; `growth` judges them.
    """
    samples: list[Sample] = []

    def look(phase: Literal["cycles", "executes"], count: int, kernel: Kernel) -> None:
        gc.collect()
        process, connection = psutil.Process(), kernel._link.connection
        requests = len(connection.router) if connection is not None else 0
        with process.oneshot():
            sample = Sample(phase, count, process.memory_info().rss, process.num_fds(), process.num_threads(), requests)
        samples.append(sample)
        report(sample)

    for count in range(1, cycles + 1):
        async with open_kernel(KERNELS[kernel], cwd=ROOT) as opened:
            assert (await opened.execute("pass")).ok
        if count % max(1, cycles // intervals) == 0:
            look("cycles", count, opened)

    async def run(code: str) -> None:
        assert (await opened.execute(code)).ok

    async with open_kernel(KERNELS["echo"], cwd=ROOT) as opened:
        step = max(CONCURRENT, executes // intervals)
        for start in range(0, executes, step):
            for number in range(start, min(start + step, executes), CONCURRENT):
                async with anyio.create_task_group() as tasks:
                    for index in range(number, min(number + CONCURRENT, executes)):
                        tasks.start_soon(run, CODES[index % len(CODES)])
            look("executes", min(start + step, executes), opened)
    return samples


def growth(samples: list[Sample], slack: dict[str, int] = SLACK) -> list[str]:
    """What grew by more than the slack after the warm-up of its phase; empty if all is well."""
    found = []
    for phase in ("cycles", "executes"):
        taken = [sample for sample in samples if sample.phase == phase]
        if not taken:
            continue
        first, last = taken[len(taken) // 5], taken[-1]
        for name, allowed in slack.items():
            before, after = getattr(first, name), getattr(last, name)
            if after - before > allowed:
                found.append(f"{phase}: {name} grew from {before:,} to {after:,}, by more than {allowed:,}")
    return found


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks soak", description=__doc__)
    parser.add_argument("--cycles", type=int, default=200, metavar="N")
    parser.add_argument("--executes", type=int, default=20_000, metavar="N")
    parser.add_argument("--kernel", choices=tuple(KERNELS), default="echo", help="for the cycles (default: echo)")
    backends = {name.removeprefix("anykernel "): CLIENTS[name] for name in ANYKERNEL}
    parser.add_argument("--backend", choices=tuple(backends), default="asyncio")
    parser.add_argument("--quick", action="store_true", help="10 cycles, 1,000 executes")
    options = parser.parse_args(arguments)
    cycles, executes = (10, 1_000) if options.quick else (options.cycles, options.executes)
    client = backends[options.backend]
    with tempfile.TemporaryDirectory(prefix="benchmark-") as directory:
        os.environ["IPYTHONDIR"] = directory
        samples = anyio.run(
            partial(soak, cycles, executes, kernel=options.kernel, report=partial(print, flush=True)),
            backend=client.backend,
            backend_options=client.backend_options,
        )
    found = growth(samples)
    for line in found:
        print(line, file=sys.stderr)
    print("FAILED: something grows" if found else "nothing grows")
    return 1 if found else 0
