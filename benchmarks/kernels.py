"""The kernels that are measured with, started by this package and not by any of the clients."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
IP = "127.0.0.1"
CHANNELS = ("shell", "iopub", "stdin", "control", "hb")
# The echo kernel takes any number of connection files, and is as many kernels.
ECHO = [sys.executable, "-m", "benchmarks.echo_kernel"]
KERNELS = {
    "echo": [*ECHO, "{connection_file}"],
    "ipykernel": [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}", "--log-level=ERROR"],
}


class Kernels:
    """The kernels of one round: each started when the first job asks, and used by one job after another."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._files: dict[tuple[str, int], str] = {}

    def connection_files(self, name: str, count: int = 1) -> str:
        """The connection files of so many kernels, with `os.pathsep` between them. They may not be ready yet."""
        if (name, count) not in self._files:
            files = self._stack.enter_context(running_kernels(name, count))
            self._files[name, count] = os.pathsep.join(files)
        return self._files[name, count]


@contextmanager
def running_kernels(name: str, count: int = 1) -> Iterator[list[str]]:
    """Run kernels for the length of a block; gives their connection files."""
    with tempfile.TemporaryDirectory(prefix="benchmark-") as directory, ExitStack() as stack:
        files = []
        for number, ports in enumerate(_free_ports(count)):
            file = Path(directory, f"kernel-{number}.json")
            info = {"transport": "tcp", "ip": IP, "key": os.urandom(16).hex(), "signature_scheme": "hmac-sha256"}
            file.write_text(json.dumps(info | ports))
            files.append(str(file))
        if name == "echo":
            stack.enter_context(_process([*ECHO, *files], directory))
        else:
            for file in files:
                argv = [arg.format(connection_file=file) for arg in KERNELS[name]]
                stack.enter_context(_process(argv, directory))
        yield files


def _free_ports(count: int) -> list[dict[str, int]]:
    """Ports for so many kernels. Nobody holds them until the kernels do, but no two kernels get the same."""
    with ExitStack() as stack:

        def free_port() -> int:
            holder = stack.enter_context(socket.socket())
            holder.bind((IP, 0))
            return holder.getsockname()[1]

        return [{f"{channel}_port": free_port() for channel in CHANNELS} for _ in range(count)]


@contextmanager
def _process(argv: Sequence[str], directory: str) -> Iterator[None]:
    process = subprocess.Popen(
        argv,
        cwd=ROOT,
        # With JPY_PARENT_PID, ipykernel ends when this process does, whatever ends it; the echo kernel looks itself.
        env={**os.environ, "JPY_PARENT_PID": str(os.getpid()), "IPYTHONDIR": directory},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
