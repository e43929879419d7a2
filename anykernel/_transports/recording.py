"""Recordings: every message of a session in a file, and the file read again.

How this works. A recording is a file of JSON lines. The first says what it is (`Head`); then comes one `Line` for
each message, in the order in which they went over, and for what else decides how a session went: a connection
that was made, an interrupt by signal or of a subshell, the kernel's death, the end of the block. `RecordingTransport` stands
between a router and its transport, so no other layer sees a difference, and who does not record pays nothing.

Each line is one write to a file without a buffer: a client that is killed loses at most the line it was writing.
A write costs a few microseconds, as it ends in the system's cache. One that fails stops the recording, not the
kernel.

What is secret is not written: signatures and keys are no part of messages, and where a message quotes a key, it
is blotted out, in buffers by as many bytes, so that they can still be read; answers to password prompts are masked.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

import msgspec

from .._core import Receiver, Transport
from .._protocol import (
    AnyKernelError,
    ArgumentError,
    BadMessageError,
    ConnectionInfo,
    Frame,
    Message,
    ReplayError,
    encode_buffers,
    encode_parts,
    loads,
)
from .._version import __version__

__all__ = ["Line", "Recorder", "RecordingTransport", "open_recorder", "read_recording"]

logger = logging.getLogger("anykernel")

FORMAT = "anykernel recording"
VERSION = 1

MASK = "********"
# Characters from which on a key is blotted out where messages quote it; a shorter one is no secret, and may be
# part of any word.
_SECRET_LENGTH = 16


class Head(msgspec.Struct):
    """The first line."""

    format: str
    version: int
    anykernel: str = ""
    """The version that recorded."""
    time: str = ""
    """When the recording began (ISO 8601, UTC)."""


class Line(msgspec.Struct, omit_defaults=True):
    """A line after the first; what is empty is left out."""

    event: Literal["connected", "sent", "received", "interrupted", "died", "closed"]
    time: float
    """Seconds since the beginning."""
    channel: str = ""
    header: dict[str, Any] = {}
    parent_header: dict[str, Any] = {}
    metadata: dict[str, Any] = {}
    content: dict[str, Any] = {}
    buffers: tuple[bytes, ...] = ()
    size: int = 0
    """Bytes of content and buffers, as they were received."""
    masked: bool = False
    """Whether the content is not what was sent: the answer to a password prompt."""
    error: str = ""
    """How the end of the kernel was told: the error's class, and its text."""
    text: str = ""
    returncode: int | None = None
    stderr: str = ""
    subshell: str = ""
    """Whose code alone an interrupt is meant for."""


class Recorder:
    """Writes one recording; made by `open_recorder`, which also closes it. No method raises or waits."""

    def __init__(self, path: str, descriptor: int) -> None:
        self._path = path
        self._descriptor: int | None = descriptor
        self._started = time.monotonic()
        self._secrets: list[str] = []
        self._password_prompts: set[str] = set()

    def wrap(self, transport: Transport, info: ConnectionInfo | None) -> RecordingTransport:
        """A new connection is made; what goes over it is to be recorded."""
        for secret in (info.key, info.curve_secretkey or "") if info is not None else ():
            if len(secret) >= _SECRET_LENGTH:
                self._secrets.append(secret)
        self._write(Line("connected", self._now()))
        return RecordingTransport(transport, self)

    def sent(self, message: Message) -> None:
        """A message is about to be sent.

        Raises:
            ArgumentError: the content has no JSON form, or a buffer is none.
        """
        header, parent, metadata, content = map(msgspec.Raw, encode_parts(message))
        masked = message.msg_type == "input_reply" and message.parent_id in self._password_prompts
        if masked:
            content = msgspec.Raw(json.dumps({"value": MASK}))
        buffers: Any = self._without_secrets(encode_buffers(message))
        line: Any = Line("sent", self._now(), message.channel, header, parent, metadata, content, buffers)  # type: ignore[arg-type]
        line.masked = masked
        self._write(line)

    def received(self, message: Message) -> None:
        """A message was received."""
        if message.msg_type == "input_request" and message.content.get("password"):
            self._password_prompts.add(message.msg_id)
        buffers: Any = self._without_secrets(message.buffers)
        self._write(
            Line(
                "received", self._now(), message.channel, message.header, message.parent_header, message.metadata,
                message.content, buffers, message.size,
            )
        )  # fmt: skip

    def interrupted(self, subshell: str = "") -> None:
        """The kernel's process is about to be sent SIGINT, or the code of one subshell to be interrupted."""
        self._write(Line("interrupted", self._now(), subshell=subshell))

    def died(self, error: AnyKernelError) -> None:
        """The kernel went away, which is told by this error."""
        line = Line("died", self._now(), error=type(error).__name__)
        # The error adds the end of stderr to its text itself.
        line.text = str(error).partition("; the end of its output:\n")[0]
        line.returncode = getattr(error, "returncode", None)
        line.stderr = getattr(error, "stderr", "")
        self._write(line)

    def close(self) -> None:
        """The session is over."""
        self._write(Line("closed", self._now()))
        self._close()

    def _without_secrets(self, buffers: Iterable[Frame]) -> tuple[Frame, ...]:
        # The line has them in another alphabet (base64), in which a secret cannot be found.
        for secret in map(str.encode, self._secrets):
            buffers = [bytes(buffer).replace(secret, b"*" * len(secret)) for buffer in buffers]
        return tuple(buffers)

    def _now(self) -> float:
        return round(time.monotonic() - self._started, 6)

    def _write(self, line: Line) -> None:
        if self._descriptor is None:
            return
        try:
            data = _encode(line)
            for secret in self._secrets:
                data = data.replace(json.dumps(secret)[1:-1].encode(), MASK.encode())
            _write_all(self._descriptor, data + b"\n")
        except (OSError, ValueError, TypeError, RecursionError) as exc:
            logger.error("the recording %s ends here, the kernel goes on: %s", self._path, exc)  # noqa: TRY400
            self._close()

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            try:
                os.close(descriptor)
            except OSError as exc:  # some file systems tell only now that a write failed
                logger.error("the recording %s is incomplete: %s", self._path, exc)  # noqa: TRY400


def _encode(line: Line) -> bytes:
    try:
        data = msgspec.json.encode(line)
    except UnicodeEncodeError:
        pass  # a lone surrogate
    else:
        # msgspec writes NaN, which kernels send, as null.
        if b"null" not in data or line.event == "sent":
            return data
    return json.dumps(msgspec.to_builtins(line)).encode()


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


class RecordingTransport:
    """A transport all of whose messages are recorded."""

    def __init__(self, transport: Transport, recorder: Recorder) -> None:
        self._transport = transport
        self._recorder = recorder
        self.channels = transport.channels
        self.dropped = transport.dropped
        self.mistrusted = transport.mistrusted
        self.connected = transport.connected
        self.disconnected = transport.disconnected
        self.drain = transport.drain
        self.mute = transport.mute
        self.beat = transport.beat
        self.nudge = transport.nudge
        self.close = transport.close

    def send(self, message: Message) -> None:
        self._recorder.sent(message)  # first: sending may receive the answer
        self._transport.send(message)

    async def read(self, channel: str, receiver: Receiver) -> None:
        await self._transport.read(channel, _Recording(receiver, self._recorder))


class _Recording:
    """Records what is received, and hands it on."""

    def __init__(self, receiver: Receiver, recorder: Recorder) -> None:
        self._receiver = receiver
        self._recorder = recorder
        self.lost = receiver.lost
        self.found = receiver.found
        self.missed = receiver.missed
        self.gave_up = receiver.gave_up

    def deliver(self, message: Message) -> None:
        self._recorder.received(message)
        self._receiver.deliver(message)


@contextmanager
def open_recorder(path: str | os.PathLike[str] | None) -> Iterator[Recorder | None]:
    """A recorder for the length of a block; None where there is no path.

    Raises:
        ArgumentError: the file exists, or cannot be made.
    """
    if path is None:
        yield None
        return
    began = datetime.now(timezone.utc).isoformat()
    try:
        name = os.fspath(path)
        # Never over another file: that may be the only recording of a fault.
        descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            _write_all(descriptor, msgspec.json.encode(Head(FORMAT, VERSION, __version__, began)) + b"\n")
        except OSError:
            os.close(descriptor)
            os.unlink(name)  # noqa: PTH108
            raise
    except (OSError, TypeError, ValueError) as exc:
        raise ArgumentError(f"cannot record to {path!r}: {getattr(exc, 'strerror', None) or exc}") from exc
    recorder = Recorder(name, descriptor)
    try:
        yield recorder
    finally:
        recorder.close()


def read_recording(path: str | os.PathLike[str]) -> list[Line]:
    """The lines of a recording after the first; a last one that is cut off is left out.

    Raises:
        ReplayError: the file cannot be read, is no recording, or one of another version, or lines are not in the order
            in which they were written.
    """
    try:
        first, *rest = Path(path).read_bytes().split(b"\n")
    except OSError as exc:
        raise ReplayError(f"cannot read {os.fspath(path)!r}: {exc.strerror or exc}") from exc
    try:
        head = msgspec.convert(loads(first), Head)
    except (BadMessageError, msgspec.ValidationError):
        head = None
    if head is None or head.format != FORMAT:
        raise ReplayError(f"{os.fspath(path)!r} is no recording")
    if head.version != VERSION:
        raise ReplayError(f"{os.fspath(path)!r} has version {head.version} of the format; this is read: {VERSION}")
    lines: list[Line] = []
    for number, text in enumerate(rest[:-1], start=2):  # behind the last line's end is nothing, or what was cut off
        try:
            line = msgspec.convert(loads(text), Line)
        except (BadMessageError, msgspec.ValidationError) as exc:
            raise ReplayError(f"{os.fspath(path)!r} is damaged in line {number}: {exc}") from exc
        names = [line.header.get(name) for name in ("msg_id", "msg_type")]
        if line.event == "received":
            names.append(line.parent_header.get("msg_id", ""))
        if line.event in ("sent", "received") and not all(isinstance(name, str) for name in names):
            raise ReplayError(f"{os.fspath(path)!r} is damaged in line {number}: a message without its type or id")
        if lines and (line.time < lines[-1].time or text == rest[number - 3]):
            # Replayed, a request without what followed it would be waited for without end.
            raise ReplayError(f"{os.fspath(path)!r} is damaged in line {number}: it is not where it was written")
        lines.append(line)
    return lines
