"""Which execution is sent when: the queue of one shell, on our side.

What is still here can be cancelled without a trace, and what is not in the kernel cannot be aborted there by
somebody else's error.
"""

from __future__ import annotations

from collections import OrderedDict

from ._execution import Execution
from ._router import Ending, Router

__all__ = ["Dispatcher"]


class Dispatcher:
    """The executions of one shell, sent in order, at most ``max_in_flight`` of them in the kernel at once."""

    def __init__(self, router: Router, max_in_flight: int) -> None:
        self.router = router
        self._max_in_flight = max_in_flight
        self._queued: OrderedDict[Execution, None] = OrderedDict()
        self._in_flight: set[Execution] = set()
        self._held = 0
        # How many of those in the kernel may ask for input.
        self._prompting = 0
        # Those that may not, and that the kernel is still to begin with.
        self._beginning: set[Execution] = set()
        self._pumping = False
        self.ended_busy = False
        """Whether something of ours lay in the kernel when the connection ended."""
        self._ending: Ending | None = None
        router.dispatchers.append(self)

    @property
    def busy(self) -> bool:
        """Whether something of ours lies in the kernel."""
        return bool(self._in_flight)

    @property
    def in_flight(self) -> list[Execution]:
        """What of ours lies in the kernel."""
        return list(self._in_flight)

    def submit(self, execution: Execution) -> None:
        """Queue an execution, and send it if it is its turn.

        Raises:
            AnyKernelError: the connection, or the subshell, has ended.
        """
        self.check()
        self._queued[execution] = None
        self._pump()

    def check(self) -> None:
        """Raise what a call is to raise if the connection, or the subshell, has ended."""
        ending = self.router.ending or self._ending
        if ending is not None:
            raise ending(None)

    def discard(self, execution: Execution) -> bool:
        """Take an execution out of the queue; False if it is not in it any more."""
        if execution in self._queued:
            del self._queued[execution]
            return True
        return False

    def hold(self) -> None:
        """Send nothing until `release`."""
        self._held += 1

    def release(self) -> None:
        self._held -= 1
        self._pump()

    def settled(self, execution: Execution) -> None:
        """The kernel is done with an execution."""
        if execution in self._in_flight:
            self._in_flight.remove(execution)
            self._beginning.discard(execution)
            self._prompting -= execution._prompts
            if execution in self.router.begging:
                self.router.begging.remove(execution)
                self._answer_again()
            self._pump_others()
        self._pump()

    def started(self, execution: Execution) -> None:
        """The kernel has begun with the code of an execution, or is about to where silent code does not tell more."""
        if execution in self._beginning:
            self._beginning.remove(execution)
            self._pump_others()

    def end(self, ending: Ending) -> None:
        """Fail what is queued, and refuse what would be; the router fails what was sent."""
        self._ending = ending
        self.ended_busy = self.busy
        queued = list(self._queued)
        self._queued.clear()
        for execution in queued:
            execution._on_end(ending)

    def _answer_again(self) -> None:
        if self.router.begging:
            return
        for dispatcher in self.router.dispatchers:
            for execution in dispatcher._in_flight:
                if execution._handlers is not None:
                    execution._handlers.answer_again()

    def others_prompt(self) -> bool:
        """Whether something may ask for input in another shell."""
        return any(other._prompting for other in self._others)

    @property
    def _others(self) -> list[Dispatcher]:
        """Those of the kernel's other shells."""
        return [other for other in self.router.dispatchers if other is not self]

    def _pump_others(self) -> None:
        for other in self._others:
            other._pump()

    def _pump(self) -> None:
        # Sending may settle an execution (what cannot be sent), which comes back here: the outer loop goes on.
        if self._pumping:
            return
        self._pumping = True
        try:
            while self._queued and not self._held and len(self._in_flight) < self._max_in_flight:
                execution = next(iter(self._queued))
                prompting = self.others_prompt()
                if execution._prompts and (prompting or any(other._beginning for other in self._others)):
                    # Kernels have one stdin, and give an answer to whichever of their shells reads it first. They have
                    # one switch too, set by each execution as it begins: a False would take the input() away.
                    break
                del self._queued[execution]
                self._in_flight.add(execution)
                self._prompting += execution._prompts
                if not execution._prompts:
                    self._beginning.add(execution)
                execution._send(allow_stdin=prompting or execution._prompts)
        finally:
            self._pumping = False
