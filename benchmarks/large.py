"""What do large messages cost in time and memory: is anything copied more often than it must be?

Many outputs of a megabyte, of which anykernel keeps its default ``output_limit`` and the floor nothing; one huge
output, shown or printed; and a huge buffer, to the kernel and back. The memory is what the process grew by, at most;
for many outputs, that is mostly what ZMQ has received and the client has not read yet.
"""

from __future__ import annotations

from .clients import ANYKERNEL, ASYNCIO, CONKERNEL, FLOOR, TRIO, can, clients
from .harness import Job, Sample, Stopwatch, Table, Target, operation

MEGABYTE = 10**6
COUNTS = {"quick": 2, "default": 300, "full": 2_000}
SIZES = {"quick": 1, "default": 50, "full": 200}
BUFFERS = {"quick": 1, "default": 50, "full": 100}
# Less than the limit on what is kept of an execution's output.
KEPT = 60 * MEGABYTE
COLUMNS = ("cpu", "wall", "memory")
TIME_TARGETS = (Target(ASYNCIO, 1.25, FLOOR), Target(TRIO, 1.25, ASYNCIO), Target(ASYNCIO, 1.0, CONKERNEL))


async def displays(client, *, count: int, size: int) -> Sample:
    watch = Stopwatch()
    assert await client.execute(f"display {count} {size}") >= min(count * size, KEPT)
    return watch.read(count)


async def one_output(client, *, printed: int, size: int) -> Sample:
    watch = Stopwatch()
    code = f"stream 1 {size}" if printed else f"display 1 {size}"
    assert await client.execute(code) == size
    return watch.read()


async def echo(client, *, size: int) -> Sample:
    buffer = bytes(size)
    watch = Stopwatch()
    assert await client.echo(buffer) == size
    return watch.read()


def tables(size: str) -> list[Table]:
    count, megabytes, buffer = COUNTS[size], SIZES[size], BUFFERS[size]

    def one(name: str, printed: int) -> Job:
        options = {"output_limit": 2**30} if name in ANYKERNEL else None
        return operation(one_output, name, options=options, printed=printed, size=megabytes * MEGABYTE)

    return [
        Table(
            f"{count:,} displays of 1 MB",
            {name: operation(displays, name, count=count, size=MEGABYTE) for name in clients(size)},
            columns=COLUMNS,
            targets=TIME_TARGETS,
            chart="display\nof 1 MB",
        ),
        *(
            Table(
                f"one {what} of {megabytes} MB",
                {name: one(name, printed) for name in clients(size)},
                columns=COLUMNS,
                targets=(*TIME_TARGETS, Target(ASYNCIO, 1.25, FLOOR, "memory")),
            )
            for what, printed in (("display", 0), ("print", 10))
        ),
        Table(
            f"a buffer of {buffer} MB, to the kernel and back",
            {
                name: operation(echo, name, size=buffer * MEGABYTE) if can(name, "echo") else None
                for name in clients(size)
            },
            columns=COLUMNS,
            targets=(*TIME_TARGETS, Target(ASYNCIO, 1.25, FLOOR, "memory")),
        ),
    ]
