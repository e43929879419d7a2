"""Kernels on this machine: kernelspecs, connection files, processes, and the owners of kernels.

It may import all that lies below (`anykernel._transports`, `anykernel._core`, `anykernel._protocol`), and knows nothing of
servers. It is imported when the first kernel is opened. A newcomer begins with ``restartable``, then ``launched`` and
``process``.
"""

from .connected import Connected
from .connection import load_connection, new_connection
from .directory import made, new_directory
from .guard import open_guard
from .installed import list_kernelspecs
from .kernelspec import resolve_kernel
from .launched import Launched
from .launcher import LaunchedProcess, Launcher, LaunchOrder
from .launching import LaunchedBy
from .options import LaunchOptions
from .process import open_kernel_process
from .provisioned import ProvisionerLauncher
from .replayed import Replayed

__all__ = [
    "Connected",
    "LaunchOptions",
    "LaunchOrder",
    "Launched",
    "LaunchedBy",
    "LaunchedProcess",
    "Launcher",
    "ProvisionerLauncher",
    "Replayed",
    "list_kernelspecs",
    "load_connection",
    "made",
    "new_connection",
    "new_directory",
    "open_guard",
    "open_kernel_process",
    "resolve_kernel",
]
