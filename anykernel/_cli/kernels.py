"""``anykernel kernels``: what is installed here."""

from __future__ import annotations

import click

from .. import kernelspecs
from .codes import DONE
from .showing import print_json

__all__ = ["list_kernels"]


async def list_kernels(*, as_json: bool) -> int:
    """Put out the kernelspecs; the exit code."""
    found = kernelspecs()
    if as_json:
        print_json(
            {
                name: {"display_name": s.display_name, "language": s.language, "argv": s.argv}
                for name, s in found.items()
            }
        )
        return DONE
    if not found:
        click.echo("no kernels are installed; `pip install ipykernel` brings one for Python", err=True)
    width = max((len(name) for name in found), default=0)
    for name, spec in sorted(found.items()):
        click.echo(f"{name:{width}}  {spec.language:10}  {spec.display_name}")
    return DONE
