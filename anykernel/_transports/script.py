"""What a recording has of each request, in the order in which it is to be played. No I/O; see ``replay``."""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from .._protocol import MAIL, Frame, Message, ReplayError
from .recording import Line

__all__ = ["Script", "Session", "Step", "mail_of", "read_sessions", "request_key"]


# What depends on what else the client does at the time: whether another shell may ask for input, and how many commands
# came before.
_INCIDENTAL = {"execute_request": "allow_stdin", "debug_request": "seq"}


class Step(NamedTuple):
    place: int
    """In the recording."""
    line: Line | None = None
    """What the kernel says; None for a wait."""
    is_over: Callable[[], bool] = bool
    """Whether what is waited for has come."""
    strict: bool = False
    """Whether the wait must not be given up."""


class Script:
    """What the recording has of one request of the client's."""

    def __init__(self, line: Line | None = None) -> None:
        self.line = line
        self.steps: deque[Step] = deque()
        self.message: Message | None = None
        """The request that it plays for; None before it is sent."""
        self.interrupts: Counter[str] = Counter()
        """How often the client has interrupted since it plays: its subshell, by whose name, or the kernel, by ""."""
        # While the recording is read: how often it was interrupted there, and which of its ends have been seen.
        self.recorded_interrupts: Counter[str] = Counter()
        self.replied = line is None or not line.header["msg_type"].endswith("_request")
        self.idle = False

    @property
    def msg_type(self) -> str:
        return self.line.header["msg_type"] if self.line is not None else ""

    @property
    def is_info(self) -> bool:
        return self.msg_type == "kernel_info_request"

    @property
    def shell(self) -> tuple[str, Any]:
        """What in the kernel takes such requests, one after another."""
        assert self.line is not None
        return self.line.channel, self.line.header.get("subshell_id")

    @property
    def over(self) -> bool:
        return self.replied and self.idle

    @property
    def started(self) -> bool:
        return any(step.line is not None for step in self.steps)

    def note_end(self, line: Line) -> None:
        """Note whether a message of its own says that it is done."""
        if line.channel in ("shell", "control"):
            self.replied = True
        elif line.header.get("msg_type") == "status" and line.content.get("execution_state") == "idle":
            self.idle = True

    def interrupted(self, subshell: str) -> None:
        """The client interrupts one subshell, or with "" the kernel."""
        if not subshell or (self.line is not None and self.shell == ("shell", subshell)):
            self.interrupts[subshell] += 1

    def wait_interrupt(self, place: int, subshell: str) -> None:
        self.recorded_interrupts[subshell] += 1
        count = self.recorded_interrupts[subshell]
        # Only code that runs in this shell is what the interrupt is meant for.
        strict = self.started and self.shell == ("shell", subshell or None)
        self.steps.append(Step(place, None, lambda: self.interrupts[subshell] >= count, strict))

    def wait_sent(self, place: int, other: Script, *, strict: bool) -> None:
        self.steps.append(Step(place, None, lambda: other.message is not None, strict))


class Session:
    """One connection of a recording, as scripts."""

    def __init__(self) -> None:
        self.root = Script()
        """What was received before anything was sent."""
        self.scripts: list[Script] = []
        self.answers: dict[str, Line] = {}
        """Answers to input requests, by the id of these."""
        self.answered: set[str] = set()
        self.complete = False
        """Whether all of it was recorded."""
        self._by_id: dict[str, Script] = {}
        self._under_way: list[Script] = []
        self._prompts: dict[str, Script] = {}
        self._last = self.root

    def read(self, place: int, line: Line) -> None:
        """Take the next line of the recording."""
        # A parent that the client chose may have any id.
        parent_id = str(line.parent_header.get("msg_id", ""))
        if line.event == "sent":
            self._read_sent(place, line, parent_id)
        elif line.event == "received":
            script = self._by_id.get(parent_id)
            if script is None or script.over:
                script = self._last
            else:
                script.note_end(line)
                if script.over:
                    self._under_way.remove(script)
                if not script.is_info:
                    self._last = script
            script.steps.append(Step(place, line))
            if line.channel == "stdin":
                self._prompts[line.header["msg_id"]] = script
        elif line.event == "interrupted":
            self._read_interrupt(place, line.subshell)
        elif line.event == "died":
            self._last.steps.append(Step(place, line))

    def _read_sent(self, place: int, line: Line, parent_id: str) -> None:
        msg_type = line.header["msg_type"]
        if msg_type == "input_reply":
            if parent_id in self._prompts:
                self.answers[parent_id] = line
                script = self._prompts[parent_id]
                count = sum(script.recorded_interrupts.values())

                def is_over() -> bool:
                    # An interrupt that is not in the recording frees code that gets no answer.
                    return parent_id in self.answered or sum(script.interrupts.values()) > count

                script.steps.append(Step(place, None, is_over, strict=True))
            return
        script = Script(line)
        if msg_type == "interrupt_request":
            self._read_interrupt(place)
        elif not script.is_info:
            # What came when the kernel had been asked to end is nothing that a restart would wait for.
            ending = msg_type == "shutdown_request"
            for other in self._under_way:
                # What waits in line behind it in the kernel did not matter to it.
                if not other.is_info and (ending or other.shell != script.shell or msg_type.startswith("comm_")):
                    other.wait_sent(place, script, strict=ending)
        self.scripts.append(script)
        self._by_id[line.header["msg_id"]] = script
        self._under_way.append(script)
        if not script.is_info:
            self._last = script

    def _read_interrupt(self, place: int, subshell: str = "") -> None:
        for script in self._under_way:
            if not script.is_info and (not subshell or script.shell == ("shell", subshell)):
                script.wait_interrupt(place, subshell)

    def cut(self, place: int) -> None:
        """The recording ends here, before the session did."""
        self.scripts = [script for script in self.scripts if not script.is_info or script.idle]
        for script in self._under_way:
            if not script.is_info:
                script.steps.append(Step(place, Line("closed", 0)))

    def script_of(self, line: Line) -> Script | None:
        """The request that caused a message."""
        return self._by_id.get(line.parent_header.get("msg_id", ""))


def read_sessions(lines: list[Line]) -> list[Session]:
    """The connections of a recording, in order.

    Raises:
        ReplayError: there are messages before the first.
    """
    sessions: list[Session] = []
    for place, line in enumerate(lines):
        if line.event == "connected":
            if sessions:
                sessions[-1].complete = True
            sessions.append(Session())
        elif line.event == "closed":
            for session in sessions[-1:]:
                session.complete = True
        elif not sessions:
            raise ReplayError("the recording is damaged: it does not begin with a connection")
        else:
            sessions[-1].read(place, line)
    if sessions and not sessions[-1].complete:
        sessions[-1].cut(len(lines))
    return sessions


def request_key(
    channel: str, header: dict[str, Any], content: dict[str, Any], buffers: Iterable[Frame]
) -> tuple[Any, ...]:
    """What makes a request the same as a recorded one."""
    msg_type = header["msg_type"]
    if msg_type == "comm_open" and isinstance(content.get("comm_id"), str):
        content = {**content, "comm_id": ""}  # the client's own choice
    elif msg_type == "comm_msg" and mail_of(content) is not None:
        content = {**content, "data": None}
    elif msg_type in _INCIDENTAL:
        content = {**content, _INCIDENTAL[msg_type]: None}
    text = json.dumps([header.get("subshell_id"), content], sort_keys=True)
    return channel, msg_type, text, tuple(map(bytes, buffers))


def mail_of(content: dict[str, Any]) -> str | None:
    """The id of the request whose buffers a comm's message brings, if it does."""
    data = content.get("data")
    mail = data.get(MAIL) if isinstance(data, dict) else None
    return mail if isinstance(mail, str) else None
