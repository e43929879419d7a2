"""Outputs that change after their request has settled, or because of another one. No I/O."""

from __future__ import annotations

import weakref
from typing import Any, Union

from .fold import OutputFold
from .messages import Message
from .outputs import OUTPUT_TYPES, DisplayData, ExecuteResult, Output, parse_output

__all__ = ["Displays"]

# Mostly a display is shown by one fold only; a set of its own for each would take ten times as much memory.
_Folds = Union["weakref.ref[OutputFold]", "weakref.WeakSet[OutputFold]"]


class Displays:
    """Which folds what comes late belongs to: by display id, across requests, and by request once it has settled.

    A fold is forgotten when its result is.
    """

    def __init__(self) -> None:
        self._folds: dict[str, _Folds] = {}
        self._prune_at = 64
        self._settled: weakref.WeakValueDictionary[str, OutputFold] = weakref.WeakValueDictionary()

    def show(
        self, output: Output, size: int, fold: OutputFold, widget: str | None, left_out: str | None = None
    ) -> None:
        """Add an output of ``size`` bytes, which this widget captures, to a fold; what its id showed in any shows the same."""
        fold.add(output, size, widget)
        if isinstance(output, DisplayData | ExecuteResult) and output.display_id is not None:
            self._update(output, size, left_out, but=fold)
            self.add(output.display_id, fold)

    def settled(self, msg_id: str, fold: OutputFold) -> None:
        """A request has settled; what it still puts out, in threads and tasks, is for `show_late`."""
        self._settled[msg_id] = fold

    def show_late(self, message: Message, widget: str | None) -> None:
        """Add an output, which this widget captures, to the fold of the settled request that it names, or clear that."""
        fold = self._settled.get(message.parent_id or "")
        if fold is None:
            return
        if message.msg_type in OUTPUT_TYPES:
            output = parse_output(message.msg_type, message.content, message.left_out)
            size = message.weight
            self.show(output, size, fold, widget, message.left_out)
            if message.left_out is not None:
                fold.dropped += size
        elif message.msg_type == "clear_output":
            fold.clear(widget, wait=bool(message.content.get("wait")))

    def add(self, display_id: str, fold: OutputFold) -> None:
        known = self._folds.get(display_id)
        if isinstance(known, weakref.WeakSet):
            known.add(fold)
        elif known is None or (other := known()) is None:
            self._folds[display_id] = weakref.ref(fold)
        elif other is not fold:
            self._folds[display_id] = weakref.WeakSet((other, fold))
        if len(self._folds) > self._prune_at:
            self._folds = {key: folds for key, folds in self._folds.items() if _are_shown(key, folds)}
            self._prune_at = max(64, 2 * len(self._folds))

    def update(self, content: dict[str, Any], size: int, left_out: str | None = None) -> None:
        """Carry out the content of an ``update_display_data``; ids that nobody shows are passed over."""
        output = parse_output("update_display_data", content, left_out)
        assert isinstance(output, DisplayData)
        self._update(output, size, left_out)

    def _update(
        self, output: DisplayData | ExecuteResult, size: int, left_out: str | None, *, but: OutputFold | None = None
    ) -> None:
        display_id = output.display_id or ""
        folds = self._folds.get(display_id)
        if folds is not None:
            for fold in _each(folds):
                if fold is but:
                    continue
                if fold.update(display_id, output.data, output.metadata, size) and left_out is not None:
                    fold.dropped += size


def _each(folds: _Folds) -> list[OutputFold]:
    if isinstance(folds, weakref.WeakSet):
        return list(folds)
    fold = folds()
    return [] if fold is None else [fold]


def _are_shown(display_id: str, folds: _Folds) -> bool:
    return any(fold.shows(display_id) for fold in _each(folds))
