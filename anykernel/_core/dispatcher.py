"""Which job is sent when: the queue of one shell, on our side.

What is still here can be cancelled without a trace, and what is not in the kernel cannot be aborted there by
somebody else's error. A kernel's shells share its stdin, so their dispatchers know of each other.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Protocol

from .request import Ending
from .router import Router

__all__ = ["Dispatcher", "Dispatchers", "Job"]


class Job(Protocol):
    """What a dispatcher queues and sends."""

    prompts: bool
    """Whether it may ask for input."""

    def send(self, *, allow_stdin: bool) -> None:
        """It is its turn. From here on it says when it has begun and settled."""

    def on_end(self, ending: Ending) -> None:
        """It was still queued when the connection, or the shell, ended."""

    def answer_again(self) -> None:
        """What it was answered last may have been taken by another."""


class Dispatchers:
    """Those of one connection's shells; the main shell's is the first."""

    def __init__(self, router: Router, max_in_flight: int) -> None:
        self.router = router
        self.begging: set[Job] = set()
        """Those that ask for input, get none, and are still to be stopped; meanwhile they may take others' answers."""
        self._max_in_flight = max_in_flight
        self._dispatchers: list[Dispatcher] = []

    def __iter__(self) -> Iterator[Dispatcher]:
        return iter(self._dispatchers)

    def __len__(self) -> int:
        return len(self._dispatchers)

    def add(self) -> Dispatcher:
        """A dispatcher for one more shell."""
        dispatcher = Dispatcher(self, self._max_in_flight)
        self._dispatchers.append(dispatcher)
        self._introduce()
        self.router.listeners.append(dispatcher.end)
        return dispatcher

    def remove(self, dispatcher: Dispatcher) -> None:
        """Its shell is gone."""
        self._dispatchers.remove(dispatcher)
        self._introduce()
        self.router.listeners.remove(dispatcher.end)

    def _introduce(self) -> None:
        for dispatcher in self._dispatchers:
            dispatcher.others = tuple(other for other in self._dispatchers if other is not dispatcher)

    @property
    def runs_a_cell(self) -> bool:
        """Whether something of ours lies in the kernel's main shell."""
        return bool(self._dispatchers) and self._dispatchers[0].busy

    def stopped_begging(self, job: Job) -> None:
        """A job that asked for input and got none has settled."""
        self.begging.discard(job)
        if not self.begging:
            for dispatcher in self._dispatchers:
                for other in dispatcher.in_flight:
                    other.answer_again()


class Dispatcher:
    """The jobs of one shell, sent in order, at most ``max_in_flight`` of them in the kernel at once."""

    def __init__(self, every: Dispatchers, max_in_flight: int) -> None:
        self.router = every.router
        self.every = every
        """This one and those of the kernel's other shells."""
        self.others: tuple[Dispatcher, ...] = ()
        """Those of the other shells alone."""
        self.prompting = 0
        """How many of those in the kernel may ask for input."""
        self.beginning: set[Job] = set()
        """Those that may not, and that the kernel is still to begin with."""
        self.ended_busy = False
        """Whether something of ours lay in the kernel when the connection ended."""
        self._max_in_flight = max_in_flight
        self._queued: OrderedDict[Job, None] = OrderedDict()
        self._in_flight: set[Job] = set()
        self._held = 0
        self._pumping = False
        self._ending: Ending | None = None

    @property
    def busy(self) -> bool:
        """Whether something of ours lies in the kernel."""
        return bool(self._in_flight)

    @property
    def pending(self) -> int:
        """How many are queued here, or lie in the kernel."""
        return len(self._queued) + len(self._in_flight)

    @property
    def in_flight(self) -> list[Job]:
        """What of ours lies in the kernel."""
        return list(self._in_flight)

    def submit(self, job: Job) -> None:
        """Queue a job, and send it if it is its turn.

        Raises:
            AnyKernelError: the connection, or the subshell, has ended.
        """
        self.check()
        self._queued[job] = None
        self.pump()

    def check(self) -> None:
        """Raise what a call is to raise if the connection, or the subshell, has ended."""
        ending = self.router.ending or self._ending
        if ending is not None:
            raise ending(None)

    def discard(self, job: Job) -> bool:
        """Take a job out of the queue; False if it is not in it any more."""
        if job in self._queued:
            del self._queued[job]
            return True
        return False

    def hold(self) -> None:
        """Send nothing until `release`."""
        self._held += 1

    def release(self) -> None:
        self._held -= 1
        self.pump()

    def settled(self, job: Job) -> None:
        """The kernel is done with a job."""
        if job in self._in_flight:
            self._in_flight.remove(job)
            self.beginning.discard(job)
            self.prompting -= job.prompts
            if job in self.every.begging:
                self.every.stopped_begging(job)
            self._pump_others()
        self.pump()

    def started(self, job: Job) -> None:
        """The kernel has begun with the code of a job, or is about to where silent code does not tell more."""
        if job in self.beginning:
            self.beginning.remove(job)
            self._pump_others()

    def end(self, ending: Ending) -> None:
        """Fail what is queued, and refuse what would be; the router fails what was sent."""
        self._ending = ending
        self.ended_busy = self.busy
        queued = list(self._queued)
        self._queued.clear()
        for job in queued:
            job.on_end(ending)

    def others_prompt(self) -> bool:
        """Whether something may ask for input in another shell."""
        return bool(self.others) and any(other.prompting for other in self.others)

    def _pump_others(self) -> None:
        for other in self.others:
            other.pump()

    def pump(self) -> None:
        """Send what may be sent now."""
        # Sending may settle a job (what cannot be sent), which comes back here: the outer loop goes on.
        if self._pumping:
            return
        self._pumping = True
        try:
            while self._queued and not self._held and len(self._in_flight) < self._max_in_flight:
                job = next(iter(self._queued))
                prompting = self.others_prompt()
                if job.prompts and (prompting or any(other.beginning for other in self.others)):
                    # Kernels have one stdin, and give an answer to whichever of their shells reads it first. They have
                    # one switch too, set by each execution as it begins: a False would take the input() away.
                    break
                del self._queued[job]
                self._in_flight.add(job)
                self.prompting += job.prompts
                if not job.prompts:
                    self.beginning.add(job)
                job.send(allow_stdin=prompting or job.prompts)
        finally:
            self._pumping = False
