"""`run_notebook`: a notebook's cells, one after another, in one kernel.

How this works. The notebook is read into a copy, which is all that is ever changed. Whatever the caller got wrong is found
before a kernel starts. Then each code cell is an execution whose outputs are written into the copy, and the copy into the
output file: after each cell, once a second while one puts out, and at any end, by plain calls that nothing can cancel.
Displays that later cells update are written anew at the end. What `Output` widgets capture is in the state of the widgets,
which the notebook's metadata keep, and not among the outputs of the cell.
"""

from __future__ import annotations

import inspect
import math
import os
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from datetime import datetime
from numbers import Real
from typing import Any

import anyio
import nbformat
from nbformat import NotebookNode

from .._core import Kernel, StdinHandler
from .._open import open_kernel
from .._protocol import AnyKernelError, ArgumentError, CellError, ExecutionTimeoutError, Output, Result
from .parameters import convert, find_parameters, inject
from .reading import describe_source, is_url, read_notebook
from .report import CellEvent, CellReport, NotebookReport, has_tag
from .saving import Saver, open_saver
from .widgets import WidgetKeeper

__all__ = ["run_notebook"]

OnCell = Callable[[CellEvent], "Awaitable[object] | object"]


async def run_notebook(
    notebook: str | os.PathLike[str] | Mapping[str, Any],
    *,
    kernel: Any = None,
    parameters: Mapping[str, Any] | None = None,
    output: str | os.PathLike[str] | None = None,
    cwd: str | os.PathLike[str] | None = None,
    cell_timeout: float | None = None,
    timeout: float | None = None,
    allow_errors: bool = False,
    check: bool = True,
    on_cell: OnCell | None = None,
    stdin: StdinHandler | None = None,
    **options: Any,
) -> NotebookReport:
    """Run a notebook's code cells in order, and wait for the end; the notebook that was given is not changed.

    Outputs are kept as a front end would keep them, with execution counts and times. A cell tagged ``raises-exception`` may
    fail, one tagged ``skip-execution`` is left out. ``sys.exit(0)`` in a cell ends the notebook well.

    Args:
        notebook: a path, a URL that fsspec knows, a mapping, or a NotebookNode; of any version up to 4.
        kernel: None for what the notebook names; a kernelspec's name or whatever else `open_kernel` takes; an open `Kernel`,
            which is left open; or a pool (`open_pool`), which lends one.
        parameters: values by name, set by a cell put in behind the one tagged ``parameters``. Names that this does not
            assign are warned about (`UserWarning`); values are converted to the types of its defaults.
        output: where the executed notebook is written: atomically, after each cell, and at any end.
        cwd: the kernel's working directory; None: the notebook's own, where it is a file.
        cell_timeout: seconds that each cell may take.
        timeout: seconds that all may take, the kernel's start included.
        allow_errors: go on after cells that raise.
        check: raise when a cell fails; else only the report tells.
        on_cell: called with a `CellEvent` when a code cell begins and ends; awaited if it can be. What it raises ends the
            run, saved, and comes out of here.
        stdin: answers `input()`, as for `Kernel.execute`. Without it, `input()` raises in the cell.
        **options: of `open_kernel`.

    Raises:
        ArgumentError: that is no notebook, or an argument is unusable; no kernel was started.
        KernelSpecError: there is no such kernel.
        CellError: with ``check``, a cell failed. Its cause tells how.
        ExecutionTimeoutError, KernelDiedError: time ran out, or the kernel died. These, too, have a ``report``.
    """
    source = read_notebook(notebook)
    cell_timeout, timeout = _seconds("cell_timeout", cell_timeout), _seconds("timeout", timeout)
    if on_cell is not None and not callable(on_cell):
        raise ArgumentError(f"on_cell must be a function, not {on_cell!r}")
    values = _with_parameters(source, parameters)
    if cwd is None:
        cwd = _directory_of(notebook)
    report = NotebookReport(source, values)
    report.source = notebook
    for entry in report.cells:
        _clear(entry)
    with open_saver(output, source) as saver:
        run = _Run(
            report,
            saver,
            cell_timeout=cell_timeout,
            deadline=math.inf if timeout is None else anyio.current_time() + timeout,
            allow_errors=allow_errors,
            on_cell=on_cell,
            stdin=stdin,
        )
        try:
            async with _kernel_for(kernel, source, describe_source(notebook), cwd, timeout, options) as opened:
                run.note_kernel(opened)
                await run.all(opened)
        except AnyKernelError as exc:
            report.error = exc
            exc.report = report  # type: ignore[attr-defined]
            if check or not run.began:
                raise
        except BaseException as exc:
            report.error = exc
            raise
        finally:
            run.finish()
            saver.save()
    return report


def _seconds(name: str, value: object) -> float | None:
    if value is None:
        return None
    if not (isinstance(value, Real) and float(value) >= 0):
        raise ArgumentError(f"{name} must be None or seconds (a number >= 0), not {value!r}")
    return float(value)


def _directory_of(notebook: object) -> str | None:
    if not isinstance(notebook, str | os.PathLike) or is_url(notebook):
        return None
    return os.path.dirname(os.path.abspath(notebook))  # noqa: PTH100, PTH120 - a string is all that is wanted


def _with_parameters(node: NotebookNode, parameters: Mapping[str, Any] | None) -> dict[str, Any]:
    if parameters is None:
        return {}
    if not isinstance(parameters, Mapping):
        raise ArgumentError(f"parameters must be a mapping, not {type(parameters).__name__}")
    known = find_parameters(node)
    if unknown := [str(name) for name in parameters if name not in known]:
        warnings.warn(f"the notebook has no parameters named {', '.join(unknown)}", UserWarning, stacklevel=3)
    values = {name: convert(name, value, known.get(name)) for name, value in parameters.items()}
    inject(node, values)
    return values


def _clear(entry: CellReport) -> None:
    if entry.cell.cell_type != "code":
        entry.status = "skipped"
        return
    if has_tag(entry.cell, "skip-execution"):
        entry.status = "skipped"  # what it has put out before stays
        return
    entry.cell.outputs = []
    entry.cell.execution_count = None
    entry.cell.metadata.pop("execution", None)


@asynccontextmanager
async def _kernel_for(
    kernel: Any,
    node: NotebookNode,
    name: str,
    cwd: str | os.PathLike[str] | None,
    timeout: float | None,
    options: dict[str, Any],
) -> AsyncIterator[Kernel]:
    opening: AbstractAsyncContextManager[Kernel]
    if isinstance(kernel, Kernel) or hasattr(kernel, "map"):
        if options:
            raise ArgumentError(f"{', '.join(options)} cannot be set for a kernel that is open already")
        opening = nullcontext(kernel) if isinstance(kernel, Kernel) else kernel.kernel()
    else:
        if kernel is None:
            kernel = node.metadata.get("kernelspec", {}).get("name")
            if not isinstance(kernel, str):
                language = node.metadata.get("language_info", {}).get("name", "python")
                if language != "python":
                    raise ArgumentError(f"{name!r} names no kernel, only the language {language!r}; pass kernel=")
                kernel = "python3"
        if timeout is not None:
            options = {**options, "startup_timeout": min(timeout, options.get("startup_timeout", timeout))}
        opening = open_kernel(kernel, cwd=cwd, **options)
    async with opening as opened:
        yield opened


class _Run:
    """One run of a notebook in a kernel."""

    def __init__(
        self,
        report: NotebookReport,
        saver: Saver,
        *,
        cell_timeout: float | None,
        deadline: float,
        allow_errors: bool,
        on_cell: OnCell | None,
        stdin: StdinHandler | None,
    ) -> None:
        self.began = False
        """Whether a kernel was there."""
        self._report = report
        self._saver = saver
        self._cell_timeout = math.inf if cell_timeout is None else cell_timeout
        self._deadline = deadline
        self._allow_errors = allow_errors
        self._on_cell = on_cell
        self._stdin = stdin
        self._keeper = WidgetKeeper(report.notebook)

    def note_kernel(self, kernel: Kernel) -> None:
        """Keep what the kernel says of its language, as front ends do."""
        self.began = True
        if kernel.info.language_info:
            self._report.notebook.metadata["language_info"] = nbformat.from_dict(kernel.info.language_info)

    async def all(self, kernel: Kernel) -> None:
        """Run the cells, until one ends the run."""
        async with kernel.widgets() as self._keeper.widgets:
            for entry in self._report.cells:
                if entry.status == "not run" and not await self._one(kernel, entry):
                    break

    def finish(self) -> None:
        """Write all once more: displays may have changed after their cell, and one may have been under way."""
        self._keeper.write()
        for entry in self._report.cells:
            _write(entry)
            if entry.result is not None and entry.status == "not run":
                entry.status = "error"  # it was under way

    async def _one(self, kernel: Kernel, entry: CellReport) -> bool:
        """Run one cell; whether the run goes on."""
        await self._tell("started", entry)
        if not entry.cell.source.strip():
            entry.status = "ok"
            await self._tell("finished", entry)
            return True
        left = min(self._cell_timeout, max(0, self._deadline - anyio.current_time()))
        try:
            result = await self._execute(kernel, entry, None if left == math.inf else left)
        except ExecutionTimeoutError as exc:
            entry.result, entry.status = exc.result, "timeout"
            await self._end(entry)
            raise self._error(entry, f"did not end within {left:g} s") from exc
        except AnyKernelError as exc:
            entry.result, entry.status = getattr(exc, "result", None) or entry.result, "error"
            await self._end(entry)
            raise self._error(entry, f"{type(exc).__name__}: {exc}") from exc
        entry.result = result
        entry.status = "ok" if result.ok else "error"
        if result.error is not None and result.error.ename == "SystemExit" and result.error.evalue in ("", "0", "None"):
            entry.status = "ok"
            await self._end(entry)
            return False
        await self._end(entry)
        if entry.status == "error" and not (self._allow_errors or has_tag(entry.cell, "raises-exception")):
            failure = None
            try:
                result.raise_for_error()
            except AnyKernelError as exc:
                failure = exc
            raise self._error(entry, str(failure)) from failure
        return True

    async def _execute(self, kernel: Kernel, entry: CellReport, timeout: float | None) -> Result:
        metadata = {"cellId": entry.cell.id} if "id" in entry.cell else {}

        def on_output(_: Output) -> None:
            if self._saver.is_due():
                self._save(entry)

        async with kernel.stream(
            entry.cell.source, timeout=timeout, stdin=self._stdin, metadata=metadata, on_output=on_output
        ) as execution:
            entry.result = execution.result
            return await execution.wait()

    def _save(self, entry: CellReport) -> None:
        _write(entry)
        self._keeper.write()
        self._saver.save()

    async def _end(self, entry: CellReport) -> None:
        self._save(entry)
        await self._tell("finished", entry)

    async def _tell(self, kind: Any, entry: CellReport) -> None:
        if self._on_cell is not None:
            waitable = self._on_cell(CellEvent(kind, entry.index, entry.cell, entry.result))
            if inspect.isawaitable(waitable):
                await waitable

    def _error(self, entry: CellReport, text: str) -> CellError:
        place = f"cell {entry.index}"
        count = entry.cell.execution_count
        if count is not None:
            place += f" (In [{count}])"
        return CellError(f"{place} failed: {text}", index=entry.index, source=entry.cell.source, report=self._report)


def _write(entry: CellReport) -> None:
    """Write what came of a cell into the notebook."""
    result, cell = entry.result, entry.cell
    if result is None:
        return
    cell.outputs = _outputs_of(result)
    cell.execution_count = result.execution_count
    started, ended = result.started_at, result.ended_at
    if started is not None and ended is not None:
        entry.seconds = (ended - started).total_seconds()
    times = {
        "iopub.status.busy": started,
        "iopub.execute_input": started,
        "shell.execute_reply.started": started,
        "shell.execute_reply": ended,
        "iopub.status.idle": ended,
    }
    shown = {name: _iso(time) for name, time in times.items() if time is not None}
    if shown:
        cell.metadata["execution"] = nbformat.from_dict(shown)


def _outputs_of(result: Result) -> list[NotebookNode]:
    outputs: Any = [nbformat.from_dict(output) for output in result.to_nbformat(captured=False)]
    return outputs  # type: ignore[no-any-return]


def _iso(time: datetime) -> str:
    return time.isoformat(timespec="microseconds").replace("+00:00", "Z")
