"""The kernel's process: started, watched, signalled, and certainly gone at the end.

How this works. The kernel leads a process group (and session) of its own, so that a Ctrl-C in our terminal does
not reach it and one signal reaches it with all its children. When the block ends, whatever ends it, the whole
group gets SIGKILL and the process is reaped. For ends that run no code of ours, there is the `guard`.

The process that was started may be a wrapper (``uv run``, ``sh -c``) and the kernel its child. Wrappers are not
interrupted: some forward a signal, which the kernel would get twice, others end by it. What an interrupt is for is the
kernel; its children get one only when that was not enough, as an earlier cell's server or pool has done no wrong.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from typing import Any

import anyio

from .._core import Home
from .child import Child
from .family import descendants, takes, waits_in_vain
from .guard import Guard
from .tail import Tail

__all__ = ["KernelProcess", "open_kernel_process"]

# How long the rest of the output may take after the exit, in seconds: children may hold the pipe for ever.
_LAST_WORDS_TIMEOUT = 0.05
# Between two interrupts of a process that is to end, in seconds.
_INTERRUPT_INTERVAL = 0.25
# Between two looks at the heart of a process that is to end, and how long it is waited for, in seconds.
_HEART_INTERVAL = 0.1
_HEART_TIMEOUT = 1.0
# Between two looks at the children of a process that is to end, in seconds; and how long it may wait for them.
_CHILDREN_INTERVAL = 0.1
_CHILDREN_TIMEOUT = 0.7
# How long after SIGTERM comes SIGKILL, in seconds.
_TERMINATE_TIMEOUT = 1.0
# How long a process may take to be gone after SIGKILL, in seconds; only one stuck in the system takes longer.
_REAP_TIMEOUT = 5.0

# How jupyter_client's `Session`, and kernels that use it, name their messages: session, process id, number.
_MSG_ID = re.compile(r".*_(\d{1,10})_\d+")


class KernelProcess:
    """A running kernel process; made by `open_kernel_process`."""

    def __init__(self, child: Child) -> None:
        self._child = child
        self._home = Home()
        self._stderr = Tail()
        self._stderr_end = anyio.Event()
        self.pid = child.pid
        self._kernel: int | None = None
        self._ended = False

    @property
    def returncode(self) -> int | None:
        """Exit status, negative for the signal that ended it; None while the process runs, or if nobody knows."""
        return self._child.returncode

    @property
    def cpu_seconds(self) -> float:
        """CPU time that the process took; known once it has ended."""
        return self._child.cpu_seconds

    @property
    def gone(self) -> bool:
        """Whether the process has ended."""
        return self._child.gone

    @property
    def stderr(self) -> str:
        """The end of what the process wrote to its stdout and stderr."""
        return self._stderr.text

    async def read_stderr(self) -> None:
        """Keep reading what the process writes, so that it never blocks, until all writers are gone."""
        while chunk := await self._child.receive():
            self._stderr.add(chunk)
        self._stderr_end.set()

    async def wait(self) -> None:
        """Wait for the process to exit and for its last words."""
        await self._child.wait()
        with anyio.move_on_after(_LAST_WORDS_TIMEOUT):
            await self._stderr_end.wait()

    def identify(self, msg_id: str) -> None:
        """Find out from the id of a message by the kernel which process it is, where that shows."""
        found = _MSG_ID.fullmatch(msg_id)
        if found:
            # A number from another container, perhaps; then it is hardly one of this group's.
            with contextlib.suppress(OSError, OverflowError):
                if os.getpgid(int(found[1])) == self.pid:
                    self._kernel = int(found[1])

    @property
    def kernel(self) -> int:
        """The process id of the kernel itself, as far as that is known; otherwise that of what was started."""
        return self.pid if self._kernel is None else self._kernel

    def interrupt(self, *, everybody: bool) -> bool:
        """Send SIGINT to the kernel; with ``everybody`` also to its children.

        Nothing is sent, and the answer is False, where it would only end the kernel.
        """
        if not takes(self.kernel, signal.SIGINT):
            return False
        if everybody and self.kernel == self.pid:
            self._signal(os.killpg, self.pid, signal.SIGINT)
        else:
            for pid in (self.kernel, *(descendants(self.kernel) if everybody else ())):
                self._signal(os.kill, pid, signal.SIGINT)
        return True

    def _signal(self, send: Callable[[int, int], None], pid: int, signum: int) -> None:
        # A child that was forked from us has inherited this, and its code may leave our blocks.
        if self._home.is_in_another_process:
            return
        # What the signal was to end has ended, or has made itself another user's.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            send(pid, signum)

    def terminate(self, signum: int) -> None:
        """End the process and its children by a signal."""
        self._signal(os.killpg, self.pid, signum)

    def kill(self) -> None:
        """Kill the process and its children."""
        self.terminate(signal.SIGKILL)

    async def stop(
        self,
        timeout: float,
        *,
        interrupt: Callable[[], object] | None,
        beat: Callable[[float], Coroutine[Any, Any, bool]] | None,
    ) -> None:
        """Wait up to ``timeout`` seconds for the process to exit, then SIGTERM and a second, then SIGKILL.

        It has been asked to. With ``interrupt`` it is interrupted again while it does not: one may be lost. With
        ``beat``, a heartbeat and how many seconds its echo may take, it is not waited for once its heart has stopped.
        Nor is it where it only waits for children that will not end.
        """

        async def watch_heart(beat: Callable[[float], Coroutine[Any, Any, bool]]) -> None:
            beating = True
            while beating:
                await anyio.sleep(_HEART_INTERVAL)
                beating = await beat(_HEART_TIMEOUT)
            patience.cancel()

        async def watch_children() -> None:
            # ipykernel's base class, for one: it sends them SIGTERM for 14 s, before its own end begins.
            in_vain = 0.0
            while in_vain < _CHILDREN_TIMEOUT:
                await anyio.sleep(_CHILDREN_INTERVAL)
                in_vain = in_vain + _CHILDREN_INTERVAL if waits_in_vain(self.kernel) else 0.0
            patience.cancel()

        async with anyio.create_task_group() as tasks:
            with anyio.move_on_after(timeout) as patience:
                if self._kernel is not None:  # then it is built on what does so
                    tasks.start_soon(watch_children)
                if beat is not None:
                    tasks.start_soon(watch_heart, beat)
                while interrupt is not None and not self.gone:
                    with anyio.move_on_after(_INTERRUPT_INTERVAL):
                        await self._child.wait()
                        break
                    interrupt()
                await self._child.wait()
            tasks.cancel_scope.cancel()
        if not self.gone:
            self.terminate(signal.SIGTERM)
            with anyio.move_on_after(_TERMINATE_TIMEOUT):
                await self._child.wait()
        await self.end()

    async def end(self) -> None:
        """Kill the process and its children, and reap it, once."""
        if self._ended:
            return
        # Also after the kernel's own exit: its children may have survived it. (Its number cannot have been
        # given to another group while one of them lives, nor, but for a race of microseconds, before.)
        self.kill()
        with anyio.move_on_after(_REAP_TIMEOUT, shield=True):
            await self._child.wait()
        self._ended = self.gone


@asynccontextmanager
async def open_kernel_process(
    argv: list[str], *, cwd: str | os.PathLike[str] | None, env: Mapping[str, str], guard: Guard
) -> AsyncIterator[KernelProcess]:
    """Start a kernel; when the block ends, it and its children are killed if they still run.

    Args:
        argv: the command.
        cwd: its working directory; None means ours.
        env: its whole environment.
        guard: ends it if this process is killed.

    Raises:
        KernelStartError: the command cannot be run.
    """
    child = Child(argv, cwd=cwd, env=env, output=True)
    try:
        guard.watch(child.pid)
        kernel = KernelProcess(child)
        try:
            yield kernel
        finally:
            await kernel.end()
            guard.forget()
    finally:
        child.close()
