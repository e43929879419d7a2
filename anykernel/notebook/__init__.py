"""Running notebooks: each cell in turn, outputs kept as a front end keeps them, saved whatever happens.

It may import public names alone. A newcomer begins with ``running``; ``reading`` and ``saving`` are the notebook's way in and
out, ``parameters`` fills it in, and ``report`` is what comes of it.
"""

from .._protocol import CellError
from .parameters import Parameter, inspect_parameters
from .report import CellEvent, CellReport, NotebookReport
from .running import run_notebook

__all__ = [
    "CellError",
    "CellEvent",
    "CellReport",
    "NotebookReport",
    "Parameter",
    "inspect_parameters",
    "run_notebook",
]

for _exported in (CellEvent, CellReport, NotebookReport, Parameter, inspect_parameters, run_notebook):
    _exported.__module__ = __name__
