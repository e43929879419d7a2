"""A hub: the server of a user's may belong to one, which is asked to start it.

How this works. `https://example/prefix/user/ada/lab/` belongs to the hub at `https://example/prefix/hub/`, which knows it as the
server ``lab`` of ``ada``; `.../user/ada/` is the one without a name. A second request to start is answered as a question how far
it is. What the hub says of the user tells whether the server is starting, ready, or has failed to start.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

import anyio

from .._protocol import ServerError
from .address import Address
from .http import Http

__all__ = ["start_server"]

# Seconds that a hub gets to start a server (its own limit is a minute by default), and between two looks.
START_TIMEOUT = 300.0
LOOK_INTERVAL = 0.5


async def start_server(http: Http) -> None:
    """Have the hub start the user's server, if there is a hub and the server does not run; wait until it answers.

    Raises:
        ServerAuthError: the hub does not know us, or the token may not start servers.
        ServerError: it cannot be reached or started, or was not ready within ``START_TIMEOUT``.
    """
    if await http.is_up("api"):
        return
    hub, user, name = _place_of(http.address)
    segments = ("api", "users", user, *(("servers", name) if name else ("server",)))
    shown = hub.shown(*segments)
    with anyio.move_on_after(START_TIMEOUT):
        # 400: it is there already. (A hub answers when the server is ready, or after ten seconds.)
        await http.request("POST", segments, ok=(201, 202, 400), address=hub)
        while True:
            server = await _server_of(http, hub, user, name)
            if server is not None and server.get("ready") is True:
                if await http.is_up("api"):  # the hub's proxy knows it a little later
                    return
            elif server is None or server.get("pending") != "spawn":
                raise ServerError("the hub could not start this user's server; its own page tells more", url=shown)
            await anyio.sleep(LOOK_INTERVAL)
    raise ServerError(f"the hub has not started this user's server within {START_TIMEOUT:g} s", url=shown)


async def _server_of(http: Http, hub: Address, user: str, name: str) -> dict[str, Any] | None:
    """What the hub says of a server; None where there is none, or it says nothing."""
    model = (await http.request("GET", ("api", "users", user), ok=(200,), address=hub)).data()
    servers = model.get("servers") if isinstance(model, dict) else None
    server = servers.get(name) if isinstance(servers, dict) else None
    return server if isinstance(server, dict) else None


def _place_of(address: Address) -> tuple[Address, str, str]:
    """The hub of a user's server, the user, and the server's name."""
    before, found, after = address.path.partition("/user/")
    parts = [unquote(part) for part in after.split("/") if part]
    if not found or not parts:
        raise ServerError("the hub's servers are at .../user/NAME/; this is none of them", url=address.base)
    return Address(f"{address.origin}{before}/hub/"), parts[0], parts[1] if len(parts) > 1 else ""
