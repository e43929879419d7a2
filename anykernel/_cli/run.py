"""``anykernel run``: notebooks and scripts."""

from __future__ import annotations

import ast
import json
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import click

from .. import (
    AnyKernelError,
    ArgumentError,
    CellError,
    ExecutionTimeoutError,
    KernelDiedError,
    KernelSpecError,
    KernelStartError,
    run_notebook,
)
from .codes import DONE, FAILED, RAISED, WRONG
from .executing import execute
from .showing import print_json, show_output

__all__ = ["run_sources"]


async def run_sources(
    sources: tuple[str, ...],
    *,
    output: Path | None,
    parameters: tuple[tuple[str, str], ...],
    parameters_file: Path | None,
    jobs: int,
    cell_timeout: float | None,
    timeout: float | None,
    allow_errors: bool,
    live: bool,
    kernel: str | None,
    as_json: bool,
) -> int:
    """Run them, and put out a summary; the exit code, the worst of all."""
    taken = [_Source(source) for source in sources]
    scripts = [source for source in taken if not source.is_notebook]
    if scripts:
        if len(taken) > 1 or output is not None or parameters or parameters_file is not None:
            raise click.UsageError("a script is run by itself, without -o, -p and -f")
        return await execute(scripts[0].text, kernel=kernel or "python3", timeout=timeout, as_json=as_json)
    values = {**_from_file(parameters_file), **{name: _literal(text) for name, text in parameters}}
    several = len(taken) > 1
    if several and output is not None:
        await anyio.Path(output).mkdir(parents=True, exist_ok=True)
    codes: list[int] = []
    summaries: dict[str, Any] = {}
    limiter = anyio.CapacityLimiter(jobs)

    async def run(source: _Source) -> None:
        async with limiter:
            target = output / source.file_name if several and output is not None else output
            code, summary = await _run_one(
                source,
                target,
                on_cell=None if as_json else _Progress(source.name, several=several, live=live).note,
                kernel=kernel,
                parameters=values or None,
                cell_timeout=cell_timeout,
                timeout=timeout,
                allow_errors=allow_errors,
            )
        codes.append(code)
        summaries[source.name] = summary
        if not as_json:
            click.echo(f"{source.name}: {summary['summary']}", err=summary["error"] is not None)

    async with anyio.create_task_group() as tasks:
        for source in taken:
            tasks.start_soon(run, source)
    if as_json:
        print_json({source.name: summaries[source.name] for source in taken})
    return max(codes)


class _Source:
    """One of the arguments: a notebook, or a script."""

    def __init__(self, argument: str) -> None:
        self.name = argument
        self.text = ""
        self.notebook: Any = argument
        self.file_name = Path(argument).name
        if argument == "-":
            self.name, self.file_name = "stdin", "stdin.ipynb"
            self.text = sys.stdin.read()
            try:
                found = json.loads(self.text)
            except ValueError:
                found = None
            self.is_notebook = isinstance(found, dict)
            self.notebook = found
        elif argument.endswith((".py", ".r", ".R", ".jl", ".sh", ".js")) and "://" not in argument:
            self.is_notebook = False
            try:
                self.text = Path(argument).read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as exc:
                raise ArgumentError(f"cannot read {argument!r}: {exc}") from exc
        else:
            self.is_notebook = True


class _Progress:
    """Tells on stderr how far a notebook is."""

    def __init__(self, name: str, *, several: bool, live: bool) -> None:
        self._prefix = f"{name}: " if several else ""
        self._live = live
        self._shows = sys.stderr.isatty() or live
        self._started = time.monotonic()

    def note(self, event: Any) -> None:
        if not self._shows:
            return
        if event.kind == "started":
            first = next(iter(event.cell.source.strip().splitlines()), "")
            click.echo(
                f"{self._prefix}[{time.monotonic() - self._started:6.1f} s] cell {event.index}: {first[:60]}", err=True
            )
        elif self._live and event.result is not None:
            for output in event.result.outputs:
                show_output(output)


async def _run_one(
    source: _Source, output: Path | None, *, on_cell: Callable[[Any], object] | None, **options: Any
) -> tuple[int, dict[str, Any]]:
    started = time.monotonic()
    error: AnyKernelError | None = None
    report = None
    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_: click.echo(f"anykernel: {message}", err=True)
            report = await run_notebook(source.notebook, output=output, on_cell=on_cell, **options)
    except AnyKernelError as exc:
        error = exc
        report = getattr(exc, "report", None)
    cells = report.cells if report is not None else []
    counts = {status: sum(cell.status == status for cell in cells) for status in ("ok", "error", "timeout", "not run")}
    seconds = time.monotonic() - started
    shown = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
    summary = f"{shown or 'no code cells'} in {seconds:.1f} s" + (f"; {error}" if error is not None else "")
    code = DONE if error is None else _code_of(error)
    if error is None and report is not None and not report.ok and not options["allow_errors"]:
        code = RAISED
    return code, {
        "summary": summary,
        "ok": report.ok if report is not None else False,
        "error": None if error is None else str(error),
        "seconds": seconds,
        "cells": [{"index": cell.index, "status": cell.status, "seconds": cell.seconds} for cell in cells],
        "output": None if output is None else str(output),
    }


def _code_of(error: BaseException) -> int:
    if isinstance(error, ArgumentError | KernelSpecError):
        return WRONG
    cause = error.__cause__ if isinstance(error, CellError) else error
    return FAILED if isinstance(cause, KernelDiedError | KernelStartError | ExecutionTimeoutError) else RAISED


def _literal(text: str) -> Any:
    """A value as it is written: a Python or JSON literal, else text."""
    readers: tuple[Callable[[str], Any], ...] = (ast.literal_eval, json.loads)
    for read in readers:
        try:
            return read(text)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            continue
    return text


def _from_file(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    import yaml  # noqa: PLC0415 - JSON is YAML, too

    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as exc:
        raise ArgumentError(f"cannot read parameters from {str(path)!r}: {exc}") from exc
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ArgumentError(f"{str(path)!r} must hold a mapping of parameters, not {type(values).__name__}")
    return {str(name): value for name, value in values.items()}
