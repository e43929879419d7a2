"""OpenTelemetry: a span for each execution, and metrics of kernels and queues. See `instrument`.

It stands on `anykernel.observe`, which others may use likewise, and on the OpenTelemetry API alone: what becomes of spans and
metrics is up to the SDK that the program sets up, and without one they cost next to nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from . import (
    ExecutionObserver,
    ExecutionTimeoutError,
    KernelDiedError,
    KernelInfo,
    Message,
    MissingDependencyError,
    Observer,
    Result,
    __version__,
    observe,
)

try:
    from opentelemetry import metrics, propagate, trace
except ModuleNotFoundError as exc:
    text = f"anykernel.otel needs {exc.name}: pip install 'anykernel-client[otel]'"
    raise MissingDependencyError(text, name=exc.name) from exc

__all__ = ["instrument"]


def instrument(
    tracer_provider: trace.TracerProvider | None = None,
    meter_provider: metrics.MeterProvider | None = None,
    *,
    code: bool = False,
) -> Callable[[], None]:
    """Trace all executions of this process, and measure its kernels and queues, from now on.

    Each execution is a span, a child of the span that is current where the code is run (through pools and tasks, too), with the
    events ``queued``, ``sent`` and ``running``. Its trace context is in the request's metadata (``traceparent``), so that a
    kernel may go on with it.

    Args:
        tracer_provider: who makes the spans; None: the global one.
        meter_provider: likewise, for the metrics.
        code: put the code, and the messages and tracebacks of errors, which tell of it, into the spans, too.

    Returns: a function that undoes it; executions that are under way then still end their spans.
    """
    return observe(_Telemetry(tracer_provider, meter_provider, code=code))


class _Telemetry(Observer):
    def __init__(
        self, tracer_provider: trace.TracerProvider | None, meter_provider: metrics.MeterProvider | None, *, code: bool
    ) -> None:
        self.code = code
        self._tracer = trace.get_tracer("anykernel", __version__, tracer_provider)
        meter = metrics.get_meter("anykernel", __version__, meter_provider)
        self.depth = meter.create_up_down_counter(
            "anykernel.queue.depth", "{execution}", "Executions that wait here for their turn"
        )
        self.waited = meter.create_histogram(
            "anykernel.queue.duration", "s", "How long executions waited here for their turn"
        )
        self.executions = meter.create_counter(
            "anykernel.executions", "{execution}", "Executions that ended, by status"
        )
        self.output = meter.create_counter("anykernel.output.size", "By", "What code has put out")
        self._kernels = meter.create_up_down_counter("anykernel.kernels", "{kernel}", "Kernels that are alive")
        self._deaths = meter.create_counter("anykernel.kernel.deaths", "{kernel}", "Kernels that died")

    def execution_queued(self, request: Message, info: KernelInfo, kernel_id: str | None) -> ExecutionObserver:
        attributes = {
            "session.id": request.header["session"],
            "messaging.message.id": request.msg_id,
            "jupyter.kernel.implementation": info.implementation,
        }
        if kernel_id is not None:
            attributes["jupyter.kernel.id"] = kernel_id
        if "subshell_id" in request.header:
            attributes["jupyter.subshell.id"] = request.header["subshell_id"]
        if self.code:
            attributes["jupyter.code"] = request.content["code"]
        span = self._tracer.start_span(
            f"execute {info.implementation}", kind=trace.SpanKind.CLIENT, attributes=attributes
        )
        propagate.inject(request.metadata, trace.set_span_in_context(span))
        return _Execution(self, span, _kind(info))

    def kernel_opened(self, info: KernelInfo) -> None:
        self._kernels.add(1, _kind(info))

    def kernel_closed(self, info: KernelInfo, *, died: bool) -> None:
        self._kernels.add(-1, _kind(info))
        if died:
            self._deaths.add(1, _kind(info))


class _Execution(ExecutionObserver):
    def __init__(self, telemetry: _Telemetry, span: trace.Span, kind: dict[str, str]) -> None:
        self._telemetry = telemetry
        self._span = span
        self._kind = kind
        self._queued: float | None = monotonic()
        telemetry.depth.add(1, kind)
        span.add_event("queued")

    def _leave_queue(self) -> None:
        if self._queued is not None:
            self._telemetry.depth.add(-1, self._kind)
            self._telemetry.waited.record(monotonic() - self._queued, self._kind)
            self._queued = None

    def sent(self) -> None:
        self._leave_queue()
        self._span.add_event("sent")

    def running(self) -> None:
        self._span.add_event("running")

    def output(self, size: int) -> None:
        self._telemetry.output.add(size, self._kind)

    def ended(self, result: Result, error: Exception | None, *, stopped: bool) -> None:
        self._leave_queue()
        status, span = _status(result, error, stopped=stopped), self._span
        self._telemetry.executions.add(1, {**self._kind, "jupyter.execution.status": status})
        span.set_attribute("jupyter.execution.status", status)
        if result.execution_count is not None:
            span.set_attribute("jupyter.execution.count", result.execution_count)
        if error is not None:
            self._fail(type(error).__name__, str(error), "")
        elif status == "error" and (raised := result.error) is not None:
            self._fail(raised.ename, raised.evalue, raised.plain)
        span.end()

    def _fail(self, kind: str, message: str, stacktrace: str) -> None:
        self._span.set_attribute("error.type", kind)
        self._span.set_status(trace.StatusCode.ERROR, kind)
        exception = {"exception.type": kind}
        if self._telemetry.code:
            exception |= {"exception.message": message, "exception.stacktrace": stacktrace}
        self._span.add_event("exception", exception)


def _kind(info: KernelInfo) -> dict[str, str]:
    return {"jupyter.kernel.implementation": info.implementation}


def _status(result: Result, error: Exception | None, *, stopped: bool) -> str:
    if isinstance(error, ExecutionTimeoutError):
        return "timeout"
    if isinstance(error, KernelDiedError):
        return "died"
    if error is not None:
        return "failed"
    return "cancelled" if stopped else result.status or "failed"
