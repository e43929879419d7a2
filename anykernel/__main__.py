"""Show what the client does: ``python -m anykernel``."""

from __future__ import annotations

import time

import anyio

from anykernel import ExecutionTimeoutError, Kernel, open_kernel


async def main() -> None:
    """Let eight tasks use one kernel at once, stop a cell that takes too long, and let four kernels sleep at once."""
    async with open_kernel() as kernel:
        print(f"{kernel.info.implementation} {kernel.info.implementation_version} is ready, process {kernel.pid}")

        async def ask(number: int) -> None:
            result = await kernel.execute(f"print('computing...')\n{number} ** 2")
            print(f"  task {number} got {result.data['text/plain']:>3}, and the output {result.stdout!r}")
            if result.data["text/plain"] != str(number**2):
                raise SystemExit(f"task {number} got what is not its own")

        print("eight tasks execute on it at once:")
        async with anyio.create_task_group() as tasks:
            for number in range(10, 18):
                tasks.start_soon(ask, number)

        print("a cell that takes too long is stopped, and the kernel goes on:")
        try:
            await kernel.execute("import time\nprint('started')\ntime.sleep(1000)", timeout=0.5)
        except ExecutionTimeoutError as exc:
            print(f"  {exc}; its output was {exc.result.stdout!r}" if exc.result else "")
        print(f"  and 6 * 7 is {await kernel.evaluate('6 * 7')}")

    async def sleep(kernel: Kernel) -> None:
        await kernel.execute("import time; time.sleep(1)")

    async with (
        open_kernel() as one,
        open_kernel() as two,
        open_kernel() as three,
        open_kernel() as four,
    ):
        start = time.monotonic()
        async with anyio.create_task_group() as tasks:
            for kernel in (one, two, three, four):
                tasks.start_soon(sleep, kernel)
        print(f"four kernels slept a second each, all in {time.monotonic() - start:.1f} s")


if __name__ == "__main__":
    anyio.run(main)
