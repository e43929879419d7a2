"""Where a kernel listens and how its messages are signed. No I/O, but that it writes itself to a file."""

import json
import os
from typing import Literal

import msgspec

__all__ = ["ConnectionInfo"]


class ConnectionInfo(msgspec.Struct, frozen=True):
    """What a connection file holds; the fields have the names the Jupyter protocol gives them."""

    shell_port: int
    iopub_port: int
    stdin_port: int
    control_port: int
    hb_port: int
    ip: str = "127.0.0.1"
    """An address, or for ``transport="ipc"`` a path to which ``-PORT`` is appended."""
    key: str = ""
    """Secret with which messages are signed; empty means unsigned."""
    transport: Literal["tcp", "ipc"] = "tcp"
    signature_scheme: str = "hmac-sha256"
    curve_publickey: str | None = None
    """The kernel's CurveZMQ key pair (both halves: whoever can read the file is trusted)."""
    curve_secretkey: str | None = None

    def address(self, channel: str) -> str:
        """The ZMQ address of ``"shell"``, ``"iopub"``, ``"stdin"``, ``"control"`` or ``"hb"``."""
        port = getattr(self, f"{channel}_port")
        return f"ipc://{self.ip}-{port}" if self.transport == "ipc" else f"tcp://{self.ip}:{port}"

    def __repr__(self) -> str:
        # The keys are secrets, and reprs end in logs.
        return f"<ConnectionInfo {self.address('shell')} encrypted={self.curve_publickey is not None}>"

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write a connection file that only this user can read, for `connect_kernel` in another process.

        Raises:
            FileExistsError: there is one; it is not written over.
        """
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            fields = {key: value for key, value in msgspec.structs.asdict(self).items() if value is not None}
            file.write(json.dumps(fields, indent=1).encode())
