"""Executions are spans, and kernels and queues are measured, where that is asked for."""

from __future__ import annotations

import subprocess
import sys

import anyio
import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from anykernel import (
    ConnectionClosedError,
    ExecutionTimeoutError,
    KernelDiedError,
    Observer,
    observe,
    open_kernel,
    open_pool,
)
from anykernel.otel import instrument

from .helpers.scripted import scripted_kernel


class Telemetry:
    """What an SDK got."""

    def __init__(self, **options):
        self.exporter, self.reader = InMemorySpanExporter(), InMemoryMetricReader()
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.meters = MeterProvider([self.reader], shutdown_on_exit=False)
        self.undo = instrument(self.provider, self.meters, **options)
        self.tracer = self.provider.get_tracer("the caller's")

    @property
    def spans(self):
        """Of executions, in the order of their ends."""
        return [span for span in self.exporter.get_finished_spans() if span.instrumentation_scope.name == "anykernel"]

    def metrics(self):
        """Sums and counts, by name and, where there is one, status."""
        found = {}
        data = self.reader.get_metrics_data()
        for resource in data.resource_metrics if data is not None else ():
            for metric in (metric for scope in resource.scope_metrics for metric in scope.metrics):
                for point in metric.data.data_points:
                    name = " ".join([metric.name, *filter(None, [point.attributes.get("jupyter.execution.status")])])
                    found[name] = point.count if hasattr(point, "count") else point.value
        return found

    def close(self):
        self.undo()
        self.provider.shutdown()
        self.meters.shutdown()


@pytest.fixture
def telemetry():
    telemetry = Telemetry()
    yield telemetry
    telemetry.close()


def events_of(span):
    return [event.name for event in span.events]


CODE = "context = get_ipython().kernel.get_parent()['metadata']['traceparent']; print(context)"


async def test_an_execution_is_a_child_of_its_callers_span_and_the_kernel_can_go_on_with_it(kernel, telemetry):
    with telemetry.tracer.start_as_current_span("mine") as mine:
        result = await kernel.execute(CODE, metadata={"own": 1}, check=True)
    (span,) = telemetry.spans
    context = span.context
    assert result.stdout.startswith(f"00-{context.trace_id:032x}-{context.span_id:016x}-")
    assert span.parent == mine.get_span_context()
    assert (span.name, span.kind) == ("execute ipython", trace.SpanKind.CLIENT)
    assert events_of(span) == ["queued", "sent", "running"]
    assert dict(span.attributes) == {
        "session.id": span.attributes["session.id"],
        "messaging.message.id": result.msg_id,
        "jupyter.kernel.implementation": "ipython",
        "jupyter.execution.status": "ok",
        "jupyter.execution.count": result.execution_count,
    }
    assert span.status.status_code is trace.StatusCode.UNSET
    assert "get_parent" not in span.to_json()


async def test_what_goes_wrong_is_told_by_its_kind_and_no_code_without_being_asked_for(kernel, telemetry):
    await kernel.execute("raise ValueError('a secret')")
    with pytest.raises(ExecutionTimeoutError):
        await kernel.execute("import time; time.sleep(60)", timeout=0.3)
    failed, late = telemetry.spans
    assert (failed.attributes["error.type"], failed.status.status_code) == ("ValueError", trace.StatusCode.ERROR)
    assert failed.attributes["jupyter.execution.status"] == "error"
    assert events_of(failed)[-1] == "exception"
    assert "secret" not in failed.to_json()
    assert late.attributes["error.type"] == "ExecutionTimeoutError"
    assert late.attributes["jupyter.execution.status"] == "timeout"
    asked = Telemetry(code=True)
    try:
        await kernel.execute("raise ValueError('a secret')")
    finally:
        asked.close()
    (span,) = asked.spans
    assert span.attributes["jupyter.code"] == "raise ValueError('a secret')"
    exception = span.events[-1].attributes
    assert (exception["exception.type"], exception["exception.message"]) == ("ValueError", "a secret")
    assert "Traceback" in exception["exception.stacktrace"]
    assert "\x1b" not in exception["exception.stacktrace"]


async def test_spans_find_their_parents_through_tasks_and_pools(telemetry):
    async def work(pool, name):
        with telemetry.tracer.start_as_current_span(name) as span:
            parents[name] = span.get_span_context()
            await pool.execute(f"print({name!r})", check=True)

    parents = {}
    async with open_pool(size=1, spares=0, uses=None) as pool:
        async with anyio.create_task_group() as tasks:
            for name in ("one", "two", "three"):
                tasks.start_soon(work, pool, name)
        with telemetry.tracer.start_as_current_span("map") as span:
            async with pool.map("abs", [-1, -2]) as values:
                assert [value async for value in values] == [1, 2]
    assert {span.parent.span_id for span in telemetry.spans[:3]} == {parent.span_id for parent in parents.values()}
    assert all(other.parent == span.get_span_context() for other in telemetry.spans[3:])
    assert len(telemetry.spans) >= 5
    metrics = telemetry.metrics()
    assert (metrics["anykernel.kernels"], metrics["anykernel.executions ok"]) == (0, len(telemetry.spans))


async def test_metrics_tell_of_queues_output_and_ends(telemetry):
    async with scripted_kernel() as (kernel, script):
        first, second, third = [await kernel.submit(name) for name in "abc"]
        request = await script.next()
        metrics = telemetry.metrics()
        assert metrics["anykernel.queue.depth"] == 2
        assert metrics["anykernel.kernels"] == 1
        script.start(request)
        script.publish(request, "stream", name="stdout", text="x" * 100)
        script.finish(request)
        await first.wait()
        await third.cancel()
        request = await script.next()
        script.start(request)
        script.finish(request, status="error", ename="E", evalue="no")
        await second.wait()
    metrics = telemetry.metrics()
    assert metrics["anykernel.queue.depth"] == metrics["anykernel.kernels"] == 0
    assert metrics["anykernel.queue.duration"] == 3
    assert metrics["anykernel.output.size"] == 100
    assert [metrics[f"anykernel.executions {status}"] for status in ("ok", "error", "cancelled")] == [1, 1, 1]
    assert "anykernel.kernel.deaths" not in metrics
    assert [events_of(span)[:3] for span in telemetry.spans] == [
        ["queued", "sent", "running"],
        ["queued"],
        ["queued", "sent", "running"],
    ]


async def test_deaths_are_counted_and_restarts_keep_the_number_of_kernels(telemetry):
    async with open_kernel() as kernel:
        await kernel.restart()
        assert telemetry.metrics()["anykernel.kernels"] == 1
        with pytest.raises(KernelDiedError):
            await kernel.execute("import os; os._exit(3)")
        metrics = telemetry.metrics()
        assert (metrics["anykernel.kernels"], metrics["anykernel.kernel.deaths"]) == (0, 1)
        with pytest.raises(KernelDiedError):
            await kernel.execute("1")
    (span,) = telemetry.spans  # what was refused was never queued
    assert (span.attributes["jupyter.execution.status"], span.attributes["error.type"]) == ("died", "KernelDiedError")


async def test_what_a_function_of_the_callers_raises_and_a_cancellation_are_told_apart(kernel, telemetry):
    def fail(_):
        raise LookupError("mine")

    code = "print('on', flush=True)\nimport time; time.sleep(60)"
    with pytest.raises(LookupError):
        await kernel.execute(code, on_output=fail)
    with anyio.CancelScope() as scope:
        await kernel.execute(code, on_output=lambda _: scope.cancel())
    execution = await kernel.submit(code)
    async for _ in execution:
        break
    await execution.cancel()
    failed, *cancelled = telemetry.spans
    assert (failed.attributes["jupyter.execution.status"], failed.attributes["error.type"]) == ("failed", "LookupError")
    assert [span.attributes["jupyter.execution.status"] for span in cancelled] == ["cancelled"] * 2
    assert not any("error.type" in span.attributes for span in cancelled)


async def test_undone_nothing_is_traced_and_nothing_observed(kernel):
    telemetry = Telemetry()
    telemetry.close()
    execution = await kernel.submit("1")
    await execution.wait()
    assert telemetry.spans == []
    assert execution._run.observation is None


async def test_an_observer_that_fails_hurts_nobody(caplog):
    class Failing(Observer):
        def execution_queued(self, *_, **__):
            raise LookupError("the observer's")

        kernel_opened = kernel_closed = execution_queued

    undo = observe(Failing())
    try:
        async with scripted_kernel() as (kernel, script):
            execution = await kernel.submit("x")
            request = await script.next()
            script.start(request)
            script.finish(request)
            assert (await execution.wait()).ok
        with pytest.raises(ConnectionClosedError):
            await kernel.submit("x")
    finally:
        undo()
    assert [record.message for record in caplog.records] == ["an observer failed"] * 3


def test_without_the_library_it_says_what_to_install():
    code = """
import sys
sys.modules["opentelemetry"] = None
import anykernel
try:
    import anykernel.otel
except anykernel.MissingDependencyError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    assert done.stdout == "anykernel.otel needs opentelemetry: pip install 'anykernel-client[otel]'\n", done.stderr
