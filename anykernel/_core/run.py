"""One execution on its way: queued -> sent -> running -> settled.

How this works. A `Dispatcher` keeps runs in a queue on our side, and lets at most ``max_in_flight`` lie in the kernel:
what is still here can be cancelled without a trace, and neither an error nor an interrupt can abort anybody else's code.
Everything up to the settling is plain calls from the router, so nothing is half done when a task is cancelled. What
came is written into a `Record`, which the caller's `Result` shows. (Stopping is `stopping`'s business, the timeout and the
user's functions are `driving`'s, and what callers hold is `Execution`.)
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import anyio
import anyio.lowlevel

from .._protocol import (
    END_OF_INPUT,
    OUTPUT_TYPES,
    Message,
    Output,
    OutputFold,
    ProtocolError,
    Record,
    Result,
    StdinError,
    bounded_reply,
    failure_of,
    pages_of,
    parse_output,
    timeout_error,
)
from .audience import Audience
from .clock import monotonic
from .context import Context
from .dispatcher import Dispatcher
from .halves import Halves
from .handlers import Handlers
from .observing import Observation
from .options import ExecuteOptions
from .request import Ending, Request, same
from .stopping import stop
from .streams import ByteBoundedStream
from .tasks import Signal, run_apart

__all__ = ["Run", "State"]

_INTERRUPTED = {"status": "error", "ename": "KeyboardInterrupt", "evalue": "interrupted"}

State = Literal["queued", "sent", "running", "settled"]


class Run(Request):
    """One execute request; queued by its dispatcher, settled by what the router hands it."""

    __slots__ = (
        "_audience", "_changed", "_check", "_halves", "_message", "_record", "_router", "_settled", "_silent",
        "_started_time", "code_started", "context", "dispatcher", "doomed", "driven", "error", "fold",
        "handlers", "msg_id", "observation", "prompts", "released", "result", "state", "stopping", "timeout", "timeout_scope",
    )  # fmt: skip

    def __init__(self, context: Context, dispatcher: Dispatcher, message: Message, options: ExecuteOptions) -> None:
        self.header = message.header
        self.context = context
        self.dispatcher = dispatcher
        self.msg_id: str = message.msg_id
        self.state: State = "queued"
        self.fold = OutputFold(context.limits.output_limit)
        self._record = Record(self.fold)
        self._record.queued = message.header["date"]
        self.result = Result(self.msg_id, self._record)
        self._router = dispatcher.router
        self._message: Message | None = message
        self._silent = options.silent
        self._check = options.check
        self.timeout = options.timeout
        self.prompts = options.stdin is not None
        self.error: Callable[[], Exception] | None = None
        """Makes the error that ends the waiting; each waiter raises one of its own."""
        self.released = False
        """Whether the waiting for it is over."""
        self.driven = False
        """Whether a task without a caller drives it; then it is released when this is done with it."""
        self._halves = Halves(dispatcher.router, self)
        self.code_started = False
        self.stopping = self.doomed = False
        self.observation: Observation | None = None
        self._started_time: float | None = None
        # Made when somebody waits for them: the settling (or an error), any change of state.
        self._settled: Signal | None = None
        self._changed: Signal | None = None
        # Those of the driving task: the timeout, and the user's functions.
        self.timeout_scope: anyio.CancelScope | None = None
        self.handlers: Handlers | None = None
        # Made when somebody takes the outputs as they come.
        self._audience: Audience | None = None
        if options.stdin is not None or options.on_output is not None:
            user, record = (options.stdin, options.on_output), self._record
            self.handlers = Handlers(dispatcher.every, self.result, *user, context.limits.budget, record.losses)
            if options.on_output is not None:
                self._add(self.handlers.inbox)

    # For those who wait for it.

    async def wait_settled(self) -> None:
        """Wait until the waiting is over."""
        if self.released:
            await anyio.lowlevel.checkpoint()
            return
        if self._settled is None:
            self._settled = Signal()
        await self._settled.wait()

    async def wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait until something about it has become true."""
        while not condition():
            if self._changed is None:
                self._changed = Signal()
            await self._changed.wait()

    def outcome(self) -> Result:
        """The result, or the error that it ended with."""
        error = self.failure()
        if error is not None:
            raise error
        return self.result

    def failure(self) -> Exception | None:
        """What `outcome` raises."""
        if self.error is not None:
            return self.error()
        return failure_of(self.result) if self._check else None

    def new_stream(self) -> ByteBoundedStream[Output]:
        """The outputs so far and from now on."""
        stream = ByteBoundedStream(self.context.limits.budget, self.fold.outputs, self._record.losses.note)
        if self.released:
            stream.end(self.failure())
        else:
            self._add(stream)
        return stream

    def notify_of_changes(self) -> None:
        """Wake those in `wait_until` when its outputs change, too."""
        if not self.released:
            self.fold.on_change = self._notify

    @property
    def over(self) -> bool:
        """Whether it is decided how it ends; with an error, the kernel may still be busy with it."""
        return self.state == "settled" or self.error is not None

    @property
    def ended(self) -> bool:
        """Whether the kernel has ended its code, as far as we know: then it must not be interrupted any more."""
        return self._halves.any or self.state == "settled"

    # For those who end it.

    async def stop_apart(self) -> None:
        """Stop it in a task of the kernel's, or take it out of the queue."""
        if self.observation is not None:
            self.observation.stopped = True
        if self.dispatcher.discard(self):  # now: it must not be sent any more
            self._record.reply = {"status": "aborted"}
            self._settle()
        if self.state != "settled":
            await run_apart(self.context.start_soon, self.stop)

    async def stop(self) -> None:
        """Stop it, and wait for that; to be run in a task of the kernel's."""
        await stop(self)

    def expire(self) -> None:
        """Its time was over before it was queued."""
        self._record.reply = {"status": "aborted"}
        self._settle(lambda: timeout_error(self.result, 0, self.context.limits.interrupt_timeout, "settled"))

    def fail(self, error: Callable[[], Exception]) -> None:
        """End the waiting for it, though the kernel may still be busy with it."""
        if self.error is None:
            self.error = error
            self._end_driving()
            self.release()

    def release(self) -> None:
        """The waiting for it is over."""
        if self.released:
            return
        self.released = True
        if self.observation is not None:
            self.observation.released(self.result, self.error)
        self.fold.on_change = None
        if self._settled is not None:
            self._settled.set()
        self._notify()
        if self._audience is not None:
            self._audience.end(self.failure, but=self.handlers.inbox if self.handlers is not None else None)

    # For the dispatcher and the router.

    def send(self, *, allow_stdin: bool) -> None:
        assert self._message is not None
        message, self._message = self._message, None
        message.content["allow_stdin"] = allow_stdin
        self.state = "sent"
        self._record.sent = time.time()
        if self.observation is not None:
            self.observation.sent()
        self._halves.sent()
        try:
            self._router.send(self, message)
        except Exception as exc:  # noqa: BLE001 - also what the content's own methods raise
            self._settle(same(exc))

    def on_reply(self, message: Message) -> None:
        if self._halves.replied:
            self._router.transport.dropped["repeated"] += 1
            return
        content = message.content
        if content.get("status") == "abort":  # bash_kernel's word for it
            content = {**content, "status": "aborted"}
        if content.get("status") not in ("ok", "error", "aborted"):
            raise ProtocolError("an execute_reply without a status")
        record = self._record
        record.metadata = message.metadata
        record.reply, cut = bounded_reply(content, message.weight, self.context.limits.output_limit)
        if cut or message.left_out is not None:
            record.losses.note()
        count = message.content.get("execution_count")
        if isinstance(count, int):
            record.execution_count = count
        if self._halves.take_reply():
            self._complete()
        else:
            self._notify()

    def on_iopub(self, message: Message) -> None:
        take = self._TAKERS.get(message.header["msg_type"])
        if take is not None:
            take(self, message)

    def _take_output(self, message: Message) -> None:
        output = parse_output(message.header["msg_type"], message.content, message.left_out)
        self._code_runs()
        if self.handlers is not None:
            self.handlers.on_output()
        if message.left_out is not None:
            self._record.losses.note()
        self._show(output, message.weight, message.left_out)

    def _show(self, output: Output, size: int, left_out: str | None = None) -> None:
        if self.observation is not None:
            self.observation.output(size)
        self.context.displays.show(output, size, self.fold, self.context.captures.by(self.msg_id), left_out)
        self._send(output, size)

    def _take_update(self, message: Message) -> None:
        # The displays themselves are updated by the kernel, for all executions at once.
        self._send(parse_output("update_display_data", message.content, message.left_out), message.weight)

    def _send(self, output: Output, size: int) -> None:
        if self._audience is not None:
            self._audience.send(output, size)

    def _add(self, stream: ByteBoundedStream[Any]) -> None:
        if self._audience is None:
            self._audience = Audience()
        self._audience.add(stream)

    def _take_clear(self, message: Message) -> None:
        self.fold.clear(self.context.captures.by(self.msg_id), wait=bool(message.content.get("wait")))

    def _take_input(self, message: Message) -> None:
        count = message.content.get("execution_count")
        if isinstance(count, int):
            self._record.execution_count = count
        self._code_runs()

    def _take_status(self, message: Message) -> None:
        state = message.content.get("execution_state")
        if state == "busy" and self.state == "sent":
            self.state = "running"
            self._started_time = monotonic()
            self._record.started = message.header.get("date"), time.time()
            self._notify()
            if self.observation is not None:
                self.observation.running()
            if self._silent:
                self.dispatcher.started(self)
            if self.doomed:
                self.context.start_soon(self.stop)
        elif state == "idle":
            self._record.ended = message.header.get("date"), time.time()
            if self._started_time is not None:
                self._record.duration = monotonic() - self._started_time
            if self._halves.take_idle():
                self._complete()
            else:
                self._notify()

    def on_input(self, message: Message) -> None:
        if self.over or (self.handlers is not None and self.handlers.left):
            # Nobody answers any more, and it asks again and again, whatever interrupts it.
            if not self.dispatcher.others_prompt():
                self._router.answer(message, END_OF_INPUT)
            return
        if self.handlers is not None and self.prompts:
            self.handlers.on_input(message)
            return
        self.dispatcher.every.begging.add(self)
        self.fail(
            lambda: StdinError(
                f"the kernel asks {message.content.get('prompt')!r}, and there is no stdin handler; pass stdin=",
                result=self.result,
            )
        )
        self.context.start_soon(self.stop)

    def on_missed(self, reason: str) -> None:
        self._record.incomplete_reason = reason

    def on_grace_over(self) -> None:
        if not self._halves.replied and self._halves.interrupted:
            # The interrupt hit the kernel where it was about to reply (ipykernel then sends none).
            self._record.reply = dict(_INTERRUPTED)
            self._settle()
        elif self._halves.replied and self._halves.idle:
            self._complete()
        elif self._halves.replied:
            self._record.incomplete_reason = "the kernel replied, and did not say that it was done"
            self._settle()
        elif self._halves.doubt():
            self._notify()
        else:
            self._settle(lambda: ProtocolError("the kernel finished the code without a reply", result=self.result))

    def on_end(self, ending: Ending) -> None:
        self._settle(lambda: ending(self.result))

    def _code_runs(self) -> None:
        if not self.code_started:
            self.code_started = True
            self._notify()
            self.dispatcher.started(self)

    def _complete(self) -> None:
        self._record.complete = self._record.incomplete_reason is None
        for page in pages_of(self._record.reply):  # what `name?` shows; front ends put it behind the outputs
            self._show(page, len(page.text))
        self._settle()

    def _settle(self, error: Callable[[], Exception] | None = None) -> None:
        if self.state == "settled":
            return
        self._router.forget(self)
        self._halves.drop()
        if self.code_started and self.result.status == "aborted":  # some kernels' word for code that they interrupted
            self._record.reply = {**_INTERRUPTED, **self._record.reply, "status": "error"}
        if self.state == "running" and self._record.ended is None:
            self._record.ended = None, time.time()
        self.state = "settled"
        if error is None:
            self.context.displays.settled(self.msg_id, self.fold)
        self._notify()
        if self.error is None:
            self.error = error
        self._end_driving()
        if not self.driven:
            self.release()
        self.dispatcher.settled(self)

    def _end_driving(self) -> None:
        """It is decided how it ends: no timeout counts any more, and no answer is wanted."""
        if self.timeout_scope is not None:
            self.timeout_scope.deadline = math.inf
        if self.handlers is not None:
            self.handlers.end()

    def _notify(self) -> None:
        if self._changed is not None:
            self._changed.set()

    def answer_again(self) -> None:
        if self.handlers is not None:
            self.handlers.answer_again()

    _TAKERS: ClassVar[dict[str, Callable[[Run, Message], None]]] = {
        **dict.fromkeys(OUTPUT_TYPES, _take_output),
        "update_display_data": _take_update,
        "clear_output": _take_clear,
        "execute_input": _take_input,
        "status": _take_status,
    }
