"""How long from nothing to the first result, with a real ipykernel, and out again? And what does the import cost?

``python -m benchmarks.startup open CLIENT`` starts a kernel twice in one process: the first time pays for the imports,
the second is what every later kernel costs. ``python -m benchmarks.startup import MODULE`` compares a fresh Python
that imports a module with one that does not.
"""

from __future__ import annotations

import asyncio
import resource
import subprocess
import sys
import time
from contextlib import asynccontextmanager

from .harness import Measurement, Stopwatch, print_samples

MODULES = ("zmq", "anykernel", "jupyter_client", "conkernelclient")
PARTS = {
    "first": "imports, kernel and first result",
    "leave_first": "leaving the first block",
    "second": "another kernel and its first result",
    "leave_second": "leaving the second block",
}


@asynccontextmanager
async def open_anykernel():
    from anykernel import open_kernel

    async with open_kernel("python3") as kernel:
        assert (await kernel.execute("6 * 7")).text == "42"
        yield


@asynccontextmanager
async def open_jupyter_client():
    from jupyter_client.manager import start_new_async_kernel

    manager, client = await start_new_async_kernel(kernel_name="python3")
    try:
        msg_id = client.execute("6 * 7")
        text = ""
        while True:
            message = await client.get_iopub_msg()
            if message["parent_header"].get("msg_id") != msg_id:
                continue
            if message["msg_type"] == "execute_result":
                text = message["content"]["data"]["text/plain"]
            elif message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
                break
        await client.get_shell_msg()
        assert text == "42"
        yield
    finally:
        client.stop_channels()
        await manager.shutdown_kernel()


@asynccontextmanager
async def open_conkernelclient():
    from conkernelclient import run_kernel

    async with run_kernel("python3") as (_, client):
        [output] = await client.exec_outs("6 * 7")
        assert "".join(output["data"]["text/plain"]) == "42"
        yield


CLIENTS = {
    "anykernel asyncio": (open_anykernel, "asyncio"),
    "anykernel uvloop": (open_anykernel, "uvloop"),
    "anykernel trio": (open_anykernel, "trio"),
    "jupyter_client": (open_jupyter_client, "asyncio"),
    "conkernelclient (kills its kernel at the end)": (open_conkernelclient, "asyncio"),
}


def measurements(*, quick: bool) -> list[Measurement]:
    clients, modules = ("anykernel asyncio",) if quick else tuple(CLIENTS), ("zmq", "anykernel") if quick else MODULES
    return [
        *(Measurement(name, PARTS, ["-m", "benchmarks.startup", "open", name]) for name in clients),
        *(
            Measurement(
                f"import {name}", {"import": "import, over bare Python"}, ["-m", "benchmarks.startup", "import", name]
            )
            for name in modules
        ),
    ]


def measure_open(name: str) -> None:
    open_client, loop = CLIENTS[name]
    samples = {}
    watch = Stopwatch()

    async def main() -> None:
        nonlocal watch
        for part in ("first", "second"):
            async with open_client():
                samples[part] = watch.read()
                watch = Stopwatch()
            samples[f"leave_{part}"] = watch.read()
            watch = Stopwatch()

    if loop == "trio":
        import trio

        trio.run(main)
    elif loop == "uvloop":
        import uvloop

        uvloop.run(main())
    else:
        asyncio.run(main())
    print_samples(samples)


def measure_import(module: str) -> None:
    _child_cost("pass")  # so that Python itself is in the page cache
    bare, full = _child_cost("pass"), _child_cost(f"import {module}")
    print_samples({"import": {kind: full[kind] - bare[kind] for kind in full}})


def _child_cost(code: str) -> dict[str, float]:
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    return {"cpu": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, "wall": wall}


if __name__ == "__main__":
    {"open": measure_open, "import": measure_import}[sys.argv[1]](sys.argv[2])
