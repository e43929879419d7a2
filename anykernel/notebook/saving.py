"""Writing a notebook so that there is always a whole one, and by one run at a time."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from .._protocol import ArgumentError

__all__ = ["Saver", "open_saver"]

# Seconds between two savings while a cell puts out.
INTERVAL = 1.0


class Saver:
    """Writes one notebook to one file, as often as it is told; made by `open_saver`."""

    def __init__(self, path: Path | None, notebook: NotebookNode) -> None:
        self._path = path
        self._notebook = notebook
        self._saved = 0.0

    def save(self) -> None:
        """Write it now, atomically: a reader sees the one before, or this one.

        Raises:
            OSError: it cannot be written.
        """
        if self._path is None:
            return
        text = nbformat.writes(self._notebook, version=nbformat.NO_CONVERT)
        descriptor, name = tempfile.mkstemp(prefix=f".{self._path.name}.", dir=self._path.parent)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text if text.endswith("\n") else text + "\n")
            os.chmod(name, _mode_of(self._path))  # noqa: PTH101 - a string it is
            os.replace(name, self._path)  # noqa: PTH105
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(name)  # noqa: PTH108
            raise
        self._saved = time.monotonic()

    def is_due(self) -> bool:
        """Whether the last saving is long enough ago for another while a cell puts out."""
        return self._path is not None and time.monotonic() - self._saved >= INTERVAL


def _mode_of(path: Path) -> int:
    try:
        return path.stat().st_mode & 0o777
    except FileNotFoundError:
        mask = os.umask(0o077)
        os.umask(mask)
        return 0o666 & ~mask


@contextmanager
def open_saver(output: str | os.PathLike[str] | None, notebook: NotebookNode) -> Iterator[Saver]:
    """A saver for the length of a block, in which nobody else of this package writes that file.

    Raises:
        ArgumentError: it cannot be written there, or another run writes it.
    """
    if output is None:
        yield Saver(None, notebook)
        return
    try:
        path = Path(output).absolute()
    except TypeError as exc:
        raise ArgumentError(f"output must be a path, not {output!r:.200}") from exc
    if path.is_dir():
        raise ArgumentError(f"cannot write to {str(path)!r}: it is a directory")
    if path.exists() and not os.access(path, os.W_OK):
        raise ArgumentError(f"cannot write to {str(path)!r}: no permission")
    lock = path.with_name(f".{path.name}.lock")
    descriptor = _lock(lock, path)
    try:
        yield Saver(path, notebook)
    finally:
        with contextlib.suppress(OSError):
            lock.unlink()
        os.close(descriptor)


def _lock(lock: Path, path: Path) -> int:
    """The descriptor of a lock file that is ours as long as it is open."""
    while True:
        try:
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as exc:
            raise ArgumentError(f"cannot write to {str(path)!r}: {exc.strerror}") from exc
        try:
            if sys.platform != "win32":
                import fcntl  # noqa: PLC0415

                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(descriptor).st_nlink:
                return descriptor
            os.close(descriptor)  # it was somebody's who has removed it meanwhile
        except BlockingIOError as exc:
            os.close(descriptor)
            raise ArgumentError(f"another run writes to {str(path)!r}") from exc
