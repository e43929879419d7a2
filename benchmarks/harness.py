"""Measuring: each job is a process of its own, which prints what it cost; rounds alternate; medians count.

A question's module has ``tables(size)``: its tables, for the sizes ``"quick"`` (shows that everything works),
``"default"`` and ``"full"`` (what the targets speak of). A row of a table is a `Job`, a process that prints one line of
JSON, ``{part: {column: value}}``. Its CPU time is that process's only: kernels are other processes. This module
imports nothing that is measured.
"""

from __future__ import annotations

import json
import operator
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from .kernels import Kernels

ROOT = Path(__file__).resolve().parent.parent
# Seconds that one job may take.
TIMEOUT = 600

Sample = dict[str, float]
"""Column to value: seconds, bytes or a number."""


class Stopwatch:
    """CPU time of this process (all its threads) and wall time since it was made."""

    def __init__(self) -> None:
        self._cpu, self._wall = time.process_time(), time.perf_counter()

    def read(self, count: int = 1) -> Sample:
        """Seconds for each of ``count`` operations."""
        wall, cpu = time.perf_counter(), time.process_time()
        return {"cpu": (cpu - self._cpu) / count, "wall": (wall - self._wall) / count}


def print_samples(samples: dict[str, Sample]) -> None:
    print(json.dumps(samples))


class JobError(Exception):
    """Raised when a job's process fails, with what it wrote to its stderr."""


@dataclass(frozen=True)
class Job:
    """A process that measures.

    Args:
        argv: arguments for Python, with ``{connection_files}`` where it needs running kernels, and ``{now}`` where
            it needs the time (`time.monotonic`) at which it was started.
        kernel: which of `benchmarks.kernels` it needs; None for none.
        kernels: how many of them.
        rounds: in how many rounds it runs at most.
    """

    argv: tuple[str, ...]
    kernel: str | None = "echo"
    kernels: int = 1
    rounds: int = sys.maxsize

    def run(self, kernels: Kernels) -> dict[str, Sample]:
        files = kernels.connection_files(self.kernel, self.kernels) if self.kernel else ""
        argv = [arg.replace("{connection_files}", files) for arg in self.argv]
        # What is measured is compiled, whatever is usual here.
        env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        process = subprocess.run(
            [sys.executable, *(arg.replace("{now}", str(time.monotonic())) for arg in argv)],
            cwd=ROOT, env=env, capture_output=True, text=True, timeout=TIMEOUT, check=False,
        )  # fmt: skip
        if process.returncode != 0:
            raise JobError(f"failed: {' '.join(self.argv)}\n{process.stderr}")
        return json.loads(process.stdout.splitlines()[-1])


def operation(
    function: Callable[..., Any],
    client: str,
    *,
    kernel: str = "echo",
    kernels: int = 1,
    options: dict[str, Any] | None = None,
    **numbers: int,
) -> Job:
    """A job that calls an async function of a question's module with a connected client (or several) and numbers.

    The function returns the sample. ``options`` are for the client's ``connect``.
    """
    what = {
        "module": function.__module__,
        "function": function.__name__,
        "client": client,
        "options": options or {},
        "numbers": numbers,
    }
    return Job(("-m", "benchmarks.operation", json.dumps(what), "{connection_files}"), kernel, kernels)


@dataclass(frozen=True)
class Target:
    """What a row's value is to be at most: ``limit`` times that of ``base``, or that and ``limit``, or ``limit``.

    Args:
        row: whose value.
        limit: a ratio; with ``over`` the seconds that may be added; without ``base`` the value itself.
        base: the row it is compared with.
        column: which value.
        over: compare by difference, not by ratio.
    """

    row: str
    limit: float
    base: str | None = None
    column: str = "cpu"
    over: bool = False

    def value(self, table: Table) -> float | None:
        """What is to be compared with the limit; None where it was not measured."""
        if self.base is None:
            return table.medians[self.row][self.column] if self.row in table.samples else None
        return table.compare(self.row, self.base, self.column, operator.sub if self.over else operator.truediv)

    def __str__(self) -> str:
        compared = "" if self.base is None else f" over {self.base}" if self.over else f" of {self.base}"
        return f"{self.row}: {self.column} at most {self.show(self.limit)}{compared}"

    def show(self, value: float) -> str:
        if self.base is not None and not self.over:
            return f"{value:.2f}"
        return f"{value * 1e3:.0f} ms" if self.column in ("cpu", "wall") else f"{value:g}"


@dataclass(frozen=True)
class Table:
    """The answer to a question: one row for each client (or number), the first being what the others are relative to.

    Args:
        title: with the numbers in it.
        rows: None where the client cannot do this.
        part: which of the parts that the jobs print.
        columns: of the parts' samples.
        targets: what is to be met.
        chart: the name of its group in the chart; empty if it has none.
    """

    title: str
    rows: dict[str, Job | None]
    part: str = "operation"
    columns: tuple[str, ...] = ("cpu", "wall")
    targets: tuple[Target, ...] = ()
    chart: str = ""
    samples: dict[str, list[Sample]] = field(default_factory=dict, compare=False)
    """Row to one sample for each round."""

    @property
    def medians(self) -> dict[str, Sample]:
        return {
            row: {column: median(sample[column] for sample in samples) for column in self.columns}
            for row, samples in self.samples.items()
        }

    def compare(
        self, row: str, base: str, column: str, by: Callable[[float, float], float] = operator.truediv
    ) -> float | None:
        """The median of the rounds' ratios (or differences) of two rows; None where there is none.

        By round, because a machine may be half as fast ten minutes later, and the jobs of a table run next to each other.
        """
        samples = zip(self.samples.get(row, ()), self.samples.get(base, ()), strict=False)  # some run in fewer rounds
        pairs = [(one[column], other[column]) for one, other in samples]
        return median(by(*pair) for pair in pairs) if pairs and all(other for _, other in pairs) else None


def run(tables: Sequence[Table], rounds: int) -> bool:
    """Run the tables' jobs ``rounds`` times, every other time backwards, into their ``samples``; prints dots.

    What fails is printed, and the others go on; Ctrl-C ends it, with what there is. Whether all was well.
    """
    well = True
    jobs = list(dict.fromkeys(job for table in tables for job in table.rows.values() if job is not None))
    for number in range(rounds):
        results: dict[Job, dict[str, Sample]] = {}
        interrupted = False
        try:
            with ExitStack() as stack:
                kernels = Kernels(stack)
                for job in jobs if number % 2 == 0 else reversed(jobs):
                    if number >= job.rounds:
                        continue
                    try:
                        results[job] = job.run(kernels)
                        print(".", end="", file=sys.stderr, flush=True)
                    except (JobError, subprocess.TimeoutExpired) as exc:
                        well = False
                        print(exc, file=sys.stderr)
        except KeyboardInterrupt:
            interrupted = True
        for table in tables:
            for row, job in table.rows.items():
                if job in results:
                    table.samples.setdefault(row, []).append(results[job][table.part])
        print(f" round {number + 1} of {rounds}, load {os.getloadavg()[0]:.1f}", file=sys.stderr)
        if interrupted:
            return False
    return well
