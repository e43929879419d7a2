"""What comes of running a notebook."""

from typing import Any, Literal

import msgspec
from nbformat import NotebookNode

from .._protocol import Result

__all__ = ["CellEvent", "CellReport", "CellStatus", "NotebookReport"]

CellStatus = Literal["ok", "error", "timeout", "skipped", "not run"]


class CellReport(msgspec.Struct):
    """What came of one cell; there is one for each, Markdown and raw cells too, in the notebook's order."""

    index: int
    """Place among the cells of the report's notebook, from 0."""
    cell: NotebookNode
    """The cell in the report's notebook, with its outputs."""
    status: CellStatus = "not run"
    """``"ok"``; ``"error"`` where it raised, expected or not; ``"timeout"``; ``"skipped"`` where it is no code or is tagged
    ``skip-execution``; ``"not run"`` where the run ended before it."""
    result: Result | None = None
    """None where nothing ran."""
    seconds: float | None = None
    """How long it ran, by the kernel's clock; None where nothing ran."""


class CellEvent(msgspec.Struct, frozen=True):
    """What ``on_cell`` is called with."""

    kind: Literal["started", "finished"]
    index: int
    cell: NotebookNode
    result: Result | None = None
    """As far as it has come; None before the cell was sent."""


class NotebookReport:
    """What came of running a notebook: the executed copy, a report for each cell, and why it ended."""

    def __init__(self, notebook: NotebookNode, parameters: dict[str, Any]) -> None:
        self.notebook = notebook
        """The executed copy, as nbformat has it."""
        self.cells = [CellReport(index, cell) for index, cell in enumerate(notebook.cells)]
        """One for each cell of ``notebook``."""
        self.parameters = parameters
        """The parameters that were injected."""
        self.source: Any = None
        """What was given to be run: a path, say."""
        self.error: BaseException | None = None
        """What ended the run early; None where it went through, with allowed errors too."""

    @property
    def ok(self) -> bool:
        """Whether it went through, and no cell failed that was not tagged ``raises-exception``."""
        return self.error is None and not any(
            report.status == "timeout" or (report.status == "error" and not has_tag(report.cell, "raises-exception"))
            for report in self.cells
        )

    def __repr__(self) -> str:
        ran = sum(report.result is not None for report in self.cells)
        return f"<NotebookReport {'ok' if self.ok else 'failed'}, {ran} of {len(self.cells)} cells ran>"


def has_tag(cell: NotebookNode, tag: str) -> bool:
    """Whether a cell is tagged so."""
    tags = cell.get("metadata", {}).get("tags", [])
    return isinstance(tags, list) and tag in tags
