"""Does an execute cost more where there are many at once: a hundred, or a hundred thousand?

Python's garbage collector looks at all that is alive again and again, whatever the client does. So the most are run
without it, too.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from .clients import ASYNCIO
from .execute import at_once
from .harness import Job, Sample, Table, Target, operation

NUMBERS = {"quick": (10, 20), "default": (100, 1_000, 10_000), "full": (100, 1_000, 10_000, 100_000)}
IN_FLIGHT = (1, 64)
# So many in all: few alone are over too soon.
TOTAL = 10_000
UNCOLLECTED = "without garbage collection"


async def at_once_uncollected(client, *, count: int, batches: int) -> Sample:
    gc.disable()
    return await at_once(client, count=count, batches=batches)


def tables(size: str) -> list[Table]:
    numbers = NUMBERS[size]
    most = numbers[-1]
    return [
        Table(
            f"{ASYNCIO}, max_in_flight={in_flight}: an execute, by how many at once",
            {f"{number:,}": _at_once(number, in_flight, most) for number in numbers}
            | {f"{most:,}, {UNCOLLECTED}": _at_once(most, in_flight, most, at_once_uncollected)},
            targets=(
                Target(f"{most:,}", 1.1, f"{numbers[0]:,}"),
                Target(f"{most:,}, {UNCOLLECTED}", 1.1, f"{numbers[0]:,}"),
            ),
        )
        for in_flight in IN_FLIGHT
    ]


def _at_once(count: int, in_flight: int, most: int, function: Callable[..., Any] = at_once) -> Job:
    batches = max(1, min(most, TOTAL) // count)
    job = operation(function, ASYNCIO, options={"max_in_flight": in_flight}, count=count, batches=batches)
    # Those that take a minute average by themselves.
    return replace(job, rounds=1) if count > TOTAL else job
