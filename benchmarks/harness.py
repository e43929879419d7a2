"""Measuring: each measurement is a process of its own, which prints what it cost; rounds alternate; medians count.

A measurement's process prints one line, ``{"part": {"cpu": seconds, "wall": seconds}, ...}``, by `print_samples`. The
CPU time is that process's only: kernels are other processes. This module imports nothing that is measured.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
KERNELS = {
    "echo": [sys.executable, "-m", "benchmarks.echo_kernel", "{connection_file}"],
    "ipykernel": [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}", "--log-level=ERROR"],
}
PACKAGES = (
    *("anykernel-client", "anyio", "trio", "uvloop", "pyzmq", "msgspec"),
    *("jupyter_client", "conkernelclient", "jupywire", "ipykernel"),
)
# Seconds that one measurement may take.
TIMEOUT = 180


class Stopwatch:
    """CPU time of this process (all its threads) and wall time since it was made."""

    def __init__(self) -> None:
        self._cpu, self._wall = time.process_time(), time.perf_counter()

    def read(self, count: int = 1) -> dict[str, float]:
        """Seconds for each of ``count`` operations."""
        return {
            "cpu": (time.process_time() - self._cpu) / count,
            "wall": (time.perf_counter() - self._wall) / count,
        }


def print_samples(samples: dict[str, dict[str, float]]) -> None:
    print(json.dumps(samples))


@dataclass(frozen=True)
class Measurement:
    """What one process measures, and where it stands in the tables.

    Args:
        client: the row.
        workloads: for each part that the process prints, the title of its table.
        argv: arguments for Python, with ``{connection_file}`` where it needs a running kernel; empty where the client
            cannot do this.
        kernel: which of `KERNELS` runs meanwhile.
    """

    client: str
    workloads: dict[str, str]
    argv: Sequence[str] = ()
    kernel: str = "echo"

    def run(self, kernels: Kernels) -> dict[str, dict[str, float]]:
        argv = [arg.format(connection_file=kernels[self.kernel]) if "{" in arg else arg for arg in self.argv]
        process = subprocess.run(
            [sys.executable, *argv], cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT, check=False
        )
        if process.returncode != 0:
            raise SystemExit(f"{self.client} failed in {', '.join(self.workloads)}:\n{process.stderr}")
        samples = json.loads(process.stdout.splitlines()[-1])
        return {title: samples[part] for part, title in self.workloads.items()}


class Kernels:
    """The kernels of one round: each started when the first client asks, and shared by all."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._files: dict[str, str] = {}

    def __getitem__(self, name: str) -> str:
        if name not in self._files:
            self._files[name] = self._stack.enter_context(running_kernel(KERNELS[name]))
        return self._files[name]


@contextmanager
def running_kernel(argv: Sequence[str]) -> Iterator[str]:
    """Run a kernel for the length of a block; gives its connection file. It may not be ready yet."""
    from jupyter_client.connect import write_connection_file

    with tempfile.TemporaryDirectory(prefix="benchmark-") as directory:
        connection_file, _ = write_connection_file(
            f"{directory}/kernel.json", ip="127.0.0.1", key=os.urandom(16).hex().encode()
        )
        # With JPY_PARENT_PID, ipykernel ends when this process does, whatever ends it; the echo kernel looks itself.
        process = subprocess.Popen(
            [arg.format(connection_file=connection_file) for arg in argv],
            cwd=ROOT,
            env={**os.environ, "JPY_PARENT_PID": str(os.getpid()), "IPYTHONDIR": directory},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        try:
            yield connection_file
        finally:
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


Samples = dict[str, dict[str, list[dict[str, float]]]]
"""Title of the table, row, then one sample for each round."""


def run(measurements: Sequence[Measurement], rounds: int) -> Samples:
    """Run all measurements ``rounds`` times, every other time backwards; prints dots."""
    samples: Samples = {}
    for measurement in measurements:
        for title in measurement.workloads.values():
            samples.setdefault(title, {})[measurement.client] = []
    for number in range(rounds):
        with ExitStack() as stack:
            kernels = Kernels(stack)
            for measurement in measurements if number % 2 == 0 else reversed(measurements):
                if measurement.argv:
                    for title, sample in measurement.run(kernels).items():
                        samples[title][measurement.client].append(sample)
                    print(".", end="", file=sys.stderr, flush=True)
        print(f" round {number + 1} of {rounds}", file=sys.stderr)
    return samples


def environment() -> dict[str, Any]:
    """Machine and versions."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": f"{_processor()}, {os.cpu_count()} CPUs, {platform.platform()}",
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
        "versions": versions,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def summary(samples: Samples) -> dict[str, dict[str, dict[str, Any]]]:
    """Medians and, for each table, ratios to its first row."""
    tables: dict[str, dict[str, dict[str, Any]]] = {}
    for title, rows in samples.items():
        table = tables[title] = {}
        base: dict[str, float] = {}
        for client, row in rows.items():
            if not row:
                table[client] = {}
                continue
            medians = {kind: median(sample[kind] for sample in row) for kind in ("cpu", "wall")}
            base = base or medians
            table[client] = {
                kind: {"median": value, "ratio": value / base[kind], "samples": [sample[kind] for sample in row]}
                for kind, value in medians.items()
            }
    return tables


def report(tables: dict[str, dict[str, dict[str, Any]]], where: dict[str, Any]) -> str:
    """The tables as text."""
    lines = [
        where["machine"] + f", load {where['load']:.1f}",
        f"Python {where['python']}, " + ", ".join(f"{name} {number}" for name, number in where["versions"].items()),
    ]
    for title, table in tables.items():
        first = next(row for row in table.values() if row)
        scale, unit = (1e6, "us") if first["wall"]["median"] < 0.01 else (1e3, "ms")
        lines += ["", f"{title:<52}{f'CPU {unit}':>9}{'ratio':>8}{f'wall {unit}':>11}{'ratio':>8}"]
        for client, row in table.items():
            cells = (
                f"{row[kind]['median'] * scale:{width}.{1 if unit == 'us' else 0}f}{row[kind]['ratio']:8.2f}"
                for kind, width in (("cpu", 9), ("wall", 11))
            ) if row else [f"{'cannot':>9}"]  # fmt: skip
            lines.append(f"  {client:<50}{''.join(cells)}")
    return "\n".join(lines)
