"""The kernel's process: started, watched, signalled, and certainly gone at the end.

How this works. The kernel leads a process group (and session) of its own, so that a Ctrl-C in our terminal does
not reach it and one signal reaches it with all its children. When the block ends, whatever ends it, the whole
group gets SIGKILL and the process is reaped. For the one end that runs no code of ours, SIGKILL to this very
process, a guard (a shell of a few lines) waits on a pipe that breaks with us, and then does the same.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from subprocess import DEVNULL, PIPE, STDOUT
from typing import Any

import anyio
from anyio.abc import Process

from .._protocol import KernelStartError, UnsupportedError

__all__ = ["KernelProcess", "open_kernel_process"]

# The end of the kernel's output that is kept for errors, in bytes.
_STDERR_LIMIT = 16 * 1024
# How long the rest of the output may take after the exit, in seconds: children may hold the pipe for ever.
_LAST_WORDS_TIMEOUT = 0.05
# Between two interrupts of a process that is to end, in seconds.
_INTERRUPT_INTERVAL = 0.25
# Between two looks at the heart of a process that is to end, and how long it is waited for, in seconds.
_HEART_INTERVAL = 0.1
_HEART_TIMEOUT = 1.0
# How long after SIGTERM comes SIGKILL, in seconds.
_TERMINATE_TIMEOUT = 1.0
# How long a process may take to be gone after SIGKILL, in seconds; only one stuck in the system takes longer.
_REAP_TIMEOUT = 5.0

# $1 is the process group, $2 the directory. `read` fails when the pipe breaks; a line means that all is well.
_GUARD = 'read -r _ || { kill -s KILL -- "-$1"; rm -rf -- "$2"; }'

_POSIX = sys.platform != "win32"


class KernelProcess:
    """A running kernel process; made by `open_kernel_process`."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._stderr: deque[bytes] = deque()
        self._stderr_size = 0
        self._stderr_end = anyio.Event()
        self.pid = process.pid

    @property
    def returncode(self) -> int | None:
        """Exit status, negative for the signal that ended it; None while the process runs."""
        return self._process.returncode

    @property
    def stderr(self) -> str:
        """The end of what the process wrote to its stdout and stderr."""
        return b"".join(self._stderr)[-_STDERR_LIMIT:].decode("utf-8", "replace")

    async def read_stderr(self) -> None:
        """Keep reading what the process writes, so that it never blocks, until all writers are gone."""
        stream = self._process.stdout
        assert stream is not None
        try:
            while True:
                chunk = await stream.receive()
                self._stderr.append(chunk)
                self._stderr_size += len(chunk)
                while self._stderr_size - len(self._stderr[0]) >= _STDERR_LIMIT:
                    self._stderr_size -= len(self._stderr.popleft())
        except (anyio.EndOfStream, anyio.ClosedResourceError, anyio.BrokenResourceError):
            self._stderr_end.set()

    async def wait(self) -> int:
        """Wait for the process to exit and for its last words; its exit status."""
        returncode = await self._process.wait()
        with anyio.move_on_after(_LAST_WORDS_TIMEOUT):
            await self._stderr_end.wait()
        return returncode

    def signal(self, signum: int) -> None:
        """Send a signal to the process and its children; nothing happens when they are gone.

        Raises:
            UnsupportedError: the platform has no process groups (Windows).
        """
        if not _POSIX:
            raise UnsupportedError("kernels cannot be signalled on Windows")
        # What the signal was to end has ended, or has made itself another user's.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signum)

    def kill(self) -> None:
        """Kill the process and its children."""
        if _POSIX:
            self.signal(signal.SIGKILL)
        elif self.returncode is None:
            self._process.kill()

    async def stop(
        self, timeout: float, *, interrupt: bool, beat: Callable[[float], Coroutine[Any, Any, bool]] | None
    ) -> None:
        """Wait up to ``timeout`` seconds for the process to exit, then SIGTERM and a second, then SIGKILL.

        With ``interrupt`` it is sent SIGINT while it does not, repeatedly: one may be lost. With ``beat``, a heartbeat
        and how many seconds its echo may take, it is not waited for once its heart has stopped.
        """

        async def watch_heart(beat: Callable[[float], Coroutine[Any, Any, bool]]) -> None:
            beating = True
            while beating:
                await anyio.sleep(_HEART_INTERVAL)
                beating = await beat(_HEART_TIMEOUT)
            patience.cancel()

        async with anyio.create_task_group() as tasks:
            with anyio.move_on_after(timeout) as patience:
                if beat is not None:
                    tasks.start_soon(watch_heart, beat)
                while interrupt and _POSIX and self.returncode is None:
                    self.signal(signal.SIGINT)
                    with anyio.move_on_after(_INTERRUPT_INTERVAL):
                        await self._process.wait()
                await self._process.wait()
            tasks.cancel_scope.cancel()
        if self.returncode is not None:
            return
        if _POSIX:
            self.signal(signal.SIGTERM)
            with anyio.move_on_after(_TERMINATE_TIMEOUT):
                await self._process.wait()
                return
        self.kill()
        with anyio.move_on_after(_REAP_TIMEOUT):
            await self._process.wait()


@asynccontextmanager
async def open_kernel_process(
    argv: list[str], *, cwd: str | os.PathLike[str] | None, env: Mapping[str, str], directory: Path
) -> AsyncIterator[KernelProcess]:
    """Start a kernel; when the block ends, it and its children are killed if they still run.

    Args:
        argv: the command.
        cwd: its working directory; None means ours.
        env: its whole environment.
        directory: what the guard removes if this process is killed.

    Raises:
        KernelStartError: the command cannot be run.
    """
    process = await _spawn(argv, stdin=DEVNULL, stdout=PIPE, stderr=STDOUT, cwd=cwd, env=env)
    kernel = KernelProcess(process)
    guard: Process | None = None
    try:
        if _POSIX:
            command = ["/bin/sh", "-c", _GUARD, "anykernel-guard", str(kernel.pid), str(directory)]
            guard = await _spawn(command, stdin=PIPE, stdout=DEVNULL, stderr=DEVNULL)
        yield kernel
    finally:
        # Also after the kernel's own exit: its children may have survived it. (Its number cannot have been
        # given to another group while one of them lives, nor, but for a race of microseconds, before.)
        kernel.kill()
        with anyio.move_on_after(_REAP_TIMEOUT, shield=True):
            await process.aclose()
            if guard is not None:
                assert guard.stdin is not None
                with contextlib.suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
                    await guard.stdin.send(b"\n")  # unless somebody has killed it
                await guard.aclose()


async def _spawn(argv: list[str], **options: Any) -> Process:
    # Shielded: being cancelled while the process is made would leave it without an owner. It takes about a
    # millisecond. There is no checkpoint between here and the caller's `try`.
    try:
        with anyio.CancelScope(shield=True):
            process = await anyio.open_process(argv, start_new_session=_POSIX, **options)
    except OSError as exc:
        raise KernelStartError(f"cannot run {argv[0]!r}: {exc.strerror or exc}") from exc
    return process
