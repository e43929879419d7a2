"""What is killed in the middle of a thousand executes: every call ends in a right way, with its own output, and none runs twice."""

from __future__ import annotations

import os
import signal
from collections import Counter
from contextlib import ExitStack

import anyio
import pytest

from anykernel import AnyKernelError, KernelDiedError, KernelRestartedError, OutcomeUnknownError, open_server

from .proxy import proxy_process
from .servers import TOKEN, free_port, jupyter_server

EXECUTES = 1000
# How many of them have ended when the fault comes.
BEFORE = 300

pytestmark = [pytest.mark.heavy, pytest.mark.limit(120)]


@pytest.fixture
def own(tmp_path):
    """A Jupyter Server that may be killed."""
    with jupyter_server(tmp_path) as server:
        yield server


class Calls:
    """A thousand executes at once; each writes its number into a file, which tells of all processes what ran in them."""

    def __init__(self, kernel, tmp_path):
        self.kernel = kernel
        self.ended = {}
        self._file = tmp_path / "ran"
        self._file.touch()

    async def run(self, n):
        code = f"with open({str(self._file)!r}, 'a') as file: file.write('{n}\\n')\nprint({n}); {n}"
        assert n not in self.ended
        try:
            result = await self.kernel.execute(code)
        except AnyKernelError as exc:
            self.ended[n], result = type(exc), exc.result
        else:
            assert (result.data["text/plain"], result.complete) == (str(n), True)
            self.ended[n] = None
        assert result.stdout in {"", f"{n}\n"} if self.ended[n] else {f"{n}\n"}

    async def meet(self, fault):
        """Run them, and the fault in the middle; how many ended in which way."""
        async with anyio.create_task_group() as tasks:
            for n in range(EXECUTES):
                tasks.start_soon(self.run, n)
            while len(self.ended) < BEFORE:
                await anyio.sleep(0.005)  # there is no other sign of it
            await anyio.to_thread.run_sync(fault)
        assert sorted(self.ended) == list(range(EXECUTES))
        ran = Counter(self._file.read_text().split())
        assert set(ran.values()) == {1}
        assert {str(n) for n, error in self.ended.items() if error is None} <= set(ran)
        ends = Counter(self.ended.values())
        assert len(ran) - ends[None] <= 1  # at most the one that ran has run and is not known to have
        return ends


async def test_the_kernel(own, tmp_path):
    async with open_server(own.url, token=TOKEN) as server, server.open_kernel() as kernel:
        calls = Calls(kernel, tmp_path)
        ends = await calls.meet(lambda: os.kill(own.kernel_process(kernel.id), signal.SIGKILL))
        assert set(ends) == {None, KernelRestartedError}
        assert BEFORE <= ends[None] < EXECUTES
        assert await kernel.evaluate("6 * 7") == 42


async def test_the_server(own, tmp_path):
    async with open_server(own.url, token=TOKEN, reconnect_timeout=1) as server, server.open_kernel() as kernel:
        ends = await Calls(kernel, tmp_path).meet(lambda: os.kill(own.process.pid, signal.SIGKILL))
        assert set(ends) == {None, OutcomeUnknownError}
        assert not kernel.is_alive


async def test_the_server_which_is_started_again(own, tmp_path):
    with ExitStack() as stack:

        def fault():
            os.kill(own.process.pid, signal.SIGKILL)
            own.process.wait()
            stack.enter_context(jupyter_server(tmp_path, port=own.port))

        async with open_server(own.url, token=TOKEN) as server, server.open_kernel() as kernel:
            ends = await Calls(kernel, tmp_path).meet(fault)
            assert set(ends) == {None, KernelDiedError}
            await kernel.restart()
            assert await kernel.evaluate("6 * 7") == 42


async def test_the_proxy_which_is_started_again(jupyter, tmp_path):
    port = free_port()
    with ExitStack() as stack:
        proxy = stack.enter_context(proxy_process(jupyter.port, port))

        def fault():
            proxy.kill()
            proxy.wait()
            stack.enter_context(proxy_process(jupyter.port, port))

        url = f"http://127.0.0.1:{port}/"
        async with open_server(url, token=TOKEN) as server, server.open_kernel() as kernel, kernel.events() as events:
            ends = await Calls(kernel, tmp_path).meet(fault)
            assert ends[None] >= EXECUTES - 1  # the request itself may have been lost
            assert set(ends) <= {None, OutcomeUnknownError}
            assert [(await events.receive()).kind for _ in range(2)] == ["disconnected", "reconnected"]
