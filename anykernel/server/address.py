"""The address of a server as a caller gives it: checked, joined, and told without secrets. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

from .._protocol import ArgumentError

__all__ = ["Address", "check_headers", "check_token"]


class Address:
    """Where a server is.

    Args:
        url: with ``http`` or ``https``; a ``?token=...`` in it is taken out, and may be read from `token`.

    Raises:
        ArgumentError: it is no such URL.
    """

    def __init__(self, url: str) -> None:
        if not isinstance(url, str):
            raise ArgumentError(f"url must be a str, such as 'https://hub.example/user/ada/', not {url!r:.200}")
        # Nothing of it is quoted in an error: there may be a token in it.
        if any(character <= " " or character == "\x7f" for character in url.strip()):
            raise ArgumentError(
                "url holds a blank or a control character; write it as a browser's address bar shows it"
            )
        try:
            parts = urlsplit(url.strip())
            host, port = parts.hostname, parts.port
        except ValueError as exc:
            raise ArgumentError("url cannot be read: its host or port is malformed") from exc
        if parts.scheme in ("ws", "wss"):
            instead = parts.scheme.replace("ws", "http")
            raise ArgumentError(
                f"url must begin with {instead}://, not {parts.scheme}://: it is the server's, not a WebSocket's"
            )
        if parts.scheme not in ("http", "https") or not host:
            raise ArgumentError("url must begin with http:// or https:// and name a host, as 'http://127.0.0.1:8888/'")
        query = parse_qsl(parts.query, keep_blank_values=True)
        tokens = [value for name, value in query if name == "token"]
        self.token: str | None = check_token(tokens[-1]) if tokens and tokens[-1] else None
        """The token that was in the URL."""
        self.userinfo: tuple[str, str] | None = None
        if parts.username is not None:
            self.userinfo = parts.username, parts.password or ""
        netloc = f"[{host}]" if ":" in host else host
        if port is not None:
            netloc += f":{port}"
        self.path = parts.path.rstrip("/") + "/"
        self.origin = urlunsplit((parts.scheme, netloc, "", "", ""))
        self._query = [(name, value) for name, value in query if name not in ("token", "reset")]

    @property
    def base(self) -> str:
        """The server's own URL, without anything secret."""
        return self.origin + self.path

    def url(self, *segments: str, **query: str) -> str:
        """The URL of what lies below the server."""
        path = self.path + "/".join(quote(segment, safe="") for segment in segments)
        pairs = [*self._query, *query.items()]
        return self.origin + path + (f"?{urlencode(pairs)}" if pairs else "")

    def shown(self, *segments: str) -> str:
        """The same as errors show it: without a query."""
        return self.origin + self.path + "/".join(quote(segment, safe="") for segment in segments)

    def __repr__(self) -> str:
        return f"<Address {self.base}>"


def check_token(token: object) -> str:
    """The token, if it can stand in a header.

    Raises:
        ArgumentError: it cannot. (It is not quoted.)
    """
    if not isinstance(token, str):
        raise ArgumentError(f"token must be a str, or a function that gives one, not {type(token).__name__}")
    if not token or not token.isascii() or not token.isprintable() or token != token.strip():
        raise ArgumentError(
            "token must be printable ASCII without blanks or newlines around it; one that was read from a file wants .strip()"
        )
    return token


def check_headers(headers: Mapping[str, str] | None) -> dict[str, str]:
    """The caller's own headers, if they can be sent.

    Raises:
        ArgumentError: they cannot. (Values are not quoted.)
    """
    if headers is None:
        return {}
    if not isinstance(headers, Mapping):
        raise ArgumentError(f"headers must be a mapping of str to str, not {type(headers).__name__}")
    for name, value in headers.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise ArgumentError("headers must be a mapping of str to str")
        if not name or not all(c.isascii() and (c.isalnum() or c in "!#$%&'*+-.^_`|~") for c in name):
            raise ArgumentError(f"{name!r:.200} is no name of a header")
        if any(c in "\r\n\0" for c in value):
            raise ArgumentError(f"the header {name!r:.200} holds a newline")
    return dict(headers)
