"""Connection information as callers give it, and anew for a kernel that is about to start."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

import msgspec

from .._protocol import ArgumentError, ConnectionInfo, KernelStartError

__all__ = ["load_connection", "new_connection"]


def load_connection(connection: str | os.PathLike[str] | Mapping[str, Any] | ConnectionInfo) -> ConnectionInfo:
    """Take connection information as it comes: a file's path, a mapping with its fields, or itself.

    Raises:
        ArgumentError: it is none of these.
        KernelStartError: the file cannot be read, or fields are missing or wrong.
    """
    if isinstance(connection, ConnectionInfo):
        return connection
    if isinstance(connection, Mapping):
        fields, source = dict(connection), "connection information"
    elif not isinstance(connection, str | os.PathLike):
        raise ArgumentError(f"a connection is a path, a mapping or a ConnectionInfo, not {type(connection).__name__}")
    elif isinstance(connection, str) and connection.lstrip().startswith("{"):
        # Not repeated in the error: it holds the key.
        raise ArgumentError("a connection is a path, a mapping or a ConnectionInfo, not the text of a connection file")
    else:
        source = f"connection file {os.fspath(connection)!r}"
        try:
            with open(connection, "rb") as file:  # noqa: PTH123 - pathlib takes 4 ms to import
                fields = msgspec.json.decode(file.read(), type=dict[str, Any])
        except OSError as exc:
            raise KernelStartError(f"cannot read {source}: {exc.strerror or exc}") from exc
        except (ValueError, RecursionError) as exc:
            raise KernelStartError(f"{source} is not a JSON object: {exc}") from exc
    try:
        # jupyter_client keeps keys as bytes in what its managers return.
        fields = {key: value.decode() if isinstance(value, bytes) else value for key, value in fields.items()}
        return msgspec.convert(fields, ConnectionInfo)
    except ValueError as exc:
        raise KernelStartError(f"{source} is incomplete or wrong: {exc}") from exc


def new_connection(
    transport: Literal["tcp", "ipc"],
    directory: Path,
    *,
    encrypted: bool,
    held: ExitStack | None = None,
    ip: str = "127.0.0.1",
) -> ConnectionInfo:
    """Fresh addresses and keys for a kernel that is about to start.

    TCP ports are found by binding to ``ip``. With ``held``, they stay bound until that is closed: on Linux, the kernel can listen
    on them all the same if it sets SO_REUSEADDR, as ZMQ does, but nobody else gets them meanwhile. Otherwise, once in a
    few hundred starts on a busy machine, another kernel does, or our own client: its attempts to connect before the kernel
    listens have ports of their own, and one that gets the very port it connects to is connected with itself. ZMQ does not
    try again after it has met such a peer. A kernel that dies because its port is taken is started again with others.
    """
    public = secret = None
    if encrypted:
        import zmq  # noqa: PLC0415 - a quarter of what the package's import would take

        public, secret = (key.decode() for key in zmq.curve_keypair())
    if transport == "ipc":
        ports, ip = [1, 2, 3, 4, 5], str(directory / "s")
    else:
        ports = _free_ports(5, ip, held)
    shell, iopub, stdin, control, heartbeat = ports
    return ConnectionInfo(
        shell_port=shell,
        iopub_port=iopub,
        stdin_port=stdin,
        control_port=control,
        hb_port=heartbeat,
        ip=ip,
        key=os.urandom(32).hex(),
        transport=transport,
        curve_publickey=public,
        curve_secretkey=secret,
    )


def _free_ports(count: int, ip: str, held: ExitStack | None) -> list[int]:
    import socket  # noqa: PLC0415

    with ExitStack() as stack:
        family = socket.AF_INET6 if ":" in ip else socket.AF_INET
        # All bound at once, so that they differ.
        sockets = [stack.enter_context(socket.socket(family)) for _ in range(count)]
        for sock in sockets:
            sock.bind((ip, 0))
            if held is not None:
                # Only now, or the system might choose one that is held already.
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if held is not None:
            held.push(stack.pop_all())
        return [sock.getsockname()[1] for sock in sockets]
