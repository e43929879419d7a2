"""What does it cost to run a cell: execute_request to reply and idle?

One by one, each after the last has settled; and 3,000 calls at once, of which anykernel lets one (its default) or 64
lie in the kernel, and the others that can do this at all send everything. With a real ipykernel too, where the wall time is mostly the kernel's.
"""

from __future__ import annotations

from .clients import CLIENTS, ONE_IN_FLIGHT
from .harness import Measurement

COUNT, CELLS = 3000, 100


def measurements(*, quick: bool) -> list[Measurement]:
    if quick:
        return _measurements(100, "execute", "echo")
    return [
        *_measurements(COUNT, "execute", "echo"),
        *_measurements(CELLS, "execute in ipykernel", "ipykernel"),
    ]


def _measurements(count: int, title: str, kernel: str) -> list[Measurement]:
    one_by_one, at_once = f"{title}, one by one ({count:,})", f"{title}, {count:,} at once"
    return [
        *(_measurement(name, "one_by_one", count, one_by_one, kernel) for name in ONE_IN_FLIGHT),
        *(_measurement(name, "at_once", count, at_once, kernel) for name in CLIENTS),
    ]


def _measurement(client: str, operation: str, count: int, title: str, kernel: str) -> Measurement:
    if client == "jupyter_client" and operation == "at_once":
        return Measurement(client, {operation: title})
    argv = ["-m", "benchmarks.clients", client, operation, str(count), "{connection_file}"]
    return Measurement(client, {operation: title}, argv, kernel)
