"""The directory of a kernel that is started from here: for its connection file, and for its sockets where they are files."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .._core import Home
from .._protocol import KernelStartError

__all__ = ["made", "new_directory"]


def new_directory(transport: str = "tcp") -> Path:
    """A directory that is not there yet."""
    # Addresses of IPC sockets must be short: about 100 bytes for the system, and 31 for xeus kernels.
    base = "/tmp" if transport == "ipc" else tempfile.gettempdir()  # noqa: S108
    return Path(base, f"anyk-{os.urandom(5).hex()}")


@contextmanager
def made(directory: Path) -> Iterator[None]:
    """Make a directory that only this user can enter, for the length of a block."""
    home = Home()
    try:
        directory.mkdir(mode=0o700)
        directory.chmod(0o700)  # whatever the umask
    except OSError as exc:
        raise KernelStartError(f"cannot make a directory for the kernel: {exc}") from exc
    try:
        yield
    finally:
        if not home.is_in_another_process:
            # The kernel may remove files of its own at the same time.
            shutil.rmtree(directory, ignore_errors=True)
