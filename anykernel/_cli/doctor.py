"""``anykernel doctor``: what a kernel can, found out on real starts of it.

Each step is tried and timed by itself, bounded, and told with a verdict; a step that fails says what to do, and the next one
is tried all the same, where the kernel is still there.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import anyio
import click

from .. import (
    AnyKernelError,
    ExecutionTimeoutError,
    Kernel,
    KernelDiedError,
    KernelSpecError,
    UnsupportedError,
    __version__,
    open_kernel,
)
from .codes import DONE, FAILED
from .showing import print_json

__all__ = ["examine"]

# Seconds that each step may take.
STEP_TIMEOUT = 20.0

# Code by language: what prints, what takes long, what asks.
CODE = {
    "python": (
        "for n in range(100): print(n, flush=True)",
        "import time\nfor _ in range(600): time.sleep(0.1)",
        "input('? ')",
    ),
    "r": ("for (n in 0:99) cat(n, '\\n')", "for (n in 1:600) Sys.sleep(0.1)", "readline('? ')"),
    "bash": ("for n in $(seq 0 99); do echo $n; done", "sleep 60", None),
    "typescript": (
        "for (let n = 0; n < 100; n++) console.log(n)",
        "await new Promise(r => setTimeout(r, 60000))",
        None,
    ),
    "julia": ("for n in 0:99 println(n) end", "for _ in 1:600 sleep(0.1) end", None),
}


class Step(NamedTuple):
    """What came of one step."""

    name: str
    verdict: str
    """``"ok"``, ``"no"`` where the kernel lacks it, or ``"trouble"``."""
    seconds: float
    detail: str = ""


async def examine(name: str, *, as_json: bool) -> int:
    """Examine a kernel, and put out a table; the exit code."""
    steps: list[Step] = []

    def note(step: Step) -> None:
        steps.append(step)
        if not as_json:
            mark = {"ok": " ", "no": "-", "trouble": "!"}[step.verdict]
            click.echo(f"{mark} {step.name:26} {step.verdict:8} {step.seconds:7.3f} s  {step.detail}".rstrip())

    versions = _versions()
    if not as_json:
        click.echo("  ".join(f"{key} {value}" for key, value in versions.items()))

    async def examined() -> dict[str, Any]:
        started = time.monotonic()
        async with open_kernel(name) as kernel:
            note(
                Step(
                    "start, until ready",
                    "ok",
                    time.monotonic() - started,
                    f"{kernel.info.implementation} {kernel.info.implementation_version}",
                )
            )
            await _examine_running(kernel, note)
            leaving = time.monotonic()
        note(Step("leaving", "ok" if time.monotonic() - leaving < 3 else "trouble", time.monotonic() - leaving))
        return dict(kernel.info.content)

    info: dict[str, Any] = {}
    try:
        info = await examined()
    except KernelSpecError:
        raise
    except AnyKernelError as exc:
        note(Step("start, until ready", "trouble", 0.0, _first_line(exc)))
    else:
        for title, options in (("over IPC", {"transport": "ipc"}), ("with Curve", {"encryption": "required"})):
            note(await _opens(name, title, options))
        note(await _notices_death(name))
    if as_json:
        print_json({"kernel": name, "versions": versions, "info": info, "steps": [step._asdict() for step in steps]})
    return FAILED if any(step.verdict == "trouble" for step in steps) else DONE


def _versions() -> dict[str, str]:
    found = {"anykernel": __version__, "python": platform.python_version(), "system": platform.platform(terse=True)}
    for library in ("anyio", "pyzmq", "msgspec", "jupyter_client", "ipykernel", "trio", "uvloop"):
        try:
            found[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _first_line(exc: BaseException) -> str:
    return f"{type(exc).__name__}: {str(exc).splitlines()[0] if str(exc) else ''}"


async def _try(name: str, function: Callable[[], Awaitable[str]], advice: str = "") -> Step:
    started = time.monotonic()
    verdict, detail = "trouble", f"took longer than {STEP_TIMEOUT:g} s; {advice}".rstrip("; ")
    with anyio.move_on_after(STEP_TIMEOUT):
        try:
            verdict, detail = "ok", await function()
        except UnsupportedError as exc:
            verdict, detail = "no", str(exc)
        except AnyKernelError as exc:
            detail = "; ".join(filter(None, (_first_line(exc), advice)))
    return Step(name, verdict, time.monotonic() - started, detail)


async def _examine_running(kernel: Kernel, note: Callable[[Step], None]) -> None:
    printing, sleeping, asking = CODE.get(kernel.info.language, (None, None, None))

    async def order() -> str:
        assert printing is not None
        result = await kernel.execute(printing)
        if result.stdout.split() != [str(n) for n in range(100)]:
            raise UnsupportedError(f"its output is not what was printed: {result.stdout[:60]!r}")
        return "100 lines in order" + ("" if result.complete else "; it does not say when it is done")

    async def stop() -> str:
        assert sleeping is not None
        try:
            await kernel.execute(sleeping, timeout=0.5)
        except ExecutionTimeoutError as exc:
            if not exc.settled:
                raise UnsupportedError("running code does not stop when interrupted; only restart() ends it") from exc
            return "running code stops"
        return "it ended by itself"

    async def idle() -> str:
        await kernel.interrupt()
        await kernel.execute(printing or "")
        return "an idle kernel goes on"

    async def stdin() -> str:
        assert asking is not None
        result = await kernel.execute(asking, stdin=lambda prompt, password: "answer")  # noqa: ARG005
        if "answer" not in result.text:
            raise UnsupportedError("what was answered did not arrive")
        return "asks and gets its answer"

    async def subshell() -> str:
        async with kernel.subshell() as shell:
            await shell.kernel_info()
        return "opened and deleted"

    async def complete() -> str:
        return f"{len((await kernel.complete('p')).matches)} matches"

    async def usage() -> str:
        return f"{(await kernel.usage()).kernel_memory / 2**20:.0f} MiB"

    advice = "restart() helps; report this with the versions above"
    for name, function, wanted in (
        ("execute, output in order", order, printing),
        ("interrupt while running", stop, sleeping),
        ("interrupt while idle", idle, True),
        ("input", stdin, asking),
        ("completion", complete, True),
        ("subshells", subshell, True),
        ("usage", usage, True),
    ):
        if not kernel.is_alive:
            note(Step(name, "trouble", 0.0, "the kernel is gone: the step before has ended it"))
        elif wanted is None:
            note(Step(name, "no", 0.0, f"not tried: no code for {kernel.info.language or 'this language'} is known"))
        else:
            note(await _try(name, function, advice))


async def _opens(name: str, title: str, options: dict[str, Any]) -> Step:
    async def opens() -> str:
        async with open_kernel(name, startup_timeout=STEP_TIMEOUT / 2, **options) as kernel:
            await kernel.kernel_info()
        return "works"

    return await _try(
        title, opens, f"do not use {', '.join(f'{k}={v!r}' for k, v in options.items())} with this kernel"
    )


async def _notices_death(name: str) -> Step:
    async def dies() -> str:
        async with open_kernel(name) as kernel:
            if kernel.pid is None or sys.platform == "win32":
                raise UnsupportedError("its process is not known here")
            execution = await kernel.submit("0")
            os.kill(kernel.pid, signal.SIGKILL)
            killed = time.monotonic()
            try:
                await execution.wait()
                while True:
                    await kernel.kernel_info()
            except KernelDiedError:
                return f"{(time.monotonic() - killed) * 1000:.0f} ms after SIGKILL"

    return await _try("its death is noticed", dies)
