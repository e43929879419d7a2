"""The requests that a shell of the kernel answers, as methods: the main shell's and each subshell's."""

from __future__ import annotations

import ast
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from threading import get_ident
from typing import TYPE_CHECKING, Any, Literal

import anyio
import anyio.lowlevel

from ._displays import Displays
from ._exceptions import AnyKernelError, ArgumentError, ExecutionTimeoutError, UnsupportedError
from ._execution import Execution
from ._handlers import OnOutput, StdinHandler
from ._messages import Message, as_buffers, as_dict, error_of
from ._outputs import OutputFold
from ._requests import Requests, check_code
from ._result import Result
from ._router import Fence
from ._tasks import StartSoon
from ._variables import call, pull, push, set_env

if TYPE_CHECKING:
    from ._kernel import Connection

__all__ = ["Shell"]

# Characters of a msg_id: replies quote it, in a header that must not be too large.
MSG_ID_LIMIT = 1024

# Seconds until a fence that is not answered is sent again; each time twice as long.
FENCE_PATIENCE = 2.0


class Shell(Requests):
    """The requests that a shell of the kernel answers; any number of tasks may call them at once."""

    output_limit: int
    """Bytes of output kept for each execution."""
    interrupt_timeout: float
    """Seconds that stopped code gets to settle."""
    _displays: Displays
    # In a task of the kernel's block.
    _start_soon: StartSoon

    # The thread whose event loop it belongs to (`threading.get_ident`).
    _event_loop_thread: int
    # None while the kernel starts or restarts; an ended one stays, to refuse calls with its reason.
    _connection: Connection | None
    # What the headers of requests hold so that they reach this shell.
    _route: Mapping[str, str] = {}

    def _check_thread(self) -> None:
        # Elsewhere, whoever waits would never be woken.
        if get_ident() != self._event_loop_thread:
            raise UnsupportedError(
                "a kernel can be used only in the thread whose event loop opened it; from another thread, "
                "call it by `anyio.from_thread.run` or a portal"
            )

    async def _connected(self) -> Connection:
        raise NotImplementedError

    async def interrupt(self) -> None:
        raise NotImplementedError

    async def _interrupt(self, connection: Connection, deliver: Callable[[], Awaitable[object]]) -> None:
        """Interrupt what the shell runs, and wait until the kernel has been told."""
        router, dispatcher = connection.router, connection.dispatcher
        if router.ending is not None:
            raise router.ending(None)
        router.count_interrupt(self._route)
        done, over, errors = anyio.Event(), anyio.Event(), list[AnyKernelError]()

        def passed() -> None:
            over.set()
            router.count_interrupt(self._route)  # it may also have hit what was sent while it was under way
            dispatcher.release()

        async def run() -> None:
            # A task of its own: whoever gives up waiting, the interrupt is under way, and what comes next waits
            # until the kernel is past a request sent behind it; or, late, it would hit that. The request also
            # wakes an ipykernel whose code awaits: with some versions of tornado, its signal handler does not.
            fence = Fence(passed)
            try:
                await deliver()
            except AnyKernelError as exc:
                errors.append(exc)
            finally:
                fence.send(router, **self._route)
                done.set()
            patience = FENCE_PATIENCE
            while True:
                with anyio.move_on_after(patience):
                    await over.wait()
                if over.is_set():
                    break
                # Perhaps the interrupt hit it so that it left no trace. (Where the kernel is only busy, another does
                # no harm.)
                fence.send(router, **self._route)
                patience *= 2

        dispatcher.hold()
        self._start_soon(run)
        await done.wait()
        if errors:
            raise errors[0]

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
        execution._start_driving()
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
        *,
        kind: Callable[..., Execution] = Execution,
        buffers: Iterable[bytes | memoryview] = (),
    ) -> Execution:
        check_code(code)
        if timeout is not None and not _is_duration(timeout):
            raise ArgumentError(f"timeout must be None or seconds (a number >= 0), not {timeout!r}")
        for name, function in (("stdin", stdin), ("on_output", on_output)):
            if function is not None and not callable(function):
                raise ArgumentError(f"{name} must be a function, not {function!r}")
        self._check_thread()
        # A caller that is cancelled already sends nothing.
        await anyio.lowlevel.checkpoint_if_cancelled()
        if timeout == math.inf:
            timeout = None
        connection = self._connection
        if connection is None:
            asked = time.monotonic()
            with anyio.move_on_after(timeout):
                connection = await self._connected()
            if connection is None:
                raise ExecutionTimeoutError(
                    f"the kernel was not ready again within {timeout} s; the code never runs",
                    result=Result("", OutputFold(0)),
                    settled=True,
                )
            if timeout is not None:
                timeout = max(0, timeout - (time.monotonic() - asked))
        content = {
            "code": code,
            "silent": silent,
            "store_history": store_history and not silent,
            "user_expressions": as_dict("user_expressions", user_expressions),
            "stop_on_error": stop_on_error,
        }
        header = connection.router.new_header("execute_request", **self._route)
        execution = kind(
            self,
            connection.dispatcher,
            Message("shell", header, content=content, buffers=tuple(buffers)),
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
        if channel not in ("shell", "control"):
            raise ArgumentError(f"requests go on 'shell' or 'control', not {channel!r}")
        if not (isinstance(msg_type, str) and isinstance(content, dict)):
            raise ArgumentError("a request needs a str for its type and a dict for its content")
        header = dict(self._route) if channel == "shell" else {}
        if msg_id is not None:
            if not (isinstance(msg_id, str) and 0 < len(msg_id) <= MSG_ID_LIMIT and msg_id.isprintable()):
                text = f"a msg_id must be a str of 1 to {MSG_ID_LIMIT} printable characters, not {msg_id!r:.200}"
                raise ArgumentError(text)
            header["msg_id"] = msg_id
        parent_header, metadata = as_dict("parent", parent), as_dict("metadata", metadata)
        if not isinstance(parent_header.get("msg_id", ""), str):
            raise ArgumentError(f"the msg_id in a parent header must be a str, not {parent_header['msg_id']!r:.200}")
        all_buffers = as_buffers(buffers)
        connection = await self._connected()
        return await connection.router.request(
            msg_type,
            content,
            channel=channel,
            parent=parent_header,
            metadata=metadata,
            buffers=all_buffers,
            **header,
        )

    async def evaluate(self, expression: str) -> Any:
        """Evaluate an expression, without leaving a trace in history or count.

        Returns its value where that is a Python literal (numbers, text, bytes, None, and lists, tuples, sets and
        dicts of them); otherwise its repr, a str. Kernels of other languages give their text for it.

        Raises:
            ExecutionError: the expression raised.
            UnsupportedError: the kernel evaluates no user expressions.
        """
        if not (isinstance(expression, str) and expression.strip()):
            raise ArgumentError(f"expression must be a str that is not empty, not {expression!r:.200}")
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
        await push(self, variables)

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
        return await pull(self, (name, *names))

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
        return await call(self, function, args, kwargs)

    async def set_env(self, /, **variables: str | None) -> None:
        """Set environment variables of a Python kernel's process (`os.environ`) while it runs; None deletes one.

        A restart brings back the environment that the kernel was opened with.

        Raises:
            ArgumentError: a name or value that an environment cannot hold.
            UnsupportedError: it is no Python kernel.
            KernelDiedError, KernelRestartedError, ConnectionClosedError: the kernel went away.
        """
        await set_env(self, variables)


def _is_duration(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value) and value >= 0
