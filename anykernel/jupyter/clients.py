"""jupyter_client's async manager and client, on this package's core."""

from __future__ import annotations

import asyncio
import getpass
import inspect
import weakref
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import anyio.to_thread
from jupyter_client import manager as their_managers
from jupyter_client.asynchronous import client as their_clients
from jupyter_client.session import Session
from traitlets import DottedObjectName, Type

from .channels import Channel, Heart
from .link import Link

__all__ = ["AsyncKernelClient", "AsyncKernelManager", "Clients", "Linked", "interact", "is_ready"]

# Its verbs have other signatures in each of its classes.
_TheirClient: Any = their_clients.AsyncKernelClient
_TheirManager: Any = their_managers.AsyncKernelManager


class Clients:
    """What our managers have in common: their clients hear of restarts. jupyter_client's start and end the kernel."""

    def client(self, **kwargs: Any) -> Any:
        """A client for the kernel; call its ``start_channels()``."""
        client = super().client(**kwargs)  # type: ignore[misc]
        self.__dict__.setdefault("_clients", weakref.WeakSet()).add(client)
        return client

    async def _async_restart_kernel(self, now: bool = False, newports: bool = False, **kwargs: Any) -> None:
        clients = [client for client in self.__dict__.get("_clients", ()) if isinstance(client, Linked)]
        for client in clients:
            client.on_restarting()
        await super()._async_restart_kernel(now=now, newports=newports, **kwargs)  # type: ignore[misc]
        for client in clients:
            client.on_restarted(self.get_connection_info())  # type: ignore[attr-defined]


class Linked:
    """What our clients have in common: channels that lead to a link. The base of a client of jupyter_client's comes after it."""

    session: Any
    parent: Any
    get_connection_info: Callable[[], dict[str, Any]]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        for key in ("curve_publickey", "curve_secretkey"):  # the manager has them as text
            if isinstance(kwargs.get(key), str):
                kwargs[key] = kwargs[key].encode()
        super().__init__(*args, **kwargs)
        self.link: Link | None = None
        """What it stands on, while its channels run."""
        for name in ("shell", "control", "iopub", "stdin"):
            setattr(self, f"_{name}_channel", self.channel(name))
        self._hb_channel = Heart("hb", lambda: self.link)

    def channel(self, name: str) -> Any:
        """The channel of this name."""
        return Channel(name, lambda: self.link)

    @property
    def running(self) -> Link:
        """The link.

        Raises:
            RuntimeError: the channels do not run.
        """
        if self.link is None:
            raise RuntimeError("Channels not running: call start_channels() first")
        return self.link

    def open_link(self, connection: dict[str, Any] | None = None) -> Link:
        """Connect, in the event loop that runs."""
        manager = self.parent if isinstance(self.parent, their_managers.KernelManager) else None

        async def gone() -> bool:
            provisioner = None if manager is None else manager.provisioner
            return provisioner is not None and (not provisioner.has_process or await provisioner.poll() is not None)

        return Link(
            connection or self.get_connection_info(),
            self.session,
            gone=None if manager is None else gone,
            on_message=self.on_message,
            on_dead=self.on_end,
        )

    def on_message(self, message: dict[str, Any]) -> None:
        """Called with each message that has come."""

    def on_end(self) -> None:
        """Called when the kernel is gone."""

    def on_restarting(self) -> None:
        """The manager is about to restart the kernel."""
        if self.link is not None:
            self.link.end(ConnectionError("the kernel is restarting"))

    def on_restarted(self, connection: dict[str, Any]) -> None:
        """The manager has done so."""
        if self.link is not None:
            old, self.link = self.link, self.open_link(connection)
            old.stop()
            self.link.inboxes = old.inboxes
            for inbox in old.inboxes.values():
                inbox.fail(None)


class AsyncKernelClient(Linked, _TheirClient):  # type: ignore[misc]
    """jupyter_client's class, safe for any number of tasks: each call with ``reply=True`` gets its own reply.

    Verbs give message ids, and awaitables of replies with ``reply=True``. A call that waits for its code stops it when
    ``timeout`` (seconds) is over, or when it is cancelled. What no call waits for is read by ``get_shell_msg`` and the
    others, of which each keeps 64 MiB. It works on asyncio, and belongs to the event loop that ``start_channels`` is called
    in; close it by ``stop_channels``.
    """

    def start_channels(
        self,
        shell: bool = True,
        iopub: bool = True,
        stdin: bool = True,
        hb: bool = True,
        control: bool = True,
    ) -> Any:
        """Connect to the kernel, in the background: `wait_for_ready` waits for it. All channels are one here."""
        del shell, iopub, hb, control
        self.allow_stdin = stdin
        if self.link is None:
            self.link = self.open_link()

    def stop_channels(self) -> None:
        """Close the connection; what is waited for ends with an error. Sockets are closed when the event loop gets to it."""
        if self.link is not None:
            self.link.stop()
            self.link = None

    async def astop_channels(self) -> None:
        """Close the connection, and wait for that."""
        if self.link is not None:
            link, self.link = self.link, None
            await link.close()

    @property
    def channels_running(self) -> bool:
        """Whether it has been started and not stopped."""
        return self.link is not None

    async def wait_for_ready(self, timeout: float | None = None) -> None:
        """Wait until the kernel answers.

        Raises:
            RuntimeError: it died, or did not within ``timeout`` seconds.
        """
        await is_ready(self.running, timeout)

    _async_wait_for_ready = wait_for_ready

    async def is_alive(self) -> bool:
        """Whether the kernel lives, as far as this client and its manager know."""
        if self.link is not None and self.link.ending is not None:
            return False
        return bool(await super()._async_is_alive())

    _async_is_alive = is_alive

    def _recv_reply(
        self, msg_id: str, timeout: float | None = None, channel: str = "shell"
    ) -> Awaitable[dict[str, Any]]:
        return self.running.reply(msg_id, timeout, channel)

    _async_recv_reply = _recv_reply

    async def execute_interactive(
        self,
        code: str,
        silent: bool = False,
        store_history: bool = True,
        user_expressions: dict[str, Any] | None = None,
        allow_stdin: bool | None = None,
        stop_on_error: bool = True,
        timeout: float | None = None,
        output_hook: Callable[[dict[str, Any]], Any] | None = None,
        stdin_hook: Callable[[dict[str, Any]], Any] | None = None,
    ) -> dict[str, Any]:
        """Run code, hand its own output to ``output_hook`` (by default to this process's stdout), and return the reply.

        Raises:
            TimeoutError: it was not done within ``timeout`` seconds, and has been stopped.
            DeadKernelError: the kernel is gone.
        """
        request = self.session.msg(
            "execute_request",
            {
                "code": code,
                "silent": silent,
                "store_history": store_history,
                "user_expressions": user_expressions or {},
                "allow_stdin": self.allow_stdin if allow_stdin is None else allow_stdin,
                "stop_on_error": stop_on_error,
            },
        )
        return await interact(
            self.running, self.session, request, timeout, output_hook or self._output_hook_default, stdin_hook
        )

    _async_execute_interactive = execute_interactive


async def interact(
    link: Link,
    session: Session,
    request: dict[str, Any],
    timeout: float | None,
    output_hook: Callable[[dict[str, Any]], Any],
    stdin_hook: Callable[[dict[str, Any]], Any] | None,
) -> dict[str, Any]:
    """Send an execute request, hand what comes of it to the hooks, and return the reply."""

    async def ask(message: dict[str, Any]) -> None:
        content = message["content"]
        prompt = getpass.getpass if content.get("password") else input
        try:
            value = await anyio.to_thread.run_sync(prompt, content["prompt"], abandon_on_cancel=True)
        except EOFError:
            value = "\x04"
        link.send("stdin", session.msg("input_reply", {"value": value}, parent=message["parent_header"]))

    messages: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    hooks = {"iopub": output_hook, "stdin": stdin_hook or ask}
    msg_id = request["header"]["msg_id"]
    link.send("shell", request)
    link.watchers[msg_id] = messages.put_nowait
    answer = asyncio.ensure_future(link.reply(msg_id, None))
    try:
        with anyio.fail_after(timeout):
            message: dict[str, Any] = {}
            while not _is_last(message):
                message = await messages.get()
                if message["msg_type"] is not None and message["channel"] in hooks:
                    done = hooks[message["channel"]](message)
                    if inspect.isawaitable(done):
                        await done
            return await answer
    except TimeoutError:
        raise TimeoutError(f"the code did not finish within {timeout:g} s") from None
    finally:
        del link.watchers[msg_id]
        if not answer.done():
            answer.cancel()
            with anyio.CancelScope(shield=True):
                await asyncio.wait([answer])


def _is_last(message: dict[str, Any]) -> bool:
    if not message:
        return False
    kind = message["msg_type"]
    return kind is None or (kind == "status" and message["content"].get("execution_state") == "idle")


async def is_ready(link: Link, timeout: float | None) -> None:
    """Wait until the kernel answers; RuntimeError if it does not."""
    with anyio.move_on_after(timeout):
        try:
            await asyncio.shield(link.ready)
        except (RuntimeError, ConnectionError) as exc:
            raise RuntimeError(f"Kernel died before replying to kernel_info: {exc}") from exc
        return
    raise RuntimeError(f"Kernel didn't respond in {timeout:g} seconds")


class AsyncKernelManager(Clients, _TheirManager):  # type: ignore[misc]
    """jupyter_client's class, whose clients are `AsyncKernelClient`; wherever a ``kernel_manager_class`` is taken."""

    client_class = DottedObjectName("anykernel.jupyter.AsyncKernelClient", config=True)
    client_factory = Type(AsyncKernelClient, config=True)

    async def restart_kernel(self, *args: Any, **kwargs: Any) -> None:
        """As jupyter_client's; what clients wait for ends with `ConnectionError`, and they connect anew."""
        await self._async_restart_kernel(*args, **kwargs)
