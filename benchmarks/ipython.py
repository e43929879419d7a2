"""What does the client cost beside a real kernel, ipykernel: cells one by one, and a cell with many displays?

And the price of the safe default: cells that do nothing, all at once, with one in the kernel at a time or eight.
"""

from __future__ import annotations

from .clients import ASYNCIO, CONKERNEL, TRIO, clients
from .execute import at_once, one_by_one
from .harness import Sample, Stopwatch, Table, Target, operation

CELLS = {"quick": 5, "default": 100, "full": 300}
DISPLAYS = {"quick": 50, "default": 4_000, "full": 20_000}
IN_FLIGHT = (1, 8)


async def displays(client, *, count: int) -> Sample:
    code = f"for _ in range({count}): display({{'text/plain': 'x' * 100}}, raw=True)"
    watch = Stopwatch()
    received = await client.execute(code) // 100
    # The kernel drops what a client does not take in time: ZMQ queues a thousand messages, if it is not told otherwise.
    return {**watch.read(max(1, received)), "lost": count - received}


def tables(size: str) -> list[Table]:
    cells, count = CELLS[size], DISPLAYS[size]
    targets = Target(ASYNCIO, 0.60, CONKERNEL), Target(TRIO, 1.25, ASYNCIO)
    return [
        Table(
            f"ipykernel, {cells} cells one by one",
            {name: operation(one_by_one, name, kernel="ipykernel", count=cells) for name in clients(size)},
            targets=targets,
            chart="ipykernel,\ncell",
        ),
        Table(
            f"ipykernel, {count:,} displays",
            {name: operation(displays, name, kernel="ipykernel", count=count) for name in clients(size)},
            columns=("cpu", "wall", "lost"),
            targets=(*targets, Target(ASYNCIO, 0, column="lost"), Target(TRIO, 0, column="lost")),
            chart="ipykernel,\ndisplay",
        ),
        Table(
            f"ipykernel, {cells} cells at once, by how many lie in the kernel",
            {
                f"max_in_flight={number}": operation(
                    at_once, ASYNCIO, kernel="ipykernel", options={"max_in_flight": number}, count=cells
                )
                for number in IN_FLIGHT
            },
        ),
    ]
