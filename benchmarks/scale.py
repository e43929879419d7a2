"""Does a message cost more where much is waiting: requests that the kernel has not answered, or open streams?

The kernel holds back the answers to so many requests, and meanwhile prints: for another request, which is waited for,
or for the held ones in turn, each of which has a task that takes its outputs as they come. (With one stream, that task
wakes once for many messages; with a thousand, a task wakes for each.)
"""

from __future__ import annotations

import anyio

from .clients import ASYNCIO, CLIENTS, CONKERNEL
from .harness import Sample, Stopwatch, Table, Target, operation

MESSAGES = {"quick": 200, "default": 5_000, "full": 20_000}
WAITING = {"quick": (1, 10), "default": (10, 100, 1_000), "full": (10, 100, 1_000, 10_000)}
STREAMS = {"quick": (1, 10), "default": (1, 10, 100, 1_000), "full": (1, 10, 100, 1_000)}
SIZE = 100


async def waiting(client, *, waiting: int, count: int) -> Sample:
    held = [await client.submit("hold") for _ in range(waiting)]
    await client.execute("pass")  # what the kernel said of the held ones has come before this has
    watch = Stopwatch()
    assert await client.execute(f"stream {count} {SIZE}") == count * SIZE
    sample = watch.read(count)
    await _release(client, held)
    return sample


async def streams(client, *, streams: int, count: int) -> Sample:
    held = [await client.submit("hold") for _ in range(streams)]
    each = count // streams
    taken = 0
    all_taken = anyio.Event()

    async def take(outputs) -> None:
        nonlocal taken
        async for _ in outputs:
            taken += 1
            if taken == each * streams:
                all_taken.set()

    async with anyio.create_task_group() as tasks:
        for outputs in held:
            tasks.start_soon(take, outputs)
        await client.execute("pass")  # by then, all of them wait for more
        watch = Stopwatch()
        await client.execute(f"feed {each * streams} {SIZE}")
        await all_taken.wait()
        sample = watch.read(each * streams)
        await client.execute("release")
    return sample


async def _release(client, held) -> None:
    await client.execute("release")
    for outputs in held:
        async for _ in outputs:
            pass


def tables(size: str) -> list[Table]:
    count = MESSAGES[size]
    return [
        Table(
            f"{name}: a message, by how many {what}",
            {
                f"{number:,}": operation(
                    function,
                    name,
                    options={"max_in_flight": 2**30} if name == ASYNCIO else None,
                    count=count,
                    **{function.__name__: number},
                )
                for number in numbers[size]
            },
            targets=(Target(f"{numbers[size][-1]:,}", 1.2, f"{numbers[size][0]:,}"),) if name == ASYNCIO else (),
        )
        for function, what, numbers in (
            (waiting, "requests wait", WAITING),
            (streams, "streams are open", STREAMS),
        )
        for name in (ASYNCIO, CONKERNEL)
        if name in CLIENTS
    ]
