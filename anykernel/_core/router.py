"""The request table of one connection: which message belongs to whom.

How this works. Every request is registered under its message id before it is sent, and leaves the table when it
is done. The transport's readers call `Router.deliver` for each message, which hands it to the request named by
its ``parent_header.msg_id`` and to everybody who listens to IOPub. Nothing here waits: requests take messages by
plain calls and wake their waiters. When the connection ends, for whatever reason, every request in the table is
told, and later ones are refused, with that one reason.

A request may be half done: the reply without the end of its output (idle), or idle without a reply (kernels
answer unknown or malformed requests so). Reply and idle come on different sockets, in any order, and idle may
lie behind much output. So one that lacks its idle waits until IOPub has been silent for ``GRACE``, though, where others
never are, not longer than ``PATIENCE`` after its own last message. One that lacks its reply waits for ``GRACE`` after its
idle, or, if an interrupt explains it, for ``INTERRUPTED_GRACE``.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timezone
from typing import Any

import anyio

from .._protocol import (
    ArgumentError,
    ConnectionClosedError,
    Message,
    ProtocolError,
    RawMessage,
    read_rest,
    write_date,
)
from .clock import monotonic
from .context import Limits
from .request import Ending, Request
from .tasks import Signal
from .transport import Transport

__all__ = ["GRACE", "PATIENCE", "Router"]

logger = logging.getLogger("anykernel")

# Seconds of silence on IOPub after which a half-done request is taken for what it is.
GRACE = 2.0
INTERRUPTED_GRACE = 0.1
PATIENCE = 10.0

PROTOCOL_VERSION = "5.4"


class Router:
    """The requests of one connection to one kernel process.

    Args:
        transport: carries the messages; the owner of both runs its readers and closes it.
        on_iopub: called for every IOPub message, after the request it belongs to, and with this request, if it is
            in the table.
        limits: the kernel's.
        on_reach: called with False when the kernel gets out of reach, and with True when it is found again.
    """

    def __init__(
        self,
        transport: Transport,
        on_iopub: Callable[[Message, Request | None], None],
        limits: Limits,
        on_reach: Callable[[bool], None] = lambda _: None,
    ) -> None:
        self.transport = transport
        self._limits = limits
        # Fresh for each connection: kernels route by it.
        self.session = os.urandom(16).hex()
        self.execution_state = "unknown"
        """The kernel's ``"starting"``, ``"busy"`` or ``"idle"``, as last heard."""
        self.ending: Ending | None = None
        """Why the connection ended; None while it lasts."""
        self.iopub_seen = anyio.Event()
        """Set when IOPub is known to reach us: by the kernel's greeting, or by what one of our requests caused."""
        self.ended = anyio.Event()
        self.restart_announced = False
        """Whether the kernel told everybody that somebody restarts it."""
        self.received = 0
        """Counts what has come from the kernel."""
        self.interrupts: dict[str | None, int] = {None: 0}
        """Counts the interrupts, when each is sent and when it is over: by subshell, where those hit nothing else."""
        self.listeners: list[Callable[[Ending], None]] = []
        """Told of the end, and before the requests are, so that nothing follows what fails."""
        self._iopub_known = False
        self._on_iopub = on_iopub
        self._on_reach = on_reach
        self._requests: dict[str, Request] = {}
        # Since when (monotonic), for how long at least, and whether others' messages on IOPub make it longer.
        self._half_done: dict[Request, tuple[float, float, bool]] = {}
        self._half_done_changed = Signal()
        self._lost = False  # whether the kernel is out of reach
        self._iopub_time = 0.0
        self._count = 0

    def count_interrupt(self, route: Mapping[str, str]) -> None:
        """An interrupt of a shell is sent, or is over."""
        subshell_id = route.get("subshell_id")
        self.interrupts[subshell_id if subshell_id in self.interrupts else None] += 1

    def interrupts_of(self, header: Mapping[str, Any]) -> int:
        """The count that tells, when it changes, that an interrupt may have hit the request with this header."""
        return self.interrupts.get(header.get("subshell_id"), self.interrupts[None])

    def __len__(self) -> int:
        """How many requests are in the table."""
        return len(self._requests)

    def new_header(self, msg_type: str, **fields: str) -> dict[str, Any]:
        """A header for a message of ours, with an id that no other message has, unless ``fields`` have another."""
        self._count += 1
        return {
            "msg_id": f"{self.session}_{self._count}",
            "msg_type": msg_type,
            "username": "anykernel",
            "session": self.session,
            "date": write_date(datetime.now(timezone.utc)),
            "version": PROTOCOL_VERSION,
            **fields,
        }

    def send(self, request: Request, message: Message) -> None:
        """Register a request and send it.

        Raises:
            ArgumentError: its content has no JSON form, or its id is taken.
            AnyKernelError: the connection has ended.
        """
        if self.ending is not None:
            raise self.ending(None)
        request.header = message.header
        request.heard = False
        msg_id = message.msg_id
        if msg_id in self._requests:
            raise ArgumentError(f"a request with the msg_id {msg_id!r} is under way")
        self._requests[msg_id] = request
        try:
            self.transport.send(message)
        except BaseException:
            self._requests.pop(msg_id, None)
            raise

    def answer(self, input_request: Message, value: str) -> None:
        """Answer the kernel's question, if the kernel is still there."""
        content = {"status": "ok", "value": value}  # the status is what async-kernel wants
        with contextlib.suppress(ConnectionClosedError):
            self.transport.send(Message("stdin", self.new_header("input_reply"), input_request.header, {}, content))

    def forget(self, request: Request) -> None:
        """Take a request out of the table: it is done, or nobody waits for it any more."""
        self._requests.pop(request.header["msg_id"], None)
        self._half_done.pop(request, None)

    def fail(self, subshell_id: str, ending: Ending, *, but: Iterable[Request] = ()) -> None:
        """Fail what a subshell was asked and has not answered."""
        for request in list(self._requests.values()):
            if request.header.get("subshell_id") == subshell_id and request not in but:
                self.forget(request)
                request.on_end(ending)

    def unheard(self) -> list[Request]:
        """What the kernel has said nothing of yet, though no other request of ours occupies the shell it is for."""
        requests = self._requests.values()
        occupied = {request.header.get("subshell_id") for request in requests if request.heard}
        return [r for r in requests if not r.heard and r.header.get("subshell_id") not in occupied]

    def half_done(self, request: Request, *, idle: bool, interrupted: bool = False) -> None:
        """Watch a request of which only the reply, or only (``idle``) the end of its output has come."""
        self._half_done[request] = (monotonic(), INTERRUPTED_GRACE if interrupted else GRACE, not idle)
        self._half_done_changed.set()

    def deliver(self, message: Message) -> None:
        """Hand a received message to whom it belongs to."""
        self.received += 1
        try:
            if isinstance(message, RawMessage):
                message = read_rest(message, self._limits.output_limit)
            parent_id = message.parent_id
            request = self._requests.get(parent_id) if parent_id is not None else None
            if message.channel == "iopub":
                self._iopub_time = monotonic()
                if not self._iopub_known:
                    # By session, not by request: that may be done before its status comes.
                    ours = message.parent_header.get("session") == self.session
                    if ours or message.msg_type == "iopub_welcome":
                        self._iopub_known = True
                        self.iopub_seen.set()
                try:
                    if message.msg_type == "status":
                        if request is not None:
                            request.heard = True
                        self._on_status(message)
                    if request is not None:
                        if request in self._half_done:
                            self._half_done[request] = (self._iopub_time, *self._half_done[request][1:])
                        request.on_iopub(message)
                    elif message.msg_type == "shutdown_reply":
                        self.restart_announced = message.content.get("restart") is True
                finally:
                    self._on_iopub(message, request)
            elif request is None:
                self._drop("unknown", message)
            elif message.channel == "stdin":
                request.on_input(message)
            else:
                request.heard = True
                request.on_reply(message)
        except ProtocolError as exc:
            self._drop("content", message, exc)
        except Exception:
            # A bug of ours must not end the reading for everybody.
            self.transport.dropped["error"] += 1
            logger.exception("could not deliver %s on %s", message.msg_type, message.channel)

    def lost(self) -> None:
        """The kernel is out of reach: the time of half-done requests stands still."""
        if not self._lost:
            self._lost = True
            self._on_reach(False)

    def found(self) -> None:
        """The kernel is in reach again: the time of half-done requests begins anew, as what was held up comes now."""
        if self._lost:
            self._lost = False
            now = monotonic()
            self._half_done = {request: (now, *rest) for request, (_, *rest) in self._half_done.items()}  # type: ignore[misc]
            self._half_done_changed.set()
            self._on_reach(True)

    def missed(self, msg_id: str | None, reason: str) -> None:
        """Output of a request, or of any, may not have arrived."""
        if msg_id is None:
            for request in list(self._requests.values()):
                request.on_missed(reason)
        elif msg_id in self._requests:
            self._requests[msg_id].on_missed(reason)

    def gave_up(self, msg_id: str, ending: Ending) -> None:
        """A request ends, and the connection goes on."""
        request = self._requests.get(msg_id)
        if request is not None:
            self.forget(request)
            request.on_end(ending)

    def _drop(self, reason: str, message: Message, exc: Exception | None = None) -> None:
        self.transport.dropped[reason] += 1
        logger.debug("dropped %s on %s: bad %s (%s)", message.msg_type, message.channel, reason, exc)

    def _on_status(self, message: Message) -> None:
        state = message.content.get("execution_state")
        if not isinstance(state, str):
            raise ProtocolError("a status message without a state")
        self.execution_state = state

    def end(self, ending: Ending) -> None:
        """End the connection: every request fails, later ones are refused. The first reason stays."""
        if self.ending is not None:
            return
        self.ending = ending
        for listener in self.listeners:
            listener(ending)
        requests = list(self._requests.values())
        self._requests.clear()
        self._half_done.clear()
        for request in requests:
            request.on_end(ending)
        self.ended.set()
        self.iopub_seen.set()

    async def watch(self) -> None:
        """Tell half-done requests when their time is over, until cancelled."""
        while True:
            if not self._half_done or self._lost:
                await self._half_done_changed.wait()
            while self._half_done and not self._lost:
                now, over, left = monotonic(), [], math.inf
                for request, entry in self._half_done.items():
                    since, grace, silence = entry
                    due = min(max(since, self._iopub_time) + grace, since + PATIENCE) if silence else since + grace
                    if due <= now:
                        over.append((due, request, entry))
                    left = min(left, due - now)
                if not over:
                    await anyio.sleep(min(left, INTERRUPTED_GRACE))
                    # If the event loop was late, the readers get to run before time is said to be over.
                    woken = -math.inf
                    while monotonic() - woken > 0.05:
                        woken = monotonic()
                        await anyio.sleep(0.01)
                    continue
                # All at once: there may be as many as there are requests.
                for _, request, entry in sorted(over, key=lambda each: each[0]):
                    if self._half_done.get(request) is not entry:
                        continue  # the end of another one was news for it
                    del self._half_done[request]
                    try:
                        request.on_grace_over()
                    except Exception:
                        self.transport.dropped["error"] += 1
                        logger.exception("could not end %s", request.header["msg_type"])
