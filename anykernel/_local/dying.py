"""Why a kernel's process ended, as far as that can be told."""

from __future__ import annotations

import re
import signal

from .._core import Ending
from .._protocol import KernelDiedError, Limits

__all__ = ["how_it_ended", "to_died", "why_it_ended"]

# What programs say when they get no memory: Python and its libraries, C++, the system's own words, and Node.
_NO_MEMORY = re.compile(r"MemoryError|bad_alloc|cannot allocate memory|out of memory|not enough memory", re.IGNORECASE)


def why_it_ended(limits: Limits | None, returncode: int | None, stderr: str, cpu_seconds: float | None) -> str | None:
    """Which limit a process ran into; None if none is known.

    ``cpu_seconds`` is what it took; None where nobody knows. That it ended by a signal proves little, as others send these, too, and what it wrote even less: each needs the other.
    """
    if limits is None or not returncode:
        return None
    # The system samples for a limit and measures for what it reports, so that the two differ.
    share = {-signal.SIGXCPU: 0.5, -signal.SIGKILL: 1.0}.get(returncode)
    if share is not None and limits.cpu_seconds is not None:
        # Where nobody measures, only that signal tells which hardly anybody sends.
        measured = cpu_seconds if cpu_seconds is not None else limits.cpu_seconds if share < 1 else 0.0
        if measured >= share * limits.cpu_seconds:
            return "cpu_seconds"
    if limits.memory is not None and _NO_MEMORY.search(stderr):
        return "memory"
    return None


def how_it_ended(returncode: int | None, reason: str | None = None) -> str:
    """The end of a sentence that begins with what has ended."""
    if returncode is None:
        return "went away"
    told = f", at its limit of {reason}" if reason else ""
    if returncode < 0:
        try:
            return f"was killed by {signal.Signals(-returncode).name}{told}"
        except ValueError:
            return f"was killed by signal {-returncode}{told}"
    return f"exited with status {returncode}{told}"


def to_died(returncode: int | None, stderr: str, reason: str | None = None) -> Ending:
    """What ends the calls of a kernel whose process is gone."""
    text = f"the kernel {how_it_ended(returncode, reason)}"
    return lambda result: KernelDiedError(text, returncode=returncode, stderr=stderr, result=result, reason=reason)
