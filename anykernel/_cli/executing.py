"""``anykernel exec``: one piece of code in a kernel of its own."""

from __future__ import annotations

import click

from .. import ExecutionTimeoutError, KernelDiedError, open_kernel
from .codes import DONE, FAILED, RAISED
from .showing import as_dict, print_json, show_output

__all__ = ["execute"]


async def execute(code: str, *, kernel: str, timeout: float | None, as_json: bool) -> int:
    """Run code, and put out what it puts out; the exit code."""
    options = {} if timeout is None else {"startup_timeout": max(timeout, 0.001)}
    async with open_kernel(kernel, **options) as opened:  # type: ignore[arg-type]
        try:
            result = await opened.execute(code, timeout=timeout, on_output=None if as_json else show_output)
        except (ExecutionTimeoutError, KernelDiedError) as exc:
            if as_json:
                print_json(as_dict(exc.result) if exc.result is not None else {}, exc)
            else:
                click.echo(f"anykernel: {exc}", err=True)
            return FAILED
        if as_json:
            print_json(as_dict(result))
        elif not result.ok and not any(output.text for output in result.outputs):
            click.echo(f"anykernel: {result.error.text if result.error is not None else result.status}", err=True)
        return DONE if result.ok else RAISED
