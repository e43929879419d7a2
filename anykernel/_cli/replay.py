"""``anykernel replay``: what a recording has, to be read."""

from __future__ import annotations

import json
from pathlib import Path

import click

from .. import ReplayError
from .codes import DONE

__all__ = ["show"]


async def show(path: Path) -> int:
    """Put out each code that was run, and its outputs; the exit code."""
    with path.open(encoding="utf-8") as file:
        try:
            head = json.loads(file.readline())
        except ValueError:
            head = {}
        if not isinstance(head, dict) or head.get("format") != "anykernel recording":
            raise ReplayError(f"{str(path)!r} is no recording")
        click.echo(f"recorded {head.get('time', 'some time ago')} by anykernel {head.get('anykernel', '?')}")
        for line in file:
            try:
                _show_line(json.loads(line))
            except ValueError:
                click.echo("(a line that was cut off)")
    return DONE


def _show_line(line: dict[str, object]) -> None:
    event, time = line.get("event"), line.get("time", 0.0)
    header, content = line.get("header"), line.get("content")
    if event in ("connected", "interrupted", "died", "closed"):
        click.echo(f"[{time:9.3f}] {event} {line.get('text', '')}".rstrip())
    elif isinstance(header, dict) and isinstance(content, dict):
        kind = header.get("msg_type")
        if event == "sent" and kind == "execute_request":
            code = str(content.get("code", ""))
            click.echo(f"[{time:9.3f}] >>> " + code.replace("\n", "\n                ... "))
        elif event == "received" and kind == "stream":
            click.echo(str(content.get("text", "")), nl=False)
        elif event == "received" and kind in ("execute_result", "display_data"):
            data = content.get("data")
            if isinstance(data, dict):
                click.echo(str(data.get("text/plain", ", ".join(data))))
        elif event == "received" and kind == "error":
            traceback = content.get("traceback")
            click.echo("\n".join(map(str, traceback)) if isinstance(traceback, list) else str(content.get("evalue")))
