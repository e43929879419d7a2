"""What does a message of output cost: one execution that prints many times 100 bytes?"""

from __future__ import annotations

from .clients import ASYNCIO, CONKERNEL, FLOOR, TRIO, clients
from .harness import Sample, Stopwatch, Table, Target, operation

COUNTS = {"quick": 200, "default": 10_000, "full": 50_000}
SIZE = 100


async def stream(client, *, count: int, size: int) -> Sample:
    watch = Stopwatch()
    assert await client.execute(f"stream {count} {size}") == count * size
    return watch.read(count)


def tables(size: str) -> list[Table]:
    count = COUNTS[size]
    return [
        Table(
            f"{count:,} stream messages of {SIZE} bytes",
            {name: operation(stream, name, count=count, size=SIZE) for name in clients(size)},
            targets=(
                Target(ASYNCIO, 0.20, CONKERNEL),
                Target(ASYNCIO, 1.25, FLOOR),
                Target(TRIO, 1.25, ASYNCIO),
            ),
            chart="stream message\nof 100 bytes",
        )
    ]
