"""What callers hold: `Kernel`, with every request of the protocol as a method.

A `Kernel` outlives its processes: `anykernel._open` gives it one connection after another, and calls made
between two of them wait for the next. Nothing here does I/O itself or owns a task.
"""

from __future__ import annotations

import ast
import math
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Literal

import anyio
import anyio.lowlevel

from ._connection import ConnectionInfo
from ._dispatcher import Dispatcher
from ._exceptions import ArgumentError, UnsupportedError
from ._execution import Execution, OnOutput, StdinHandler
from ._messages import (
    CommInfoReply,
    CompleteReply,
    HistoryReply,
    InspectReply,
    IsCompleteReply,
    KernelInfo,
    Message,
    error_of,
    read_reply,
)
from ._outputs import Displays
from ._queue import ByteBoundedStream
from ._result import Result
from ._router import Ending, Router

__all__ = ["Connection", "Kernel", "Lifecycle", "Shell"]


class Lifecycle:
    """What a kernel can ask of the one who owns its process; `anykernel._open` implements it."""

    pid: int | None = None
    returncode: int | None = None

    async def interrupt(self, connection: Connection) -> None:
        """Interrupt what the kernel runs, by signal or by message."""
        raise NotImplementedError

    async def restart(self) -> None:
        raise NotImplementedError

    async def shutdown(self) -> None:
        raise NotImplementedError


class Connection:
    """One connection to one kernel process, ready for use."""

    def __init__(self, router: Router, info: ConnectionInfo, kernel_info: KernelInfo, max_in_flight: int) -> None:
        self.router = router
        self.info = info
        self.kernel_info = kernel_info
        self.dispatcher = Dispatcher(router, max_in_flight)


class Shell:
    """The requests that a shell of the kernel answers; any number of tasks may call them at once."""

    _kernel: Kernel

    async def _connected(self) -> Connection:
        return await self._kernel._wait_connection()

    async def execute(
        self,
        code: str,
        *,
        timeout: float | None = None,
        silent: bool = False,
        store_history: bool = True,
        user_expressions: Mapping[str, str] | None = None,
        stop_on_error: bool = False,
        stdin: StdinHandler | None = None,
        check: bool = False,
        on_output: OnOutput | None = None,
    ) -> Result:
        """Run code and wait until it has settled: its reply and all its output are here.

        Executions of one shell run one after another, in the order of the calls. A caller that is cancelled
        takes its code with it: queued code never runs, running code is interrupted, and the cancellation goes on
        when the code has settled, after at most the kernel's ``interrupt_timeout``.

        Args:
            code: in the kernel's language.
            timeout: seconds from this call, time in the queue included; then the code is stopped as above.
            silent: leave out the execution count, the history and the last expression's value.
            store_history: let the kernel put it into its history.
            user_expressions: name to expression, evaluated after the code; see `Result.user_expressions`.
            stop_on_error: if the code raises, let the kernel abort whatever executions it has in its queue, those
                of other clients included.
            stdin: answers `input()`; called in this task. Without it, `input()` raises in the kernel.
            check: raise if the code raised, instead of returning a `Result` that says so.
            on_output: called in this task with each output as it comes.

        Raises:
            ArgumentError: the code is no string, or another argument is unusable.
            ExecutionError, ExecutionAbortedError: with ``check``.
            ExecutionTimeoutError: after ``timeout``.
            StdinError: the kernel asked and got no usable answer.
            KernelDiedError, KernelRestartedError, ConnectionClosedError: the kernel went away.
            ProtocolError: the kernel did not answer.
        """
        execution = await self._submit(
            code, timeout, silent, store_history, user_expressions, stop_on_error, stdin, check, on_output
        )
        await execution._drive()
        return execution._outcome()

    async def submit(
        self,
        code: str,
        *,
        timeout: float | None = None,
        silent: bool = False,
        store_history: bool = True,
        user_expressions: Mapping[str, str] | None = None,
        stop_on_error: bool = False,
        stdin: StdinHandler | None = None,
        check: bool = False,
        on_output: OnOutput | None = None,
    ) -> Execution:
        """Queue code and return at once; it runs whatever becomes of the caller.

        Takes what `execute` takes; ``stdin`` and ``on_output`` are called in a task of the kernel's. What they
        raise stops the execution and is raised by `Execution.wait`.

        Raises:
            ArgumentError: the code is no string, or another argument is unusable.
            KernelDiedError, ConnectionClosedError: there is no kernel to run it.
        """
        execution = await self._submit(
            code, timeout, silent, store_history, user_expressions, stop_on_error, stdin, check, on_output
        )
        if execution._needs_driver:
            self._kernel.start_soon(execution._drive_alone)
        return execution

    @asynccontextmanager
    async def stream(
        self,
        code: str,
        *,
        timeout: float | None = None,
        silent: bool = False,
        store_history: bool = True,
        user_expressions: Mapping[str, str] | None = None,
        stop_on_error: bool = False,
        stdin: StdinHandler | None = None,
        check: bool = False,
        on_output: OnOutput | None = None,
    ) -> AsyncIterator[Execution]:
        """Run code for the length of a block: ``async with kernel.stream(code) as execution``.

        Takes and raises what `submit` does. Leaving the block before the code has settled cancels it, as
        `Execution.cancel` does.
        """
        execution = await self.submit(
            code,
            timeout=timeout,
            silent=silent,
            store_history=store_history,
            user_expressions=user_expressions,
            stop_on_error=stop_on_error,
            stdin=stdin,
            check=check,
            on_output=on_output,
        )
        try:
            yield execution
        finally:
            if execution.state != "settled":
                await execution.cancel()

    async def _submit(
        self,
        code: str,
        timeout: float | None,
        silent: bool,
        store_history: bool,
        user_expressions: Mapping[str, str] | None,
        stop_on_error: bool,
        stdin: StdinHandler | None,
        check: bool,
        on_output: OnOutput | None,
    ) -> Execution:
        if not isinstance(code, str):
            raise ArgumentError(f"code must be a str, not {type(code).__name__}")
        if timeout is not None and not _is_duration(timeout):
            raise ArgumentError(f"timeout must be None or seconds (a number >= 0), not {timeout!r}")
        for name, function in (("stdin", stdin), ("on_output", on_output)):
            if function is not None and not callable(function):
                raise ArgumentError(f"{name} must be a function, not {function!r}")
        connection = self._kernel._connection or await self._connected()
        content = {
            "code": code,
            "silent": silent,
            "store_history": store_history and not silent,
            "user_expressions": dict(user_expressions or {}),
            "allow_stdin": stdin is not None,
            "stop_on_error": stop_on_error,
        }
        header = connection.router.new_header("execute_request")
        execution = Execution(
            self._kernel,
            connection.dispatcher,
            Message("shell", header, content=content),
            timeout=timeout,
            stdin=stdin,
            check=check,
            on_output=on_output,
        )
        connection.dispatcher.submit(execution)
        return execution

    async def request(
        self,
        msg_type: str,
        content: dict[str, Any],
        *,
        channel: Literal["shell", "control"] = "shell",
        metadata: dict[str, Any] | None = None,
        buffers: Iterable[bytes | memoryview] | None = None,
    ) -> Message:
        """Send any request and wait for its reply; its outputs are in `Kernel.messages`.

        Raises:
            ArgumentError: the content has no JSON form, or there is no such channel for requests.
            ProtocolError: the kernel finished it without a reply, as kernels do with requests they do not know.
            KernelDiedError, KernelRestartedError, ConnectionClosedError: the kernel went away.
        """
        if channel not in ("shell", "control"):
            raise ArgumentError(f"requests go on 'shell' or 'control', not {channel!r}")
        if not (isinstance(msg_type, str) and isinstance(content, dict)):
            raise ArgumentError("a request needs a str for its type and a dict for its content")
        connection = await self._connected()
        return await connection.router.request(
            msg_type, content, channel=channel, metadata=metadata, buffers=buffers or ()
        )

    async def complete(self, code: str, cursor_pos: int | None = None) -> CompleteReply:
        """Ask for completions at a position in the code (in code points; None means its end)."""
        content = {"code": code, "cursor_pos": len(code) if cursor_pos is None else cursor_pos}
        return read_reply((await self.request("complete_request", content)).content, CompleteReply)

    async def inspect(self, code: str, cursor_pos: int | None = None, *, detail_level: int = 0) -> InspectReply:
        """Ask about the object at a position in the code (in code points; None means its end).

        ``detail_level`` 1 asks for more, such as the source.
        """
        position = len(code) if cursor_pos is None else cursor_pos
        content = {"code": code, "cursor_pos": position, "detail_level": detail_level}
        return read_reply((await self.request("inspect_request", content)).content, InspectReply)

    async def is_complete(self, code: str) -> IsCompleteReply:
        """Ask whether the code is ready to be run, or wants another line."""
        return read_reply((await self.request("is_complete_request", {"code": code})).content, IsCompleteReply)

    async def history(
        self,
        hist_access_type: Literal["tail", "range", "search"] = "tail",
        *,
        output: bool = False,
        raw: bool = True,
        n: int | None = 10,
        session: int = 0,
        start: int = 1,
        stop: int | None = None,
        pattern: str = "*",
        unique: bool = False,
    ) -> HistoryReply:
        """Ask for what was run.

        ``"tail"`` takes ``n``; ``"range"`` takes ``session`` (0 is this one, -1 the one before), ``start`` and
        ``stop`` (line numbers, ``stop`` not included); ``"search"`` takes ``pattern`` (with ``*`` and ``?``),
        ``n`` and ``unique``.
        """
        content: dict[str, Any] = {"hist_access_type": hist_access_type, "output": output, "raw": raw}
        if hist_access_type == "range":
            content |= {"session": session, "start": start, "stop": stop}
        else:
            content["n"] = n
        if hist_access_type == "search":
            content |= {"pattern": pattern, "unique": unique}
        return read_reply((await self.request("history_request", content)).content, HistoryReply)

    async def comm_info(self, target_name: str | None = None) -> CommInfoReply:
        """Ask which comms are open, for one target or for all."""
        content = {} if target_name is None else {"target_name": target_name}
        return read_reply((await self.request("comm_info_request", content)).content, CommInfoReply)

    async def kernel_info(self) -> KernelInfo:
        """Ask the kernel what it is; `Kernel.info` has the answer it gave at the start."""
        return read_reply((await self.request("kernel_info_request", {})).content, KernelInfo)

    async def evaluate(self, expression: str) -> Any:
        """Evaluate an expression, without leaving a trace in history or count.

        Returns its value where that is a Python literal (numbers, text, bytes, None, and lists, tuples, sets and
        dicts of them); otherwise its repr, a str. Kernels of other languages give their text for it.

        Raises:
            ExecutionError: the expression raised.
            UnsupportedError: the kernel evaluates no user expressions.
        """
        if not isinstance(expression, str):
            raise ArgumentError(f"expression must be a str, not {type(expression).__name__}")
        is_python = (await self._connected()).kernel_info.language == "python"
        # repr, because IPython's own text for a value leaves out the rest of long lists.
        asked = f"__import__('builtins').repr((\n{expression}\n))" if is_python else expression
        result = await self.execute("", silent=True, store_history=False, user_expressions={"value": asked}, check=True)
        value = result.user_expressions.get("value")
        if not isinstance(value, dict):
            raise UnsupportedError("this kernel evaluates no user expressions")
        if value.get("status") == "error":
            raise error_of(value, result)
        text = str((value.get("data") or {}).get("text/plain", ""))
        if not is_python:
            return text
        try:
            text = ast.literal_eval(text)
            return ast.literal_eval(text)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            return text


class Kernel(Shell):
    """A kernel; made by `open_kernel` and `connect_kernel`, usable by any number of tasks until their block ends."""

    def __init__(
        self,
        lifecycle: Lifecycle,
        start_soon: Callable[[Callable[[], Coroutine[Any, Any, object]]], None],
        *,
        output_limit: int,
        interrupt_timeout: float,
    ) -> None:
        self._kernel = self
        self._lifecycle = lifecycle
        self.start_soon = start_soon
        self.output_limit = output_limit
        """Bytes of output kept for each execution."""
        self.interrupt_timeout = interrupt_timeout
        """Seconds that stopped code gets to settle."""
        self.displays = Displays()
        # None while the kernel starts or restarts; an ended one stays, to refuse calls with its reason.
        self._connection: Connection | None = None
        self._attached = anyio.Event()
        self._last: Connection | None = None
        self._subscribers: list[tuple[frozenset[str], ByteBoundedStream[Message]]] = []

    # For the owner of the process.

    def _attach(self, connection: Connection) -> None:
        """Go on with a new connection."""
        self._connection = self._last = connection
        self._attached.set()

    def _detach(self) -> None:
        """Let calls wait for the next connection."""
        self._connection = None
        self._attached = anyio.Event()

    def _close(self, ending: Ending) -> None:
        """No connection will follow: refuse all calls."""
        assert self._last is not None
        self._last.router.end(ending)
        self._attach(self._last)
        for _, stream in self._subscribers:
            stream.end()

    def _fail(self, ending: Ending) -> None:
        """No connection followed the last one: refuse calls, until another is attached."""
        assert self._last is not None
        self._last.router.ending = ending
        self._attach(self._last)

    async def _wait_connection(self) -> Connection:
        while self._connection is None:
            await self._attached.wait()
        return self._connection

    def _on_iopub(self, message: Message) -> None:
        if message.msg_type == "update_display_data":
            self.displays.update(message.content, message.size)
        for types, stream in self._subscribers:
            if not types or message.msg_type in types:
                stream.send_nowait(message, message.size)

    # For callers.

    @asynccontextmanager
    async def messages(self, *types: str) -> AsyncIterator[ByteBoundedStream[Message]]:
        """Receive every IOPub message from now on: ``async with kernel.messages() as stream``.

        Whoever caused them: this client, another one, a thread that prints after its cell has ended. With
        ``types`` (such as ``"stream"``), only those. The stream goes on over restarts, and ends with the kernel's
        block. It keeps up to ``output_limit`` bytes for a slow consumer, then drops the oldest (see ``dropped``).
        """
        await anyio.lowlevel.checkpoint()
        stream: ByteBoundedStream[Message] = ByteBoundedStream(self.output_limit)
        if self._connection is not None and self._connection.router.ending is not None:
            raise self._connection.router.ending(None)
        entry = (frozenset(types), stream)
        # Replaced, not changed: the reader may be iterating over it.
        self._subscribers = [*self._subscribers, entry]
        try:
            yield stream
        finally:
            self._subscribers = [other for other in self._subscribers if other is not entry]
            stream.close()

    async def interrupt(self) -> None:
        """Interrupt what the main shell runs, whoever started it; nothing happens when it runs nothing.

        Waits until the kernel has been told. Its process is sent SIGINT, or the kernel an ``interrupt_request``,
        as its kernelspec says; kernels that were connected to get the request.

        Raises:
            ProtocolError: the kernel knows no interrupt request.
            KernelDiedError, KernelRestartedError, ConnectionClosedError: the kernel went away.
        """
        connection = await self._connected()
        router = connection.router
        if router.ending is not None:
            raise router.ending(None)
        router.interrupts += 1
        # What comes next waits until the interrupt is known to have been delivered, or it would hit that.
        connection.dispatcher.hold()
        try:
            await self._lifecycle.interrupt(connection)
        finally:
            connection.dispatcher.release()

    async def restart(self) -> None:
        """Start the kernel's process anew, and wait until the new one is ready.

        Everything pending fails with `KernelRestartedError` and is not run again. Callable from any task, also
        after the kernel has died; calls made during a restart join it, and requests wait for its end.

        Raises:
            KernelStartError: the new process did not start; another `restart` may be tried.
            ConnectionClosedError: the block has ended, or the kernel was shut down.
            UnsupportedError: the kernel was connected to, not started.
        """
        await self._lifecycle.restart()

    async def shutdown(self) -> None:
        """End the kernel now, and wait until it is gone; later calls raise `ConnectionClosedError`.

        Leaving the block of `open_kernel` does this by itself. A kernel that was connected to is asked to end
        with this call only.
        """
        await self._lifecycle.shutdown()

    @property
    def info(self) -> KernelInfo:
        """What the kernel said of itself when it was ready."""
        assert self._last is not None
        return self._last.kernel_info

    @property
    def connection(self) -> ConnectionInfo:
        """Where the kernel listens, with its keys: what `connect_kernel` takes."""
        assert self._last is not None
        return self._last.info

    @property
    def is_alive(self) -> bool:
        """Whether calls are answered: the process runs, and the connection to it holds."""
        return self._connection is not None and self._connection.router.ending is None

    @property
    def pid(self) -> int | None:
        """Process id of the kernel; None where it was connected to."""
        return self._lifecycle.pid

    @property
    def returncode(self) -> int | None:
        """Exit status of the kernel's process, negative for a signal; None while it runs, or if it is not ours."""
        return self._lifecycle.returncode

    @property
    def execution_state(self) -> str:
        """``"starting"``, ``"busy"`` or ``"idle"`` as last heard; ``"dead"`` when the connection has ended."""
        if self._connection is None:
            return "starting"
        return "dead" if self._connection.router.ending is not None else self._connection.router.execution_state

    @property
    def supports_subshells(self) -> bool:
        """Whether the kernel says that it has subshells."""
        return "kernel subshells" in self.info.supported_features

    def __repr__(self) -> str:
        return f"<Kernel {self.info.implementation or 'unknown'} {self.execution_state} pid={self.pid}>"


def _is_duration(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value) and value >= 0
