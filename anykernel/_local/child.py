"""A process of ours, started from a clean state and awaited without the event loop's help.

How this works. What a process inherits depends on how the host was started, and on which event loop starts it. So none
does: `subprocess` closes all descriptors but the first three and gives a session of its own, on every loop alike. Signals
that are blocked or ignored here would be there, too; then a Python of a few lines runs first, unblocks them, and becomes
the kernel. (Most hosts have none, and the 8 ms that it takes are spared.) It also sets resource limits, where there are to
be some: code of ours between fork and exec could not be run safely beside threads. What a process should inherit, it does: working
directory, environment, umask, limits, priority.

Death is seen by a pidfd of our own. The event loops' watchers want to be the only ones to start processes (uvloop, by
its threads) or to reap them (uvloop waits for ever for a child that another has reaped), and asyncio's has a thread for
each. Where there is no pidfd, the process is looked at every 20 ms.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping

import anyio

from .._protocol import KernelStartError, Limits, UnsupportedError

__all__ = ["Child", "becoming"]

# Seconds between two looks at a process, where the system cannot tell of its end.
_LOOK_INTERVAL = 0.02
# What the system calls each limit. (The hard limit of CPU time is a second more: at the soft one comes SIGXCPU, which tells
# why, and at the hard one SIGKILL.)
_RESOURCES = {
    "memory": "RLIMIT_AS",
    "cpu_seconds": "RLIMIT_CPU",
    "open_files": "RLIMIT_NOFILE",
    "processes": "RLIMIT_NPROC",
}
# Sets free what was blocked or ignored, sets limits, and becomes the command. In the C locale, Python would leave its own
# LC_CTYPE. The limits come last, as what they forbid may be needed until then.
_BECOME = """\
import os, signal, sys
for number in signal.valid_signals():
    if signal.getsignal(number) is signal.SIG_IGN and number not in (signal.SIGKILL, signal.SIGSTOP):
        signal.signal(number, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.SIG_DFL)
if sys.argv[1] == "unset":
    os.environ.pop("LC_CTYPE", None)
signal.pthread_sigmask(signal.SIG_SETMASK, [])
for limit in sys.argv[2].split():
    import resource
    name, value = limit.split("=")
    kind = getattr(resource, name)
    most = resource.getrlimit(kind)[1]
    soft, hard = (number if most == resource.RLIM_INFINITY else min(number, most)
                  for number in (int(value), int(value) + (name == "RLIMIT_CPU")))
    resource.setrlimit(kind, (soft, hard))
try:
    os.execvp(sys.argv[3], sys.argv[3:])
except OSError as exc:
    sys.exit(f"cannot run {sys.argv[3]!r}: {exc.strerror}")
"""


class Child:
    """A process in a session of its own.

    Raises:
        KernelStartError: the command cannot be run.
        UnsupportedError: there are no sessions (Windows).
    """

    def __init__(
        self,
        argv: list[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        stdin: int = subprocess.DEVNULL,
        output: bool = False,
    ) -> None:
        if sys.platform == "win32":
            raise UnsupportedError("kernels cannot be started on Windows, only connected to")
        self.returncode: int | None = None
        """Exit status, negative for a signal; None while it runs, and for ever if another has reaped it."""
        self.cpu_seconds = 0.0
        """CPU time that it took, with that of its children which it awaited; known once it has ended."""
        self._gone = False
        self._waiting = anyio.Lock()
        self._pidfd = -1
        try:
            popen = subprocess.Popen(  # noqa: S603
                [*_cleaner(env), *argv],
                stdin=stdin,
                stdout=subprocess.PIPE if output else subprocess.DEVNULL,
                stderr=subprocess.STDOUT if output else subprocess.DEVNULL,
                bufsize=0,
                cwd=cwd,
                env=env,
                start_new_session=True,
            )
        except OSError as exc:
            raise KernelStartError(f"cannot run {argv[0]!r}: {exc.strerror or exc}") from exc
        popen.returncode = 0  # to be reaped here alone
        self.pid = popen.pid
        self._output = popen.stdout
        if self._output is not None:
            os.set_blocking(self._output.fileno(), False)
        if sys.platform == "linux":
            with contextlib.suppress(OSError):  # an old system, or one that forbids it
                self._pidfd = os.pidfd_open(self.pid)

    @property
    def gone(self) -> bool:
        """Whether it has ended; asked of the system, and reaped."""
        if not self._gone:
            try:
                pid, status, usage = os.wait4(self.pid, os.WNOHANG)
            except ChildProcessError:  # another has reaped it, or SIGCHLD is ignored: then nobody knows its status
                self._gone = True
            else:
                if pid:
                    self._gone, self.returncode = True, os.waitstatus_to_exitcode(status)
                    self.cpu_seconds = usage.ru_utime + usage.ru_stime
        return self._gone

    async def wait(self) -> None:
        """Wait until it has ended; any number of tasks may."""
        async with self._waiting:
            while not self.gone:
                if self._pidfd < 0:
                    await anyio.sleep(_LOOK_INTERVAL)
                else:
                    await anyio.wait_readable(self._pidfd)

    async def receive(self) -> bytes:
        """What it has written to its stdout and stderr; nothing (``b""``) when all who could write are gone."""
        assert self._output is not None
        while True:
            await anyio.wait_readable(self._output)
            with contextlib.suppress(BlockingIOError):
                return os.read(self._output.fileno(), 65536)

    def close(self) -> None:
        """Close what we have of it; it is not ended by that."""
        if self._output is not None:
            self._output.close()
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1


def _cleaner(env: Mapping[str, str] | None) -> list[str]:
    """What is to run before a command, so that it starts with no signal blocked or ignored."""
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    ignored = {number for number in signal.valid_signals() if signal.getsignal(number) is signal.SIG_IGN}
    # Those two are Python's own, and `subprocess` takes them back.
    if not (blocked or ignored - {signal.SIGPIPE, signal.SIGXFSZ}) or not sys.executable:
        return []
    return becoming(env)


def becoming(env: Mapping[str, str] | None, limits: Limits | None = None) -> list[str]:
    """The beginning of a command that gets limits, and has no signal blocked or ignored; the command itself follows."""
    unset = "unset" if "LC_CTYPE" not in (os.environ if env is None else env) else "set"
    given = {name: getattr(limits, name, None) for name in _RESOURCES}
    text = " ".join(f"{_RESOURCES[name]}={value}" for name, value in given.items() if value is not None)
    return [sys.executable, "-I", "-S", "-c", _BECOME, unset, text]
