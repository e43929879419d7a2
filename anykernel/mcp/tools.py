"""The tools, as language models see them: their docstrings are what these read."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
from mcp.server.mcpserver import Context, MCPServer
from mcp.types import CallToolResult, TextContent

from .. import (
    AnyKernelError,
    CellError,
    ExecutionTimeoutError,
    KernelDiedError,
    __version__,
)
from .. import (
    run_notebook as run_a_notebook,
)
from .kernels import Keeping, Kept, Ran
from .showing import BUDGET, failed, shown, text_of

__all__ = ["make_server"]

INSTRUCTIONS = """Runs code in Jupyter kernels that keep their state (variables, imports) from call to call.
Begin with run_code; a kernel is started by the first call. Long code: background=true, then wait_for_code."""

_VARIABLES = """__import__('json').dumps({name: (type(value).__name__, repr(value)[:80]) for name, value in
    list(globals().items()) if not name.startswith('_') and name not in ('In', 'Out', 'get_ipython', 'exit', 'quit', 'open')
    and type(value).__name__ != 'module'})"""


def make_server(spec: str, *, max_kernels: int, idle_timeout: float | None) -> MCPServer[Keeping]:
    """A server whose kernels end with it."""

    @asynccontextmanager
    async def lifespan(_: MCPServer[Keeping]) -> AsyncIterator[Keeping]:
        async with anyio.create_task_group() as tasks:
            keeping = Keeping(tasks, spec, max_kernels=max_kernels, idle_timeout=idle_timeout)
            try:
                yield keeping
            finally:
                for kept in keeping.kept.values():
                    kept.leave.set()

    server: MCPServer[Keeping] = MCPServer(
        "anykernel", version=__version__, instructions=INSTRUCTIONS, lifespan=lifespan, log_level="WARNING"
    )

    def keeping_of(context: Context) -> Keeping:
        found: Any = context.request_context.lifespan_context
        assert isinstance(found, Keeping)
        return found

    @server.tool(structured_output=False)
    async def run_code(
        code: str,
        context: Context,
        kernel: str = "main",
        timeout: float | None = None,
        background: bool = False,  # noqa: FBT002 - arguments of tools are named
    ) -> CallToolResult:
        """Run code in a kernel, which keeps its state; gives what it puts out, images included.

        kernel: a kernel's name; "main" and new names are started by the first use. timeout: seconds, then the code is stopped.
        background: return at once with an id for wait_for_code and read_output.
        """
        keeping = keeping_of(context)
        try:
            kept = await keeping.get(kernel)
            assert kept.kernel is not None
            execution = await kept.kernel.submit(code, timeout=timeout)
        except AnyKernelError as exc:
            return failed(str(exc))
        ran = keeping.note(kernel, execution)
        if background:
            lost = _lost(kept)
            text = f"{ran.name} runs in kernel {kernel!r}; wait_for_code(id={ran.name!r}) waits for it"
            return CallToolResult(content=[TextContent(type="text", text=f"{lost}{text}")], is_error=False)
        try:
            return await _outcome(kept, ran, context)
        except anyio.get_cancelled_exc_class():
            # The client has cancelled the call: exactly this code is stopped.
            with anyio.CancelScope(shield=True):
                await execution.cancel()
            raise

    @server.tool(structured_output=False)
    async def wait_for_code(id: str, context: Context, timeout: float = 60.0) -> CallToolResult:  # noqa: A002
        """Wait for code that runs in the background, for at most so many seconds; it goes on if it needs longer."""
        keeping = keeping_of(context)
        ran = keeping.ran.get(id)
        if ran is None:
            return failed(f"nothing is known of {id!r}; known are: {', '.join(keeping.ran) or 'none'}")
        with anyio.move_on_after(timeout):
            return await _outcome(keeping.kept.get(ran.kernel), ran, context)
        return shown(ran.execution.result, name=id, note=f"[{id} still runs; this is its output so far]", error=False)

    @server.tool(structured_output=False)
    async def stop_code(id: str, context: Context) -> CallToolResult:  # noqa: A002
        """Stop code that runs in the background, and nothing else."""
        ran = keeping_of(context).ran.get(id)
        if ran is None:
            return failed(f"nothing is known of {id!r}")
        stopped = await ran.execution.cancel()
        note = f"[{id} was stopped]" if stopped else f"[{id} ignores interrupts and runs on; restart_kernel ends it]"
        return shown(ran.execution.result, name=id, note=note, error=not stopped)

    @server.tool(structured_output=False)
    async def read_output(id: str, context: Context, offset: int = 0, length: int = BUDGET) -> CallToolResult:  # noqa: A002
        """Read the output of code again, or what was left out of it: so many characters from an offset."""
        ran = keeping_of(context).ran.get(id)
        if ran is None:
            return failed(f"nothing is known of {id!r}")
        text = text_of(ran.execution.result)
        length = max(1, min(length, BUDGET))
        part = text[max(0, offset) : max(0, offset) + length]
        left = len(text) - max(0, offset) - len(part)
        more = f"\n[{left} characters follow; offset={max(0, offset) + len(part)} reads on]" if left > 0 else ""
        return CallToolResult(content=[TextContent(type="text", text=f"{part}{more}" or "(no output)")], is_error=False)

    @server.tool(structured_output=False)
    async def list_kernels(context: Context) -> CallToolResult:
        """List the kernels that run, and what they are doing."""
        lines = [
            f"{kept.name}: {kept.spec}, {kept.kernel.execution_state if kept.kernel is not None else 'not started'}, "
            f"{kept.kernel.pending if kept.kernel is not None else 0} pending"
            for kept in keeping_of(context).kept.values()
        ]
        return CallToolResult(
            content=[TextContent(type="text", text="\n".join(lines) or "no kernel runs")], is_error=False
        )

    async def manage(context: Context, what: str, kernel: str, spec: str | None = None) -> CallToolResult:
        keeping = keeping_of(context)
        try:
            if what == "started":
                await keeping.start(kernel, spec)
            elif what == "stopped":
                await keeping.stop(kernel)
            else:
                kept = keeping.find(kernel)
                if kept.kernel is None:
                    return failed(f"kernel {kernel!r} has not been started")
                await (kept.kernel.restart() if what == "restarted" else kept.kernel.interrupt())
        except AnyKernelError as exc:
            return failed(str(exc))
        lost = "; its state is lost" if what in ("restarted", "stopped") else ""
        return CallToolResult(
            content=[TextContent(type="text", text=f"kernel {kernel!r} was {what}{lost}")], is_error=False
        )

    @server.tool(structured_output=False)
    async def start_kernel(kernel: str, context: Context, spec: str | None = None) -> CallToolResult:
        """Start another kernel under a name; spec is a kernelspec's name, such as "python3" or "ir"."""
        return await manage(context, "started", kernel, spec)

    @server.tool(structured_output=False)
    async def interrupt_kernel(context: Context, kernel: str = "main") -> CallToolResult:
        """Interrupt what a kernel runs."""
        return await manage(context, "interrupted", kernel)

    @server.tool(structured_output=False)
    async def restart_kernel(context: Context, kernel: str = "main") -> CallToolResult:
        """Start a kernel anew; its state is lost."""
        return await manage(context, "restarted", kernel)

    @server.tool(structured_output=False)
    async def stop_kernel(context: Context, kernel: str = "main") -> CallToolResult:
        """End a kernel; its state is lost."""
        return await manage(context, "stopped", kernel)

    async def beside(context: Context, kernel: str, ask: Any) -> CallToolResult:
        """Ask a kernel something, in a subshell where it has some, so that it works while code runs."""
        try:
            kept = await keeping_of(context).get(kernel)
            assert kept.kernel is not None
            if kept.kernel.supports_subshells:
                async with kept.kernel.subshell() as shell:
                    text = await ask(shell)
            else:
                text = await ask(kept.kernel)
        except AnyKernelError as exc:
            return failed(str(exc))
        return CallToolResult(content=[TextContent(type="text", text=_lost(kept) + text)], is_error=False)

    @server.tool(structured_output=False)
    async def list_variables(context: Context, kernel: str = "main") -> CallToolResult:
        """List the variables of a Python kernel: name, type and the beginning of the value; also while code runs."""

        async def ask(shell: Any) -> str:
            import json  # noqa: PLC0415

            found = json.loads(await shell.evaluate(_VARIABLES))
            return "\n".join(f"{name}: {kind} = {value}" for name, (kind, value) in found.items()) or "no variables"

        return await beside(context, kernel, ask)

    @server.tool(structured_output=False)
    async def inspect_name(name: str, context: Context, kernel: str = "main") -> CallToolResult:
        """Documentation, signature and type of a name in a kernel; also while code runs."""

        async def ask(shell: Any) -> str:
            reply = await shell.inspect(name)
            return str(reply.data.get("text/plain", "")) if reply.found else f"nothing is known of {name!r}"

        return await beside(context, kernel, ask)

    @server.tool(structured_output=False)
    async def complete_code(code: str, context: Context, kernel: str = "main") -> CallToolResult:
        """Completions at the end of a piece of code."""

        async def ask(shell: Any) -> str:
            return "\n".join((await shell.complete(code)).matches[:200]) or "no completions"

        return await beside(context, kernel, ask)

    @server.tool(structured_output=False)
    async def run_notebook(
        path: str, context: Context, output: str | None = None, parameters: dict[str, Any] | None = None
    ) -> CallToolResult:
        """Run a notebook file in a kernel of its own; output: where the executed copy is written."""

        async def on_cell(event: Any) -> None:
            if event.kind == "started":
                await context.report_progress(event.index)

        try:
            report = await run_a_notebook(path, output=output, parameters=parameters, on_cell=on_cell)
        except CellError as exc:
            return failed(f"{exc}\n\nthe cell:\n{exc.source}")
        except AnyKernelError as exc:
            return failed(str(exc))
        texts = [f"cell {cell.index}:\n{text_of(cell.result)}" for cell in report.cells if cell.result is not None]
        text = "\n".join(texts)
        text = text if len(text) <= BUDGET else f"{text[: BUDGET // 2]}\n[... left out ...]\n{text[-BUDGET // 2 :]}"
        return CallToolResult(content=[TextContent(type="text", text=text or "(no output)")], is_error=not report.ok)

    return server


def _lost(kept: Kept | None) -> str:
    if kept is None or not kept.lost:
        return ""
    lost, kept.lost = kept.lost, ""
    return f"[kernel {kept.name!r} is a fresh one, and the state of the one before is lost: {lost}]\n"


async def _outcome(kept: Kept | None, ran: Ran, context: Context) -> CallToolResult:
    """Wait for code, telling that it goes on, and show what came of it."""
    execution = ran.execution
    done = anyio.Event()
    note = _lost(kept).strip()

    async def tell() -> None:
        seconds = 0
        while not done.is_set():
            with anyio.move_on_after(1):
                await done.wait()
                return
            seconds += 1
            await context.report_progress(seconds, message=execution.result.text[-200:])

    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(tell)
            with suppress(AnyKernelError):  # told below, by asking again: here it would come out in a group
                await execution.wait()
            done.set()
        await execution.wait()
    except KernelDiedError as exc:
        if kept is not None:
            kept.lost = str(exc).splitlines()[0]
        note = f"{exc}\n[the state of kernel {ran.kernel!r} is lost; the next call gets a fresh one]"
        return shown(execution.result, name=ran.name, note=note, error=True)
    except ExecutionTimeoutError as exc:
        return shown(execution.result, name=ran.name, note=f"[{exc}]", error=True)
    except AnyKernelError as exc:
        return shown(execution.result, name=ran.name, note=f"[{type(exc).__name__}: {exc}]", error=True)
    return shown(execution.result, name=ran.name, note=note)
