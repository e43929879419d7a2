"""A transport that makes good what a server and a lost connection do to a kernel's messages.

How this works. `MendingTransport` stands between the router and the WebSocket, and sees all that goes over. It knows the kernel's
process by the session in its messages, and says so when another answers. Where the kernel is an ipykernel it installs
``inside`` there, sends code under the name that only this process knows, and reads its journal.

While all is well, messages pass. After a loss, or where the server's rate limit drops output, it is *behind*: of our own messages
those from the socket only tell that there is something new, and what counts is the journal, read page by page, until a page was
asked for at a time from which on the socket was whole (something had come on IOPub, and an idle since the limit struck, with which
the server's counting begins anew). Then what came meanwhile is passed on, without what the journal had already.

After a loss nothing of ours goes out before it is known that the same process answers. Then comes a fence on each shell with
requests under way: what has no reply when that is passed has none, and ends as unknown. Nothing is ever sent twice.
"""

from __future__ import annotations

import contextlib
import math
from collections import OrderedDict
from collections.abc import Callable, Iterable

import anyio
import anyio.lowlevel
import msgspec

from .._core import Ending, Receiver, Signal
from .._protocol import (
    AnyKernelError,
    KernelDiedError,
    KernelInfo,
    KernelRestartedError,
    Message,
    OutcomeUnknownError,
    Result,
    is_idle,
)
from .._transports import WebSocketTransport
from .asker import Asker, UnansweredError
from .identity import Identity
from .journal import Journal, Page, install

__all__ = ["MendingTransport"]

# Seconds for which the server is asked often, once there was a sign of the kernel's end.
SUSPICION = 10.0
# Seconds between two looks at the journal while the server's limit holds something back.
LOOK_INTERVAL = 0.25
# Seconds that a kernel gets to show its journal after a loss, at first and at last: else another WebSocket is tried, and then
# under another identity. (What holds Python's lock may keep it from answering; then nothing is lost by this.)
PATIENCE = 10.0
LONGEST_PATIENCE = 60.0
# Seconds after which a request without a reply is doubted, where it can be lost without a sign: at first and at last.
FIRST_DOUBT = 10.0
LONGEST_DOUBT = 300.0
# How many ids of messages that came are remembered, and of requests without a reply.
RECENT = 16384

# How a server begins its notices that it drops output.
_LIMITS = ("IOPub message rate exceeded", "IOPub data rate exceeded")


class MendingTransport:
    """The messages of one process of a kernel behind a server."""

    def __init__(self, line: WebSocketTransport, identity: Identity) -> None:
        self._line = line
        self._identity = identity
        self.channels = line.channels
        self.dropped = line.dropped
        self.mistrusted = line.mistrusted
        self.connected = line.connected
        self.disconnected = line.disconnected
        self.drain = line.drain
        self.mute = line.mute
        self.beat = line.beat
        self.nudge = line.nudge
        self.end = line.end
        self.ready = False
        """Whether the process is known, and used."""
        self.heard = 0
        """How many messages came."""
        self.suspicion = anyio.Event()
        """Set when there is a sign that the kernel has ended."""
        self._suspicious_until = -math.inf
        self._receiver: Receiver
        self._asker = Asker(line)
        self._client = ""  # the router's session
        self._processes: set[str] = set()  # the session, or sessions, of the one process
        self._journal: Journal | None = None
        # Requests that have no reply yet, and where they went: a subshell, the main one (None), or control ("").
        self._pending: OrderedDict[str, str | None] = OrderedDict()
        # After a loss, what is not to be sent before it is known that the same process is there.
        self._held: list[Message] | None = None
        self._unsent: list[str | bytes] = []
        self._lost = self._behind = False
        self._recent: OrderedDict[str, None] = OrderedDict()
        self._last_id: str | None = None  # of our output
        self._whole = False  # whether the socket has missed nothing since its last idle
        self._strikes = 0  # of the server's limit
        self._meanwhile: list[Message] = []  # what came of ours while we are behind
        self._work = Signal()
        self._patience = PATIENCE
        self._mending: anyio.CancelScope | None = None

    @property
    def suspicious(self) -> bool:
        """Whether the server is to be asked soon, and again."""
        return anyio.current_time() < self._suspicious_until

    async def settle_in(self, client: str, info: KernelInfo, limit: int) -> None:
        """The kernel has said what it is, to a client of this session: make of it what we can, before it is used."""
        self._client = client
        if info.implementation == "ipython" and info.language == "python":
            try:
                self._journal = await install(self._asker, client, limit, as_text=self._line.legacy)
            except UnansweredError:
                self._journal = None
        self.ready = True

    # What the router wants.

    def send(self, message: Message) -> None:
        header = message.header
        if self._journal is not None and header["msg_type"] == "execute_request":
            message = msgspec.structs.replace(message, header={**header, "msg_type": self._journal.alias})
        if self._held is not None and not self._line.ended:
            self._held.append(message)
        else:
            self._send(message)

    def _send(self, message: Message) -> None:
        if self._journal is not None and message.header["msg_type"] == self._journal.alias:
            for part in self._journal.split(message):
                self._line.send(part)
        else:
            self._line.send(message)
        if "_request" in message.header["msg_type"]:
            self._pending[message.msg_id] = message.header.get("subshell_id") if message.channel == "shell" else ""
            if len(self._pending) > RECENT:
                self._pending.popitem(last=False)

    async def read(self, channel: str, receiver: Receiver) -> None:
        self._receiver = receiver
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._mend, tasks.start_soon)
            tasks.start_soon(self._doubt, tasks.start_soon)
            await self._line.read(channel, self)

    def close(self) -> None:
        self._line.close()

    # What the WebSocket tells.

    def deliver(self, message: Message) -> None:
        if self._line.ended:
            return
        self.heard += 1
        if message.header.get("session") == self._identity.session_id and message.channel == "iopub":
            if self._on_server(message):
                return
        elif not self._is_same(message):
            self.end(_restarted("another process of the kernel answers"))
            return
        if message.channel == "iopub":
            if is_idle(message):
                self._whole = True
            elif message.msg_type == "shutdown_reply" and message.header.get("session") in self._processes:
                # (A server may bring one from the process before, which it has kept for us.)
                self._on_goodbye(restart=message.content.get("restart") is True)
        if self._asker.takes(message):
            return
        if message.parent_header.get("session") != self._client or self._journal is None:
            self._pass_on(message)
        elif self._behind:
            self._meanwhile.append(message)
            self._work.set()
        else:
            self._pass_on_new(message)

    def _is_same(self, message: Message) -> bool:
        """Whether it comes from the process that we know; that is the one which answers us first."""
        session = str(message.header.get("session"))
        replies = message.channel in ("shell", "control")
        ours = message.parent_header.get("session") in (self._client, self._asker.session)
        if not self.ready:
            if replies:
                self._processes.add(session)
            return True
        # (Others' children may publish in sessions of their own.)
        return session in self._processes or not (replies or (ours and message.msg_type == "status"))

    def _pass_on_new(self, message: Message) -> None:
        """Pass on what has not come yet, on whichever way: the server may lag behind the journal."""
        msg_id = message.msg_id
        if msg_id in self._recent:
            return
        self._recent[msg_id] = None
        if len(self._recent) > RECENT:
            self._recent.popitem(last=False)
        if message.channel == "iopub":
            self._last_id = msg_id
        self._pass_on(message)

    def _pass_on(self, message: Message) -> None:
        if message.channel in ("shell", "control") and message.parent_id is not None:
            self._pending.pop(message.parent_id, None)
        self._receiver.deliver(message)

    def _on_server(self, message: Message) -> bool:
        """The server itself says something; whether that is for nobody else."""
        state = message.content.get("execution_state")
        if message.msg_type == "status" and state == "restarting":
            self.end(_restarted("it ended, and the server has started it again"))
            return True
        if message.msg_type == "status" and state == "dead":
            self.end(lambda result: KernelDiedError("the kernel ended, and the server has given it up", result=result))
            return True
        text = message.content.get("text")
        if message.msg_type != "stream" or not isinstance(text, str) or not text.startswith(_LIMITS):
            return False
        self._whole = False
        self._strikes += 1
        if self._journal is not None:
            self._behind = True
            self._work.set()
        else:
            self._receiver.missed(message.parent_id, f"the server dropped output: {text.splitlines()[0].rstrip('.')}")
        return True

    def _on_goodbye(self, *, restart: bool) -> None:
        """The kernel says that it ends."""
        if restart:
            self.end(_restarted("somebody restarted it"))
        else:
            self._suspicious_until = anyio.current_time() + SUSPICION
            self.suspicion.set()

    def lost(self) -> None:
        self._lost = True
        self._whole = False
        self._unsent += self._line.take_unsent()
        if self._held is None:
            self._held = []
        self._asker.lose()
        if self._mending is not None:
            self._mending.cancel()
        self._receiver.lost()

    def found(self) -> None:
        self._lost = False
        self._behind = self._journal is not None
        self._work.set()

    def missed(self, msg_id: str | None, reason: str) -> None:
        self._receiver.missed(msg_id, reason)

    def gave_up(self, msg_id: str, ending: Ending) -> None:
        self._receiver.gave_up(msg_id, ending)

    # Mending.

    async def _mend(self, start_soon: Callable[..., object]) -> None:
        while True:
            while self._lost or not (self._behind or self._held is not None):
                await self._work.wait()
            with anyio.CancelScope() as self._mending, contextlib.suppress(UnansweredError):  # if it is lost once more
                await self._mend_once(start_soon)
            self._mending = None

    async def _mend_once(self, start_soon: Callable[..., object]) -> None:
        if self._held is None:
            await self._catch_up(())
            return
        pending = list(self._pending)
        if self._journal is None:
            for msg_id in pending:
                self._receiver.missed(msg_id, "the connection was lost meanwhile, and output may be with it")
            await self._recognise()
        else:
            # The first page also tells whether this is the same process: another one ends all here.
            await self._catch_up(pending)
        self._put_up_fences(pending, start_soon)
        await anyio.lowlevel.checkpoint()  # they go first, and what they ask is about what was sent before
        self._line.put_back(self._unsent)
        self._unsent = []
        held, self._held = self._held, None
        for message in held:
            try:
                self._send(message)
            except AnyKernelError as exc:
                self._receiver.gave_up(message.msg_id, _same(exc))
        self._receiver.found()

    async def _recognise(self) -> None:
        """Wait until the kernel has answered, on whichever channel: another process ends all in `deliver`."""
        async with anyio.create_task_group() as tasks:

            async def ask_on(channel: str) -> None:
                with contextlib.suppress(UnansweredError):
                    await self._asker.ask("kernel_info_request", channel=channel)
                tasks.cancel_scope.cancel()

            tasks.start_soon(ask_on, "shell")
            tasks.start_soon(ask_on, "control")
        if self._lost:
            raise UnansweredError

    def _put_up_fences(self, pending: Iterable[str], start_soon: Callable[..., object]) -> None:
        routes: dict[str | None, list[str]] = {}
        for msg_id in pending:
            if msg_id in self._pending:
                routes.setdefault(self._pending[msg_id], []).append(msg_id)
        for route, msg_ids in routes.items():
            start_soon(self._fence, route, msg_ids)

    async def _doubt(self, start_soon: Callable[..., object]) -> None:
        """Behind a server's gateway, what is lost between the two shows nowhere: so fences are put up now and then."""
        delay = FIRST_DOUBT
        while True:
            pending = list(self._pending)
            await anyio.sleep(delay)
            delay = min(2 * delay, LONGEST_DOUBT)
            pending = [msg_id for msg_id in pending if msg_id in self._pending]
            if not pending:
                delay = FIRST_DOUBT
            elif self._line.legacy and self._journal is not None and self._held is None:  # (which answers in order)
                self._put_up_fences(pending, start_soon)

    async def _fence(self, route: str | None, msg_ids: list[str]) -> None:
        """When the kernel is past what was sent before a loss, what has no reply gets none any more."""
        channel = "control" if route == "" else "shell"
        try:
            await self._asker.ask("kernel_info_request", channel=channel, route={"subshell_id": route} if route else {})
        except UnansweredError:
            return  # the next mending asks again
        for msg_id in msg_ids:
            if self._pending.pop(msg_id, 0) != 0:
                self._receiver.gave_up(msg_id, _unknown)

    async def _catch_up(self, pending: Iterable[str]) -> None:
        """Read the journal up to where the socket is whole again, and go on with that."""
        assert self._journal is not None
        after: int | None = None
        page: Page | None = None
        while True:
            whole, strikes = self._whole, self._strikes
            self._meanwhile.clear()
            with anyio.move_on_after(math.inf if self._held is None else self._patience) as patience:
                if after is None:
                    page = await self._journal.read(after_id=self._last_id, replies=pending)
                else:
                    page = await self._journal.read(after=after)
            if patience.cancelled_caught:
                if self._patience > PATIENCE:
                    self._identity.renew()
                self._patience = min(2 * self._patience, LONGEST_PATIENCE)
                self._line.drop("the kernel has not answered since the connection was found again")
                await anyio.sleep_forever()  # until the loss cancels this
            self._patience = PATIENCE
            if page is None:
                await anyio.sleep_forever()  # it is another process, whose first sign ends all
            assert page is not None
            if not page.complete:
                self._receiver.missed(None, "output was lost, and more of it than the kernel keeps for us")
            after = page.number
            for message in page.messages:
                self._pass_on_new(message)
            if page.more:
                continue
            if whole and strikes == self._strikes:
                break
            if not page.messages:
                with anyio.move_on_after(LOOK_INTERVAL):
                    await self._work.wait()
        self._behind = False
        meanwhile, self._meanwhile = self._meanwhile, []
        for message in meanwhile:
            self._pass_on_new(message)


def _restarted(how: str) -> Ending:
    return lambda result: KernelRestartedError(f"the kernel was restarted: {how}", result=result)


def _unknown(result: Result | None) -> AnyKernelError:
    return OutcomeUnknownError(
        "the connection to the server was lost, and the kernel's answer, or the request, with it", result=result
    )


def _same(error: AnyKernelError) -> Ending:
    return lambda result: error  # noqa: ARG005 - it was not sent
