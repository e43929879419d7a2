"""jupyter_client's blocking manager and client, on this package's core: the async ones', in a thread of their own."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from anyio.from_thread import BlockingPortal, start_blocking_portal
from jupyter_client import manager as their_managers
from jupyter_client.blocking import client as their_clients
from jupyter_core.utils import run_sync
from traitlets import DottedObjectName, Type

from .channels import Channel
from .clients import Clients, Linked, interact, is_ready

__all__ = ["BlockingKernelClient", "KernelManager"]

_TheirClient: Any = their_clients.BlockingKernelClient
_TheirManager: Any = their_managers.KernelManager


class BlockingChannel(Channel):
    """A channel that is read from other threads than its link's."""

    def __init__(self, name: str, client: BlockingKernelClient) -> None:
        super().__init__(name, lambda: client.link)
        self._client = client

    def send(self, message: dict[str, Any]) -> None:
        self._client.portal.call(super().send, message)

    def get_msg(self, timeout: float | None = None, **_: Any) -> Any:
        return self._client.portal.call(super().get_msg, timeout)

    def get_msgs(self) -> Any:
        return self._client.portal.call(super().get_msgs)

    def msg_ready(self) -> Any:
        return self._client.portal.call(super().msg_ready)


class BlockingKernelClient(Linked, _TheirClient):  # type: ignore[misc]
    """jupyter_client's class, for any number of threads. Its event loop runs in a thread of its own until `stop_channels`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._opened: AbstractContextManager[BlockingPortal] | None = None
        self._portal: BlockingPortal | None = None

    @property
    def portal(self) -> BlockingPortal:
        """The way into its event loop.

        Raises:
            RuntimeError: the channels do not run.
        """
        if self._portal is None:
            raise RuntimeError("Channels not running: call start_channels() first")
        return self._portal

    def channel(self, name: str) -> Any:
        return BlockingChannel(name, self)

    def start_channels(
        self,
        shell: bool = True,
        iopub: bool = True,
        stdin: bool = True,
        hb: bool = True,
        control: bool = True,
    ) -> None:
        """Connect to the kernel, in the background. All channels are one here."""
        del shell, iopub, hb, control
        self.allow_stdin = stdin
        if self.link is None:
            self._opened = start_blocking_portal("asyncio")
            self._portal = self._opened.__enter__()
            self.link = self._portal.call(self.open_link)

    def stop_channels(self) -> None:
        """Close the connection, and its thread."""
        if self.link is not None and self._opened is not None:
            self.portal.call(self.link.close)
            self.link = self._portal = None
            self._opened.__exit__(None, None, None)

    @property
    def channels_running(self) -> bool:
        """Whether it has been started and not stopped."""
        return self.link is not None

    def on_restarting(self) -> None:
        if self._portal is not None:
            self._portal.call(super().on_restarting)

    def on_restarted(self, connection: dict[str, Any]) -> None:
        if self._portal is not None:
            self._portal.call(super().on_restarted, connection)

    def wait_for_ready(self, timeout: float | None = None) -> None:
        """As `AsyncKernelClient.wait_for_ready`."""
        self.portal.call(is_ready, self.running, timeout)

    def _recv_reply(self, msg_id: str, timeout: float | None = None, channel: str = "shell") -> Any:
        async def reply() -> dict[str, Any]:
            return await self.running.reply(msg_id, timeout, channel)

        return self.portal.call(reply)

    def execute_interactive(
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
        """As `AsyncKernelClient.execute_interactive`; the hooks are called in the client's thread."""
        content = {
            "code": code,
            "silent": silent,
            "store_history": store_history,
            "user_expressions": user_expressions or {},
            "allow_stdin": self.allow_stdin if allow_stdin is None else allow_stdin,
            "stop_on_error": stop_on_error,
        }
        request = self.session.msg("execute_request", content)
        hook = output_hook or self._output_hook_default
        return self.portal.call(interact, self.running, self.session, request, timeout, hook, stdin_hook)


class KernelManager(Clients, _TheirManager):  # type: ignore[misc]
    """jupyter_client's blocking class, whose clients are `BlockingKernelClient`."""

    client_class = DottedObjectName("anykernel.jupyter.BlockingKernelClient", config=True)
    client_factory = Type(BlockingKernelClient, config=True)

    def restart_kernel(self, *args: Any, **kwargs: Any) -> None:
        """As jupyter_client's; what clients wait for ends with `ConnectionError`, and they connect anew."""
        run_sync(self._async_restart_kernel)(*args, **kwargs)
