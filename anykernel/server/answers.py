"""What a server's answer means: the one map from answers to errors. No I/O.

How this works. Servers, gateways, hubs and proxies answer the same fault in different ways, and the same status for different
faults. Only JSON is read, and of it only ``message`` (cut short): pages of HTML may hold the token of whoever is logged in.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from .._protocol import ServerAuthError, ServerError

__all__ = ["Answer", "asks_who", "error_of", "hub_of"]

_MESSAGE_LIMIT = 300
# What gateways say with the statuses of who may do what, where it is about how much.
_NOT_WHO = re.compile(r"resource limit|max_kernels|not authorized to start|not authorized to launch", re.IGNORECASE)
_HUB = re.compile(r"/hub/")


class Answer(msgspec.Struct, frozen=True):
    """One answer of a server, with what of it may be shown."""

    status: int
    headers: Mapping[str, str]
    """With names in lower case."""
    body: bytes = b""

    @property
    def is_json(self) -> bool:
        """Whether it says that it is JSON."""
        return "json" in self.headers.get("content-type", "")

    def data(self) -> Any:
        """The JSON in it; None where there is none."""
        try:
            return msgspec.json.decode(self.body)
        except (ValueError, RecursionError):
            return None

    @property
    def message(self) -> str:
        """What it says in words, cut short; empty where that is not JSON."""
        data = self.data() if self.is_json else None
        text = data.get("message") or data.get("reason") if isinstance(data, dict) else None
        text = " ".join(str(text or "").split())
        return text if len(text) <= _MESSAGE_LIMIT else text[:_MESSAGE_LIMIT] + "..."


def hub_of(answer: Answer) -> bool:
    """Whether it is a hub that answers, for a server that does not run (or is being started)."""
    if answer.status == 424:
        return True
    return answer.status in (302, 303, 307) and _HUB.search(answer.headers.get("location", "")) is not None


def asks_who(answer: Answer) -> bool:
    """Whether it means that we are not known, or not well enough: worth another try with a fresh token."""
    if answer.status in (302, 303, 307) and "login" in answer.headers.get("location", ""):
        return True
    return answer.status in (401, 403) and not _NOT_WHO.search(answer.message)


def error_of(answer: Answer, url: str) -> ServerError:
    """The error that an answer nobody expected is told by."""
    status, message = answer.status, answer.message
    if hub_of(answer):
        return ServerError(
            "the hub says that this user's server does not run (open_server(..., start=True) asks it to start it)",
            status=status, url=url,
        )  # fmt: skip
    if asks_who(answer):
        what = {401: "the token is missing, wrong or has expired", 403: "not logged in, or not allowed"}.get(
            status, "the server wants a login; give a token"
        )
        if "_xsrf" in message:  # which a Jupyter server says to whom it does not know
            message = ""
        return ServerAuthError(f"{what}: {message}" if message else what, status=status, url=url)
    if 300 <= status < 400:
        reason = "the server points elsewhere; give the address that it really has, with its path"
    elif status == 404 and not answer.is_json:
        reason = "there is nothing; is this a Jupyter server's address, with its whole path?"
    elif status in (502, 503, 504):
        reason = "a proxy, or the server, is not able to answer now"
    elif status < 300 and not answer.is_json:
        reason = "this does not answer as a Jupyter server does"
    elif status >= 500:
        reason = "the server failed"
    else:
        reason = "the server refused"
    return ServerError(f"{reason}: {message}" if message else reason, status=status, url=url)
