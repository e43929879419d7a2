"""The tables as text and as JSON, with the machine and the versions that they speak of."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from .harness import Table

PACKAGES = (
    *("anykernel-client", "anyio", "trio", "uvloop", "pyzmq", "msgspec"),
    *("jupyter_client", "conkernelclient", "jupywire", "nbclient", "ipykernel"),
)
# For small and large values, what makes them readable.
TIMES = ((1e6, "us"), (1e3, "ms"))
NUMBERS = ((1, ""), (1, ""))
UNITS = {"memory": ((1e-3, "kB"), (1e-6, "MB")), "descriptors": NUMBERS, "threads": NUMBERS, "lost": NUMBERS}


def environment() -> dict[str, Any]:
    """Machine and versions."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "date": datetime.now(timezone.utc).date().isoformat(),
        "machine": f"{_processor()}, {os.cpu_count()} CPUs, {platform.system()} {platform.machine()}",
        "load": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        "versions": versions,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def results(tables: Sequence[Table], where: dict[str, Any]) -> dict[str, Any]:
    """All there is to keep: medians, samples and targets, in seconds and bytes."""
    return {
        **where,
        "tables": [
            {
                "title": table.title,
                "rows": {
                    row: {"medians": table.medians[row], "samples": table.samples[row]}
                    if row in table.samples
                    else None
                    for row in table.rows
                },
                "targets": [
                    {"target": str(target), "limit": target.limit, "value": value, "met": value <= target.limit}
                    for target in table.targets
                    if (value := target.value(table)) is not None
                ],
            }
            for table in tables
        ],
    }


def text(tables: Sequence[Table], where: dict[str, Any]) -> str:
    """The tables as a person reads them."""
    versions = ", ".join(f"{name} {number}" for name, number in where["versions"].items())
    lines = [f"{where['machine']}, load {where['load']}", f"Python {where['python']}, {versions}"]
    met = missed = 0
    for table in tables:
        lines += ["", *_table(table)]
        for target in table.targets:
            value = target.value(table)
            if value is not None:
                is_met = value <= target.limit
                met, missed = met + is_met, missed + (not is_met)
                lines.append(f"  {'met   ' if is_met else 'MISSED'} {target}: {target.show(value)}")
    lines += ["", f"{met} targets met, {missed} missed"]
    return "\n".join(lines)


def _table(table: Table) -> list[str]:
    """Each column with its ratio to the first row, and with the spread of its samples (highest to lowest, of the median)."""
    medians = table.medians
    first = next(iter(medians), "")
    header = f"{table.title:<56}"
    scales = {}
    for column in table.columns:
        small, large = UNITS.get(column, TIMES)
        scales[column], unit = small if medians.get(first, {}).get(column, 0) * small[0] < 10_000 else large
        header += f"{f'{column} {unit}'.strip():>12}{'ratio':>8}{'spread':>8}"
    lines = [header]
    for row in table.rows:
        line = f"  {row:<54}"
        if row not in medians:
            lines.append(f"{line}{'cannot' if table.rows[row] is None else 'failed':>12}")
            continue
        for column in table.columns:
            value, samples = medians[row][column], [sample[column] for sample in table.samples[row]]
            compared = table.compare(row, first, column)
            ratio = "-" if compared is None else f"{compared:.2f}"
            spread = f"{(max(samples) - min(samples)) / value:.0%}" if value else "-"
            line += f"{value * scales[column]:12.1f}{ratio:>8}{spread:>8}"
        lines.append(line)
    return lines
