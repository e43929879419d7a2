"""The ZMQ wire format: messages to frames and back. No I/O.

How this works. A message is the frames ``<IDS|MSG>``, signature, header, parent_header, metadata, content and
then buffers; an IOPub message has its topic before the delimiter. The signature is an HMAC over exactly the
four JSON frames, never the buffers. Decoding checks in the order that keeps an attacker out of our state:
shape, size, signature, repetition (a digest is remembered only once it is verified, or one tampered copy would
make the genuine message look repeated), and only then parses. Whatever fails is a `BadMessageError` with one
word of reason; the reader counts it and lives on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from .errors import ArgumentError
from .messages import Frame, Message, RawMessage
from .weights import weigh_flat, weigh_json

DELIMITER = b"<IDS|MSG>"

# Headers and parent headers are a few hundred bytes; metadata and content may be large, and their memory is
# bounded where they are kept. The limit only stops nonsense from being parsed.
HEADER_LIMIT = 64 * 1024
# Bytes of metadata or content up to which it is not asked what it takes decoded: before that is done, and then kept.
LARGE = 2**20
SMALL = 256
# Bytes of memory from which on a message is decoded by who knows the limit, and what of it is wanted; but for the text of a
# stream, which is always wanted.
HUGE = 2**26
# Bytes of the two headers that are usual, and counted with what every message takes; and what each buffer takes besides.
_USUAL_HEADERS = 2048
_BUFFER = 64
# Digests kept for the replay check, in two generations of this size (about 100 bytes a digest).
REPLAY_WINDOW = 8192


class BadMessageError(Exception):
    """A message that must be dropped; ``str()`` is one word of reason."""

    def __init__(self, reason: str, rest: RawMessage | None = None) -> None:
        super().__init__(reason)
        self.rest = rest
        """What can be read of it: whose it is, and that much is missing."""


_decoder = msgspec.json.Decoder(dict[str, Any])


def _plain(value: Any) -> Any:
    """NumPy's scalars as the numbers they are; it is not imported for that."""
    kind = type(value)
    plain = _PLAIN.get(value.dtype.kind) if kind.__module__ == "numpy" and hasattr(value, "dtype") else None
    if plain is None or value.shape:
        raise TypeError(f"{kind.__module__}.{kind.__qualname__} has no form in JSON")
    return plain(value)


# By the kinds of their types.
_PLAIN: dict[str, Callable[[Any], object]] = {"b": bool, "i": int, "u": int, "f": float, "U": str}


_encoder = msgspec.json.Encoder(enc_hook=_plain)


def loads(data: Frame) -> dict[str, Any]:
    """Parse a JSON object; NaN, broken UTF-8 and lone surrogates are taken as leniently as Jupyter does."""
    try:
        return _decoder.decode(data)
    except (ValueError, RecursionError):
        pass
    try:
        value = loads_leniently(data)
    except (ValueError, RecursionError) as exc:
        raise BadMessageError("json") from exc
    if value is None:
        return {}  # what xeus-python writes for metadata that nobody set
    if not isinstance(value, dict):
        raise BadMessageError("json")
    return value


def loads_leniently(data: Frame) -> Any:
    """Parse any JSON: kernels that write with Python's json module send NaN, lone surrogates and raw bytes.

    Raises:
        ValueError: it is none, or has an integer of more digits than Python takes.
        RecursionError: it is nested too deeply.
    """
    return json.loads(bytes(data).decode("utf-8", "replace"))


def dumps(value: Any) -> bytes:
    """Write JSON; a lone surrogate, which UTF-8 has no form for, becomes its escape.

    Raises:
        TypeError, ValueError: the value holds something JSON has no form for, NaN included. (Some write it as if it had: xeus
            then answers nothing any more.)
    """
    data: bytes | None
    try:
        written = data = _encoder.encode(value)
    except UnicodeEncodeError:
        data = None
    else:
        if b"null" not in written:  # which is what msgspec writes for NaN
            return written
    plain = msgspec.to_builtins(value, enc_hook=_plain)
    try:
        text = json.dumps(plain, allow_nan=False)
    except ValueError as exc:
        raise ValueError("it holds NaN or infinity, which JSON has no form for") from exc
    return text.encode() if data is None else data


def encode_parts(message: Message) -> list[Frame]:
    """The four JSON frames of a message, which are what is signed.

    Raises:
        ArgumentError: content or metadata hold something JSON has no form for.
    """
    try:
        return [dumps(message.header), dumps(message.parent_header), dumps(message.metadata), dumps(message.content)]
    except (TypeError, ValueError, RecursionError) as exc:
        raise ArgumentError(f"{message.msg_type} cannot be sent as JSON: {exc}") from exc


def encode_buffers(message: Message) -> list[Frame]:
    """The binary buffers of a message, each as plain bytes in the order of its elements.

    Raises:
        ArgumentError: one of them is no buffer.
    """
    return [buffer if isinstance(buffer, bytes) else _flat(buffer) for buffer in message.buffers]


def _flat(buffer: Frame) -> Frame:
    try:
        view = memoryview(buffer)
    except TypeError as exc:
        raise ArgumentError(f"a buffer must be bytes or the like: {exc}") from exc
    try:
        return view.cast("B")
    except TypeError:
        return view.tobytes()  # not in one piece, or of elements that cannot be cast


class Codec:
    """Signs, verifies, encodes and decodes the messages of one connection.

    Args:
        key: the connection file's key; empty means unsigned.
        signature_scheme: ``hmac-`` and the name of any hash of `hashlib`.

    Raises:
        ValueError: an unknown signature scheme.
    """

    def __init__(self, key: bytes, signature_scheme: str = "hmac-sha256") -> None:
        # Here, and not with the package, as it takes 3 ms.
        import hashlib  # noqa: PLC0415
        from hmac import compare_digest  # noqa: PLC0415

        prefix, _, digest = signature_scheme.partition("-")
        # Hashes of variable length (shake_*) have no HMAC.
        if prefix != "hmac" or digest not in hashlib.algorithms_available or digest.startswith("shake"):
            raise ValueError(f"unknown signature scheme {signature_scheme!r}; expected 'hmac-sha256' or alike")
        self._same = compare_digest
        self._signs = bool(key)
        # HMAC (RFC 2104) with both its hashes begun: 1.05 us a signature; a copied `hmac.HMAC` takes 1.64, a new one 5.
        block_size = hashlib.new(digest).block_size
        if len(key) > block_size:
            key = hashlib.new(digest, key).digest()
        key = key.ljust(block_size, b"\0")
        self._inner = hashlib.new(digest, bytes(byte ^ 0x36 for byte in key))
        self._outer = hashlib.new(digest, bytes(byte ^ 0x5C for byte in key))
        self._length = 2 * self._outer.digest_size  # in hexadecimal: what has another is not worth a look
        self._recent: set[bytes] = set()
        self._older: set[bytes] = set()

    def _sign(self, parts: Sequence[Frame]) -> bytes:
        if not self._signs:
            return b""
        inner, outer = self._inner.copy(), self._outer.copy()
        for part in parts:
            inner.update(part)
        outer.update(inner.digest())
        return outer.hexdigest().encode()

    def encode(self, message: Message) -> list[Frame]:
        """The frames of a message, to be sent in one multipart send.

        Raises:
            ArgumentError: content or metadata hold something JSON has no form for, or a buffer is none.
        """
        parts = encode_parts(message)
        return [DELIMITER, self._sign(parts), *parts, *encode_buffers(message)]

    def decode(self, channel: str, frames: Sequence[Frame]) -> Message:
        """Check and parse one received message.

        Raises:
            BadMessageError: it is malformed, oversized, unsigned, tampered with or repeated.
        """
        try:
            start = 1 if frames[0] == DELIMITER else frames.index(DELIMITER) + 1
        except (ValueError, IndexError):
            raise BadMessageError("shape") from None
        parts = frames[start + 1 : start + 5]
        if len(parts) < 4:
            raise BadMessageError("shape")
        if len(parts[0]) > HEADER_LIMIT or len(parts[1]) > HEADER_LIMIT:
            raise BadMessageError("size")
        if self._signs:
            signature = bytes(frames[start])
            if len(signature) != self._length or not self._same(self._sign(parts), signature):
                raise BadMessageError("signature")
            if signature in self._recent or signature in self._older:
                raise BadMessageError("repeated")
            self._recent.add(signature)
            if len(self._recent) >= REPLAY_WINDOW:
                self._older, self._recent = self._recent, set()
        return new_message(channel, parts, tuple(frames[start + 5 :]))


def new_message(channel: str, parts: Sequence[Frame], buffers: tuple[Frame, ...]) -> Message:
    """The message that consists of header, parent header, metadata and content, as JSON, and of buffers.

    What would take very much memory, or much more than its JSON, is not decoded: then it is a `RawMessage`.

    Raises:
        BadMessageError: it is malformed.
    """
    size = len(parts[3]) + sum(map(len, buffers))
    memory = size if not buffers else size + _BUFFER * len(buffers)
    large = broken = raw = False
    try:
        if len(parts[3]) <= LARGE and len(parts[2]) <= LARGE:
            # 1.35 us; a call of `loads` for each, which only what is not quite JSON needs, takes 1.65.
            header, parent, metadata, content = map(_decoder.decode, parts)
        else:
            large = True
            memory += weigh_json(parts[2]) + weigh_json(parts[3]) - len(parts[3])
            header, parent = map(_decoder.decode, parts[:2])
            raw = memory > 2 * (size + len(parts[2])) or (memory > HUGE and header.get("msg_type") != "stream")
            metadata, content = ({}, {}) if raw else map(_decoder.decode, parts[2:])
    except (ValueError, RecursionError):
        header, parent = map(loads, parts[:2])
        try:
            metadata, content = map(loads, parts[2:])
        except BadMessageError:
            raw = broken = True
    if not (isinstance(header.get("msg_id"), str) and isinstance(header.get("msg_type"), str)):
        raise BadMessageError("header")
    if not isinstance(parent.get("msg_id", ""), str):
        raise BadMessageError("header")
    if len(parts[0]) + len(parts[1]) > _USUAL_HEADERS:
        memory += weigh_json(parts[0]) + weigh_json(parts[1])
    if raw:
        rest = RawMessage(channel, header, parent, {}, {}, buffers, size, memory, None, parts[2], parts[3], broken)
        if broken:
            raise BadMessageError("json", rest)
        return rest
    if len(parts[3]) > SMALL:
        wide = weigh_flat(content)
        memory += wide if wide is not None else 0 if large else weigh_json(parts[3])
    if len(parts[2]) > SMALL and not large:
        memory += weigh_json(parts[2])
    return Message(channel, header, parent, metadata, content, buffers, size, memory)
