"""Variables of a kernel: push, pull, call, set_env."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys

import anyio
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from anykernel import (
    ArgumentError,
    ExecutionError,
    KernelDiedError,
    ProtocolError,
    UnsupportedError,
    open_kernel,
)
from anykernel._protocol.values import encode

from ..helpers.scripted import INFO, scripted_kernel
from ..helpers.zoo import CASES, PYTHON, Case, each, installed

PYTHONS = [name for name, case in CASES.items() if case.code is PYTHON]

FUNCTIONS = """
import asyncio, os, time
def double(x, *, times=1):
    print('doubling')
    return x * 2 * times
async def slow(x):
    await asyncio.sleep(0.01)
    return x
def fails():
    print('before')
    raise LookupError('no such thing')
def loop():
    print('looping', flush=True)
    while True:
        pass
async def wait():
    print('waiting', flush=True)
    await asyncio.sleep(60)
"""


@pytest.fixture(params=each(PYTHONS))
def case(request):
    return installed(request.param)


async def test_variables_travel_to_every_python_kernel_and_back(case):
    array = np.arange(200_000, dtype=">i4").reshape(2, -1).T  # large enough for a frame that is viewed, not copied
    frame = pd.DataFrame({"a": pd.Categorical(["x", "y"])}, index=pd.date_range("2020", periods=2, tz="Europe/Paris"))
    nested = {("k", 1): [array, b"\0", float("inf"), {1j}], None: "\ud800"}
    # xeus-python may overlook a request that comes while it is busy, until another comes.
    async with case.open(max_in_flight=1 if case is CASES["xeus-python"] else 4) as kernel:
        before = await kernel.evaluate("dir()")
        await kernel.push(array=array, frame=frame, nested=nested, table=pa.table({"t": [1, None]}))
        assert set(await kernel.evaluate("dir()")) - set(before) == {"array", "frame", "nested", "table"}
        result = await kernel.execute("array[0, 0] = 7; array.dtype.str, array.flags.f_contiguous, str(frame.index.tz)")
        assert result.data["text/plain"] == "('>i4', True, 'Europe/Paris')"
        pulled, size, other, table = await kernel.pull("array", "frame.index.size", "nested", "table")
        assert (pulled[0, 0], pulled.dtype, pulled.flags.f_contiguous) == (7, array.dtype, True)
        pulled[0, 0] = 0
        np.testing.assert_array_equal(pulled, array)
        assert size == 2
        assert (list(other), other[None]) == (list(nested), "\ud800")
        assert other["k", 1][1:] == [b"\0", float("inf"), {1j}]
        assert table.equals(pa.table({"t": [1, None]}))
        pd.testing.assert_frame_equal(await kernel.pull("frame"), frame)

        async with anyio.create_task_group() as tasks:
            for i in range(8):
                tasks.start_soon(functools.partial(kernel.push, **{f"x{i}": i}))
        assert await kernel.pull(*(f"x{i}" for i in range(8))) == tuple(range(8))

        await kernel.execute(FUNCTIONS)
        np.testing.assert_array_equal(await kernel.call("double", array, times=3), array * 6)
        assert await kernel.call("slow", {1, 2}) == {1, 2}
        assert await kernel.call("lambda *args: args", 1, (2,)) == (1, (2,))
        with pytest.raises(ExecutionError) as caught:
            await kernel.call("fails")
        error = caught.value
        assert (error.ename, error.evalue, error.result.stdout.strip()) == ("LookupError", "no such thing", "before")
        assert "in fails" in error.traceback[1]
        with pytest.raises(ExecutionError, match="name 'missing' is not defined") as caught:
            await kernel.pull("missing")
        assert caught.value.ename == "NameError"
        with pytest.raises(
            UnsupportedError, match=r"^double cannot travel: it is of type function; what travels: None"
        ):
            await kernel.pull("array", "double")
        await kernel.set_env(ANYKERNEL_A="ä", ANYKERNEL_B="")
        await kernel.set_env(ANYKERNEL_B=None, ANYKERNEL_C=None)
        assert await kernel.call("lambda: {k: v for k, v in os.environ.items() if 'ANYKERNEL_' in k}") == {
            "ANYKERNEL_A": "ä",
            **{k: v for k, v in os.environ.items() if "ANYKERNEL_" in k},
        }
        if case.interruptible:
            for function in ("loop", "wait"):
                with anyio.move_on_after(0.3) as scope:
                    await kernel.call(function)
                assert scope.cancelled_caught
                assert await kernel.call("double", 1) == 2


CALLABLES = """
import asyncio, functools
called = []
def a(): called.append('a')
def b(): called.append('b')
async def c(x):
    await asyncio.sleep(0.01)
    called.append('c')
    return x
handlers = [c, b, a]
def decorated(function):
    @functools.wraps(function)
    def wrapper(*args):
        called.append('wrapper')
        return function(*args)
    return wrapper
later = decorated(c)
class Later:
    def __await__(self):
        return c('Later').__await__()
async def fails(): raise LookupError('later')
async def wait():
    print('waiting', flush=True)
    await asyncio.sleep(60)
waits = lambda: wait()
class Mute(Exception):
    def __str__(self): return self.text
def mute(): raise Mute
def kept():
    import sys
    return [len(m._awaitables) for name, m in sys.modules.items() if name.startswith('_anykernel')]
"""


async def test_functions_are_named_and_called_once_and_what_they_return_is_awaited(case):
    async with case.open() as kernel:
        await kernel.execute(CALLABLES)
        assert await kernel.call("handlers.pop()") is None
        assert await kernel.call("handlers.pop()") is None
        assert await kernel.call("handlers.pop()", {"c"}) == {"c"}
        assert await kernel.pull("handlers", "called") == ([], ["a", "b", "c"])
        assert await kernel.call("later", (1,)) == (1,)
        assert await kernel.pull("called") == ["a", "b", "c", "wrapper", "c"]
        assert await kernel.call("Later") == "Later"
        with pytest.raises(ExecutionError, match="LookupError: later"):
            await kernel.call("lambda: fails()")
        with pytest.raises(UnsupportedError, match=r"^what lambda: c\(print\) returned cannot travel"):
            await kernel.call("lambda: c(print)")
        with pytest.raises(ExecutionError) as caught:
            await kernel.call("mute")
        assert caught.value.ename == "Mute"

        values = {}

        async def call(i):
            values[i] = await kernel.call("later", i)

        async with anyio.create_task_group() as tasks:
            for i in range(20):
                tasks.start_soon(call, i)
        assert values == {i: i for i in range(20)}
        if case.interruptible:
            async with kernel.messages("stream") as stream, anyio.create_task_group() as tasks:
                tasks.start_soon(kernel.call, "waits")
                await stream.receive()
                tasks.cancel_scope.cancel()
        assert await kernel.call("kept") == [0]


async def test_no_trace_is_left_and_none_is_needed():
    async with open_kernel() as kernel:
        await kernel.execute(
            "names = ('list', 'dict', 'type', 'len', 'str', 'exec', 'eval', 'compile', 'globals', 'sys')"
        )
        await kernel.execute("for name in (*names, 'get_ipython', 'json', 'print'): globals()[name] = None")
        await kernel.push(x=[1])
        assert await kernel.pull("x") == [1]
        assert await kernel.call("max", 1, 2) == 2
        await kernel.execute("async def shadowed(): return names")
        assert len(await kernel.call("shadowed")) == 10
        result = await kernel.execute("%reset -f")
        assert (result.execution_count, (await kernel.execute("_")).error.ename) == (4, "NameError")
        await kernel.push(x=2)
        await kernel.execute(
            "import sys\nfor name in list(sys.modules):\n    if 'anykernel' in name: del sys.modules[name]"
        )
        assert await kernel.pull("x") == 2
        assert [entry[2] for entry in (await kernel.history("tail", n=50)).history if "anykernel_" in entry[2]] == []
        await kernel.restart()
        with pytest.raises(ExecutionError, match="NameError"):
            await kernel.pull("x")
        await kernel.push(x=3)
        assert await kernel.pull("x", "x") == (3, 3)


async def test_what_cannot_travel_is_refused_before_anything_is_sent():
    async with scripted_kernel() as (kernel, script):
        for call, text in (
            (kernel.push(good=1, bad=[object()]), r"bad\[0\] cannot travel: it is of type object; what travels: None"),
            (kernel.push(bad=np.array([None])), "bad cannot travel: .*pickled"),
            (kernel.push(bad=pd.DataFrame({"a": [2**70, 1]})), "bad cannot travel: .*by Arrow"),
            (kernel.push(bad=np.rec.array([(1, 2)])[0]), "bad cannot travel: .*record"),
            (kernel.push(**{"a b": 1}), "'a b' is no name"),
            (kernel.push(**{"class": 1}), "'class' is no name"),
            (kernel.push(**dict.fromkeys(["ﬁ"], 1)), "is no name"),
            (kernel.pull("a", "b()"), r"'b\(\)' is neither"),
            (kernel.pull("a..b"), "is neither"),
            (kernel.pull(3), "is neither"),
            (kernel.call(print), "by its name"),
            (kernel.call("f", 1, print), "argument 1 of f cannot travel"),
            (kernel.call("f", key=[print]), r"key\[0\] cannot travel"),
            (kernel.set_env(**{"A=B": "x"}), "cannot be set"),
            (kernel.set_env(A="fine", B=1), "'B' cannot be set to 1 "),
            (kernel.set_env(A="fine", B=0), "'B' cannot be set to 0 "),
            (kernel.set_env(A=False), "cannot be set"),
            (kernel.set_env(A=[]), "cannot be set"),
            (kernel.set_env(A=b"x"), "cannot be set"),
            (kernel.set_env(A="\0"), "cannot be set"),
            (kernel.set_env(**{"": None}), "cannot be set"),
        ):
            with pytest.raises(ArgumentError, match=text):
                await call
        assert script.nothing_sent()


async def test_a_library_that_one_side_lacks_is_told(monkeypatch):
    async with open_kernel() as kernel:
        await kernel.execute("import pyarrow, sys; table = pyarrow.table({'a': [1]}); sys.modules['numpy'] = None")
        with pytest.raises(ExecutionError) as caught:
            await kernel.push(a=1, b=np.zeros(3))
        assert caught.value.ename == "ModuleNotFoundError"
        assert (await kernel.execute("a")).error.ename == "NameError"  # all or nothing
        monkeypatch.setitem(sys.modules, "pyarrow", None)
        with pytest.raises(UnsupportedError, match=r"cannot be read here: .*pyarrow"):
            await kernel.pull("table")


async def test_other_languages_are_unsupported(monkeypatch):
    monkeypatch.setitem(INFO, "language_info", {"name": "bash"})
    async with scripted_kernel() as (kernel, script):
        for call in (kernel.push(x=1), kernel.pull("x"), kernel.call("f"), kernel.set_env(A="b")):
            with pytest.raises(UnsupportedError, match="Python kernels only, not bash"):
                await call
        assert script.nothing_sent()


async def test_a_python_kernel_that_runs_without_ipython_is_unsupported():
    case = Case([sys.executable, "-m", "xpython_launcher", "-f", "{connection_file}", "--raw"], "xpython_launcher")
    async with case.open() as kernel:
        for call in (kernel.push(x=1), kernel.pull("x"), kernel.call("len", []), kernel.set_env(A="b")):
            with pytest.raises(UnsupportedError, match="runs without IPython"):
                await call
        with pytest.raises(UnsupportedError, match="evaluates no user expressions"):
            await kernel.evaluate("1 + 1")
        assert (await kernel.execute("1 + 1")).data == {"text/plain": "2"}


async def test_a_kernel_without_what_it_takes_is_unsupported():
    async with scripted_kernel() as (kernel, script), anyio.create_task_group() as tasks:

        async def push():
            with pytest.raises(UnsupportedError, match="buffers of a request"):
                await kernel.push(x=1)

        tasks.start_soon(push)
        request = await script.next()
        script.start(request)
        # As such a kernel would, with the code that it is sent.
        with pytest.raises(Exception, match=r"IPython|NoneType") as caught:
            exec(request.content["code"], {})
        name = type(caught.value).__name__
        script.finish(request, status="error", ename=name, evalue=str(caught.value), traceback=[])


async def test_another_error_of_the_code_that_is_sent_is_told_as_it_is():
    async with scripted_kernel() as (kernel, script), anyio.create_task_group() as tasks:

        async def push():
            with pytest.raises(ExecutionError, match="KeyError: 'x'"):
                await kernel.push(x=1)

        tasks.start_soon(push)
        request = await script.next()
        script.start(request)
        script.finish(request, status="error", ename="KeyError", evalue="'x'", traceback=[])


async def test_calls_wait_for_their_turn_and_are_cancelled_out_of_the_queue():
    async with scripted_kernel() as (kernel, script), anyio.create_task_group() as tasks:
        tasks.start_soon(kernel.execute, "first")
        first = await script.next()
        with anyio.move_on_after(0.05) as scope:
            await kernel.push(x=1)
        assert scope.cancelled_caught
        assert script.nothing_sent()
        script.start(first)
        script.finish(first)


@pytest.mark.parametrize(
    ("buffers", "error"),
    [
        (None, "sent no answer"),
        ([], "malformed"),
        ([b"[1]"], "malformed"),
        (encode(["error", "no fields"]), "malformed"),
        (encode(["surprise", 1]), "malformed"),
        (encode(["value", np.zeros(3)])[:1], "malformed"),
    ],
)
async def test_a_kernel_that_answers_nonsense_breaks_the_protocol(buffers, error):
    async with scripted_kernel() as (kernel, script), anyio.create_task_group() as tasks:

        async def pull():
            with pytest.raises(ProtocolError, match=error):
                await kernel.pull("x")

        tasks.start_soon(pull)
        request = await script.next()
        script.status(request, "busy")
        script.publish(request, "comm_msg", comm_id="another", data={"of": "a widget"})
        if buffers is not None:
            content = {"comm_id": "anykernel", "data": {"anykernel": "answer"}}
            script.transport.answer(request, "iopub", "comm_msg", content, buffers=tuple(buffers))
        script.finish(request)


async def test_a_call_ends_with_its_kernel():
    async with open_kernel() as kernel, anyio.create_task_group() as tasks:
        await kernel.execute(FUNCTIONS)

        async def call():
            with pytest.raises(KernelDiedError) as caught:
                await kernel.call("loop")
            assert caught.value.result.stdout.strip() == "looping"

        async with kernel.messages("stream") as stream:
            tasks.start_soon(call)
            await stream.receive()
            os.kill(kernel.pid, signal.SIGKILL)


def test_using_variables_imports_no_library_that_is_not_used():
    code = (
        "import anyio, sys\nfrom anykernel import open_kernel\nasync def main():\n"
        "    async with open_kernel() as kernel:\n"
        "        await kernel.push(x=[1])\n        assert await kernel.pull('x') == [1]\n"
        "        assert not {'numpy', 'pandas', 'pyarrow'} & set(sys.modules)\n"
        "anyio.run(main)"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=60)
