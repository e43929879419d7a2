"""The requests that a shell of the kernel answers, as methods: the main shell's and each subshell's."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any, Literal

from .._protocol import Message, Result
from .blocks import block
from .driving import drive, start_driving
from .evaluation import evaluate
from .execution import Execution
from .executor import Executor
from .handlers import OnOutput, StdinHandler
from .options import ExecuteOptions
from .questions import Questions
from .variables import call, pull, push, set_env

__all__ = ["Shell"]


class Shell(Questions):
    """The requests that a shell of the kernel answers; any number of tasks may call them at once."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    @property
    def output_limit(self) -> int:
        """Bytes of output kept for each execution."""
        return self._executor.link.limits.output_limit

    @output_limit.setter
    def output_limit(self, value: int) -> None:
        self._executor.link.limits.output_limit = value

    @property
    def interrupt_timeout(self) -> float:
        """Seconds that stopped code gets to settle."""
        return self._executor.link.limits.interrupt_timeout

    @interrupt_timeout.setter
    def interrupt_timeout(self, value: float) -> None:
        self._executor.link.limits.interrupt_timeout = value

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
        msg_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Result:
        """Run code and wait until it has settled: its reply and all its output are here.

        Executions of one shell run one after another, in the order of the calls. A caller that is cancelled
        takes its code with it: queued code never runs, running code is interrupted, and the cancellation goes on
        when the code has settled, after at most the kernel's ``interrupt_timeout``.

        Args:
            code: in the kernel's language.
            timeout: seconds from this call, time in the queue behind other code included; then the code is stopped as
                above.
            silent: leave out the execution count, the history and the last expression's value.
            store_history: let the kernel put it into its history.
            user_expressions: name to expression, evaluated after the code; see `Result.user_expressions`.
            stop_on_error: if the code raises, let the kernel abort whatever executions it has in its queue, those
                of other clients included. What waits in the queue here is not in the kernel's, and is run.
            stdin: answers `input()`; called in this task, with the prompt and whether it asks for a password. Without it,
                `input()` raises in the kernel. It must not wait for other code in this shell, which waits for this.
            check: raise if the code raised, instead of returning a `Result` that says so.
            on_output: called in this task with each output as it comes.
            msg_id: an id of your own for the request, unique among those under way; 1 to 1,024 printable characters.
            metadata: the request's metadata, such as ``{"cellId": "..."}``, for kernels and extensions that look at it.

        Raises:
            ArgumentError: the code is no string, or another argument is unusable.
            ExecutionError, ExecutionAbortedError: with ``check``.
            ExecutionTimeoutError: after ``timeout``.
            StdinError: the kernel asked and got no usable answer.
            KernelDiedError, KernelRestartedError, ConnectionClosedError: the kernel went away.
            ProtocolError: the kernel did not answer.
        """
        options = ExecuteOptions(
            timeout=timeout,
            silent=silent,
            store_history=store_history,
            user_expressions=user_expressions,
            stop_on_error=stop_on_error,
            stdin=stdin,
            check=check,
            on_output=on_output,
            msg_id=msg_id,
            metadata=metadata,
        )
        run = await self._executor.submit(code, options)
        await drive(run)
        return run.outcome()

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
        msg_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Execution:
        """Queue code and return at once; it runs whatever becomes of the caller.

        Takes what `execute` takes; ``stdin`` and ``on_output`` are called in a task of the kernel's. What they
        raise stops the execution and is raised by `Execution.wait`.

        Raises:
            ArgumentError: the code is no string, or another argument is unusable.
            KernelDiedError, ConnectionClosedError: there is no kernel to run it.
        """
        options = ExecuteOptions(
            timeout=timeout,
            silent=silent,
            store_history=store_history,
            user_expressions=user_expressions,
            stop_on_error=stop_on_error,
            stdin=stdin,
            check=check,
            on_output=on_output,
            msg_id=msg_id,
            metadata=metadata,
        )
        return await self._submit(code, options)

    @block
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
        msg_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> AsyncIterator[Execution]:
        """Run code for the length of a block: ``async with kernel.stream(code) as execution``.

        Takes and raises what `submit` does. Leaving the block before the code has settled cancels it, as
        `Execution.cancel` does.
        """
        options = ExecuteOptions(
            timeout=timeout,
            silent=silent,
            store_history=store_history,
            user_expressions=user_expressions,
            stop_on_error=stop_on_error,
            stdin=stdin,
            check=check,
            on_output=on_output,
            msg_id=msg_id,
            metadata=metadata,
        )
        execution = await self._submit(code, options)
        try:
            yield execution
        finally:
            if execution.state != "settled":
                await execution.cancel()

    async def _submit(self, code: str, options: ExecuteOptions) -> Execution:
        run = await self._executor.submit(code, options)
        start_driving(run)
        return Execution(run)

    async def request(
        self,
        msg_type: str,
        content: dict[str, Any],
        *,
        channel: Literal["shell", "control"] = "shell",
        metadata: Mapping[str, Any] | None = None,
        buffers: Iterable[bytes | memoryview] | None = None,
        msg_id: str | None = None,
        parent: Mapping[str, Any] | None = None,
    ) -> Message:
        """Send any request and wait for its reply; its outputs are in `Kernel.messages`.

        Args:
            msg_type: the protocol's name for it, such as ``"kernel_info_request"``.
            content: what the protocol wants for it.
            channel: ``"control"`` for what is to be answered while code runs.
            metadata: the message's, besides the content.
            buffers: binary data, not copied where it is large: do not change it before the reply is here.
            msg_id: an id of your own for it, unique for as long as it is under way; printable.
            parent: the header of the message that causes this one.

        Raises:
            ArgumentError: the content has no JSON form, the ``msg_id`` is taken, or there is no such channel for
                requests.
            ProtocolError: the kernel finished it without a reply, as kernels do with requests they do not know.
            KernelDiedError, KernelRestartedError, ConnectionClosedError: the kernel went away.
        """
        return await self._executor.request(
            msg_type, content, channel=channel, metadata=metadata, buffers=buffers, msg_id=msg_id, parent=parent
        )

    async def evaluate(self, expression: str) -> Any:
        """Evaluate an expression, without leaving a trace in history or count.

        Returns its value where that is a Python literal (numbers, text, bytes, None, and lists, tuples, sets and
        dicts of them); otherwise its repr, a str. Kernels of other languages give their text for it.

        Raises:
            ExecutionError: the expression raised.
            UnsupportedError: the kernel evaluates no user expressions.
        """
        return await evaluate(self._executor, expression)

    async def push(self, /, **variables: Any) -> None:
        """Set variables of a Python kernel: ``await kernel.push(x=1, table=frame)``; all of them, or none.

        Values travel in binary and arrive exactly as they are: None, bool, int, float, complex, str, bytes and
        bytearray, lists, tuples, sets, frozensets and dicts of them, NumPy arrays and scalars (not those of objects,
        which would have to be pickled), and, by Arrow, pandas DataFrames and Series, Arrow tables and record batches.
        The kernel needs the library of what it gets. Do not change them before this returns. Where the same object is
        in two places, two arrive. It is an execution like any other: it waits for its turn, and cancelling it (as
        `anyio.fail_after` does) stops it.

        Raises:
            ArgumentError: a value is of no such type (subclasses are not), or a name is no identifier.
            UnsupportedError: it is no Python kernel.
            ExecutionError: the kernel could not read them; `ModuleNotFoundError` where it lacks a library.
            KernelDiedError, KernelRestartedError, ConnectionClosedError: the kernel went away.
        """
        await push(self._executor, variables)

    async def pull(self, name: str, /, *names: str) -> Any:
        """The value of a variable of a Python kernel; of several, a tuple. Names may be dotted (``"model.weights"``).

        What travels is what `push` takes. Arrays are writable and the caller's own. They are not counted into
        ``output_limit``.

        Raises:
            ExecutionError: there is no such variable; ``ename`` is ``"NameError"``, or for dots ``"AttributeError"``.
            UnsupportedError: the value is of no type that travels, needs a library that is not installed here, or it
                is no Python kernel.
            ArgumentError: that is no name.
            KernelDiedError, KernelRestartedError, ConnectionClosedError: the kernel went away.
        """
        return await pull(self._executor, (name, *names))

    async def call(self, function: str, /, *args: Any, **kwargs: Any) -> Any:
        """Call a function of a Python kernel, named by an expression, and return what it returns.

        Arguments travel as in `push`, the value as in `pull`. What is awaitable (of async functions) is awaited. For a
        timeout, use `anyio.fail_after`: a call that is cancelled is stopped as `execute` does. What the function prints
        is in `Kernel.messages`, and in the ``result`` of an `ExecutionError`.

        Raises:
            ExecutionError: the function raised, or there is none of that name.
            ArgumentError: an argument is of no type that travels.
            UnsupportedError: what it returned is of no type that travels, or it is no Python kernel.
            KernelDiedError, KernelRestartedError, ConnectionClosedError: the kernel went away.
        """
        return await call(self._executor, function, args, kwargs)

    async def set_env(self, /, **variables: str | None) -> None:
        """Set environment variables of a Python kernel's process (`os.environ`) while it runs; None deletes one.

        A restart brings back the environment that the kernel was opened with.

        Raises:
            ArgumentError: a name or value that an environment cannot hold.
            UnsupportedError: it is no Python kernel.
            KernelDiedError, KernelRestartedError, ConnectionClosedError: the kernel went away.
        """
        await set_env(self._executor, variables)
