"""What callers hold: `Server`, and the door to it."""

from __future__ import annotations

import os
import ssl
from collections.abc import AsyncIterator, Mapping

from .._core import Kernel, OpenOptions, block, open_task_group
from .._protocol import ArgumentError, as_seconds
from .._transports import open_recorder
from .address import Address, check_headers, check_token
from .behind import Connected, Opened
from .http import TokenSource, open_http
from .hub import start_server
from .models import RunningKernel, ServerKernelSpec
from .remote import Remote

__all__ = ["Server", "open_server"]


class Server:
    """A Jupyter Server, Kernel Gateway, Enterprise Gateway, or one user's server behind a hub; made by `open_server`."""

    def __init__(self, remote: Remote, reconnect_timeout: float) -> None:
        self._remote = remote
        self._reconnect_timeout = reconnect_timeout

    @property
    def url(self) -> str:
        """Its address, without anything secret."""
        return self._remote.http.address.base

    async def kernelspecs(self) -> dict[str, ServerKernelSpec]:
        """The kernelspecs that the server has, by name.

        Raises:
            ServerAuthError, ServerError: the server refused, or did not answer.
        """
        return await self._remote.kernelspecs()

    async def kernels(self) -> list[RunningKernel]:
        """The kernels that run there, whoever started them.

        Raises:
            ServerAuthError, ServerError: the server refused (gateways do, unless they are told to list kernels), or did
                not answer.
        """
        return await self._remote.kernels()

    @block
    async def open_kernel(
        self,
        kernel: str | None = "python3",
        *,
        path: str | None = None,
        env: Mapping[str, str] | None = None,
        startup_timeout: float = 60.0,
        shutdown_timeout: float = 5.0,
        interrupt_timeout: float = 5.0,
        output_limit: int = 64 * 2**20,
        max_in_flight: int = 1,
        record_to: str | os.PathLike[str] | None = None,
    ) -> AsyncIterator[Kernel]:
        """Start a kernel on the server, for the length of a block.

        Waits until it is ready. When the block ends, however it ends, the kernel is deleted there. What a server cannot
        promise stands in the table of the documentation: what a client that is killed leaves, and when a death is seen.

        Args:
            kernel: the name of one of the server's kernelspecs; ``"python"`` is its Python kernel, None its default.
            path: where it starts, below the server's root. A server starts it in the nearest directory that exists, and
                gateways do not know it.
            env: variables for its environment. Servers ignore them, so a Python kernel gets them by code, before anything
                else runs; others get what begins with ``KERNEL_``, and only from gateways.
            startup_timeout: seconds until it must be ready.
            shutdown_timeout: seconds for the server to end it; a second later it is left to the server.
            interrupt_timeout: as for `anykernel.open_kernel`, and so are the others.
            output_limit: bytes of output kept for each execution.
            max_in_flight: execute requests in the kernel at once.
            record_to: a new file to record to.

        Raises:
            ArgumentError: an option has an unusable value.
            KernelSpecError: the server has no such kernelspec; the error names those it has.
            KernelStartError: it could not be started, or ended before it was ready.
            KernelStartTimeoutError: it was not ready in time.
            ServerAuthError, ServerError: the server refused, or did not answer.
            UnsupportedError: the kernel cannot be given these variables.
        """
        if not (kernel is None or (isinstance(kernel, str) and kernel)):
            raise ArgumentError(f"kernel must be the name of one of the server's kernelspecs, not {kernel!r:.200}")
        if not isinstance(path, str | None):
            raise ArgumentError(f"path must be a str, below the server's root, not {path!r:.200}")
        options = OpenOptions(
            startup_timeout=startup_timeout, shutdown_timeout=shutdown_timeout, interrupt_timeout=interrupt_timeout,
            output_limit=output_limit, max_in_flight=max_in_flight,
        )  # fmt: skip
        with open_recorder(record_to) as recorder:
            async with open_task_group() as tasks:
                owner = Opened(
                    tasks, options, self._remote, name=kernel, path=path, env=_checked_env(env),
                    reconnect_timeout=self._reconnect_timeout, witness=recorder,
                )  # fmt: skip
                async with owner.opened() as opened:
                    yield opened

    @block
    async def connect_kernel(
        self,
        kernel_id: str,
        *,
        startup_timeout: float = 60.0,
        shutdown_timeout: float = 5.0,
        interrupt_timeout: float = 5.0,
        output_limit: int = 64 * 2**20,
        max_in_flight: int = 1,
        record_to: str | os.PathLike[str] | None = None,
    ) -> AsyncIterator[Kernel]:
        """Use a kernel that runs on the server, for the length of a block; leaving never stops it.

        Args:
            kernel_id: what `kernels` gives, or `Kernel.id`.
            startup_timeout: seconds until it must have answered.
            shutdown_timeout: seconds that `Kernel.shutdown` gives the server to end it.
            interrupt_timeout: as for `open_kernel`, and so are the others.
            output_limit: bytes kept for each execution.
            max_in_flight: execute requests of ours in the kernel at once.
            record_to: a new file to record to.

        Raises:
            ArgumentError: an option has an unusable value.
            KernelStartError: the server has no such kernel, or it went away.
            KernelStartTimeoutError: it did not answer in time.
            ServerAuthError, ServerError: the server refused, or did not answer.
        """
        options = OpenOptions(
            startup_timeout=startup_timeout, shutdown_timeout=shutdown_timeout, interrupt_timeout=interrupt_timeout,
            output_limit=output_limit, max_in_flight=max_in_flight,
        )  # fmt: skip
        with open_recorder(record_to) as recorder:
            async with open_task_group() as tasks:
                owner = Connected(
                    tasks, options, self._remote, kernel_id=_checked_id(kernel_id),
                    reconnect_timeout=self._reconnect_timeout, witness=recorder,
                )  # fmt: skip
                async with owner.opened() as connected:
                    yield connected

    async def shutdown_kernel(self, kernel_id: str) -> None:
        """End a kernel, whoever started it, and wait until the server has; nothing happens if it is gone already.

        Raises:
            ArgumentError: the id is none.
            ServerAuthError, ServerError: the server refused, or did not answer.
        """
        await self._remote.delete(_checked_id(kernel_id))

    def __repr__(self) -> str:
        return f"<Server {self.url}>"


@block
async def open_server(
    url: str,
    *,
    token: TokenSource = None,
    headers: Mapping[str, str] | None = None,
    ssl_context: ssl.SSLContext | None = None,
    proxy: str | None = None,
    timeout: float = 30.0,
    reconnect_timeout: float = 60.0,
    start: bool = False,
) -> AsyncIterator[Server]:
    """Use the kernels of a server, for the length of a block.

    ``async with open_server(url, token=...) as server`` asks the server for its kernelspecs, so a wrong address or token is told here.

    Args:
        url: where the server is, with its whole path: ``"https://hub.example/user/ada/"``. A ``?token=...`` in it is taken
            out and never shown.
        token: of the server, gateway or hub; or a function (plain or async) that gives it, asked again when the server does
            not take the last one any more.
        headers: more headers for every request, such as a proxy wants.
        ssl_context: for servers whose certificates the system does not know.
        proxy: the URL of an HTTP proxy. (The environment's are not used.)
        timeout: seconds for each answer of the server.
        reconnect_timeout: seconds for which a lost connection may stay lost before what is pending ends with
            `OutcomeUnknownError`.
        start: whether a hub is asked to start this user's server if it does not run; that may take minutes, and goes on if
            this is cancelled.

    Raises:
        ArgumentError: an argument is unusable.
        ServerAuthError: the token is missing, wrong or has expired, or does not allow this.
        ServerError: the server cannot be reached, or is none of Jupyter's.
    """
    address = Address(url)
    if isinstance(token, str):
        token = check_token(token)
    elif token is not None and not callable(token):
        raise ArgumentError(f"token must be a str, or a function that gives one, not {type(token).__name__}")
    answer_seconds, lost_seconds = as_seconds(timeout), as_seconds(reconnect_timeout)
    if not answer_seconds:
        raise ArgumentError(f"timeout must be seconds (a number > 0), not {timeout!r}")
    if lost_seconds is None:
        raise ArgumentError(f"reconnect_timeout must be seconds (a number >= 0), not {reconnect_timeout!r}")
    if not isinstance(ssl_context, ssl.SSLContext | None):
        raise ArgumentError(f"ssl_context must be an ssl.SSLContext, not {type(ssl_context).__name__}")
    if proxy is not None and not (isinstance(proxy, str) and proxy.startswith(("http://", "https://", "socks5://"))):
        raise ArgumentError("proxy must be a URL that begins with http://, https:// or socks5://")
    async with open_http(
        address, token=token if token is not None else address.token, headers=check_headers(headers),
        ssl_context=ssl_context, proxy=proxy, timeout=answer_seconds,
    ) as http:  # fmt: skip
        remote = Remote(http)
        if start:
            await start_server(http)
        await remote.kernelspecs()
        yield Server(remote, lost_seconds)


def _checked_env(env: Mapping[str, str] | None) -> dict[str, str]:
    if env is None:
        return {}
    if not isinstance(env, Mapping):
        raise ArgumentError(f"env must be a mapping of str to str, not {env!r:.200}")
    for name, value in env.items():
        if not (isinstance(name, str) and isinstance(value, str) and name and "=" not in name):
            raise ArgumentError(f"{name!r:.200} cannot be set in an environment")
        if "\0" in name + value:
            raise ArgumentError(f"{name!r:.200} cannot be set in an environment: there is a null in it")
    return dict(env)


def _checked_id(kernel_id: str) -> str:
    if not isinstance(kernel_id, str) or not kernel_id or not kernel_id.isprintable():
        raise ArgumentError(f"a kernel's id must be a str, such as RunningKernel.id, not {kernel_id!r:.200}")
    return kernel_id
