"""What cleans up when this process cannot: it was killed, or torn out of its own clean-up.

How this works. A shell of a few lines waits on a pipe that breaks with us. It is there before the kernel and its directory,
and knows the directory's name before that is made. It is told of the kernel's process when that has started, again when
it is gone (its number may be another's then), and at last that all is done. If the pipe breaks first, it kills the kernel
with its process group and removes the directory. If we were killed between the kernel's start and the telling, it finds it
by the directory's name in its command.

A child that this process forks would hold the pipe open, so it closes its copy first of all.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import anyio

from .child import Child

__all__ = ["Guard", "open_guard"]

# How long the guard may take to end, in seconds; only one that somebody has stopped takes longer.
_END_TIMEOUT = 5.0

# $1 is the directory, $2 its own name. A number is the kernel's process group, 0 that it is gone. It looks for the kernel
# twice: we may have been killed while it was about to become the kernel.
_GUARD = """\
trap '' HUP INT QUIT TERM
group=
while read -r word; do
  case $word in done) exit ;; *) group=$word ;; esac
done
for _ in 1 2; do
  if [ -z "$group" ]; then
    for file in $(grep -lF -e "$2" /proc/[0-9]*/cmdline); do
      pid=${file#/proc/} pid=${pid%/cmdline}
      [ "$pid" = $$ ] || kill -s KILL -- "-$pid"
    done
  elif [ "$group" != 0 ]; then
    kill -s KILL -- "-$group"
    group=0
  fi
  rm -rf -- "$1"
  [ "$group" = 0 ] && [ ! -e "$1" ] && exit
  sleep 0.3
done
"""


class _Lifelines:
    """The pipes that break with this process, and with no other."""

    def __init__(self) -> None:
        # So that no child is forked between a pipe's making and its being noted here.
        self._lock = threading.RLock()
        self._descriptors: set[int] = set()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(
                before=self._lock.acquire, after_in_parent=self._lock.release, after_in_child=self._let_go
            )

    def _let_go(self) -> None:
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors.clear()
        self._lock.release()

    @contextmanager
    def open(self) -> Iterator[tuple[int, int]]:
        """A new pipe: its end for the other process, which is closed at the end of the block, and ours."""
        with self._lock:
            theirs, ours = os.pipe()
            self._descriptors.add(ours)
        try:
            yield theirs, ours
        except BaseException:
            self.close(ours)
            raise
        finally:
            os.close(theirs)

    def write(self, descriptor: int, word: str) -> None:
        if descriptor in self._descriptors:
            with contextlib.suppress(BrokenPipeError):  # somebody has killed it
                os.write(descriptor, f"{word}\n".encode())

    def close(self, descriptor: int) -> None:
        with self._lock:
            if descriptor in self._descriptors:
                self._descriptors.discard(descriptor)
                os.close(descriptor)


_LIFELINES = _Lifelines()


class Guard:
    """A guard of one directory, and of one process that has it in its command; made by `open_guard`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        argv = ["/bin/sh", "-c", _GUARD, "anykernel-guard", str(directory), directory.name]
        with _LIFELINES.open() as (theirs, self._lifeline):
            self.child = Child(argv, cwd="/", stdin=theirs)

    def watch(self, pid: int) -> None:
        """The process has been started, in a group of its own."""
        _LIFELINES.write(self._lifeline, str(pid))

    def forget(self) -> None:
        """The process is gone, with its group."""
        _LIFELINES.write(self._lifeline, "0")

    def close(self) -> None:
        """End it, if all is done; otherwise it cleans up what is left, and ends."""
        if not self._directory.exists():
            _LIFELINES.write(self._lifeline, "done")
        _LIFELINES.close(self._lifeline)


@asynccontextmanager
async def open_guard(directory: Path) -> AsyncIterator[Guard]:
    """Guard a directory that is about to be made, for the length of a block.

    Raises:
        KernelStartError: it cannot be run.
    """
    guard = Guard(directory)
    try:
        yield guard
    finally:
        guard.close()
        with anyio.move_on_after(_END_TIMEOUT, shield=True):
            await guard.child.wait()
        guard.child.close()
