"""Outputs that change after their request has settled, or because of another one. No I/O."""

from __future__ import annotations

import weakref
from typing import Any

from .fold import OutputFold
from .outputs import OUTPUT_TYPES, DisplayData, ExecuteResult, Output, parse_output

__all__ = ["Displays"]


class Displays:
    """Which folds what comes late belongs to: by display id, across requests, and by request once it has settled.

    A fold is forgotten when its result is.
    """

    def __init__(self) -> None:
        self._folds: dict[str, weakref.WeakSet[OutputFold]] = {}
        self._prune_at = 64
        self._settled: weakref.WeakValueDictionary[str, OutputFold] = weakref.WeakValueDictionary()

    def show(self, output: Output, size: int, fold: OutputFold) -> None:
        """Add an output of ``size`` bytes to a fold."""
        fold.add(output, size)
        if isinstance(output, DisplayData | ExecuteResult) and output.display_id is not None:
            self.add(output.display_id, fold)

    def settled(self, msg_id: str, fold: OutputFold) -> None:
        """A request has settled; what it still puts out, in threads and tasks, is for `show_late`."""
        self._settled[msg_id] = fold

    def show_late(self, msg_id: str, msg_type: str, content: dict[str, Any], size: int) -> None:
        """Add the content of an output message to the fold of the settled request that it names, or clear that."""
        fold = self._settled.get(msg_id)
        if fold is None:
            return
        if msg_type in OUTPUT_TYPES:
            self.show(parse_output(msg_type, content), size, fold)
        elif msg_type == "clear_output":
            fold.clear(wait=bool(content.get("wait")))

    def add(self, display_id: str, fold: OutputFold) -> None:
        self._folds.setdefault(display_id, weakref.WeakSet()).add(fold)
        if len(self._folds) > self._prune_at:
            self._folds = {key: folds for key, folds in self._folds.items() if any(fold.shows(key) for fold in folds)}
            self._prune_at = max(64, 2 * len(self._folds))

    def update(self, content: dict[str, Any], size: int) -> None:
        """Carry out the content of an ``update_display_data``; ids that nobody shows are passed over."""
        output = parse_output("update_display_data", content)
        assert isinstance(output, DisplayData)
        for fold in self._folds.get(output.display_id or "", ()):
            fold.update(output.display_id or "", output.data, output.metadata, size)
