"""Talking HTTP to one server: who we are, what it answers, and a connection turned into a stream.

How this works. Every request goes out by one client of httpx2, without redirects (they would carry the token elsewhere), without
cookies of the server's (only what logging in gave is sent), and without the environment's proxies (which would catch the
loopback). Foreign exceptions hold requests with their headers, so nothing of them comes out, not even as a context.
"""

from __future__ import annotations

import inspect
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any

import anyio
import httpx2

from .._core import Home
from .._protocol import V1, ServerError
from .._transports import WebSocket
from .address import Address, check_token
from .answers import Answer, asks_who, error_of, hub_of

__all__ = ["Http", "TokenSource", "open_http"]

TokenSource = str | Callable[[], str | Awaitable[str]] | None

# Any value passes that is the same in the cookie and in the header.
_XSRF = "anykernel"

_BODY_LIMIT = 64 * 2**20


class Http:
    """One server, as HTTP reaches it; made by `open_http`.

    Requests raise `ServerAuthError` and `ServerError` only; and `UnsupportedError` in another event loop than it was made in.
    """

    def __init__(
        self,
        client: httpx2.AsyncClient,
        address: Address,
        token: TokenSource,
        headers: Mapping[str, str],
        timeout: float,
    ) -> None:
        self.address = address
        self.timeout = timeout
        """Seconds that each answer may take."""
        self._home = Home()
        self._client = client
        self._source = token
        self._headers = dict(headers)
        self._token: str | None = token if isinstance(token, str) else None
        self._cookies = {"_xsrf": _XSRF}
        self._asking = anyio.Lock()

    async def get(self, *segments: str, ok: tuple[int, ...] = (200,)) -> Answer:
        """Ask for something."""
        return await self.request("GET", segments, ok=ok)

    async def request(
        self,
        method: str,
        segments: tuple[str, ...],
        *,
        ok: tuple[int, ...],
        json: Any = None,
        timeout: float | None = None,
        address: Address | None = None,
    ) -> Answer:
        """Send a request, and again with a fresh token if the server asks who we are.

        Args:
            method: of HTTP.
            segments: of the path, below the server's own.
            ok: the statuses that are no error.
            json: what the body is to hold.
            timeout: seconds; None means those of the server.
            address: another than the server's own, such as its hub's.

        Raises:
            ServerAuthError: we are not known, or not allowed.
            ServerError: any other answer; or there was none.
        """
        self._home.check()
        where = address or self.address
        for last in (False, True):
            token = await self._current_token()
            answer = await self._send(method, where, segments, json, timeout or self.timeout)
            # (A hub says that it did something by the status alone.)
            if answer.status in ok and (answer.status == 204 or answer.is_json or (address and not answer.body)):
                return answer
            if last or not asks_who(answer) or not await self._refresh(token):
                break
        raise error_of(answer, where.shown(*segments))

    async def is_up(self, *segments: str) -> bool:
        """Whether the server itself answers here; False where its hub does, as it does not run.

        Raises:
            ServerError: there was no answer.
        """
        await self._current_token()
        return not hub_of(await self._send("GET", self.address, segments, None, self.timeout))

    async def upgrade(self, *segments: str, **query: str) -> WebSocket:
        """Open a WebSocket.

        Raises:
            ServerAuthError: we are not known, or not allowed.
            ServerError: it was refused, or there was no answer. (None within two minutes: servers wait for a kernel to
                say what it is.)
        """
        self._home.check()
        opened: WebSocket | Answer
        for last in (False, True):
            token = await self._current_token()
            opened = await self._upgrade(self.address.url(*segments, **query), self.address.shown(*segments))
            if isinstance(opened, WebSocket):
                return opened
            if last or not asks_who(opened) or not await self._refresh(token):
                break
        assert isinstance(opened, Answer)
        raise error_of(opened, self.address.shown(*segments))

    def set_cookies(self, cookies: Mapping[str, str]) -> None:
        """What logging in gave."""
        self._cookies.update(cookies)

    async def _send(
        self, method: str, address: Address, segments: tuple[str, ...], json: Any, timeout: float
    ) -> Answer:
        reason = ""
        try:
            with anyio.fail_after(timeout + 2):  # of all of it: httpx2's own, which lets go of more, is for each step
                response = await self._client.request(
                    method, address.url(*segments), headers=self._all_headers(method), json=json, timeout=timeout
                )
                return Answer(response.status_code, _lower(response.headers), response.content[:_BODY_LIMIT])
        except (TimeoutError, httpx2.TimeoutException):
            reason = f"no answer within {timeout:g} s"
            if address.origin.startswith("https:"):
                reason += " (if it speaks no TLS, write http://)"
        except (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError) as exc:
            reason = _reason(exc)
        raise ServerError(reason, url=address.shown(*segments))  # outside of the block: without a context

    async def _upgrade(self, url: str, shown: str) -> WebSocket | Answer:
        headers = {
            **self._all_headers("GET"),
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Key": WebSocket.new_key(),
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Protocol": V1,
        }
        # A kernel that does not come up is waited for by the server, for a minute by default and twice.
        request = self._client.build_request(
            "GET", url, headers=headers, timeout=httpx2.Timeout(self.timeout, read=120.0)
        )
        reason = ""
        try:
            response = await self._client.send(request, stream=True)
        except httpx2.TimeoutException:
            reason = "no answer in time"
        except (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError) as exc:
            reason = _reason(exc)
        else:
            stream = response.extensions.get("network_stream")
            if response.status_code == 101 and stream is not None:
                if WebSocket.accepts(headers["Sec-WebSocket-Key"], response.headers.get("sec-websocket-accept", "")):
                    return WebSocket(stream, response.aclose, response.headers.get("sec-websocket-protocol"))
                reason = "the answer to the WebSocket's handshake is not this server's"
            else:
                try:
                    with anyio.fail_after(self.timeout):
                        await response.aread()
                    return Answer(response.status_code, _lower(response.headers), response.content[:_BODY_LIMIT])
                except (TimeoutError, httpx2.TimeoutException):
                    reason = f"no answer within {self.timeout:g} s"
                except (httpx2.HTTPError, httpx2.StreamError) as exc:
                    reason = _reason(exc)
            with anyio.CancelScope(shield=True):
                await response.aclose()
        raise ServerError(reason, url=shown)

    def _all_headers(self, method: str) -> dict[str, str]:
        headers = {**self._headers, "Cookie": "; ".join(f"{name}={value}" for name, value in self._cookies.items())}
        if self._token is not None:
            headers["Authorization"] = f"token {self._token}"
        if method != "GET":
            headers["X-XSRFToken"] = self._cookies["_xsrf"]
        return headers

    async def _current_token(self) -> str | None:
        if self._token is None and callable(self._source):
            await self._refresh(None)
        return self._token

    async def _refresh(self, old: str | None) -> bool:
        """Ask for a fresh token, where there is somebody to ask; whether it may help."""
        source = self._source
        if not callable(source):
            return False
        async with self._asking:
            if self._token == old:
                given = source()
                token = await given if inspect.isawaitable(given) else given
                self._token = check_token(token)
        return True

    def __repr__(self) -> str:
        return f"<Http {self.address.base}>"


@asynccontextmanager
async def open_http(
    address: Address,
    *,
    token: TokenSource,
    headers: Mapping[str, str],
    ssl_context: ssl.SSLContext | None,
    proxy: str | None,
    timeout: float,
) -> AsyncIterator[Http]:
    """Reach a server for the length of a block."""
    client = httpx2.AsyncClient(
        verify=True if ssl_context is None else ssl_context,
        proxy=proxy,
        trust_env=False,
        follow_redirects=False,
        limits=httpx2.Limits(max_connections=None, max_keepalive_connections=0),
        # Each open WebSocket takes a place in the pool, and nobody's cookies but ours are sent.
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        auth=httpx2.BasicAuth(*address.userinfo) if address.userinfo and token is None else None,
    )
    try:
        yield Http(client, address, token, headers, timeout)
    finally:
        with anyio.CancelScope(shield=True):
            await client.aclose()


def _lower(headers: httpx2.Headers) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def _reason(exc: Exception) -> str:
    """What to say of a failure, without what the request held."""
    cause: BaseException | None = exc
    for _ in range(10):
        if isinstance(cause, ssl.SSLError):
            detail = getattr(cause, "verify_message", "") or cause.reason or "handshake failed"
            return (
                f"no safe connection (TLS): {detail}; ssl_context= takes a context that knows the server's certificate"
            )
        if isinstance(cause, OSError) and cause.strerror:
            return f"cannot be reached: {cause.strerror}"
        if cause is None:
            break
        cause = cause.__cause__ or cause.__context__
    kinds = {
        httpx2.ProxyError: "the proxy refused",
        httpx2.RemoteProtocolError: "the connection was cut, or this is no HTTP",
        httpx2.ConnectError: "cannot be reached",
        httpx2.InvalidURL: "the address cannot be used",
    }
    return next((text for kind, text in kinds.items() if isinstance(exc, kind)), "the connection broke")
