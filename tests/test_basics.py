from __future__ import annotations

import anyio

from anykernel import open_kernel


async def test_200_tasks_each_get_their_own_reply_and_output():
    results = {}

    async def run(kernel, i):
        results[i] = await kernel.execute(f"print('out {i}')\n{i} * 1000")

    with anyio.fail_after(60):
        async with open_kernel() as kernel:
            async with anyio.create_task_group() as tasks:
                for i in range(200):
                    tasks.start_soon(run, kernel, i)
    assert {i: (r.stdout, r.data["text/plain"], r.complete) for i, r in results.items()} == {
        i: (f"out {i}\n", str(i * 1000), True) for i in range(200)
    }
