"""What do many kernels in one process cost, in requests and while they are idle?

Each kernel gets its requests at once; the memory, descriptors and threads are what one more connection takes.
"""

from __future__ import annotations

import anyio

from .clients import ASYNCIO, CLIENTS, CONKERNEL, TRIO
from .harness import Job, Sample, Stopwatch, Table, Target, operation

KERNELS = {"quick": 2, "default": 50, "full": 200}
REQUESTS = 20
# So that one kernel alone is busy for as long as takes to measure.
TOTAL = 4_000


async def at_once(*clients, count: int, batches: int) -> Sample:
    watch = Stopwatch()
    for _ in range(batches):
        async with anyio.create_task_group() as tasks:
            for client in clients:
                tasks.start_soon(client.at_once, count)
    return watch.read(count * batches * len(clients))


def tables(size: str) -> list[Table]:
    def job(client: str, kernels: int) -> Job:
        batches = max(1, (TOTAL if size != "quick" else 0) // (REQUESTS * kernels))
        return operation(at_once, client, kernels=kernels, count=REQUESTS, batches=batches)

    number, names = KERNELS[size], [name for name in (ASYNCIO, TRIO, CONKERNEL) if name in CLIENTS]
    jobs = {name: (job(name, 1), job(name, number)) for name in names}
    return [
        Table(
            f"{name}: {REQUESTS} requests at once to each of how many kernels",
            {"1 kernel": one, f"{number} kernels": many},
            targets=() if name == CONKERNEL else (Target(f"{number} kernels", 1.2, "1 kernel"),),
        )
        for name, (one, many) in jobs.items()
    ] + [
        Table(
            "one more connection, idle",
            {name: many for name, (_, many) in jobs.items()},
            part="connection",
            columns=("memory", "descriptors", "threads"),
        )
    ]
