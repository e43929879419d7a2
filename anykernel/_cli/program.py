"""The commands and their arguments.

Exit codes: 0 done, 1 the code or a cell raised, 2 wrong usage or input, 3 the kernel could not start, died, or time ran out,
130 interrupted.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import click

from .. import __version__
from .codes import DONE, FAILED, INTERRUPTED, RAISED, WRONG

__all__ = ["main"]


def main() -> None:
    """Run the command that the arguments name."""
    try:
        cli.main(prog_name="anykernel", standalone_mode=False)
    except click.ClickException as exc:
        exc.show()
        sys.exit(WRONG)
    except click.exceptions.Exit as exc:
        sys.exit(exc.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        sys.exit(INTERRUPTED)


def _run(function: Callable[[], Coroutine[Any, Any, int]]) -> None:
    """Run a command to its exit code; what it raises is told in a line."""
    import anyio  # noqa: PLC0415 - `--help` needs none of this

    from .. import AnyKernelError, ArgumentError, KernelSpecError, ReplayError  # noqa: PLC0415

    try:
        code = anyio.run(function)
    except (ArgumentError, KernelSpecError, ReplayError) as exc:
        click.echo(f"anykernel: {exc}", err=True)
        code = WRONG
    except AnyKernelError as exc:
        click.echo(f"anykernel: {exc}", err=True)
        code = FAILED
    except BrokenPipeError:
        code = RAISED  # nobody reads what is put out any more
    sys.exit(code)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="anykernel")
def cli() -> None:
    """Run code and notebooks in Jupyter kernels.

    Exit codes: 0 done, 1 the code or a cell raised, 2 wrong usage or input, 3 the kernel could not start, died, or time ran
    out, 130 interrupted.
    """


_kernel = click.option("-k", "--kernel", metavar="NAME", help="The kernelspec; see `anykernel kernels`.")
_timeout = click.option("--timeout", type=click.FloatRange(min=0), metavar="SECONDS", help="For all of it.")
_json = click.option("--json", "as_json", is_flag=True, help="One JSON object, for programs.")


@cli.command("exec")
@click.argument("code")
@_kernel
@_timeout
@_json
def exec_(code: str, kernel: str | None, timeout: float | None, as_json: bool) -> None:
    """Run CODE in a fresh kernel ("-": read it from stdin).

    The code's stdout and its last value go to stdout, its stderr and traceback to stderr.
    """
    from .executing import execute  # noqa: PLC0415

    if code == "-":
        code = sys.stdin.read()
    _run(lambda: execute(code, kernel=kernel or "python3", timeout=timeout, as_json=as_json))


@cli.command()
@click.argument("sources", nargs=-1, required=True, metavar="NOTEBOOK...|SCRIPT|-")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Write the executed notebook there; for several, a directory.",
)
@click.option(
    "-p",
    "--parameter",
    "parameters",
    type=(str, str),
    multiple=True,
    metavar="NAME VALUE",
    help="Read as a Python or JSON literal, else text; may be repeated.",
)
@click.option(
    "-f",
    "--parameters-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Parameters from a YAML or JSON file; -p overrides it.",
)
@click.option("-j", "--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="Notebooks at once.")
@click.option("--cell-timeout", type=click.FloatRange(min=0), metavar="SECONDS", help="For each cell.")
@click.option("--allow-errors", is_flag=True, help="Go on after cells that raise.")
@click.option("--live", is_flag=True, help="Show the cells' outputs as they come.")
@_timeout
@_kernel
@_json
def run(sources: tuple[str, ...], **options: Any) -> None:
    """Run notebooks, or a script ("-": a notebook or code from stdin).

    Without -o, a summary is printed and nothing is written.
    """
    from .run import run_sources  # noqa: PLC0415

    if options["as_json"] and options["live"]:
        raise click.UsageError("--live and --json exclude each other")
    _run(lambda: run_sources(sources, **options))


@cli.command()
@_json
def kernels(as_json: bool) -> None:
    """List the kernels that are installed here."""
    from .kernels import list_kernels  # noqa: PLC0415

    _run(lambda: list_kernels(as_json=as_json))


@cli.command()
@click.argument("kernel", default="python3")
@_json
def doctor(kernel: str, as_json: bool) -> None:
    """Find out, on a real start, what KERNEL can do and how long it takes; the first thing to show with a fault."""
    from .doctor import examine  # noqa: PLC0415

    _run(lambda: examine(kernel, as_json=as_json))


@cli.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def replay(file: Path) -> None:
    """Show what a recording (record_to=) has: each code that was run, and what it put out."""
    from .replay import show  # noqa: PLC0415

    _run(lambda: show(file))


@cli.command()
def demo() -> None:
    """Show what the client does: eight tasks on one kernel, a cell that is stopped, four kernels at once."""
    from ..__main__ import main as demonstrate  # noqa: PLC0415

    async def show() -> int:
        await demonstrate()
        return DONE

    _run(show)


@cli.command()
@click.option(
    "-k",
    "--kernel",
    metavar="NAME",
    default="python3",
    show_default=True,
    help="The kernelspec of kernels that are started by use.",
)
@click.option("--http", is_flag=True, help="Serve over HTTP, at /mcp, instead of stdin and stdout.")
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", type=click.IntRange(1, 65535), default=8000, show_default=True)
@click.option(
    "--token",
    envvar="ANYKERNEL_MCP_TOKEN",
    help="What clients must send (Bearer); needed where others can reach the host.",
)
@click.option("--max-kernels", type=click.IntRange(min=1), default=8, show_default=True)
@click.option(
    "--idle-timeout",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="End kernels that are not used for so long.",
)
def mcp(
    kernel: str, http: bool, host: str, port: int, token: str | None, max_kernels: int, idle_timeout: float | None
) -> None:
    """Serve kernels to language models, by the Model Context Protocol."""
    from .. import AnyKernelError  # noqa: PLC0415
    from .._late import load  # noqa: PLC0415

    try:
        module = load("mcp", "mcp")
        if http:
            module.serve_http(
                kernel, host=host, port=port, token=token, max_kernels=max_kernels, idle_timeout=idle_timeout
            )
        else:
            module.serve_stdio(kernel, max_kernels=max_kernels, idle_timeout=idle_timeout)
    except AnyKernelError as exc:
        click.echo(f"anykernel: {exc}", err=True)
        sys.exit(WRONG)
