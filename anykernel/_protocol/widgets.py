"""Jupyter widgets as a front end keeps them: models, their state and buffers, and what `Output` widgets capture. No I/O.

How this works. A model is a comm to the target ``jupyter.widget``: its opening has the whole state, its messages what changes.
What is binary travels beside the state, as buffers, each with the path to its place; a new value of a key replaces the buffers
below it, too. An `Output` widget is filled by front ends, and not by the kernel: it names by its ``msg_id`` a request whose
outputs it shows instead of the cell, and keeps them in its ``outputs``. Of several that name the same request, the last one
gets them.

All is bounded in bytes: the state of one model may take the limit, what it captured half of that, all of them twice the limit;
then the models that have not changed for the longest go.
"""

from __future__ import annotations

import base64
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from .cells import to_nbformat, valid_json
from .errors import ProtocolError
from .fold import OutputFold
from .messages import Frame, Message
from .outputs import OUTPUT_TYPES, parse_output
from .weights import weigh

__all__ = ["COMM_TYPES", "Captures", "Widget", "WidgetModels"]

COMM_TYPES = frozenset({"comm_open", "comm_msg", "comm_close"})

# How many widgets may capture at once, and how long an id may be that is kept.
_CAPTURES = 1024
_ID_LENGTH = 1024
# Bytes that a model takes, and each of its keys and buffers, about.
_MODEL, _KEY, _BUFFER = 2048, 128, 256

_REFERENCE = "IPY_MODEL_"

Path = tuple[Any, ...]


def _state_of(message: Message) -> dict[str, Any] | None:
    data = message.content.get("data")
    state = data.get("state") if isinstance(data, dict) else None
    return state if isinstance(state, dict) else None


class Captures:
    """Which widget (its comm's id) captures what a request puts out, by its ``msg_id``."""

    def __init__(self) -> None:
        # The widgets of each request, the last one last; and the request of each widget.
        self._widgets: dict[str, dict[str, None]] = {}
        self._requests: dict[str, str] = {}

    def by(self, msg_id: str | None) -> str | None:
        """The widget that captures for this request."""
        widgets = self._widgets.get(msg_id) if msg_id is not None else None
        return next(reversed(widgets)) if widgets else None

    def take(self, message: Message) -> None:
        """A widget is opened, changed or closed."""
        comm_id = message.content.get("comm_id")
        if not isinstance(comm_id, str):
            return
        if message.msg_type == "comm_close":
            self._end(comm_id)
            return
        msg_id = (_state_of(message) or {}).get("msg_id")
        if not isinstance(msg_id, str) or self._requests.get(comm_id, "") == msg_id:
            return
        self._end(comm_id)
        if msg_id and len(msg_id) <= _ID_LENGTH and len(comm_id) <= _ID_LENGTH:
            self._requests[comm_id] = msg_id
            self._widgets.setdefault(msg_id, {})[comm_id] = None
            if len(self._requests) > _CAPTURES:
                self._end(next(iter(self._requests)))

    def _end(self, comm_id: str) -> None:
        msg_id = self._requests.pop(comm_id, None)
        if msg_id is not None:
            del self._widgets[msg_id][comm_id]
            if not self._widgets[msg_id]:
                del self._widgets[msg_id]

    def clear(self) -> None:
        """All widgets are gone."""
        self._widgets.clear()
        self._requests.clear()


class Widget:
    """A widget's model as the kernel, and the front ends, have it now; received from `Kernel.widgets`."""

    __slots__ = ("_buffers", "_fold", "_sizes", "_state", "_total", "model_id")

    def __init__(self, model_id: str, state: dict[str, Any], limit: int) -> None:
        self.model_id = model_id
        """Its comm's id; other models name it as ``"IPY_MODEL_<model_id>"``."""
        # The buffers are kept by the key of the state under which they belong.
        self._state: dict[str, Any] = {}
        self._buffers: dict[str, dict[Path, bytes]] = {}
        self._sizes: dict[str, int] = {}
        self._total = _MODEL + len(model_id)
        output = (state.get("_model_module"), state.get("_model_name")) == ("@jupyter-widgets/output", "OutputModel")
        self._fold = OutputFold(limit // 2) if output else None  # so that there is room for both

    @property
    def model_name(self) -> str:
        """Its class on the front end's side, such as ``"IntSliderModel"``."""
        return str(self._state.get("_model_name"))

    @property
    def model_module(self) -> str:
        """Where front ends find that, such as ``"@jupyter-widgets/controls"``."""
        return str(self._state.get("_model_module"))

    @property
    def state(self) -> dict[str, Any]:
        """Its state, a copy: what is binary as bytes in its place, the outputs of an `Output` widget as a notebook's."""
        state = self._plain()
        for buffers in list(self._buffers.values()):
            for path, data in list(buffers.items()):
                _put(state, path, data)
        return state

    def _plain(self) -> dict[str, Any]:
        state: dict[str, Any] = valid_json(dict(self._state))
        if self._fold is not None:
            state["outputs"] = self.outputs()
        return state

    def outputs(self) -> list[dict[str, Any]]:
        """What an `Output` widget shows, as a notebook's code cell would keep it; of other widgets, nothing."""
        return [] if self._fold is None else [to_nbformat(output) for output in self._fold.outputs]

    def saved(self) -> dict[str, Any]:
        """As a notebook keeps it."""
        buffers = [
            {"path": list(path), "data": base64.b64encode(data).decode(), "encoding": "base64"}
            for group in list(self._buffers.values())
            for path, data in list(group.items())
        ]
        names = {name: self._state.get(f"_{name}") for name in ("model_name", "model_module", "model_module_version")}
        return {**names, "state": self._plain(), **({"buffers": buffers} if buffers else {})}

    # For `WidgetModels`.

    @property
    def state_size(self) -> int:
        """Bytes that its state takes, about."""
        return self._total

    @property
    def size(self) -> int:
        """Likewise, with what it captured."""
        return self._total + (0 if self._fold is None else self._fold.size)

    def update(self, state: Mapping[str, Any], paths: Any, buffers: Sequence[Frame], *, echoed: bool) -> None:
        """Take what changed; what is ``echoed`` comes from a front end."""
        for key, value in state.items():
            if key == "outputs" and self._fold is not None:
                if not echoed:  # each front end captures for itself
                    self._show(self._fold, value)
                continue
            self._forget(key)
            self._state[key] = value
            self._take(key, _KEY + len(key) + weigh(value))
        fresh = set(state)
        places: list[Any] = paths if isinstance(paths, list) else []
        for path, buffer in zip(places, buffers, strict=False):
            if not (isinstance(path, list) and path and all(type(step) in (str, int) for step in path)):
                continue
            key = str(path[0])
            if key not in fresh:  # nothing but the buffer is its value
                if len(path) > 1:
                    continue
                fresh.add(key)
                self._forget(key)
            data = bytes(buffer)
            group = self._buffers.setdefault(key, {})
            replaced = group.get(tuple(path), b"")
            group[tuple(path)] = data
            self._take(key, _BUFFER + 64 * len(path) + len(data) - len(replaced))

    def _take(self, key: str, size: int) -> None:
        self._sizes[key] = self._sizes.get(key, 0) + size
        self._total += size

    def _forget(self, key: str) -> None:
        self._state.pop(key, None)
        self._buffers.pop(key, None)
        self._total -= self._sizes.pop(key, 0)

    def _show(self, fold: OutputFold, outputs: Any) -> None:
        """The kernel itself sets what an `Output` widget shows."""
        fold.clear()
        for output in outputs if isinstance(outputs, list | tuple) else ():
            msg_type = output.get("output_type") if isinstance(output, dict) else None
            if msg_type in OUTPUT_TYPES:
                with suppress(ProtocolError):
                    text = output.get("text")
                    content = {**output, "text": "".join(text)} if isinstance(text, list) else output
                    fold.add(parse_output(msg_type, content), weigh(output))

    def capture(self, message: Message) -> bool:
        """Take what a request put out, or cleared; whether it is an `Output` widget, and that changed it."""
        fold = self._fold
        if fold is None:
            return False
        if message.msg_type == "clear_output":
            fold.clear(wait=bool(message.content.get("wait")))
        else:
            fold.add(parse_output(message.msg_type, message.content, message.left_out), message.weight)
        return True

    def __repr__(self) -> str:
        return f"<Widget {self.model_name} {self.model_id}>"


def _put(state: dict[str, Any], path: Path, data: bytes) -> None:
    """Put what is binary into its place, where there is such a place."""
    holder: Any = state
    for step in path[:-1]:
        if not _has(holder, step):
            return
        holder = holder[step]
    if (isinstance(holder, dict) and isinstance(path[-1], str)) or _has(holder, path[-1]):
        holder[path[-1]] = data


def _has(holder: Any, step: Any) -> bool:
    if isinstance(holder, dict):
        return step in holder
    return isinstance(holder, list) and isinstance(step, int) and 0 <= step < len(holder)


class WidgetModels:
    """The models of one kernel process.

    Args:
        limit: bytes that the state of one may take; all together may take twice as much.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._models: dict[str, Widget] = {}
        self._sizes: OrderedDict[str, int] = OrderedDict()  # those that changed last are the last
        self._size = 0
        self.dropped = 0
        """How many models were given up for want of room."""

    def get(self, model_id: str) -> Widget | None:
        """A model by its id, or by a reference to it."""
        return self._models.get(model_id.removeprefix(_REFERENCE))

    def all(self) -> list[Widget]:
        """Those that there are now, in the order in which they were opened."""
        return list(self._models.values())

    def saved(self) -> dict[str, Any]:
        """As a notebook keeps them in its metadata."""
        return {
            "state": {widget.model_id: widget.saved() for widget in self.all()},
            "version_major": 2,
            "version_minor": 0,
        }

    def take(self, message: Message) -> None:
        """A comm is opened, changed or closed."""
        content, comm_id, state = message.content, message.content.get("comm_id"), _state_of(message)
        if not isinstance(comm_id, str):
            return
        data: Any = content.get("data")
        if message.msg_type == "comm_close":
            self._remove(comm_id)
            return
        if message.msg_type == "comm_open":
            if content.get("target_name") != "jupyter.widget" or state is None or "_model_name" not in state:
                return
            self._remove(comm_id)
            self._models[comm_id] = Widget(comm_id, state, self._limit)
        elif comm_id not in self._models:
            return
        elif message.left_out is not None:
            self._drop(comm_id)  # nobody knows what it has become
            return
        elif state is None or data.get("method") not in ("update", "echo_update"):
            return
        echoed = data.get("method") == "echo_update"
        self._models[comm_id].update(state, data.get("buffer_paths"), message.buffers, echoed=echoed)
        self._measure(comm_id)

    def capture(self, comm_id: str, message: Message) -> bool:
        """A widget captures what a request put out, or cleared; whether it is there, and does."""
        widget = self._models.get(comm_id)
        if widget is None or not widget.capture(message):
            return False
        self._measure(comm_id)
        return True

    def _measure(self, comm_id: str) -> None:
        size = self._models[comm_id].size
        self._size += size - self._sizes.get(comm_id, 0)
        self._sizes[comm_id] = size
        self._sizes.move_to_end(comm_id)
        if self._models[comm_id].state_size > self._limit:
            self._drop(comm_id)
        while self._size > 2 * self._limit:
            self._drop(next(iter(self._sizes)))

    def _drop(self, comm_id: str) -> None:
        self._remove(comm_id)
        self.dropped += 1

    def _remove(self, comm_id: str) -> None:
        self._models.pop(comm_id, None)
        self._size -= self._sizes.pop(comm_id, 0)
