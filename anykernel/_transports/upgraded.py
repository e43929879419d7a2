"""One open WebSocket over a byte stream, by the protocol of the library ``websockets``, which does no I/O itself.

Servers leave Nagle's algorithm on, and with it each small answer would wait for an acknowledgement that the system delays by
40 ms. So each read is answered with an empty pong, which carries the acknowledgement.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol as Interface

import anyio
from websockets.frames import Frame, Opcode
from websockets.protocol import Protocol, Side, State
from websockets.utils import accept_key, generate_key

__all__ = ["READ_SIZE", "ByteStream", "WebSocket"]

# Bytes read, and written, at once.
READ_SIZE = 2**18


class ByteStream(Interface):
    """What a WebSocket lies upon."""

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Wait for bytes; empty at the end."""
        ...

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Write all of them."""


class WebSocket:
    """One open WebSocket, on our side; one task reads, one writes."""

    def __init__(self, stream: ByteStream, close: Callable[[], Awaitable[None]], subprotocol: str | None) -> None:
        self.subprotocol = subprotocol
        self._stream = stream
        self._close = close
        self._protocol = Protocol(Side.CLIENT, state=State.OPEN, max_size=None)
        self._pieces: list[bytes] = []
        self._is_text = False

    @staticmethod
    def new_key() -> str:
        """A key for a handshake."""
        return generate_key()

    @staticmethod
    def accepts(key: str, accept: str) -> bool:
        """Whether the answer to a handshake with this key is right."""
        return accept.strip() == accept_key(key)

    async def receive(self) -> list[str | bytes]:
        """Wait for bytes, and give the messages that they complete; None are there after the end.

        Raises:
            EOFError: it has ended, or is broken.
        """
        try:
            data = await self._stream.read(READ_SIZE)
        except Exception as exc:  # whatever the stream's library raises
            raise EOFError(type(exc).__name__) from exc
        if not data:
            raise EOFError("the server closed the connection")
        self._protocol.receive_data(data)
        messages: list[str | bytes] = []
        for frame in self._protocol.events_received():
            assert isinstance(frame, Frame)
            opcode = frame.opcode
            if opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
                if opcode is not Opcode.CONT:
                    self._is_text = opcode is Opcode.TEXT
                    if frame.fin:
                        messages.append(self._whole(bytes(frame.data)))
                        continue
                self._pieces.append(bytes(frame.data))
                if frame.fin:
                    whole, self._pieces = b"".join(self._pieces), []
                    messages.append(self._whole(whole))
            elif opcode is Opcode.CLOSE:
                raise EOFError(f"the server closed the WebSocket ({self._protocol.close_code})")
        if self._protocol.parser_exc is not None:
            raise EOFError("what came is no WebSocket's")
        self._protocol.send_pong(b"")  # see above
        return messages

    def _whole(self, data: bytes) -> str | bytes:
        return data.decode("utf-8", "replace") if self._is_text else data

    def put(self, data: str | bytes) -> None:
        """Have a message written by the next `flush`."""
        if isinstance(data, str):
            self._protocol.send_text(data.encode())
        else:
            self._protocol.send_binary(data)

    def ping(self) -> None:
        """Have a ping written by the next `flush`."""
        self._protocol.send_ping(b"anykernel")

    async def flush(self) -> None:
        """Write what there is.

        Raises:
            EOFError: it is broken.
        """
        pieces = self._protocol.data_to_send()
        if not pieces:
            return
        try:
            await self._stream.write(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        except Exception as exc:  # whatever the stream's library raises
            raise EOFError(type(exc).__name__) from exc

    async def aclose(self) -> None:
        """Say goodbye, shortly, and let go of it."""
        with anyio.CancelScope(shield=True):
            with anyio.move_on_after(0.2):
                try:
                    if self._protocol.state is State.OPEN:
                        self._protocol.send_close(1000)
                        await self.flush()
                except EOFError:
                    pass  # it is broken: there is nobody to say it to
            with anyio.move_on_after(1):
                await self._close()
