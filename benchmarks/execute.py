"""What does it cost to run a cell: execute_request to reply and idle, with a kernel that does nothing?

One by one, each after the last has settled; and many at once, of which anykernel lets one (its default) or 64 lie in
the kernel, and the others that can do this at all send everything.
"""

from __future__ import annotations

from .clients import ANYKERNEL, ASYNCIO, CLIENTS, CONKERNEL, FLOOR, NOTHING, TRIO, can
from .harness import Job, Sample, Stopwatch, Table, Target, operation

COUNTS = {"quick": 20, "default": 1_000, "full": 3_000}
IN_FLIGHT = 64


async def one_by_one(client, *, count: int) -> Sample:
    watch = Stopwatch()
    for _ in range(count):
        await client.execute(NOTHING)
    return watch.read(count)


async def at_once(client, *, count: int, batches: int = 1) -> Sample:
    watch = Stopwatch()
    for _ in range(batches):
        await client.at_once(count)
    return watch.read(count * batches)


def tables(size: str) -> list[Table]:
    count = COUNTS[size]
    return [
        Table(
            f"execute, one by one ({count:,})",
            {name: operation(one_by_one, name, count=count) for name in CLIENTS},
            targets=(
                Target(ASYNCIO, 0.40, CONKERNEL),
                Target(ASYNCIO, 1.7, FLOOR),
                Target(TRIO, 1.25, ASYNCIO),
            ),
            chart="execute,\none by one",
        ),
        Table(
            f"execute, {count:,} at once",
            _at_once_rows(count),
            targets=tuple(
                target
                for number in (1, IN_FLIGHT)
                for target in (
                    Target(_name(ASYNCIO, number), 0.40, CONKERNEL),
                    Target(_name(TRIO, number), 1.25, _name(ASYNCIO, number)),
                )
            ),
            chart=f"execute,\n{count:,} at once",
        ),
    ]


def _at_once_rows(count: int) -> dict[str, Job | None]:
    rows: dict[str, Job | None] = {FLOOR: operation(at_once, FLOOR, count=count)}
    for in_flight in (1, IN_FLIGHT):
        for name in ANYKERNEL:
            rows[_name(name, in_flight)] = operation(at_once, name, options={"max_in_flight": in_flight}, count=count)
    for name in CLIENTS:
        if name not in ANYKERNEL and name != FLOOR:
            rows[name] = operation(at_once, name, count=count) if can(name, "at_once") else None
    return rows


def _name(client: str, in_flight: int) -> str:
    return client if in_flight == 1 else f"{client}, {in_flight} in flight"
