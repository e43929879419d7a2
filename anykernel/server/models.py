"""What a server says of its kernels, as data. No I/O."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from .._protocol import ServerError

__all__ = ["RunningKernel", "ServerKernelSpec", "read_kernel", "read_kernelspecs"]


class RunningKernel(msgspec.Struct, frozen=True):
    """A kernel that runs on a server; given by `Server.kernels`."""

    id: str
    """What `Server.connect_kernel` takes."""
    name: str
    """Its kernelspec's."""
    execution_state: str = "unknown"
    """As the server last saw it: it stays ``"starting"`` until somebody connects."""
    last_activity: datetime | None = None
    """When it last did something (aware)."""
    connections: int = 0
    """How many clients are connected, lost ones included that the server has not missed yet."""


class ServerKernelSpec(msgspec.Struct, frozen=True):
    """A kernelspec of a server; given by `Server.kernelspecs`."""

    name: str
    """What `Server.open_kernel` takes."""
    display_name: str = ""
    language: str = ""
    is_default: bool = False
    """Whether it is what the server starts where no name is given."""


def read_kernel(data: Any, url: str) -> RunningKernel:
    """A kernel's model.

    Raises:
        ServerError: it is none.
    """
    try:
        return msgspec.convert(data, RunningKernel)
    except msgspec.ValidationError as exc:
        raise ServerError(f"the server's description of a kernel cannot be read: {exc}", url=url) from None


def read_kernelspecs(data: Any, url: str) -> dict[str, ServerKernelSpec]:
    """The answer about kernelspecs, by name.

    Raises:
        ServerError: it is none.
    """
    specs = data.get("kernelspecs") if isinstance(data, dict) else None
    if not isinstance(specs, dict):
        raise ServerError("this does not answer as a Jupyter server does", url=url)
    found = {}
    for name, entry in specs.items():
        spec = entry.get("spec") if isinstance(entry, dict) else None
        spec = spec if isinstance(spec, dict) else {}
        found[name] = ServerKernelSpec(
            name, str(spec.get("display_name", "")), str(spec.get("language", "")), name == data.get("default")
        )
    return found
