"""What the system tells of a process and its children, on Linux; elsewhere nothing, which every function here may answer."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

__all__ = ["descendants", "takes", "waits_in_vain"]


def _status(pid: int) -> dict[str, str]:
    try:
        lines = Path(f"/proc/{pid}/status").read_text("utf-8", "replace").splitlines()
    except OSError:
        return {}
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _has(status: dict[str, str], field: str, signum: int) -> bool:
    return bool(int(status.get(field, "0"), 16) >> (signum - 1) & 1)


def takes(pid: int, signum: int) -> bool:
    """Whether a process does with a signal what it wants; False where the signal would just end it."""
    status = _status(pid)
    return not status or any(_has(status, field, signum) for field in ("SigCgt", "SigIgn", "SigBlk"))


def _children(pid: int) -> Iterator[int]:
    try:
        # Each thread has those that it has started.
        for path in Path(f"/proc/{pid}/task").glob("*/children"):
            yield from map(int, path.read_text().split())
    except OSError:  # it has just ended
        return


def descendants(pid: int) -> list[int]:
    """The children of a process, their children, and so on."""
    found = list(_children(pid))
    for child in found:  # which grows meanwhile
        found.extend(_children(child))
    return found


def waits_in_vain(pid: int) -> bool:
    """Whether a process that has sent SIGTERM to all its children may wait for them for ever.

    It has some, and each is deaf to that, or dead already and not reaped.
    """
    statuses = [_status(child) for child in _children(pid)]
    return bool(statuses) and all(
        status.get("State", "").startswith("Z") or _has(status, "SigIgn", signal.SIGTERM) for status in statuses
    )
