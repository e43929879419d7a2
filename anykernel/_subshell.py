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
from typing import TYPE_CHECKING

import anyio

from ._exceptions import AnyKernelError, ProtocolError, UnsupportedError
from ._execution import Execution
from ._messages import Message, error_of
from ._router import Reply, Router, closed_ending
from ._shell import Shell
from ._tasks import run_apart

if TYPE_CHECKING:
    from ._kernel import Connection, Kernel

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

    _connection: Connection

    def __init__(self, kernel: Kernel, connection: Connection, subshell_id: str) -> None:
        self.id = subshell_id
        """The kernel's name for it."""
        self.output_limit = kernel.output_limit
        self.interrupt_timeout = kernel.interrupt_timeout
        self._displays = kernel._displays
        self._start_soon = kernel._start_soon
        self._kernel = kernel
        self._event_loop_thread = kernel._event_loop_thread
        self._connection = connection
        self._route = {"subshell_id": subshell_id}
        # Where its code runs, by `threading.get_ident` in the kernel; None is the main thread.
        self._thread: int | None = None
        self._located = self._deleted = False

    def __repr__(self) -> str:
        return f"<Subshell {self.id} of {self._kernel!r}>"

    async def _connected(self) -> Connection:
        self._check_thread()
        self._connection.dispatcher.check()
        return self._connection

    async def interrupt(self) -> None:
        """Interrupt what this subshell runs; nothing happens when it runs nothing.

        The protocol has no interrupt for subshells. In Python kernels, `KeyboardInterrupt` is raised in the
        subshell's thread: at its next step in Python, so that a call that blocks (``time.sleep(100)``) ends first.

        Raises:
            UnsupportedError: the kernel is not a Python one.
            KernelDiedError, KernelRestartedError, ConnectionClosedError: kernel or subshell went away.
        """
        if self._deleted:
            self._connection.dispatcher.check()
        if not self._located:
            raise UnsupportedError("only Python kernels can interrupt the code of a subshell")
        await self._interrupt(self._connection, self._deliver_interrupt)

    async def _locate(self) -> None:
        """Find out where an interrupt is to go."""
        if self._connection.kernel_info.language != "python":
            return
        self._thread = await self.evaluate(_WHERE)
        self._located = True
        if self._thread is not None:
            self._connection.router.interrupts[self.id] = 0

    async def _deliver_interrupt(self) -> None:
        # None of the requests by which it is done says so.
        self._kernel._lifecycle.interrupts_subshell(self.id)
        if self._thread is None:
            await self._kernel._lifecycle.interrupt(self._connection)
            return
        async with open_subshell(self._kernel, self._connection, located=False) as other:
            source = _INTERRUPT.format(thread=self._thread)
            await other.evaluate(f"__import__('builtins').exec({source!r}, {{}})")

    async def _delete(self) -> None:
        """Let nothing more in, stop what runs, and have the kernel delete it."""
        dispatcher, router = self._connection.dispatcher, self._connection.router
        ending = closed_ending("the subshell was deleted")
        dispatcher.end(ending)
        if router.ending is None:
            running = dispatcher.in_flight
            router.fail(self.id, ending, but=running)
            async with anyio.create_task_group() as tasks:
                for execution in running:
                    execution._fail(lambda result=execution.result: ending(result))  # type: ignore[misc]
                    tasks.start_soon(execution._stop)
            self._deleted = True
            if dispatcher.busy:
                # A kernel that is to delete a subshell in which code runs answers nothing on control until then. Its
                # dispatcher stays as well: this code may read what another shell is answered.
                self._start_soon(lambda: self._delete_after(running))
                return
            await self._delete_now()
        router.dispatchers.remove(dispatcher)

    async def _delete_after(self, running: list[Execution]) -> None:
        for execution in running:
            await execution._wait_until(lambda settling=execution: settling.state == "settled")  # type: ignore[misc]
        self._connection.router.dispatchers.remove(self._connection.dispatcher)
        await self._delete_now()

    async def _delete_now(self) -> None:
        with anyio.move_on_after(self.interrupt_timeout):
            await _delete(self._connection.router, self.id)
        # What an interrupt left there.
        self._connection.router.fail(self.id, closed_ending("the subshell was deleted"))
        self._connection.router.interrupts.pop(self.id, None)


@asynccontextmanager
async def open_subshell(kernel: Kernel, connection: Connection, *, located: bool = True) -> AsyncIterator[Subshell]:
    """See `Kernel.subshell`; one that is not ``located`` cannot be interrupted."""
    if SUBSHELLS not in connection.kernel_info.supported_features:
        raise UnsupportedError("this kernel has no subshells")
    router = connection.router
    create = Reply(Message("control", router.new_header("create_subshell_request")))
    create.send(router)
    try:
        subshell_id = await _created(create)
    except anyio.get_cancelled_exc_class():
        # The kernel makes it all the same.
        kernel._start_soon(lambda: _delete_created(router, create))
        raise
    subshell = Subshell(kernel, connection.for_subshell(), subshell_id)
    try:
        if located:
            await subshell._locate()
        yield subshell
    finally:
        await run_apart(kernel._start_soon, subshell._delete)


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
        reply = (await router.request("delete_subshell_request", content, channel="control")).content
        if reply.get("status") == "error":
            raise error_of(reply)
    except AnyKernelError as exc:
        # Kernel or subshell are gone already.
        logger.debug("could not delete the subshell %s: %s", subshell_id, exc)
