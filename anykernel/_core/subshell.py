"""Subshells: more shells of one kernel, each with requests, a queue and an end of its own (JEP 91).

How this works. A request reaches a subshell by the ``subshell_id`` in its header; everything else is the main
shell's way, with another dispatcher. An interrupt is the exception: a signal and an ``interrupt_request`` both reach
the kernel's main thread only, where they would hit somebody else's code. So where the kernel is a Python one and the
subshell has a thread of its own, code is sent through another, short-lived subshell that raises `KeyboardInterrupt` in
this thread if it is running a cell or an expression, or cancels the cell's task if that awaits.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio

from .._protocol import AnyKernelError, Message, ProtocolError, UnsupportedError, error_of
from .asking import Reply, ask
from .connection import Connection
from .dispatcher import Dispatcher
from .evaluation import evaluate
from .executor import Executor
from .request import closed_ending
from .router import Router
from .run import Run
from .shell import Shell
from .tasks import run_apart

__all__ = ["SUBSHELLS", "Subshell", "open_subshell"]

logger = logging.getLogger("anykernel")

SUBSHELLS = "kernel subshells"
"""What kernels that have them list among their features."""

# Run in the subshell when it is opened: where an interrupt is to go. A kernel that runs all its shells in the main
# thread interrupts them like the main shell.
_WHERE = """(lambda threading: None if threading.current_thread() is threading.main_thread() else (
    threading.current_thread().__setattr__("_anykernel_loop", __import__("asyncio").get_running_loop()),
    threading.get_ident(),
)[1])(__import__("threading"))"""

# Run in another subshell. Only a thread in which IPython runs a cell or user expressions is hit: elsewhere, the
# exception would end its loop.
_INTERRUPT = """
import asyncio, ctypes, sys, threading
frame = sys._current_frames().get({thread})
while frame is not None and frame.f_code.co_name not in ("run_code", "user_expressions"):
    frame = frame.f_back
if frame is not None:
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong({thread}), ctypes.py_object(KeyboardInterrupt))
else:
    for thread in threading.enumerate():
        loop = getattr(thread, "_anykernel_loop", None)
        if thread.ident == {thread} and loop is not None:
            for task in asyncio.all_tasks(loop):
                if task.get_coro().__name__ == "run_cell_async":
                    loop.call_soon_threadsafe(task.cancel)
"""


class Subshell(Shell):
    """A subshell; made by `Kernel.subshell`, with every request method that a `Kernel` has."""

    def __init__(self, executor: Executor, subshell_id: str) -> None:
        super().__init__(executor)
        self.id = subshell_id
        """The kernel's name for it."""

    def __repr__(self) -> str:
        return f"<Subshell {self.id}>"

    async def interrupt(self) -> None:
        """Interrupt what this subshell runs; nothing happens when it runs nothing.

        The protocol has no interrupt for subshells. In Python kernels, `KeyboardInterrupt` is raised in the
        subshell's thread: at its next step in Python, so that a call that blocks (``time.sleep(100)``) ends first.

        Raises:
            UnsupportedError: the kernel is not a Python one.
            KernelDiedError, KernelRestartedError, ConnectionClosedError: kernel or subshell went away.
        """
        await self._executor.interrupt()


class _SubshellExecutor(Executor):
    """A subshell's: another queue, another route, another interrupt."""

    def __init__(self, main: Executor, connection: Connection, subshell_id: str) -> None:
        super().__init__(main.link, main.lifecycle)
        self.route = {"subshell_id": subshell_id}
        self._main = main
        self._id = subshell_id
        self._connection = connection
        self._dispatcher = connection.dispatchers.add()
        # Where its code runs, by `threading.get_ident` in the kernel; None is the main thread.
        self._thread: int | None = None
        self._located = self._deleted = False

    @property
    def connection(self) -> Connection:
        return self._connection

    async def connected(self) -> Connection:
        self.link.home.check()
        self._dispatcher.check()
        return self._connection

    def dispatcher_of(self, connection: Connection) -> Dispatcher:  # noqa: ARG002
        return self._dispatcher

    async def interrupt(self) -> None:
        self.link.home.check()
        if self._deleted:
            self._dispatcher.check()
        if not self._located:
            raise UnsupportedError("only Python kernels can interrupt the code of a subshell")
        await self.deliver_interrupt(self._connection, self._send_interrupt)

    async def locate(self) -> None:
        """Find out where an interrupt is to go."""
        if self._connection.kernel_info.language != "python":
            return
        self._thread = await evaluate(self, _WHERE)
        self._located = True
        if self._thread is not None:
            self._connection.router.interrupts[self._id] = 0

    async def _send_interrupt(self) -> None:
        # None of the requests by which it is done says so.
        self.lifecycle.interrupts_subshell(self._id)
        if self._thread is None:
            await self.lifecycle.interrupt(self._connection)
            return
        async with _open_executor(self._main, self._connection) as other:
            source = _INTERRUPT.format(thread=self._thread)
            await evaluate(other, f"__import__('builtins').exec({source!r}, {{}})")

    async def delete(self) -> None:
        """Let nothing more in, stop what runs, and have the kernel delete it."""
        dispatcher, router = self._dispatcher, self._connection.router
        ending = closed_ending("the subshell was deleted")
        dispatcher.end(ending)
        if router.ending is None:
            running = [job for job in dispatcher.in_flight if isinstance(job, Run)]
            router.fail(self._id, ending, but=running)
            async with anyio.create_task_group() as tasks:
                for run in running:
                    run.fail(lambda result=run.result: ending(result))  # type: ignore[misc]
                    tasks.start_soon(run.stop)
            self._deleted = True
            if dispatcher.busy:
                # A kernel that is to delete a subshell in which code runs answers nothing on control until then. Its
                # dispatcher stays as well: this code may read what another shell is answered.
                self.context.start_soon(lambda: self._delete_after(running))
                return
            await self._delete_now()
        self._connection.dispatchers.remove(dispatcher)

    async def _delete_after(self, running: list[Run]) -> None:
        for run in running:
            await run.wait_until(lambda settling=run: settling.state == "settled")  # type: ignore[misc]
        self._connection.dispatchers.remove(self._dispatcher)
        await self._delete_now()

    async def _delete_now(self) -> None:
        with anyio.move_on_after(self.context.limits.interrupt_timeout):
            await _delete(self._connection.router, self._id)
        # What an interrupt left there.
        self._connection.router.fail(self._id, closed_ending("the subshell was deleted"))
        self._connection.router.interrupts.pop(self._id, None)


@asynccontextmanager
async def open_subshell(main: Executor) -> AsyncIterator[Subshell]:
    """See `Kernel.subshell`."""
    async with _open_executor(main, await main.connected()) as executor:
        await executor.locate()
        yield Subshell(executor, executor.route["subshell_id"])


@asynccontextmanager
async def _open_executor(main: Executor, connection: Connection) -> AsyncIterator[_SubshellExecutor]:
    if SUBSHELLS not in connection.kernel_info.supported_features:
        raise UnsupportedError("this kernel has no subshells")
    router = connection.router
    create = Reply(router, Message("control", router.new_header("create_subshell_request")))
    create.send()
    try:
        subshell_id = await _created(create)
    except anyio.get_cancelled_exc_class():
        # The kernel makes it all the same.
        main.link.start_soon(lambda: _delete_created(router, create))
        raise
    executor = _SubshellExecutor(main, connection, subshell_id)
    try:
        yield executor
    finally:
        await run_apart(main.link.start_soon, executor.delete)


async def _created(create: Reply) -> str:
    content = (await create.wait()).content
    subshell_id = content.get("subshell_id")
    if content.get("status") == "error":
        raise error_of(content)
    if not isinstance(subshell_id, str):
        raise ProtocolError("the kernel made a subshell and does not say which")
    return subshell_id


async def _delete_created(router: Router, create: Reply) -> None:
    try:
        await _delete(router, await _created(create))
    except AnyKernelError as exc:
        logger.debug("no subshell to delete: %s", exc)


async def _delete(router: Router, subshell_id: str) -> None:
    try:
        content = {"subshell_id": subshell_id}
        reply = (await ask(router, "delete_subshell_request", content, channel="control")).content
        if reply.get("status") == "error":
            raise error_of(reply)
    except AnyKernelError as exc:
        # Kernel or subshell are gone already.
        logger.debug("could not delete the subshell %s: %s", subshell_id, exc)
