"""All that one can hold of a kernel, and use where it must not be used."""

from __future__ import annotations

from contextlib import AsyncExitStack

import anyio

from anykernel import UnsupportedError

# Code that runs until the test lets it go on, and a comm's other side.
CELL = "import threading\ngate = threading.Event()\nprint('runs', flush=True)\nwhile not gate.wait(0.01): pass"
TARGET = "get_ipython().kernel.comm_manager.register_target('target', lambda comm, message: None)"


class Held:
    """All that one can hold of a kernel, while a cell runs in it."""

    def __init__(self, kernel):
        self.kernel = kernel
        self._stack = AsyncExitStack()

    async def __aenter__(self):
        kernel, enter = self.kernel, self._stack.enter_async_context
        await kernel.execute(TARGET, check=True)
        self.comm = await enter(kernel.open_comm("target"))
        self.messages = await enter(kernel.messages("no such type"))
        self.subshell = await enter(kernel.subshell())
        self.execution = await kernel.submit(CELL)
        async for _ in self.execution:
            break
        return self

    async def __aexit__(self, *exc):
        await self.subshell.execute("gate.set()")
        assert (await self.execution.wait()).ok
        await self._stack.aclose()

    async def use_elsewhere(self):
        """What comes of each call that waits, or changes something."""
        kernel, subshell, execution, messages, comm = (
            self.kernel, self.subshell, self.execution, self.messages, self.comm
        )  # fmt: skip

        async def iterate(make):
            async for _ in make():
                raise AssertionError

        async def enter(block):
            async with block:
                raise AssertionError

        calls = {
            "execute": lambda: kernel.execute("1", timeout=2),
            "submit": lambda: kernel.submit("1"),
            "stream": lambda: enter(kernel.stream("1")),
            "evaluate": lambda: kernel.evaluate("1"),
            "push": lambda: kernel.push(x=1),
            "pull": lambda: kernel.pull("x"),
            "complete": lambda: kernel.complete("x"),
            "kernel_info": kernel.kernel_info,
            "request": lambda: kernel.request("kernel_info_request", {}),
            "debug": lambda: kernel.debug("debugInfo"),
            "usage": kernel.usage,
            "interrupt": kernel.interrupt,
            "restart": kernel.restart,
            "shutdown": kernel.shutdown,
            "messages": lambda: enter(kernel.messages()),
            "events": lambda: enter(kernel.events()),
            "debug_events": lambda: enter(kernel.debug_events()),
            "comms": lambda: enter(kernel.comms("other target")),
            "open_comm": lambda: enter(kernel.open_comm("target")),
            "subshell": lambda: enter(kernel.subshell()),
            "subshell.execute": lambda: subshell.execute("1"),
            "subshell.complete": lambda: subshell.complete("x"),
            "subshell.interrupt": subshell.interrupt,
            "execution.wait": execution.wait,
            "execution.cancel": execution.cancel,
            "execution, iterated": lambda: iterate(lambda: execution),
            "execution.watch": lambda: iterate(execution.watch),
            "messages.receive": messages.receive,
            "messages, iterated": lambda: iterate(lambda: messages),
            "messages.aclose": messages.aclose,
            "comm.receive": comm.receive,
            "comm, iterated": lambda: iterate(lambda: comm),
            "comm.send": lambda: comm.send(1),
            "comm.close": comm.close,
        }
        outcomes = {}
        for name, call in calls.items():
            with anyio.move_on_after(5):
                try:
                    outcomes[name] = await call()
                except UnsupportedError as exc:
                    outcomes[name] = str(exc)
            outcomes.setdefault(name, "it hangs")
        return outcomes


def refused(outcomes, why):
    return {name: outcome for name, outcome in outcomes.items() if why not in str(outcome)} == {}
