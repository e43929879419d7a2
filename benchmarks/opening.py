"""One client opens and leaves a real ipykernel, twice: ``python -m benchmarks.opening CLIENT STARTED``.

STARTED is the time (`time.monotonic`) at which this process was started. So the module imports next to nothing before
its client does.
"""

from __future__ import annotations

import json
import sys
import time
from contextlib import asynccontextmanager

FLOOR = "python as the kernel"
CODE, TEXT = "6 * 7", "42"


@asynccontextmanager
async def open_anykernel():
    from anykernel import open_kernel

    async with open_kernel("python3") as kernel:
        assert (await kernel.execute(CODE)).text == TEXT
        yield


@asynccontextmanager
async def open_jupyter_client():
    from jupyter_client.manager import start_new_async_kernel

    manager, client = await start_new_async_kernel(kernel_name="python3")
    try:
        msg_id = client.execute(CODE)
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
        assert text == TEXT
        yield
    finally:
        client.stop_channels()
        await manager.shutdown_kernel()


@asynccontextmanager
async def open_conkernelclient():
    from conkernelclient import run_kernel

    async with run_kernel("python3") as (_, client):
        [output] = await client.exec_outs(CODE)
        assert "".join(output["data"]["text/plain"]) == TEXT
        yield


@asynccontextmanager
async def open_nbclient():
    from nbclient import NotebookClient
    from nbformat.v4 import new_code_cell, new_notebook

    client = NotebookClient(new_notebook(cells=[new_code_cell(CODE)]), kernel_name="python3")
    async with client.async_setup_kernel():
        cell = await client.async_execute_cell(client.nb.cells[0], 0)
        assert cell["outputs"][0]["data"]["text/plain"] == TEXT
        yield


OTHERS = {
    "conkernelclient": open_conkernelclient,
    "jupyter_client async": open_jupyter_client,
    "nbclient": open_nbclient,
}
"""Besides anykernel, whose name is followed by that of the event loop. conkernelclient kills its kernel at the end."""


def be_the_kernel() -> None:
    from ipykernel.kernelapp import IPKernelApp

    IPKernelApp.instance().initialize(["--log-level=ERROR"])


def main(client: str, started: str) -> None:
    samples = {}
    wall, cpu = float(started), 0.0

    def lap(name: str) -> None:
        nonlocal wall, cpu
        samples[name] = {"cpu": time.process_time() - cpu, "wall": time.monotonic() - wall}
        wall, cpu = time.monotonic(), time.process_time()

    open_client = OTHERS.get(client, open_anykernel)

    async def open_twice() -> None:
        async with open_client():
            lap("first")
        lap("leave")
        async with open_client():
            lap("second")

    if client == FLOOR:
        be_the_kernel()
        lap("first")
    elif client.endswith("trio"):
        import trio

        trio.run(open_twice)
    elif client.endswith("uvloop"):
        import uvloop

        uvloop.run(open_twice())
    else:
        import asyncio

        asyncio.run(open_twice())
    print(json.dumps(samples), file=sys.__stdout__, flush=True)  # an ipykernel in this process takes sys.stdout


if __name__ == "__main__":
    main(*sys.argv[1:])
