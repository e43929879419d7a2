"""Kernels behind a Jupyter Server: ``python -m benchmarks.servers [ROUNDS]`` compares clients on one server, in one run.

The rows are a bare WebSocket that sends the same requests and waits for the same messages (the floor of what the server
allows), anykernel, and jupyter-kernel-client. Each sample is a process of its own; rounds alternate, and medians count. It
needs the extras ``server`` and ``test``, and jupyter-kernel-client.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from functools import partial
from statistics import median

from .harness import ROOT, Stopwatch

TOKEN = "benchmark"
ONE_BY_ONE = 200
AT_ONCE = 640
DISPLAYS = 10_000
LARGE = 50_000_000


async def bare(url):
    """The floor: framing and nothing else, with pongs after each read."""
    from anykernel import Message
    from anykernel._protocol import decode_v1, encode_v1, is_idle
    from anykernel.server.address import Address
    from anykernel.server.http import open_http
    from anykernel.server.remote import Remote, new_id

    address = Address(url)
    async with open_http(address, token=TOKEN, headers={}, ssl_context=None, proxy=None, timeout=30) as http:
        remote = Remote(http)
        kernel_id = await remote.start("python3", None, {}, new_id())
        socket = await http.upgrade("api", "kernels", kernel_id, "channels", session_id=f"x{os.getpid()}")
        count = 0

        async def execute(code):
            nonlocal count
            count += 1
            header = {"msg_id": f"m{count}", "msg_type": "execute_request", "session": "bare", "version": "5.4"}
            content = {
                "code": code,
                "silent": False,
                "store_history": False,
                "user_expressions": {},
                "allow_stdin": False,
            }
            socket.put(encode_v1(Message("shell", header, content=content)))
            await socket.flush()
            replied = idle = False
            while not (replied and idle):
                for data in await socket.receive():
                    message = decode_v1(data)
                    if message.parent_id == header["msg_id"]:
                        replied = replied or message.channel == "shell"
                        idle = idle or is_idle(message)
                await socket.flush()

        for _ in range(20):
            await execute("1")
        watch = Stopwatch()
        for _ in range(ONE_BY_ONE):
            await execute("1")
        one = watch.read(ONE_BY_ONE)
        await socket.aclose()
        await remote.delete(kernel_id)
    return {"one by one": one}


async def ours(url):
    import anyio

    from anykernel import open_server

    samples = {}
    async with open_server(url, token=TOKEN) as server:
        watch = Stopwatch()
        async with server.open_kernel(output_limit=2**28) as kernel:
            await kernel.execute("1")
            samples["start to first result"] = watch.read()
            for _ in range(20):
                await kernel.execute("1", store_history=False)  # what the kernel writes to disk is not in question
            watch = Stopwatch()
            for _ in range(ONE_BY_ONE):
                await kernel.execute("1", store_history=False)
            samples["one by one"] = watch.read(ONE_BY_ONE)
            watch = Stopwatch()
            async with anyio.create_task_group() as tasks:
                for _ in range(AT_ONCE):
                    tasks.start_soon(partial(kernel.execute, "1", store_history=False))
            samples["at once"] = watch.read(AT_ONCE)
            watch = Stopwatch()
            result = await kernel.execute(f"for i in range({DISPLAYS}): display(i)")
            samples["displays"] = {**watch.read(), "arrived": len(result.outputs), "told": not result.complete}
            watch = Stopwatch()
            result = await kernel.execute(f"display({{'text/plain': 'x' * {LARGE}}}, raw=True)")
            samples["large"] = {**watch.read(), "arrived": len(result.outputs), "told": not result.complete}
    return samples


def theirs(url):
    from jupyter_kernel_client import JupyterKernelClient

    samples = {}
    watch = Stopwatch()
    with JupyterKernelClient(server_url=url.rstrip("/"), token=TOKEN) as kernel:
        kernel.execute("1")
        samples["start to first result"] = watch.read()
        for _ in range(20):
            kernel.execute("1", store_history=False)
        watch = Stopwatch()
        for _ in range(ONE_BY_ONE):
            kernel.execute("1", store_history=False)
        samples["one by one"] = watch.read(ONE_BY_ONE)
        watch = Stopwatch()
        result = kernel.execute(f"for i in range({DISPLAYS}): display(i)", timeout=120)
        samples["displays"] = {**watch.read(), "arrived": len(result["outputs"]), "told": result["status"] != "ok"}
        watch = Stopwatch()
        result = kernel.execute(f"display({{'text/plain': 'x' * {LARGE}}}, raw=True)", timeout=120)
        samples["large"] = {**watch.read(), "arrived": len(result["outputs"])}
    return samples


CLIENTS = {"a bare WebSocket": bare, "anykernel": ours, "jupyter-kernel-client": theirs}


def measure(client, url):
    """One sample of each of a client's operations, by a process of its own."""
    argv = [sys.executable, "-m", "benchmarks.servers", "--client", client, url]
    run = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    if run.returncode:
        raise RuntimeError(f"{client}: {run.stderr[-2000:]}")
    return json.loads(run.stdout.splitlines()[-1])


def main(rounds):
    sys.path.insert(0, str(ROOT))
    from tests.server.servers import jupyter_server

    samples = {client: [] for client in CLIENTS}
    with tempfile.TemporaryDirectory() as directory, jupyter_server(directory, token=TOKEN) as server:
        for _ in range(rounds):
            for client in CLIENTS:
                samples[client].append(measure(client, server.url))
    print(f"{'':24}{'':24}{'wall ms':>10}{'CPU ms':>10}  arrived")
    for operation in ("one by one", "at once", "displays", "large", "start to first result"):
        for client, rows in samples.items():
            cells = [row[operation] for row in rows if operation in row]
            if cells:
                wall, cpu = (1e3 * median(cell[column] for cell in cells) for column in ("wall", "cpu"))
                arrived = [cell["arrived"] for cell in cells if "arrived" in cell]
                print(f"{operation:24}{client:24}{wall:10.2f}{cpu:10.2f}  {arrived or ''}", flush=True)
    print(f"({ONE_BY_ONE} executes one by one, {AT_ONCE} at once, {DISPLAYS} displays, {LARGE} bytes; {rounds} rounds)")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--client"]:
        name, address = sys.argv[2:4]
        function = CLIENTS[name]
        if name == "jupyter-kernel-client":
            print(json.dumps(function(address)))
        else:
            import anyio

            print(json.dumps(anyio.run(function, address)))
    else:
        started = time.monotonic()
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
        print(f"{time.monotonic() - started:.0f} s")
