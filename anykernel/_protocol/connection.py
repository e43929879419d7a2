"""Where a kernel listens and how its messages are signed. No I/O, but that it writes itself to a file."""

import contextlib
import json
import os
from typing import Literal

import msgspec

from .errors import ArgumentError, ConnectionFileExistsError, UnsupportedError

__all__ = ["ConnectionInfo"]


class ConnectionInfo(msgspec.Struct, frozen=True):
    """What a connection file holds; the fields have the names the Jupyter protocol gives them."""

    shell_port: int
    iopub_port: int
    stdin_port: int
    control_port: int
    hb_port: int
    ip: str = "127.0.0.1"
    """An address (of IPv6, too) or a host's name, or for ``transport="ipc"`` a path to which ``-PORT`` is appended."""
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
        if self.transport == "ipc":
            return f"ipc://{self.ip}-{port}"
        return f"tcp://[{self.ip}]:{port}" if self.is_ipv6 else f"tcp://{self.ip}:{port}"

    @property
    def is_ipv6(self) -> bool:
        """Whether the address is one of IPv6."""
        return self.transport == "tcp" and ":" in self.ip

    def __repr__(self) -> str:
        # The keys are secrets, and reprs end in logs.
        return f"<ConnectionInfo {self.address('shell')} encrypted={self.curve_publickey is not None}>"

    def write(
        self, path: str | os.PathLike[str], *, encryption: Literal["auto", "required", "disabled"] = "auto"
    ) -> None:
        """Write a connection file that only this user can read, for `connect_kernel` in another process.

        And for other clients, but not all of them can read one of an encrypted kernel: ``jupyter console --existing`` then
        waits for ever. Such a kernel is to be opened with ``open_kernel(encryption="disabled")``.

        Args:
            path: of the file; there must be none yet.
            encryption: ``"disabled"`` refuses to write a file for those who cannot use it if the kernel is encrypted;
                ``"required"`` if it is not.

        Raises:
            ConnectionFileExistsError: there is one (a `FileExistsError`, too); it is not written over.
            ArgumentError: the file cannot be written there.
            UnsupportedError: the kernel is not encrypted as ``encryption`` says.
        """
        if encryption not in ("auto", "required", "disabled"):
            raise ArgumentError(f"encryption must be 'auto', 'required' or 'disabled', not {encryption!r}")
        if not isinstance(path, (str, os.PathLike)):
            raise ArgumentError(f"path must be a str or a path, not {type(path).__name__}")
        if encryption == "disabled" and self.curve_publickey is not None:
            raise UnsupportedError("this kernel is encrypted; open it with encryption='disabled'")
        if encryption == "required" and self.curve_publickey is None:
            raise UnsupportedError("this kernel is not encrypted")
        fields = {key: value for key, value in msgspec.structs.asdict(self).items() if value is not None}
        try:
            file = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
            try:
                with file:
                    file.write(json.dumps(fields, indent=1).encode())
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(path)  # noqa: PTH108 - pathlib takes 4 ms to import
                raise
        except FileExistsError as exc:
            raise ConnectionFileExistsError(f"there is a file {os.fspath(path)!r} already") from exc
        except (OSError, ValueError) as exc:  # a null character in the path is a ValueError
            reason = getattr(exc, "strerror", None) or exc
            raise ArgumentError(f"cannot write a connection file {os.fspath(path)!r}: {reason}") from exc
