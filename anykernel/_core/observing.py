"""Who observes this process's executions and kernels, for tracing and metrics: told what happens, and able to change nothing.

How this works. `observe` adds an observer to a tuple. As long as that is empty, an execution costs nothing but the looks at an
attribute that is None. What an observer raises is logged, and nothing else comes of it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from .._protocol import KernelDiedError, KernelInfo, Message, Result
from .request import Ending
from .router import Router

__all__ = [
    "ExecutionObserver",
    "Observation",
    "Observer",
    "is_observed",
    "observe",
    "observe_execution",
    "observe_kernel",
]

logger = logging.getLogger("anykernel")


class ExecutionObserver:
    """What `Observer.execution_queued` gives: told what becomes of one execution. Methods must neither wait nor take long."""

    def sent(self) -> None:
        """It is sent to the kernel."""

    def running(self) -> None:
        """The kernel has begun with it."""

    def output(self, size: int) -> None:
        """It has put out so many bytes."""

    def ended(self, result: Result, error: Exception | None, *, stopped: bool) -> None:
        """It is over, in whichever state it was; called once.

        Args:
            result: as far as it has come.
            error: what its caller gets instead of the result, for want of an end: `KernelDiedError`,
                `ExecutionTimeoutError`, ...; what the code raised is in the result.
            stopped: whether the client has stopped it: it was cancelled, or its time was over.
        """


class Observer:
    """Told what this process does with kernels, by those that it passes to `observe`: a base class, whose methods do nothing.

    Methods are called where it happens, in the event loop, and must neither wait nor take long.
    """

    def execution_queued(self, request: Message, info: KernelInfo, kernel_id: str | None) -> ExecutionObserver | None:
        """Code is about to be queued; called in the task of whoever runs it, and with its context variables.

        Args:
            request: the ``execute_request``; its ``metadata`` may be added to.
            info: what the kernel said of itself.
            kernel_id: a server's name for the kernel.

        Returns: who is told what becomes of it, if anybody.
        """

    def kernel_opened(self, info: KernelInfo) -> None:
        """A kernel, or its new process after a restart, is ready."""

    def kernel_closed(self, info: KernelInfo, *, died: bool) -> None:
        """It is gone, or the connection to it."""


_observers: tuple[Observer, ...] = ()


def observe(observer: Observer) -> Callable[[], None]:
    """Have an observer told of all kernels and executions of this process, from now on; gives a function that ends this."""
    global _observers  # noqa: PLW0603
    _observers = (*_observers, observer)

    def undo() -> None:
        global _observers  # noqa: PLW0603
        _observers = tuple(other for other in _observers if other is not observer)

    return undo


def _tell(method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    try:
        return method(*args, **kwargs)
    except Exception:
        logger.exception("an observer failed")
        return None


class Observation:
    """Those who are told what becomes of one execution."""

    __slots__ = ("_told", "attended", "error", "stopped")

    def __init__(self, told: list[ExecutionObserver]) -> None:
        self._told = told
        self.attended = False
        """Whether somebody says when it is over; else it is when its waiting is."""
        self.stopped = False
        self.error: Exception | None = None
        """What ends it besides its own end: what a function of the user's has raised."""

    def sent(self) -> None:
        for each in self._told:
            _tell(each.sent)

    def running(self) -> None:
        for each in self._told:
            _tell(each.running)

    def output(self, size: int) -> None:
        for each in self._told:
            _tell(each.output, size)

    def released(self, result: Result, error: Callable[[], Exception] | None) -> None:
        """The waiting for it is over."""
        if not self.attended:
            self.end(result, error)

    def end(self, result: Result, error: Callable[[], Exception] | None) -> None:
        """It is over."""
        told, self._told = self._told, []
        if told:
            cause = self.error if error is None else error()
            for each in told:
                _tell(each.ended, result, cause, stopped=self.stopped)


def observe_execution(request: Message, info: KernelInfo, kernel_id: str | None) -> Observation | None:
    """Who observes an execution that is about to be queued."""
    made = [_tell(observer.execution_queued, request, info, kernel_id) for observer in _observers]
    told = [each for each in made if each is not None]
    return Observation(told) if told else None


def is_observed() -> bool:
    """Whether there is anybody who observes."""
    return bool(_observers)


def observe_kernel(router: Router, info: KernelInfo) -> None:
    """Tell that a kernel is ready, and then when it is gone."""
    observers = _observers
    if not observers:
        return

    def ended(ending: Ending) -> None:
        died = isinstance(ending(None), KernelDiedError)
        for observer in observers:
            _tell(observer.kernel_closed, info, died=died)

    for observer in observers:
        _tell(observer.kernel_opened, info)
    router.listeners.append(ended)
