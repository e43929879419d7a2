"""How long from nothing to the first result, with a real ipykernel, and out again? And what does the import cost?

"Nothing" is the moment before the client's Python is started. The same process then starts another kernel, which is
what every later one costs. The floor is a Python that is itself the kernel: imports ipykernel and initializes it.

``python -m benchmarks.startup MODULE`` compares a fresh Python that imports a module with one that does not.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from importlib.util import find_spec
from statistics import median

from .clients import ANYKERNEL, ASYNCIO, CONKERNEL, clients
from .harness import Job, Sample, Table, Target, print_samples
from .opening import FLOOR, OTHERS

MODULES = ("zmq", "msgspec", "anyio", "anykernel", "jupyter_client", "conkernelclient", "nbclient")
REPEATS = 5


def tables(size: str) -> list[Table]:
    names = [FLOOR, *(name for name in clients(size) if name in (*ANYKERNEL, *OTHERS))]
    jobs = {name: Job(("-m", "benchmarks.opening", name, "{now}"), kernel=None) for name in names}
    opened = {name: job for name, job in jobs.items() if name != FLOOR}
    modules = [name for name in MODULES if find_spec(name)] if size != "quick" else ["anykernel"]
    return [
        Table(
            "ipykernel, from nothing to the first result",
            jobs,
            part="first",
            targets=(Target(ASYNCIO, 1.05, CONKERNEL, "wall"), Target(ASYNCIO, 0.15, FLOOR, "wall", over=True)),
        ),
        Table("ipykernel, leaving the block", opened, part="leave", targets=(Target(ASYNCIO, 0.15, column="wall"),)),
        Table("ipykernel, another one and its first result", opened, part="second"),
        Table(
            "import, over bare Python",
            {name: Job(("-m", "benchmarks.startup", name), kernel=None) for name in modules},
            part="import",
            targets=(Target("anykernel", 0.060, column="wall"),),
        ),
    ]


def _cost(code: str) -> Sample:
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    return {"cpu": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, "wall": wall}


def main(module: str) -> None:
    _cost(f"import {module}")  # so that all is compiled, and in the page cache
    pairs = [(_cost(f"import {module}"), _cost("pass")) for _ in range(REPEATS)]
    print_samples(
        {"import": {column: median(full[column] - bare[column] for full, bare in pairs) for column in pairs[0][0]}}
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
