"""Kernelspecs as data: what `kernelspecs` lists. No I/O.

(Annotations are evaluated here: msgspec would look for their names in the module that the class claims to be of.)
"""

from typing import Any, Literal

import msgspec

__all__ = ["InstalledKernelSpec"]


class InstalledKernelSpec(msgspec.Struct, frozen=True):
    """A kernelspec that is installed here: how a kernel is started. `open_kernel` takes it, and its name."""

    name: str
    """What it is installed as."""
    argv: list[str]
    """The command, with ``{connection_file}`` in it."""
    display_name: str = ""
    """Its name for people."""
    language: str = ""
    env: dict[str, str] = {}
    """Variables added to the environment that the kernel inherits."""
    interrupt_mode: Literal["signal", "message"] = "signal"
    metadata: dict[str, Any] = {}
    """What else it says, such as ``supported_encryption``, or ``kernel_provisioner`` where one starts it."""
    resource_dir: str = ""
    """The directory that it was read from."""
