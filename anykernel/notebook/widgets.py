"""The state of widgets in a notebook's metadata, from which front ends show them without a kernel."""

from __future__ import annotations

from typing import Any

import nbformat
from nbformat import NotebookNode

from .._core import Widgets
from .report import has_tag

__all__ = ["WidgetKeeper"]

WIDGET_STATE = "application/vnd.jupyter.widget-state+json"


class WidgetKeeper:
    """Writes the state of widgets into a notebook, as often as it is told.

    That of an earlier run is forgotten, unless a cell that is left out may still show its widgets.
    """

    def __init__(self, notebook: NotebookNode) -> None:
        self.widgets: Widgets | None = None
        """The kernel's, once there is one."""
        self._metadata = notebook.metadata
        left_out = any(has_tag(cell, "skip-execution") for cell in notebook.cells)
        kept: Any = notebook.metadata.get("widgets", {}).get(WIDGET_STATE, {}).get("state") if left_out else None
        self._earlier: dict[str, Any] = kept or {}
        self.write()

    def write(self) -> None:
        """Write it, where there are any widgets."""
        models: dict[str, Any] = {
            **self._earlier,
            **(self.widgets.state()["state"] if self.widgets is not None else {}),
        }
        if models:
            state = {"state": models, "version_major": 2, "version_minor": 0}
            self._metadata.setdefault("widgets", NotebookNode())[WIDGET_STATE] = nbformat.from_dict(state)
        elif WIDGET_STATE in self._metadata.get("widgets", {}):
            del self._metadata["widgets"][WIDGET_STATE]
            if not self._metadata["widgets"]:
                del self._metadata["widgets"]
