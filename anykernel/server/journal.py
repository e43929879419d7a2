"""The journal and the alias of a kernel's process, from this side; ``inside`` is the other."""

from __future__ import annotations

import base64
import pkgutil
from collections.abc import Iterable, Iterator
from typing import Any

import anyio
import msgspec

from .._protocol import BadMessageError, Frame, Message, encode_buffers, encode_parts, loads
from .asker import Asker

__all__ = ["Journal", "Page", "install"]

# Seconds that a kernel gets to install what is sent to it, and then to answer its first request for the journal: one that
# does not is used without.
INSTALL_TIMEOUT = 10.0

JOURNAL = "anykernel_journal_request"
PIECE = "anykernel_piece_request"

# Bytes of buffers from which on they go ahead in pieces, and of a piece: servers cut the connection at 10 MiB.
PIECE_SIZE = 4 * 2**20

# Bytes that a kernel keeps for us at most.
KEPT = 32 * 2**20

# How far what came may have come out of order.
OVERLAP = 256

# What is run of it there, in a namespace of its own.
_CALL = """
from IPython import get_ipython
install(get_ipython().kernel, client, limit)
"""


class Page(msgspec.Struct, frozen=True):
    """What the journal had."""

    messages: list[Message]
    number: int
    """Of the last entry that was looked at."""
    more: bool
    """Whether there are others after this page."""
    complete: bool
    """Whether nothing before it is missing."""


class Journal:
    """Reads what a process keeps for one client, and sends code under the process's own name."""

    def __init__(self, asker: Asker, client: str, alias: str, *, as_text: bool) -> None:
        self.alias = alias
        """What `execute_request` is called there."""
        self._asker = asker
        self._as_text = as_text
        self._client = client

    async def read(
        self, *, after: int | None = None, after_id: str | None = None, replies: Iterable[str] = ()
    ) -> Page | None:
        """A page of what was sent to us after an entry; and the replies to some requests, wherever they stand.

        None where the process does not know the journal.

        Raises:
            UnansweredError: the connection was lost.
        """
        content: dict[str, Any] = {"client": self._client, "overlap": OVERLAP, "replies": list(replies)}
        if after is not None:
            content["after"] = after
        elif after_id is not None:
            content["after_id"] = after_id
        if self._as_text:
            content["text"] = True
        reply = await self._asker.ask(JOURNAL, content)
        if reply is None or reply.content.get("status") != "ok":
            return None
        content = reply.content
        frames = tuple(map(base64.b64decode, content["frames"])) if self._as_text else reply.buffers
        return Page(
            list(_messages(content["entries"], frames)), content["number"], content["more"], content["complete"]
        )

    def split(self, message: Message) -> Iterator[Message]:
        """The messages that bring it there: itself, and before it its buffers in pieces where they are large."""
        buffers = encode_buffers(message)
        if sum(map(len, buffers)) <= PIECE_SIZE:
            yield message
            return
        header = message.header
        route = {"subshell_id": header["subshell_id"]} if "subshell_id" in header else {}
        encode_parts(message)  # for what it refuses, before anything is sent
        for n, piece in enumerate(_pieces(buffers)):
            own = {**header, "msg_id": f"{self._asker.session}_{header['msg_id']}_{n}", "msg_type": PIECE, **route}
            own["session"] = self._asker.session
            yield Message("shell", own, {}, {}, {"key": header["msg_id"]}, (piece,))
        metadata = {**message.metadata, "anykernel_buffers": [len(buffer) for buffer in buffers]}
        yield msgspec.structs.replace(message, metadata=metadata, buffers=())


async def install(asker: Asker, client: str, limit: int, *, as_text: bool) -> Journal | None:
    """Have the kernel keep what it sends to a client; None where it cannot, or the server keeps that from it.

    With ``as_text`` nothing binary goes either way.
    """
    source = (pkgutil.get_data(__package__ or "", "inside.py") or b"").decode()
    # Nothing of it stays in the user's namespace.
    code = (
        "__import__('builtins').exec("
        f"{source + _CALL!r}, "
        f"{{'__name__': '_anykernel_inside', 'client': {client!r}, 'limit': {min(limit, KEPT)}}})"
    )
    content = {
        "code": code,
        "silent": True,
        "store_history": False,
        "user_expressions": {"alias": "__import__('IPython').get_ipython().kernel._anykernel_inside.alias"},
        "allow_stdin": False,
        "stop_on_error": False,
    }
    # On control: there a kernel takes it at once, also while it runs somebody's code.
    with anyio.move_on_after(INSTALL_TIMEOUT):
        reply = await asker.ask("execute_request", content)
        if reply is None:
            return None
        alias = _alias_of(reply)
        if alias is None:
            return None
        journal = Journal(asker, client, alias, as_text=as_text)
        # A server may let certain types of messages pass only, and drops the others without a word.
        if await journal.read() is not None:
            return journal
    return None


def _alias_of(reply: Message) -> str | None:
    expressions = reply.content.get("user_expressions")
    alias = expressions.get("alias") if isinstance(expressions, dict) else None
    text = alias.get("data", {}).get("text/plain", "") if isinstance(alias, dict) else ""
    text = str(text).strip("'\"")
    return text if text.startswith("execute_request_") else None


def _pieces(buffers: list[Frame]) -> Iterator[bytes]:
    for buffer in buffers:
        for start in range(0, len(buffer), PIECE_SIZE):
            yield bytes(buffer[start : start + PIECE_SIZE])


def _messages(entries: list[list[Any]], frames: tuple[Frame, ...]) -> Iterator[Message]:
    start = 0
    for channel, count in entries:
        parts, buffers = frames[start : start + 4], frames[start + 4 : start + count]
        start += count
        try:
            header, parent, metadata, content = map(loads, parts)
        except BadMessageError:
            continue  # as it would have been dropped from the socket
        yield Message(channel, header, parent, metadata, content, buffers, len(parts[3]) + sum(map(len, buffers)))
