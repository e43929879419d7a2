"""A transport whose peer is a recording: a kernel that says again what it said.

How this works. Ids, sessions and the order of concurrent tasks differ from run to run, so nothing is replayed by
its place in the file alone. A recording is read into a `Script` for each request of the
client: in steps, what the kernel said because of it, and what it waited for meanwhile. When the client sends a
request, the first script not used yet of the same channel, type, subshell, content and buffers is its counterpart and
begins to play; of several that play, the step that was recorded first comes first. A step is one of:

- A message (or the kernel's death), which belongs to the request that its parent header names. One without a
  request under way (unparented, another client's, or late output of a cell that has ended) belongs to whatever came
  last before it in the recording, and follows that.
- A wait that nothing replaces: for the answer to an input request; in code that was interrupted while it ran, for
  the client's interrupt, of the same shell; and where the client had the kernel end, for that.
- A wait that keeps the recorded interleaving: for a request of another channel or shell, or a comm message, that
  the client sent meanwhile. It is given up when nothing else has moved for ``PATIENCE`` seconds: the tasks may come
  in another order than they did.

The number of kernel_info requests depends on timing (at the start, and behind each interrupt), so one more than
recorded is answered like the first. An interrupt more than recorded finds nothing to interrupt.

A recording that was cut off ends with an error where a request's messages break off.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from typing import Any

import anyio
import anyio.lowlevel
import msgspec

from .._core import Receiver, Signal
from .._protocol import ConnectionClosedError, Message, ReplayError, encode_buffers, encode_parts, loads
from .recording import Line
from .script import Script, Session, Step, mail_of, request_key

__all__ = ["ReplayTransport"]

# Seconds without a move after which the recorded interleaving is given up for a step.
PATIENCE = 0.2


class ReplayTransport:
    """A transport whose peer is a recording; see the head of this module."""

    channels: tuple[str, ...] = ("all",)  # one reader, so that the order between channels is kept

    def __init__(self, session: Session) -> None:
        self.dropped: Counter[str] = Counter()
        self.mistrusted = anyio.Event()
        self.ended = anyio.Event()
        self.last: Line | None = None
        """How it ended."""
        self._session = session
        self._closed = False
        self._playing = [session.root]
        self._wake = Signal()
        self._comm_ids: dict[str, str] = {}
        """Ids of the client's comms, as recorded, by those they have now."""
        self._mailed: dict[str, str | None] = {}
        """Recorded ids of requests whose buffers came before them, by those they have now."""
        self._unused: defaultdict[tuple[Any, ...], deque[Script]] = defaultdict(deque)
        self._recorded: dict[str, Script] = {}
        """What the client sends, by the ids that it had."""
        for script in session.scripts:
            assert script.line is not None
            line = script.line
            self._recorded[line.header["msg_id"]] = script
            self._unused[request_key(line.channel, line.header, line.content, line.buffers)].append(script)
        self._recorded_as = {
            script.line.header["msg_id"]: script for script in session.scripts if script.line is not None
        }
        self._info_steps = next((list(s.steps) for s in session.scripts if s.is_info and s.over), None)

    def send(self, message: Message) -> None:
        content = loads(encode_parts(message)[3])
        if self._closed:
            raise ConnectionClosedError("the connection is closed")
        if message.msg_type == "input_reply":
            self._take_answer(message, content)
        else:
            script = self._find(message, content)
            script.message = message
            if message.msg_type == "interrupt_request":
                self.interrupt()
            self._playing.append(script)
        self._wake.set()

    def _find(self, message: Message, content: dict[str, Any]) -> Script:
        comm_id = str(content.get("comm_id"))
        if comm_id in self._comm_ids:
            content["comm_id"] = self._comm_ids[comm_id]
        unused = self._unused.get(request_key(message.channel, message.header, content, encode_buffers(message)))
        if unused:
            recorded = self._mailed.pop(message.msg_id, None)
            script = next((s for s in unused if s.line and s.line.header["msg_id"] == recorded), unused[0])
            unused.remove(script)
            assert script.line is not None
            if message.msg_type == "comm_open" and isinstance(content.get("comm_id"), str):
                self._comm_ids[comm_id] = script.line.content["comm_id"]
            elif message.msg_type == "comm_msg" and (mail := mail_of(content)) is not None:
                self._mailed[mail] = mail_of(script.line.content)
            return script
        if message.msg_type == "kernel_info_request" and self._info_steps is not None:
            script = Script()
            for place, line, *_ in self._info_steps:
                assert line is not None
                channel = line.channel if line.channel == "iopub" else message.channel
                copy = msgspec.structs.replace(line, channel=channel, parent_header=message.header)
                script.steps.append(Step(place, copy))
            return script
        raise ReplayError(self._refusal(message, content))

    def _refusal(self, message: Message, content: dict[str, Any]) -> str:
        text = f"the recording has no (further) {message.msg_type} on {message.channel} with {_shortened(content)}"
        text += " and these buffers" if message.buffers else ""
        left = [
            _shortened(script.line.content)
            for script in self._session.scripts
            if script.line is not None and script.message is None and script.msg_type == message.msg_type
        ]
        text += f"; of this type, it goes on with {left[0]}" if left else "; it has no more of this type"
        return text if self._session.complete else text + ", and was cut off"

    def _take_answer(self, message: Message, content: dict[str, Any]) -> None:
        prompt = str(message.parent_id)
        recorded = self._session.answers.get(prompt)
        if recorded is None:
            raise ReplayError("the recording has no answer to this input request")
        was, now = recorded.content.get("value"), content.get("value")
        if not recorded.masked and was != now:
            raise ReplayError(
                f"in the recording the input request is answered with {was!r:.200}, not with {now!r:.200}"
            )
        self._session.answered.add(prompt)

    @property
    def expects_interrupt_request(self) -> bool:
        return bool(self._unused.get(request_key("control", {"msg_type": "interrupt_request"}, {}, ())))

    def interrupt(self, subshell: str = "") -> None:
        """The client interrupts what runs, or only what runs in one subshell."""
        for script in self._playing:
            script.interrupted(subshell)
        self._wake.set()

    async def read(self, channel: str, receiver: Receiver) -> None:  # noqa: ARG002
        while True:
            step = self._next_step()
            if step is not None and step.line is not None:
                if step.line.event != "received":
                    self.last = step.line
                    self.ended.set()
                    await anyio.sleep_forever()
                receiver.deliver(self._message(step.line))
                # So that the client may act between any two messages, and none is ever early.
                await anyio.lowlevel.checkpoint()
                continue
            patience = PATIENCE if step is not None else None
            with anyio.move_on_after(patience):
                await self._wake.wait()
                continue
            script = min(self._waiting(), key=lambda script: script.steps[0].place)
            script.steps.popleft()

    def _next_step(self) -> Step | None:
        """Take the next message out of its script; a wait, if there is only what may be given up."""
        first: Script | None = None
        for script in self._playing:
            while script.steps and script.steps[0].line is None and script.steps[0].is_over():
                script.steps.popleft()
            if not script.steps or script.steps[0].line is None:
                continue
            if first is None or script.steps[0].place < first.steps[0].place:
                first = script
        self._playing = [script for script in self._playing if script.steps]
        if first is not None:
            return first.steps.popleft()
        waiting = self._waiting()
        return waiting[0].steps[0] if waiting else None

    def _waiting(self) -> list[Script]:
        """What waits for something that may be given up."""
        return [s for s in self._playing if s.steps and s.steps[0].line is None and not s.steps[0].strict]

    def _message(self, line: Line) -> Message:
        """What the kernel says, with the ids that the client uses now."""
        parent, content = line.parent_header, line.content
        script = self._session.script_of(line)
        if script is not None and script.message is not None:
            parent = script.message.header
        if line.header["msg_type"].startswith("comm_"):
            for now, recorded in self._comm_ids.items():
                if content.get("comm_id") == recorded:
                    content = {**content, "comm_id": now}
                comms = content.get("comms")
                if isinstance(comms, dict) and recorded in comms:
                    comms = {now if comm_id == recorded else comm_id: comm for comm_id, comm in comms.items()}
                    content = {**content, "comms": comms}
            content = self._renamed(content)
        return Message(line.channel, line.header, parent, line.metadata, content, line.buffers, line.size)

    def _renamed(self, content: dict[str, Any]) -> dict[str, Any]:
        """A comm's message, in which an `Output` widget names the request that it captures."""
        data: Any = content.get("data")
        state: Any = data.get("state") if isinstance(data, dict) else None
        if not isinstance(state, dict) or not isinstance(captured := state.get("msg_id"), str):
            return content
        script = self._recorded.get(captured)
        if script is None or script.message is None:
            return content
        return {**content, "data": {**data, "state": {**state, "msg_id": script.message.msg_id}}}

    async def connected(self) -> None:
        await anyio.lowlevel.checkpoint()

    async def disconnected(self) -> None:
        await self.ended.wait()

    async def drain(self) -> None:
        await anyio.lowlevel.checkpoint()  # what was recorded is delivered before the end

    def mute(self) -> None:
        pass  # the recording goes on no further than it is read

    async def beat(self, timeout: float) -> bool:  # noqa: ARG002
        await anyio.lowlevel.checkpoint()
        return True

    async def nudge(self) -> None:
        await anyio.lowlevel.checkpoint()

    def close(self) -> None:
        self._closed = True


def _shortened(content: dict[str, Any]) -> str:
    text = repr(content["code"] if isinstance(content.get("code"), str) else content)
    return text if len(text) < 200 else text[:200] + "..."
