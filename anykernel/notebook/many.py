"""Many notebooks at once, each in a kernel of its own; what comes of them, in the order of their ends."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import anyio
import nbformat

from .._protocol import AnyKernelError, ArgumentError
from .reading import describe_source
from .report import NotebookReport
from .running import run_notebook

__all__ = ["Reports", "run_notebooks"]


class Reports:
    """The reports of `run_notebooks`, as the notebooks end: ``async for report in reports``."""

    def __init__(self, receive: anyio.abc.ObjectReceiveStream[NotebookReport]) -> None:
        self._receive = receive

    def __aiter__(self) -> Reports:
        return self

    async def __anext__(self) -> NotebookReport:
        try:
            return await self._receive.receive()
        except anyio.EndOfStream:
            raise StopAsyncIteration from None


@asynccontextmanager
async def run_notebooks(
    paths: Iterable[str | os.PathLike[str] | Mapping[str, Any]],
    *,
    jobs: int | None = None,
    output_dir: str | os.PathLike[str] | None = None,
    junit: str | os.PathLike[str] | None = None,
    **options: Any,
) -> AsyncIterator[Reports]:
    """Run many notebooks at once, and give their reports in the order of their ends.

    Each has a kernel of its own, and none's failure hurts another: nothing is raised for one, its report's ``error`` has it,
    and its ``source`` says which it is. Leaving the block early stops those under way, saved as far as they came.

    Args:
        paths: what `run_notebook` takes, each.
        jobs: how many run at once; None: as many as there are CPUs.
        output_dir: where the executed copies are written, under their own names; made if it is not there.
        junit: a file for results as continuous integration reads them: a suite for each notebook, a case for each code cell.
        **options: of `run_notebook`, for each; but ``output`` and ``check``.

    Raises:
        ArgumentError: an option is unusable, or two notebooks would be written to one file.
    """
    jobs = (os.cpu_count() or 1) if jobs is None else jobs
    if not isinstance(jobs, int) or isinstance(jobs, bool) or jobs < 1:
        raise ArgumentError(f"jobs must be None or an integer of at least 1, not {jobs!r}")
    for name in ("output", "check"):
        if name in options:
            raise ArgumentError(f"{name} is no option of run_notebooks; see output_dir and each report's error")
    sources = list(paths)
    outputs = _outputs(sources, output_dir)
    limiter = anyio.CapacityLimiter(jobs)
    done: list[NotebookReport] = []
    send, receive = anyio.create_memory_object_stream[NotebookReport](len(sources) or 1)
    scope = anyio.CancelScope()

    async def run(source: Any, output: Path | None) -> None:
        async with limiter:
            try:
                report = await run_notebook(source, output=output, check=False, **options)
            except AnyKernelError as exc:
                report = getattr(exc, "report", None) or NotebookReport(_empty(), {})
                report.error = exc
                report.source = source
            done.append(report)
            send.send_nowait(report)

    async def run_all() -> None:
        with scope, send:
            async with anyio.create_task_group() as tasks:
                for source, output in zip(sources, outputs, strict=True):
                    tasks.start_soon(run, source, output)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run_all)
        try:
            with receive:
                yield Reports(receive)
        finally:
            scope.cancel()
            if junit is not None:
                _write_junit(Path(junit), done)


def _empty() -> nbformat.NotebookNode:
    node = nbformat.v4.new_notebook()
    assert isinstance(node, nbformat.NotebookNode)
    return node


def _outputs(sources: list[Any], output_dir: str | os.PathLike[str] | None) -> list[Path | None]:
    if output_dir is None:
        return [None] * len(sources)
    directory = Path(output_dir)
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise ArgumentError(f"cannot write to {str(directory)!r}: {exc.strerror}") from exc
    names = [
        Path(os.fspath(source)).name if isinstance(source, str | os.PathLike) else f"notebook-{index}.ipynb"
        for index, source in enumerate(sources)
    ]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ArgumentError(f"several notebooks would be written to {', '.join(twice)} in {str(directory)!r}")
    return [directory / name for name in names]


def _write_junit(path: Path, reports: list[NotebookReport]) -> None:
    suites = ET.Element("testsuites")
    for report in reports:
        name = describe_source(report.source)
        cells = [cell for cell in report.cells if cell.cell.cell_type == "code"]
        suite = ET.SubElement(suites, "testsuite", name=_xml(name), tests=str(max(1, len(cells))))
        for cell in cells:
            seconds = f"{cell.seconds or 0:.3f}"
            case = ET.SubElement(suite, "testcase", classname=_xml(name), name=f"cell {cell.index}", time=seconds)
            if cell.status in ("skipped", "not run"):
                ET.SubElement(case, "skipped", message=cell.status)
            elif cell.status != "ok" and not report.ok:
                text = cell.result.text if cell.result is not None else ""
                ET.SubElement(case, "failure", message=cell.status).text = _xml(text[-10_000:])
        if not cells and report.error is not None:
            case = ET.SubElement(suite, "testcase", classname=_xml(name), name="notebook")
            ET.SubElement(case, "error", message=_xml(str(report.error)[:1000]))
    ET.ElementTree(suites).write(path, encoding="utf-8", xml_declaration=True)


def _xml(text: str) -> str:
    """Text without what XML cannot hold."""
    return "".join(
        c for c in text if c in "\t\n\r" or (ord(c) >= 32 and not 0xD800 <= ord(c) <= 0xDFFF and ord(c) < 0xFFFE)
    )
