"""What runs inside an ipykernel that is used over a server: its text is sent there, and nothing here imports it.

How this works. It is installed once for each process, by whichever client comes first. It gives the process a name of its own
under which code is sent (``alias``): the next process does not know it, so nothing that was meant for this one runs there. And
it keeps what the kernel sends to clients that asked for this (the journal), to be read on the control channel: what a lost
connection or a server's rate limit has swallowed. All that a kernel sends passes the ``send`` of its one session.
"""

from __future__ import annotations

import base64
import os
import threading
from collections import deque
from typing import Any

# Sessions whose messages are kept; who comes when there are more takes the place of the one that came first.
CLIENTS = 64
# Messages, and bytes, in one page.
PAGE = 2000
PAGE_SIZE = 4 * 2**20

JOURNAL = "anykernel_journal_request"
PIECE = "anykernel_piece_request"


class Inside:
    """The alias and the journal of one process."""

    def __init__(self, kernel: Any) -> None:
        self.alias = "execute_request_" + os.urandom(8).hex()
        self._kernel = kernel
        self._lock = threading.Lock()
        self._local = threading.local()
        self._clients: dict[str, int] = {}  # how many bytes each has kept
        # (number, client, parent's id, own id, channel, frames, bytes)
        self._entries: deque[tuple[int, str, str, str, str, list[bytes], int]] = deque()
        self._size = 0
        self._number = 0
        self._evicted: dict[str, int] = {}  # the number of the last of each client's that is not kept any more
        self._pieces: dict[str, list[bytes]] = {}
        session = kernel.session
        self._serialize, self._send = session.serialize, session.send
        session.serialize, session.send = self._serialized, self._sent
        kernel.shell_handlers[self.alias] = self._execute
        kernel.shell_handlers[PIECE] = self._take_piece
        kernel.control_handlers[JOURNAL] = self._answer

    def register(self, client: str, limit: int) -> str:
        """Keep what is sent to a client, up to so many bytes; the alias."""
        with self._lock:
            self._clients.pop(client, None)
            self._clients[client] = limit
            while len(self._clients) > CLIENTS:
                self._clients.pop(next(iter(self._clients)))
        return self.alias

    # What the session does, and is noted.

    def _serialized(self, msg: Any, ident: Any = None) -> Any:
        frames = self._serialize(msg, ident)
        self._local.frames = frames[-4:]
        return frames

    def _sent(self, stream: Any, msg_or_type: Any, *args: Any, **kwargs: Any) -> Any:
        self._local.frames = None
        msg = self._send(stream, msg_or_type, *args, **kwargs)
        frames: Any = self._local.frames
        parent = msg.get("parent_header") if frames is not None and msg else None
        if (
            frames is None
            or not parent
            or parent.get("session") not in self._clients
            or parent.get("msg_type") == JOURNAL
        ):
            return msg
        client = parent["session"]
        buffers = kwargs.get("buffers") or (args[3] if len(args) > 3 else None) or msg.get("buffers") or ()
        msg_type = msg["header"]["msg_type"]
        # A reply on IOPub is the one by which a kernel says goodbye.
        channel = "stdin" if msg_type == "input_request" else "shell" if msg_type.endswith("_reply") else "iopub"
        kept = [*frames, *map(bytes, buffers)]
        self._keep(client, parent.get("msg_id", ""), msg["header"]["msg_id"], channel, kept)
        return msg

    def _keep(self, client: str, parent: str, own: str, channel: str, frames: list[bytes]) -> None:
        size = sum(map(len, frames)) + 200
        with self._lock:
            limit = self._clients.get(client, 0)
            self._number += 1
            self._entries.append((self._number, client, parent, own, channel, frames, size))
            self._size += size
            while self._size > limit and self._entries:
                number, evicted, _, _, _, _, freed = self._entries.popleft()
                self._size -= freed
                self._evicted[evicted] = number

    # What a client asks for.

    def _answer(self, stream: Any, ident: Any, parent: Any) -> None:
        content = parent["content"]
        client, after = content["client"], content.get("after")
        wanted = set(content.get("replies", ()))
        with self._lock:
            entries = [entry for entry in self._entries if entry[1] == client]
            number, evicted = self._number, self._evicted.get(client, 0)
        start, known = 0, True
        if after is not None:
            start = next((i for i, entry in enumerate(entries) if entry[0] > after), len(entries))
            known = evicted <= after
        elif content.get("after_id") is not None:
            last, found = content["after_id"], None
            for i in range(len(entries) - 1, -1, -1):
                if entries[i][3] == last:
                    found = i
                    break
            # Threads send at once: what stands shortly before may have come later, and is told apart by its id.
            start, known = (max(0, found + 1 - content.get("overlap", 0)), True) if found is not None else (0, False)
        else:
            known = not evicted
        chosen: list[Any] = []
        size, more = 0, False
        # Replies go another way than output, and may be lost where later output was not.
        chosen.extend(entry for entry in entries[:start] if entry[4] != "iopub" and entry[2] in wanted)
        for entry in entries[start:]:
            if size and (len(chosen) >= PAGE or size + entry[6] > PAGE_SIZE):
                more, number = True, chosen[-1][0]
                break
            chosen.append(entry)
            size += entry[6]
        reply = {
            "status": "ok",
            "number": number,
            "more": more,
            "complete": known,
            "entries": [[entry[4], len(entry[5])] for entry in chosen],
        }
        buffers = [frame for entry in chosen for frame in entry[5]]
        if content.get("text"):  # what is binary does not come through
            reply["frames"] = [base64.b64encode(frame).decode() for frame in buffers]
            buffers = []
        self._send(stream, "anykernel_journal_reply", reply, parent, ident=ident, buffers=buffers)

    # Code under this process's own name, whose buffers may have come in pieces before it.

    def _take_piece(self, stream: Any, ident: Any, parent: Any) -> None:
        self._pieces.setdefault(parent["content"]["key"], []).extend(map(bytes, parent["buffers"]))

    def _execute(self, stream: Any, ident: Any, parent: Any) -> Any:
        lengths = parent["metadata"].pop("anykernel_buffers", None)
        if lengths is not None:
            whole = memoryview(b"".join(self._pieces.pop(parent["header"]["msg_id"], ())))
            parent["buffers"] = []
            for length in lengths:
                parent["buffers"].append(whole[:length])
                whole = whole[length:]
        return self._kernel.execute_request(stream, ident, parent)


def install(kernel: Any, client: str, limit: int) -> str:
    """Have a kernel keep what it sends to a client; the alias of its process."""
    inside = getattr(kernel, "_anykernel_inside", None)
    if inside is None:
        inside = Inside(kernel)
        object.__setattr__(kernel, "_anykernel_inside", inside)
    alias: str = inside.register(client, limit)
    return alias
