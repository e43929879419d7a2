"""Serving over stdio, or HTTP with a token."""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Awaitable, Callable
from typing import Any

from .. import ArgumentError
from .tools import make_server

__all__ = ["serve_http", "serve_stdio"]


def serve_stdio(kernel: str, *, max_kernels: int = 8, idle_timeout: float | None = None) -> None:
    """Serve one client over stdin and stdout, until stdin is closed; the kernels end with it."""
    make_server(kernel, max_kernels=max_kernels, idle_timeout=idle_timeout).run("stdio")


def serve_http(
    kernel: str,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    token: str | None = None,
    max_kernels: int = 8,
    idle_timeout: float | None = 3600.0,
) -> None:
    """Serve clients over HTTP, at ``/mcp``, until interrupted.

    Raises:
        ArgumentError: other machines could reach it, and there is no token.
    """
    if token is None and not _is_loopback(host):
        raise ArgumentError(f"{host!r} can be reached by others, who could run code here: set a token")
    import uvicorn  # noqa: PLC0415

    server = make_server(kernel, max_kernels=max_kernels, idle_timeout=idle_timeout)
    app: Any = server.streamable_http_app(host=host)  # which looks at Origin and Host on loopback
    uvicorn.run(_guarded(app, token) if token is not None else app, host=host, port=port, log_level="warning")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _guarded(app: Callable[..., Awaitable[None]], token: str) -> Callable[..., Awaitable[None]]:
    """The application for those who send the token: ``Authorization: Bearer ...``."""
    wanted = f"Bearer {token}".encode()

    async def guarded(scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            given = dict(scope["headers"]).get(b"authorization", b"")
            if not hmac.compare_digest(given, wanted):
                headers = [(b"content-type", b"text/plain"), (b"www-authenticate", b"Bearer")]
                await send({"type": "http.response.start", "status": 401, "headers": headers})
                await send({"type": "http.response.body", "body": b"a token is needed"})
                return
        await app(scope, receive, send)

    return guarded
