"""One execution: queued -> sent -> running -> settled.

How this works. A `Dispatcher` (of `anykernel._dispatcher`) keeps executions in a queue on our side, and lets at
most ``max_in_flight`` lie in the kernel: what is still here can be cancelled without a trace, and neither an error
nor an interrupt can abort anybody else's code. Everything up to the settling is plain calls from the router, so
nothing is half done when a task is cancelled. (Stopping is `anykernel._stopping`'s business.) User code
(``on_output``, ``stdin``) runs in the task that waits for the execution.
"""

from __future__ import annotations

import math
import time
import weakref
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any, Literal

import anyio
import anyio.lowlevel

from ._exceptions import AnyKernelError, ProtocolError, StdinError
from ._handlers import Handlers, OnOutput, StdinHandler
from ._messages import Message
from ._outputs import OUTPUT_TYPES, Output, OutputFold, bounded_error, parse_output
from ._queue import ByteBoundedStream
from ._result import Result
from ._router import END_OF_INPUT, Ending, Request
from ._stopping import stop
from ._tasks import Signal, run_apart
from ._watch import Watch

if TYPE_CHECKING:
    from ._dispatcher import Dispatcher
    from ._shell import Shell

__all__ = ["Execution"]

# What an output takes in memory besides its text or data, in bytes, about.
_OUTPUT_OVERHEAD = 256

State = Literal["queued", "sent", "running", "settled"]


class Execution(Request):
    """A running or finished execution; made by `Kernel.submit` and `Kernel.stream`.

    Iterate over it for the outputs as they come: text in the pieces in which the kernel sends it, and a
    `DisplayData` again when this execution updates its own. Any number of tasks may iterate and wait. After the
    last output an iteration raises what `wait` would raise.
    """

    __slots__ = {
        **dict.fromkeys((
            "_changed", "_check", "_code_started", "_dispatcher", "_doomed", "_driven", "_error", "_fold", "_handlers",
            "_idle", "_interrupts", "_message", "_owner", "_prompts", "_released", "_replied", "_settled", "_silent",
            "_started_time", "_stopping", "_streams", "_timeout", "_timeout_scope",
        )),
        "msg_id": "Id of the request, which is the ``parent_header.msg_id`` of all its messages.",
        "result": "The result as far as it has come.",
        "state": '``"queued"`` here, ``"sent"`` to the kernel, ``"running"`` there, or ``"settled"``.',
    }  # fmt: skip

    def __init__(
        self,
        owner: Shell,
        dispatcher: Dispatcher,
        message: Message,
        *,
        timeout: float | None,
        stdin: StdinHandler | None,
        check: bool,
        on_output: OnOutput | None,
    ) -> None:
        self._header = message.header
        self._router = dispatcher.router
        self.msg_id: str = message.msg_id
        self.state: State = "queued"
        self._fold = OutputFold(owner.output_limit)
        self.result = Result(self.msg_id, self._fold)
        self._owner = owner
        self._dispatcher = dispatcher
        self._message: Message | None = message
        self._silent = bool(message.content["silent"])
        self._timeout = timeout
        self._check = check
        self._prompts = stdin is not None  # whether its code may ask for input
        # Makes the error that ends the waiting; each waiter raises one of its own.
        self._error: Callable[[], Exception] | None = None
        # Whether the waiting for it is over; where a task drives it, that is when this task is done with it.
        self._released = self._driven = False
        self._replied = self._idle = self._code_started = False
        # Whether some task is at work to stop it; and whether it is to be stopped when it starts.
        self._stopping = self._doomed = False
        # How many interrupts the kernel had been sent when this was.
        self._interrupts = 0
        self._started_time: float | None = None
        # Made when somebody waits for them: the settling (or an error), any change of state.
        self._settled: Signal | None = None
        self._changed: Signal | None = None
        # Those of the driving task: the timeout, and the user's functions.
        self._timeout_scope: anyio.CancelScope | None = None
        self._handlers: Handlers | None = None
        # Weak, so that an iteration that is given up ends. (To iterate over a WeakSet takes 2 us, for each output.)
        self._streams: tuple[weakref.ref[ByteBoundedStream[Any]], ...] = ()
        if stdin is not None or on_output is not None:
            self._handlers = Handlers(self._router, self.result, stdin, on_output, owner.output_limit)
            if on_output is not None:
                self._add_stream(self._handlers.inbox)

    def __repr__(self) -> str:
        return f"<Execution {self.state} {self.msg_id}>"

    # For callers.

    async def wait(self) -> Result:
        """Wait until the execution has settled. Being cancelled here only ends the waiting.

        Raises:
            KernelDiedError, KernelRestartedError, ConnectionClosedError: the kernel went away first.
            ExecutionTimeoutError: the ``timeout`` it was made with is over.
            ExecutionError, ExecutionAbortedError: with ``check=True``.
        """
        await self._wait_settled()
        return self._outcome()

    async def cancel(self) -> bool:
        """End the execution: it never runs if it has not started, and is interrupted if it has.

        Waits until it has settled, for at most ``interrupt_timeout`` seconds, even if the caller is cancelled.
        Returns whether it has settled; if not, the code ignored the interrupts, and the kernel is still busy
        with it.
        """
        await self._stop_apart()
        return self.state == "settled"

    def __aiter__(self) -> AsyncIterator[Output]:
        stream: ByteBoundedStream[Output] = ByteBoundedStream(self._owner.output_limit)
        for output in self._fold.outputs:
            stream.send_nowait(output, 0)  # kept in any case: the fold is bounded
        if self._released:
            stream.end(self._failure())
        else:
            self._add_stream(stream)
        return stream

    def watch(self) -> AsyncIterator[list[Output]]:
        """The outputs as a list that changes: ``async for outputs in execution.watch()``.

        Gives `Result.outputs` as it is, and again after changes (text that goes on, ``clear_output``, displays that
        anybody updates), until the execution has settled; then it raises what `wait` would. Changes that come
        while the consumer is busy are given as one. Updates of displays that come later are in `Result.outputs`; for
        when they come, see ``kernel.messages("update_display_data")``.
        """
        if not self._released:
            self._fold.on_change = self._notify
        return Watch(self, self._fold)

    async def _wait_settled(self) -> None:
        if self._released:
            await anyio.lowlevel.checkpoint()
            return
        if self._settled is None:
            self._settled = Signal()
        await self._settled.wait()

    @property
    def _over(self) -> bool:
        """Whether it is decided how it ends; with an error, the kernel may still be busy with it."""
        return self.state == "settled" or self._error is not None

    def _outcome(self) -> Result:
        error = self._failure()
        if error is not None:
            raise error
        return self.result

    def _failure(self) -> Exception | None:
        if self._error is not None:
            return self._error()
        return self.result._failure() if self._check else None

    # For the task that drives it: the caller of `execute`, or a task of the kernel for `submit`.

    def _start_driving(self) -> None:
        """Have it driven by a task of the kernel, if there is anything to drive."""
        if self._timeout is not None or self._handlers is not None:
            self._driven = True
            self._owner._start_soon(self._drive_alone)

    async def _drive_alone(self) -> None:
        """Drive it in a task without a caller; who waits gets what the user's functions raise."""
        try:
            await self._drive()
        except Exception as exc:  # noqa: BLE001 - whatever the user's functions raise
            self._error = _same(exc)
        except anyio.get_cancelled_exc_class() as exc:
            if anyio.current_effective_deadline() == -math.inf:
                raise
            # Nobody has cancelled this task: a function of the user's has awaited a future of asyncio that was cancelled.
            self._error = _same(AnyKernelError(f"the function given as on_output or stdin was cancelled: {exc!r}"))
        finally:
            self._release()

    async def _drive(self) -> None:
        """Run the user's functions and the timeout until it is over; stop it if that is cut short."""
        try:
            if self._timeout is None:
                await self._handle()
            else:
                with anyio.move_on_after(self._timeout) as scope:
                    self._timeout_scope = scope
                    await self._handle()
                if not self._over:
                    await self._stop_apart()
                    limits = self._timeout, self._owner.interrupt_timeout, self.state
                    self._fail(lambda: self.result._timeout_error(*limits))
                elif scope.cancelled_caught:
                    await self._handle()  # it settled in the same moment: its last outputs are still here
        except BaseException:
            if not self._over:
                await self._stop_apart()
            raise

    async def _handle(self) -> None:
        if self._handlers is not None:
            await self._handlers.run()
        if self._driven:
            await self._wait_until(lambda: self._over)
        else:
            await self._wait_settled()

    async def _stop_apart(self) -> None:
        if self._dispatcher.discard(self):  # now: it must not be sent any more
            self.result._reply = {"status": "aborted"}
            self._settle()
        if self.state != "settled":
            await run_apart(self._owner._start_soon, self._stop)

    async def _stop(self) -> None:
        await stop(self)

    @property
    def _ended(self) -> bool:
        """Whether the kernel has ended its code, as far as we know: then it must not be interrupted any more."""
        return self._replied or self._idle or self.state == "settled"

    async def _wait_until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            if self._changed is None:
                self._changed = Signal()
            await self._changed.wait()

    # For the dispatcher and the router.

    def _send(self, *, allow_stdin: bool) -> None:
        assert self._message is not None
        message, self._message = self._message, None
        message.content["allow_stdin"] = allow_stdin
        self.state = "sent"
        self._interrupts = self._router.interrupts_of(self._header)
        try:
            self._router.send(self, message)
        except Exception as exc:  # noqa: BLE001 - also what the content's own methods raise
            self._settle(_same(exc))

    def _on_reply(self, message: Message) -> None:
        if self._replied:
            self._router.transport.dropped["repeated"] += 1
            return
        content = message.content
        if content.get("status") == "abort":  # bash_kernel's word for it
            content = {**content, "status": "aborted"}
        if content.get("status") not in ("ok", "error", "aborted"):
            raise ProtocolError("an execute_reply without a status")
        self._replied = True
        result = self.result
        result._reply = bounded_error(content, message.size, self._owner.output_limit)
        result.metadata = message.metadata
        count = message.content.get("execution_count")
        if isinstance(count, int):
            result.execution_count = count
        if self._idle:
            self._complete()
        else:
            self._notify()
            self._router.half_done(self, idle=False)

    def _on_iopub(self, message: Message) -> None:
        handler = _IOPUB.get(message.header["msg_type"])
        if handler is not None:
            handler(self, message)

    def _take_output(self, message: Message) -> None:
        output = parse_output(message.header["msg_type"], message.content)
        self._code_runs()
        if self._handlers is not None:
            self._handlers.on_output()
        self._owner._displays.show(output, message.size, self._fold)
        if self._streams:
            self._stream(output, message.size)

    def _take_update(self, message: Message) -> None:
        # The displays themselves are updated by the kernel, for all executions at once.
        output = parse_output("update_display_data", message.content)
        self._stream(output, message.size)

    def _stream(self, output: Output, size: int) -> None:
        for stream in self._open_streams():
            stream.send_nowait(output, size + _OUTPUT_OVERHEAD)
            if stream.dropped:
                self.result._missed = True

    def _open_streams(self) -> list[ByteBoundedStream[Any]]:
        return [stream for reference in self._streams if (stream := reference()) is not None]

    def _add_stream(self, stream: ByteBoundedStream[Any]) -> None:
        self._streams = tuple(map(weakref.ref, (*self._open_streams(), stream)))

    def _take_clear(self, message: Message) -> None:
        self._fold.clear(wait=bool(message.content.get("wait")))

    def _take_capture(self, message: Message) -> None:
        self._fold.capture(self.msg_id, message.content)

    def _take_input(self, message: Message) -> None:
        count = message.content.get("execution_count")
        if isinstance(count, int):
            self.result.execution_count = count
        self._code_runs()

    def _take_status(self, message: Message) -> None:
        state = message.content.get("execution_state")
        if state == "busy" and self.state == "sent":
            self.state = "running"
            self._started_time = time.perf_counter()
            self._notify()
            if self._silent:
                self._dispatcher.started(self)
            if self._doomed:
                self._owner._start_soon(self._stop)
        elif state == "idle":
            self._idle = True
            self._notify()
            if self._started_time is not None:
                self.result.duration = time.perf_counter() - self._started_time
            if self._replied:
                self._complete()
            else:
                self._router.half_done(self, idle=True, interrupted=self._was_interrupted)

    def _on_input(self, message: Message) -> None:
        if self._over or (self._handlers is not None and self._handlers.left):
            # Nobody answers any more, and it asks again and again, whatever interrupts it.
            if not self._dispatcher.others_prompt():
                self._router.answer(message, END_OF_INPUT)
            return
        if self._handlers is not None and self._prompts:
            self._handlers.on_input(message)
            return
        self._router.begging.add(self)
        self._fail(
            lambda: StdinError(
                f"the kernel asks {message.content.get('prompt')!r}, and there is no stdin handler; pass stdin=",
                result=self.result,
            )
        )
        self._owner._start_soon(self._stop)

    def _on_grace_over(self) -> None:
        if not self._replied and self._was_interrupted:
            # The interrupt hit the kernel where it was about to reply (ipykernel then sends none).
            self.result._reply = {"status": "error", "ename": "KeyboardInterrupt", "evalue": "interrupted"}
            self._settle()
        elif self._replied:
            self._settle()
        else:
            self._settle(lambda: ProtocolError("the kernel finished the code without a reply", result=self.result))

    def _on_end(self, ending: Ending) -> None:
        self._settle(lambda: ending(self.result))

    @property
    def _was_interrupted(self) -> bool:
        return self._interrupts != self._router.interrupts_of(self._header)

    def _code_runs(self) -> None:
        if not self._code_started:
            self._code_started = True
            self._notify()
            self._dispatcher.started(self)

    def _complete(self) -> None:
        self.result.complete = True
        self._settle()

    def _settle(self, error: Callable[[], Exception] | None = None) -> None:
        if self.state == "settled":
            return
        self._router.forget(self)
        self.state = "settled"
        if error is None:
            self._owner._displays.settled(self.msg_id, self._fold)
        self._notify()
        if self._error is None:
            self._error = error
        self._end_driving()
        if not self._driven:
            self._release()
        self._dispatcher.settled(self)

    def _fail(self, error: Callable[[], Exception]) -> None:
        """End the waiting for it, though the kernel may still be busy with it."""
        if self._error is None:
            self._error = error
            self._end_driving()
            self._release()

    def _end_driving(self) -> None:
        """It is decided how it ends: no timeout counts any more, and no answer is wanted."""
        if self._timeout_scope is not None:
            self._timeout_scope.deadline = math.inf
        if self._handlers is not None:
            self._handlers.end()

    def _release(self) -> None:
        if self._released:
            return
        self._released = True
        self._fold.on_change = None
        if self._settled is not None:
            self._settled.set()
        self._notify()
        for stream in self._open_streams():
            if self._handlers is None or stream is not self._handlers.inbox:
                stream.end(self._failure())

    def _notify(self) -> None:
        if self._changed is not None:
            self._changed.set()


def _same(error: Exception) -> Callable[[], Exception]:
    return lambda: error


_IOPUB: dict[str, Callable[[Execution, Message], None]] = {
    **dict.fromkeys(OUTPUT_TYPES, Execution._take_output),
    "update_display_data": Execution._take_update,
    "clear_output": Execution._take_clear,
    "comm_msg": Execution._take_capture,
    "execute_input": Execution._take_input,
    "status": Execution._take_status,
}
