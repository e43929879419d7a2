"""Messages of a kernel behind a server: how a WebSocket carries them, in both framings. No I/O.

How this works. With the subprotocol ``V1``, each message is one binary frame: a count of offsets and the offsets (unsigned,
64 bits, little-endian), then the channel's name, header, parent header, metadata, content and buffers, one after another;
the last offset is the end. Without it (the legacy framing) a message is JSON text with the channel's name in it; one that
has buffers is a binary frame: a count and offsets (unsigned, 32 bits, big-endian), the JSON, the buffers.

Encoding is one function for each, as servers are not strict: a wrong count of offsets hangs a whole server. Decoding is.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import msgspec

from .messages import Frame, Message
from .wire import HEADER_LIMIT, BadMessageError, encode_buffers, encode_parts, loads

__all__ = ["V1", "decode_legacy", "decode_v1", "encode_legacy", "encode_v1"]

V1 = "v1.kernel.websocket.jupyter.org"
"""The subprotocol's name."""

_CHANNELS = {name.encode(): name for name in ("shell", "control", "iopub", "stdin")}
_decoder = msgspec.json.Decoder(dict[str, Any])


def encode_v1(message: Message) -> bytes:
    """The frame of a message, with the subprotocol.

    Raises:
        ArgumentError: content or metadata hold something JSON has no form for, or a buffer is none.
    """
    pieces: list[Frame] = [message.channel.encode(), *encode_parts(message), *encode_buffers(message)]
    offset = 8 * (len(pieces) + 2)
    offsets = [offset]
    for piece in pieces:
        offset += len(piece)
        offsets.append(offset)
    return b"".join([struct.pack(f"<{len(offsets) + 1}Q", len(offsets), *offsets), *pieces])


def encode_legacy(message: Message) -> str | bytes:
    """The frame of a message without the subprotocol: text, or bytes where it has buffers.

    Raises:
        ArgumentError: content or metadata hold something JSON has no form for, or a buffer is none.
    """
    header, parent, metadata, content = (bytes(part) for part in encode_parts(message))
    channel = message.channel.encode()
    text = (
        b'{"channel":"%b","header":%b,"parent_header":%b,"metadata":%b,"content":%b,"buffers":[]}'
        % (channel, header, parent, metadata, content)
    )  # fmt: skip
    if not message.buffers:
        return text.decode()
    pieces: list[Frame] = [text, *encode_buffers(message)]
    offset = 4 * (len(pieces) + 1)
    offsets = []
    for piece in pieces:
        offsets.append(offset)
        offset += len(piece)
    return b"".join([struct.pack(f">{len(offsets) + 1}I", len(offsets), *offsets), *pieces])


def decode_v1(data: bytes) -> Message:
    """The message in a frame, with the subprotocol; its buffers are views of the frame.

    Raises:
        BadMessageError: it is malformed.
    """
    count = int.from_bytes(data[:8], "little")
    if not 6 <= count <= len(data) // 8 - 1:
        raise BadMessageError("shape")
    offsets = struct.unpack_from(f"<{count}Q", data, 8)
    if offsets[0] != 8 * (count + 1) or offsets[-1] != len(data):
        raise BadMessageError("shape")
    channel = _CHANNELS.get(data[offsets[0] : offsets[1]])
    pieces = _cut(data, offsets[1:])
    if channel is None:
        raise BadMessageError("channel")
    parts = pieces[:4]
    if len(parts[0]) > HEADER_LIMIT or len(parts[1]) > HEADER_LIMIT:
        raise BadMessageError("size")
    try:
        header, parent, metadata, content = map(_decoder.decode, parts)
    except (ValueError, RecursionError):
        header, parent, metadata, content = map(loads, parts)
    buffers = tuple(pieces[4:])
    return _checked(channel, header, parent, metadata, content, buffers, len(parts[3]) + sum(map(len, buffers)))


def decode_legacy(data: str | bytes) -> Message:
    """The message in a frame without the subprotocol, text or bytes; its buffers are views of the frame.

    Raises:
        BadMessageError: it is malformed.
    """
    if isinstance(data, str):
        text: Frame = data.encode("utf-8", "replace")
        buffers: tuple[Frame, ...] = ()
    else:
        count = int.from_bytes(data[:4], "big")
        if not 1 <= count <= len(data) // 4 - 1:
            raise BadMessageError("shape")
        offsets = struct.unpack_from(f">{count}I", data, 4)
        if offsets[0] != 4 * (count + 1):
            raise BadMessageError("shape")
        text, *rest = _cut(data, (*offsets, len(data)))
        buffers = tuple(rest)
    whole = loads(text)
    channel = _CHANNELS.get(str(whole.get("channel")).encode())
    if channel is None:
        raise BadMessageError("channel")
    parts = [whole.get(name) or {} for name in ("header", "parent_header", "metadata", "content")]
    if not all(isinstance(part, dict) for part in parts):
        raise BadMessageError("json")
    header, parent, metadata, content = parts
    return _checked(channel, header, parent, metadata, content, buffers, len(text) + sum(map(len, buffers)))


def _cut(data: bytes, offsets: Sequence[int]) -> list[Frame]:
    """The pieces between offsets."""
    if any(stop < start for start, stop in pairwise(offsets)) or offsets[-1] > len(data):
        raise BadMessageError("shape")
    view = memoryview(data)
    return [view[start:stop] for start, stop in pairwise(offsets)]


def _checked(
    channel: str,
    header: dict[str, Any],
    parent: dict[str, Any],
    metadata: dict[str, Any],
    content: dict[str, Any],
    buffers: tuple[Frame, ...],
    size: int,
) -> Message:
    if not (isinstance(header.get("msg_id"), str) and isinstance(header.get("msg_type"), str)):
        raise BadMessageError("header")
    if not isinstance(parent.get("msg_id", ""), str):
        raise BadMessageError("header")
    return Message(channel, header, parent, metadata, content, buffers, size)
