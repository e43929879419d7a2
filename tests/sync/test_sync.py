"""The blocking face: the same names and signatures, from any thread, under a running loop, over forks and at the exit."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import nbformat.v4
import psutil
import pytest

import anykernel
from anykernel import sync
from anykernel.sync import (
    ConnectionClosedError,
    ExecutionTimeoutError,
    KernelDiedError,
    Observer,
    UnsupportedError,
    connect_kernel,
    observe,
    open_kernel,
    open_pool,
    run_notebook,
)

from .generate import TARGET, formatted, generate


@pytest.fixture(scope="module")
def kernel():
    with open_kernel() as kernel:
        yield kernel


def test_the_twins_are_what_would_be_generated_now():
    pytest.importorskip("ruff", reason="ruff, which formats them, is not installed: it comes with the extra lint")
    for name, source in generate().items():
        assert (TARGET / f"{name}.py").read_text() == formatted(source), (
            f"python -m tests.sync.generate writes {name}.py"
        )


def test_every_public_name_is_here_and_has_its_docstring():
    assert sync.__all__ == anykernel.__all__
    for name in sync.__all__:
        here, there = getattr(sync, name), getattr(anykernel, name)
        assert inspect.getdoc(here) == inspect.getdoc(there)
        if not inspect.isclass(here) or here is there:
            continue
        for method, value in inspect.getmembers(there):
            if method.startswith("_") or method in {"send_nowait", "end", "aclose", "extra", "extra_attributes"}:
                continue
            twin = inspect.getattr_static(here, method)
            assert inspect.getdoc(twin) == inspect.getdoc(value), f"{name}.{method}"
            if inspect.isroutine(value):
                ours, theirs = inspect.signature(twin).parameters, inspect.signature(value).parameters
                assert [(p.name, p.kind, p.default) for p in ours.values()] == [
                    (p.name, p.kind, p.default) for p in theirs.values()
                ], f"{name}.{method}"


def test_the_main_things_work_without_async(kernel):
    assert kernel.execute("x = 20; x + 1").data["text/plain"] == "21"
    assert [output.text for output in kernel.stream("for i in range(3): display(i)")] == ["0", "1", "2"]
    execution = kernel.submit("'done'")
    assert execution.wait().text == "'done'"
    assert [output.text for output in execution] == ["'done'"]
    assert list(execution.watch())[-1][0].text == "'done'"
    kernel.push(values=[1, 2])
    assert (kernel.pull("values"), kernel.call("sum", [1, 2])) == ([1, 2], 3)
    assert kernel.complete("values.rev").matches == ["reverse"]
    with kernel.subshell() as subshell:
        assert subshell.evaluate("x") == 20
    with kernel.messages("stream") as messages:
        kernel.execute("print('all')")
        assert messages.receive().content["text"] == "all\n"
    with connect_kernel(kernel.connection) as other:
        assert other.evaluate("x") == 20
    with pytest.raises(ExecutionTimeoutError):
        kernel.execute("while True: pass", timeout=0.3)
    assert kernel.evaluate("x") == 20


def test_comms_work_without_async(kernel):
    target = (
        "def echo(comm, opening):\n"
        "    comm.on_msg(lambda message: comm.send(message['content']['data']))\n"
        "__import__('comm').get_comm_manager().register_target('echo', echo)\n"
    )
    kernel.execute(target)
    with kernel.open_comm("echo") as comm:
        comm.send({"n": 1})
        assert next(comm).content["data"] == {"n": 1}
    with kernel.comms("theirs") as comms:
        kernel.execute("import comm; c = comm.create_comm(target_name='theirs', data={'a': 1})")
        assert next(comms).data == {"a": 1}


def test_functions_of_the_caller_are_called_in_its_thread_and_may_call_back(kernel):
    threads, seen = set(), []

    def answer(prompt, password):
        threads.add(threading.current_thread())
        return kernel.info.language

    def on_output(output):
        threads.add(threading.current_thread())
        seen.append((output.text, kernel.complete("prin").matches[:1]))

    result = kernel.execute("print(input('? '))", stdin=answer, on_output=on_output)
    assert result.stdout == "python\n"
    assert seen == [("python\n", ["print"])]
    assert threads == {threading.current_thread()}
    with pytest.raises(ValueError, match="mine"):
        kernel.execute("print(1)", on_output=lambda _: (_ for _ in ()).throw(ValueError("mine")))


def test_any_number_of_threads_use_one_kernel(kernel):
    results = {}

    def run(n):
        results[n] = kernel.execute(f"print({n})").stdout.strip()

    threads = [threading.Thread(target=run, args=(n,)) for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert results == {n: str(n) for n in range(20)}


def test_it_works_under_a_running_event_loop(kernel):
    async def main():
        return kernel.evaluate("6 * 7")

    assert asyncio.run(main()) == 42


def test_pools_and_notebooks_work_without_async(kernel):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("6 * 7")])
    seen = []
    report = run_notebook(notebook, kernel=kernel, on_cell=lambda event: seen.append(threading.current_thread()))
    assert report.cells[0].result.data["text/plain"] == "42"
    assert set(seen) == {threading.current_thread()}
    with open_pool(size=1) as pool:
        assert pool.execute("1 + 1").text == "2"
        with pool.map("abs", [-1, 2]) as results:
            assert list(results) == [1, 2]
        assert pool.statistics().lent == 0


def test_what_is_left_is_gone_and_says_so():
    with open_kernel() as kernel:
        pid = kernel.pid
    assert not psutil.pid_exists(pid)
    with pytest.raises(ConnectionClosedError):
        kernel.execute("1")
    with pytest.raises(ValueError, match="bare"), open_kernel() as kernel:
        raise ValueError("bare")


def test_a_death_ends_a_call_in_any_thread():
    with open_kernel() as kernel, pytest.raises(KernelDiedError):
        kernel.execute("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")


def program(text, **options):
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(text)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True, **options,
    )  # fmt: skip


def test_an_interrupt_stops_the_code_and_the_kernel_goes_on():
    process = program("""
        from anykernel.sync import open_kernel
        with open_kernel() as kernel:
            try:
                kernel.execute("import time; print('runs', flush=True); time.sleep(60)", on_output=lambda o: print(o.text, flush=True))
            except KeyboardInterrupt:
                print("interrupted", kernel.evaluate("1 + 1"), kernel.execution_state)
    """)
    assert process.stdout.readline() == "runs\n"
    os.kill(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (out.split(), err) == (["interrupted", "2", "idle"], "")


def test_the_exit_of_the_interpreter_leaves_no_kernel_and_waits_for_none():
    process = program("""
        from anykernel.sync import open_kernel
        block = open_kernel()
        kernel = block.__enter__()
        print(kernel.pid, flush=True)
        kernel.submit("import time; time.sleep(600)")
    """)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (0, "")
    assert not psutil.pid_exists(int(out))


def test_a_forked_child_opens_its_own_and_is_refused_its_parents():
    process = program("""
        import os, sys
        from anykernel.sync import UnsupportedError, open_kernel
        with open_kernel() as kernel:
            pid = os.fork()
            if not pid:
                try:
                    kernel.evaluate("1")
                except UnsupportedError as exc:
                    print("fork" in str(exc), flush=True)
                with open_kernel() as own:
                    print(own.evaluate("6 * 7"), own.pid != kernel.pid, flush=True)
                os._exit(0)
            os.waitpid(pid, 0)
            print(kernel.evaluate("2"), flush=True)
    """)
    out, err = process.communicate(timeout=60)
    assert (out.split(), err) == (["True", "42", "True", "2"], "")


def test_a_call_costs_little_more_than_the_async_one(kernel):
    portal = kernel._portal

    async def nothing():
        return None

    def microseconds():
        start = time.process_time()
        for _ in range(300):
            portal.call(lambda _: nothing())
        return (time.process_time() - start) / 300 * 1e6

    assert min(microseconds() for _ in range(5)) < 400  # some 50 on a quiet machine


def test_a_call_from_the_loops_own_thread_is_refused_instead_of_hanging(kernel):
    raised = []

    async def inside():
        try:
            kernel.evaluate("1")
        except UnsupportedError as exc:
            raised.append(exc)

    kernel._portal.call(lambda _: inside())
    assert "event loop's own thread" in str(raised[0])


def test_observers_see_the_context_of_the_calling_thread(kernel):
    variable = contextvars.ContextVar("variable", default="none")
    seen = []

    class Seeing(Observer):
        def execution_queued(self, request, info, kernel_id):
            seen.append(variable.get())

    undo = observe(Seeing())
    try:
        contextvars.copy_context().run(lambda: (variable.set("mine"), kernel.execute("1")))
        kernel.submit("1").wait()
    finally:
        undo()
    assert seen == ["mine", "none"]


def test_widgets_can_be_looked_at_from_any_thread(kernel):
    with kernel.widgets() as widgets:
        kernel.execute("from ipywidgets import Text\ntext = Text('there')", check=True)
        (text,) = (widget for widget in widgets.values() if widget.model_name == "TextModel")
        assert text.state["value"] == "there"
        assert text.model_id in widgets.state()["state"]
