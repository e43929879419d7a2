"""A kernel as a task of an engine: what runs on the worker, and how the client holds on to it.

How this works. The task starts the kernel on its worker, announces where it listens, and lives as long as it does, so that the
engine counts it. The client then holds one TCP connection to the task, besides those to the kernel. Over it go signals, each
signed, and the news of the kernel's end. It breaks when the worker dies, which the client sees at once; and when the client
goes, upon which the task kills the kernel and ends. All keys are made by the client, and travel as arguments that say nothing
of themselves in logs. On the worker, the kernel is guarded as it would be here, so it does not outlive the worker's process.
"""

from __future__ import annotations

import contextlib
import hmac
import json
import os
import secrets
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import ExitStack, asynccontextmanager
from typing import Any

import anyio
import anyio.abc
import msgspec
from anyio.abc import SocketStream
from anyio.streams.buffered import BufferedByteReceiveStream

from .._local import LaunchOrder, made, new_connection, new_directory, open_guard, open_kernel_process
from .._protocol import ConnectionInfo, KernelStartError

__all__ = ["Hosted", "Sealed", "attached", "host", "seal"]

# Seconds between two looks whether the task is still wanted, before anybody is connected and after.
LOOK_INTERVAL = 0.05
# Seconds that the client gets to connect after the announcement.
CONNECT_TIMEOUT = 30.0
# Seconds that the worker may take to tell that all is gone.
END_TIMEOUT = 5.0
# The longest line, in bytes; the longest has the end of a kernel's output.
LINE_LIMIT = 2**20


class Sealed:
    """What a task is to start, with its secrets. Its repr, which may end in an engine's logs, has none of them."""

    def __init__(self, order: LaunchOrder, keys: Mapping[str, str | None], secret: bytes) -> None:
        self.order = order
        self.keys = keys
        """``key`` and perhaps ``curve_publickey`` and ``curve_secretkey``."""
        self.secret = secret
        """Signs what the client says to the task."""

    def __repr__(self) -> str:
        return f"<a kernel {self.order.name!r}>"


def seal(order: LaunchOrder) -> Sealed:
    """Make keys for a kernel. Its Python, if it is the one that runs here, is to be the worker's there."""
    public = private = None
    if order.encrypted:
        import zmq  # noqa: PLC0415

        public, private = (key.decode() for key in zmq.curve_keypair())
    argv = ["{python}" if arg == sys.executable else arg for arg in order.argv]
    keys = {"key": secrets.token_hex(32), "curve_publickey": public, "curve_secretkey": private}
    return Sealed(msgspec.structs.replace(order, argv=argv), keys, secrets.token_bytes(32))


def _sign(secret: bytes, nonce: str, number: int, word: str) -> str:
    return hmac.new(secret, f"{nonce} {number} {word}".encode(), "sha256").hexdigest()


async def host(
    sealed: Sealed, ip: str, announce: Callable[[dict[str, Any]], object], wanted: Callable[[], bool]
) -> None:
    """Run a kernel to its end, on a worker.

    Args:
        sealed: what to start.
        ip: the worker's address, as clients know it.
        announce: is told, once, what `attached` is to be told.
        wanted: whether the engine still wants this task.

    Raises:
        KernelStartError: it cannot be started.
    """
    order, directory = sealed.order, new_directory()
    async with open_guard(directory) as guard:
        with made(directory), ExitStack() as ports:
            path = directory / "kernel.json"
            try:
                info = new_connection("tcp", directory, encrypted=False, held=ports, ip=ip)
                info = msgspec.structs.replace(info, **sealed.keys)
                info.write(path)
            except OSError as exc:
                raise KernelStartError(f"cannot prepare the kernel's connection: {exc}") from exc
            argv = [
                sys.executable if arg == "{python}" else arg.replace("{connection_file}", str(path))
                for arg in order.argv
            ]
            env = {**os.environ, **order.env, "JPY_PARENT_PID": str(os.getpid())}
            async with (
                await anyio.create_tcp_listener(local_host=ip) as listener,
                open_kernel_process(argv, cwd=order.cwd, env=env, guard=guard) as process,
                anyio.create_task_group() as tasks,
            ):

                async def watch_engine() -> None:
                    while wanted():  # noqa: ASYNC110 - it is the engine's state
                        await anyio.sleep(LOOK_INTERVAL)
                    tasks.cancel_scope.cancel()

                async def serve(stream: SocketStream) -> None:
                    async with stream:
                        try:
                            lines, nonce, number = BufferedByteReceiveStream(stream), secrets.token_hex(16), 0
                            await stream.send(f"{nonce}\n".encode())
                            while True:
                                line = (await lines.receive_until(b"\n", LINE_LIMIT)).decode("ascii", "replace")
                                signature, _, word = line.partition(" ")
                                if not hmac.compare_digest(
                                    signature.encode(), _sign(sealed.secret, nonce, number, word).encode()
                                ):
                                    return  # a stranger
                                number += 1
                                if word == "hello":
                                    held.set()
                                    tasks.start_soon(tell, stream)
                                elif word == "end":
                                    process.kill()
                                else:
                                    _signal(process, int(word))
                        except (
                            anyio.BrokenResourceError, anyio.IncompleteRead, anyio.EndOfStream, anyio.DelimiterNotFound
                        ):  # fmt: skip
                            pass
                        if number:  # the client has gone, however that was
                            tasks.cancel_scope.cancel()

                async def tell(stream: SocketStream) -> None:
                    await process.wait()
                    await process.end()
                    news = {"returncode": process.returncode, "stderr": process.stderr}
                    with contextlib.suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
                        await stream.send(json.dumps(news).encode() + b"\n")
                    tasks.cancel_scope.cancel()

                async def await_client() -> None:
                    with anyio.move_on_after(CONNECT_TIMEOUT):
                        await held.wait()
                        return
                    tasks.cancel_scope.cancel()

                held = anyio.Event()
                tasks.start_soon(watch_engine)
                tasks.start_soon(await_client)
                tasks.start_soon(process.read_stderr)
                tasks.start_soon(listener.serve, serve)
                port = listener.extra(anyio.abc.SocketAttribute.local_port)  # noqa: S610 - not Django's
                public = {name: value for name, value in msgspec.structs.asdict(info).items() if "key" not in name}
                announce({**public, "control": port, "pid": process.pid})


def _signal(process: Any, signum: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(process.kernel, signum)


class Hosted:
    """A kernel's process on a worker, as the client holds it; made by `attached`."""

    returncode: int | None = None
    stderr = ""
    reason: str | None = None

    def __init__(self, connection: ConnectionInfo, pid: int, stream: SocketStream, secret: bytes) -> None:
        self.connection = connection
        self.pid = pid
        self._stream = stream
        self._lines = BufferedByteReceiveStream(stream)
        self._secret = secret
        self._nonce = ""
        self._number = 0
        self._sending = anyio.Lock()
        self._over = False

    async def greet(self) -> None:
        """Show the task who we are."""
        self._nonce = (await self._lines.receive_until(b"\n", LINE_LIMIT)).decode()
        await self.say("hello")

    async def wait(self) -> None:
        """Wait until the kernel has ended, or its worker is gone."""
        if self._over:
            return
        try:
            news = json.loads(await self._lines.receive_until(b"\n", LINE_LIMIT))
        except (anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.IncompleteRead, anyio.EndOfStream):
            self.reason = "its worker is gone"
        else:
            self.returncode, self.stderr = news["returncode"], news["stderr"]
        self._over = True

    async def signal(self, signum: int) -> None:
        """Send the kernel a signal."""
        await self.say(str(int(signum)))

    async def say(self, word: str) -> None:
        """Tell the task something; one that has ended is told nothing."""
        async with self._sending:
            line = f"{_sign(self._secret, self._nonce, self._number, word)} {word}\n"
            self._number += 1
            with contextlib.suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
                await self._stream.send(line.encode())


@asynccontextmanager
async def attached(announced: Mapping[str, Any], sealed: Sealed) -> AsyncIterator[Hosted]:
    """Hold on to a task that runs a kernel, for the length of a block; when that ends, so does the task.

    Raises:
        KernelStartError: the worker cannot be reached.
    """
    fields = {name: value for name, value in announced.items() if name not in ("control", "pid")}
    connection = msgspec.convert({**fields, **sealed.keys}, ConnectionInfo)
    where = f"{connection.ip}, port {announced['control']}"
    try:
        stream = await anyio.connect_tcp(connection.ip, announced["control"])
    except OSError as exc:
        raise KernelStartError(f"cannot reach the kernel's worker at {where}: {exc}") from exc
    async with stream:
        process = Hosted(connection, announced["pid"], stream, sealed.secret)
        try:
            await process.greet()
        except (anyio.BrokenResourceError, anyio.IncompleteRead, anyio.EndOfStream) as exc:
            raise KernelStartError(f"the kernel's worker at {where} went away") from exc
        try:
            yield process
        finally:
            with anyio.move_on_after(END_TIMEOUT, shield=True):
                await process.say("end")
                await process.wait()
