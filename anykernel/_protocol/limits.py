"""What a kernel's process may use of its machine."""

from __future__ import annotations

import msgspec

from .arguments import as_integer
from .errors import ArgumentError

__all__ = ["Limits"]


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What a kernel's process may use at most; None means as much as this process may.

    They are the system's resource limits, which each process that the kernel starts gets anew. They keep an accident small;
    they are no sandbox. A limit above this process's own is brought down to it.

    Raises:
        ArgumentError: one is no integer above 0.
    """

    memory: int | None = None
    """Bytes of address space, which is more than what is in use: ipykernel takes some 700 MB. Beyond it, allocations
    fail: in Python, code gets a MemoryError, and the kernel lives."""
    cpu_seconds: int | None = None
    """Seconds of CPU time, of all threads, from the kernel's start. The kernel is killed when they are used up."""
    open_files: int | None = None
    """Descriptors that may be open at once."""
    processes: int | None = None
    """Processes and threads that this *user* may have at once, all others of the user included. Root has no such limit."""

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if value is not None and ((number := as_integer(value)) is None or number < 1):
                raise ArgumentError(f"the limit {name} must be an integer above 0, not {value!r}")
