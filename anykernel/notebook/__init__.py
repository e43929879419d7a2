"""Running notebooks: each cell in turn, outputs kept as a front end keeps them, saved whatever happens.

It may import public names alone. A newcomer begins with ``running``; ``reading`` and ``saving`` are the notebook's way in and
out, ``parameters`` fills it in, and ``report`` is what comes of it.
"""

from .._protocol import CellError
from .comparing import CellDifference, compare_notebooks
from .many import Reports, run_notebooks
from .parameters import Parameter, inspect_parameters
from .report import CellEvent, CellReport, NotebookReport
from .running import run_notebook

__all__ = [
    "CellDifference",
    "CellError",
    "CellEvent",
    "CellReport",
    "NotebookReport",
    "Parameter",
    "Reports",
    "compare_notebooks",
    "inspect_parameters",
    "run_notebook",
    "run_notebooks",
]

for _exported in (
    CellDifference, CellEvent, CellReport, NotebookReport, Parameter, Reports,
    compare_notebooks, inspect_parameters, run_notebook, run_notebooks,
):  # fmt: skip
    _exported.__module__ = __name__
