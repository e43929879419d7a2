"""Cancellation at random moments: fifty callers at once against a model of a kernel, thousands of cases.

How this works. The model kernel is sequential, as ipykernel is: it takes requests from shell in order, and an
interrupt hits whatever it works on when it notices, which may be long after the interrupt's target has ended. It
remembers what it was sent, what it ran and what was hit, so that each round can say whether anything ran twice, ran
although it was cancelled here, or was hit by an interrupt that was meant for something else.

Everything a case does is drawn from its own seed, which the test's name and the failure's text give. What the event
loop and the clock add to that cannot be repeated, so run a failing seed more than once.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from collections import Counter
from contextlib import asynccontextmanager
from random import Random

import anyio
import anyio.lowlevel
import pytest

import anykernel._core.router
import anykernel._core.stopping
from anykernel import ErrorOutput, ExecutionTimeoutError, KernelDiedError, Stream
from anykernel._core.tasks import open_task_group

from ..helpers.scripted import INFO, scripted_kernel

CALLERS = 50
ROUNDS = 5
# What a cell comes past, in this order; "half" is when one of reply and idle is out.
PHASES = ("sent", "busy", "started", "output", "done", "half", "ended")


@pytest.fixture(autouse=True)
def short_grace(monkeypatch):
    monkeypatch.setattr(anykernel._core.router, "GRACE", 0.3)
    monkeypatch.setattr(anykernel._core.router, "INTERRUPTED_GRACE", 0.05)
    monkeypatch.setattr(anykernel._core.stopping, "INTERRUPT_INTERVAL", 0.01)
    monkeypatch.setattr(anykernel._core.stopping, "START_GRACE", 0.002)


pytestmark = pytest.mark.limit(30)


async def turns(count):
    for _ in range(count):
        await anyio.lowlevel.checkpoint()


async def pause(rng):
    """What work takes: some turns of the event loop, or some time."""
    if rng.random() < 0.85:
        await turns(rng.choice((0, 0, 1, 2, 5)))
    else:
        await anyio.sleep(rng.random() * 0.001)


def folded(pieces):
    """The outputs that pieces of text add up to."""
    groups = itertools.groupby(pieces, key=lambda piece: piece[0])
    return [Stream(name, "".join(text for _, text in group)) for name, group in groups]


class Cell:
    """What the code of one request does in the model kernel, and what became of it."""

    def __init__(self, rng, code):
        self.code = code
        count = rng.choice((0, 1, 1, 2, 5))
        self.pieces = [(rng.choice(("stdout", "stderr")), f"{code}:{i} ") for i in range(count)]
        self.ignored = 1 if rng.random() < 0.15 else 0  # so many interrupts
        self.deaf = rng.random() < 0.2  # whether interrupts are noticed by what comes next only
        self.endless = False  # whether it only ends by an interrupt
        self.condemned = False  # whether its caller has begun to stop it
        self.sent = self.run = self.hits = self.published = 0
        self.count = None
        self.error = False
        self.order = math.inf  # of the call
        self._phases = {phase: anyio.Event() for phase in PHASES}

    def at(self, phase):
        return self._phases[phase]

    @property
    def outputs(self):
        error = [ErrorOutput("KeyboardInterrupt", "", [])] if self.error else []
        return folded(self.pieces[: self.published]) + error

    def has_printed(self, outputs):
        """Whether these outputs are a beginning of its own."""
        texts = [(o.name, c) for o in outputs if isinstance(o, Stream) for c in o.text]
        own = [(o.name, c) for o in folded(self.pieces[: self.published]) for c in o.text]
        return texts == own[: len(texts)]

    def __repr__(self):
        passed = [phase for phase in PHASES if self._phases[phase].is_set()]
        return f"<{self.code} {passed} hits={self.hits} condemned={self.condemned} endless={self.endless}>"


class ModelKernel:
    """Takes one request after another from shell, and interrupts at any time from control."""

    def __init__(self, script, rng, *, accurate, patient):
        self.cells = {}
        self.accurate = accurate  # whether interrupts are to hit nobody but those they are meant for
        self.patient = patient  # whether who stops code waits until it has settled, however long that takes
        self.interrupts = 0
        self.strays = []  # who was hit by an interrupt that was meant for another
        self.dead = False
        self.done = 0  # callers, of the round
        self._done = {}
        self._script = script
        self._rng = rng
        self._scope = anyio.CancelScope()
        self._count = 0
        self._last = None  # the cell that runs, or ran
        self._order = -1
        # Whether it works on a request, and whether an interrupt has come that the work has not noticed yet.
        self._busy = self._signal = False

    async def run(self):
        to_shell, shell = anyio.create_memory_object_stream(math.inf)
        to_control, control = anyio.create_memory_object_stream(math.inf)
        with self._scope, to_shell, shell, to_control, control:
            async with open_task_group() as tasks:
                tasks.start_soon(self._work, shell)
                tasks.start_soon(self._take_interrupts, control)
                while True:
                    message = await self._script.receive()
                    if message.msg_type == "execute_request":
                        self._take(self.cells[message.content["code"]])
                    elif message.msg_type == "interrupt_request" and self.accurate:
                        assert self._last is not None, "an interrupt before anything runs"
                        assert self._last.condemned, "an interrupt before its target runs"
                    (to_shell if message.channel == "shell" else to_control).send_nowait(message)

    async def die(self, rng):
        self.dead = True
        self._scope.cancel()
        await pause(rng)
        self._script.transport.gone.set()

    async def callers_done(self, count):
        if self.done < count:
            await self._done.setdefault(count, anyio.Event()).wait()

    def caller_done(self):
        self.done += 1
        self._done.setdefault(self.done, anyio.Event()).set()

    def begin_round(self):
        self.done = 0
        self._done.clear()

    def _take(self, cell):
        cell.sent += 1
        cell.at("sent").set()
        assert cell.order > self._order, "sent out of order"
        self._order = cell.order

    async def _take_interrupts(self, control):
        async for request in control:
            assert request.msg_type == "interrupt_request"
            self.interrupts += 1
            await pause(self._rng)
            if not self.patient and self._rng.random() < 0.2:
                await anyio.sleep(0.03)  # longer than anybody waits
            self._signal = self._signal or self._busy  # lost where nothing runs
            await pause(self._rng)
            self._script.finish(request)

    async def _work(self, shell):
        async for request in shell:
            self._busy = True
            if request.msg_type == "execute_request":
                await self._execute(request, self.cells[request.content["code"]])
            else:
                await self._answer(request)
            self._busy = False
            # Else it is noticed by what comes next, whatever that is.
            if self._rng.random() < 0.3:
                self._signal = False

    def _is_hit(self, cell):
        hit, self._signal = self._signal, False
        if hit:
            cell.hits += 1
            if not cell.condemned:
                self.strays.append(cell)
        return hit

    async def _answer(self, request):
        self._script.status(request, "busy")
        await pause(self._rng)
        if self._signal:
            self._signal = False
            self._script.status(request, "idle")  # as ipykernel does when an interrupt ends the handler
            return
        content = INFO
        if request.msg_type == "complete_request":
            content = {"matches": [request.content["code"]]}
        await self._finish(request, content, lambda: None)

    async def _finish(self, request, content, half_done, is_lost=lambda: False):
        steps = [lambda: is_lost() or self._script.reply(request, **content)]
        steps.insert(self._rng.randrange(2), lambda: self._script.status(request, "idle"))
        steps[0]()
        half_done()
        await pause(self._rng)
        steps[1]()

    async def _execute(self, request, cell):
        rng, script = self._rng, self._script
        cell.run += 1
        self._last = cell
        script.status(request, "busy")
        cell.at("busy").set()
        await pause(rng)
        self._is_hit(cell)  # and is lost: kernels say busy before they can be interrupted
        self._count += 1
        cell.count = self._count
        script.publish(request, "execute_input", code=cell.code, execution_count=cell.count)
        cell.at("started").set()
        content = {"execution_count": cell.count}
        if await self._run_code(request, cell):
            cell.error = True
            error = {"ename": "KeyboardInterrupt", "evalue": "", "traceback": []}
            script.publish(request, "error", **error)
            content |= {"status": "error", **error}
        cell.at("done").set()
        await pause(rng)
        # An interrupt where the kernel is about to reply costs the reply.
        await self._finish(request, content, cell.at("half").set, lambda: rng.random() < 0.5 and self._is_hit(cell))
        cell.at("ended").set()

    async def _run_code(self, request, cell):
        """Whether it was interrupted."""
        script = self._script
        for name, text in (*cell.pieces, (None, None)):
            if name is not None:
                script.publish(request, "stream", name=name, text=text)
                cell.published += 1
                cell.at("output").set()
            await pause(self._rng)
            while cell.endless or (self._signal and not cell.deaf):
                if self._is_hit(cell):
                    if not cell.ignored:
                        return True
                    cell.ignored -= 1
                await pause(self._rng)
                await anyio.lowlevel.checkpoint()
        return False


class Case:
    """One caller: what it does with its cell, and whether it got what it must."""

    def __init__(self, kernel, model, name, order):
        self.kernel = kernel
        self.model = model
        self.name = name
        self.rng = rng = Random(name)
        self.cell = model.cells[name] = Cell(rng, name)
        self.over = False
        self.outcome = "not over"
        self.end = None  # how often its code had been sent when the caller was done
        self._order = order
        self._tasks = None
        # The moment at which it is stopped, if it is to be.
        kind = rng.random()
        self._callers = rng.randrange(CALLERS) if kind < 0.25 else 0
        self._phase = rng.choice(PHASES) if kind > 0.45 else None
        self._turns = rng.choice((0, 1, 2, 5)) if self._phase or self._callers else rng.randrange(100)
        modes = [*QUIET, *STOPPED]
        if asyncio._get_running_loop() is not None:
            modes.append(Case.is_cancelled_by_asyncio)
        self._mode = rng.choice(QUIET if rng.random() < 0.5 else modes[len(QUIET) :])
        if self._mode is Case.raises_in_on_output:
            self.cell.pieces = self.cell.pieces or [("stdout", "needed")]
        reached = {"output"} if not self.cell.pieces else set()
        if (
            self._mode in ENDED_BY_MOMENT
            and not self._callers
            and self._phase not in reached | {"done", "half", "ended"}
        ):
            self.cell.endless = rng.random() < 0.3
        if self._mode in ENDED_BY_TIMEOUT:
            self.cell.endless = rng.random() < 0.3
        if not model.patient:
            self.cell.endless = False

    def __repr__(self):
        return f"<{self._mode.__name__} {self.outcome} {self.cell}>"

    async def go(self, tasks):
        self._tasks = tasks
        if self.rng.random() < 0.3:
            await turns(self.rng.randrange(50))
        try:
            await self._mode(self)
        except KernelDiedError as exc:
            self.outcome = "died"
            outputs = exc.result.outputs if exc.result is not None else []
        if self.outcome == "died":
            assert self.model.dead
            assert self.cell.has_printed(outputs)
        if self.model.patient and not self.model.dead:
            assert not self.cell.sent or self.cell.at("ended").is_set(), f"not waited for: {self}"
        self.over = True
        self.end = self.cell.sent
        for phase in PHASES:
            self.cell.at(phase).set()
        self.model.caller_done()

    async def call(self, method, **options):
        """Call a method of the kernel with the cell's code."""
        self.cell.order = next(self._order)
        return await method(self.cell.code, **options)

    def stream(self):
        self.cell.order = next(self._order)
        return self.kernel.stream(self.cell.code)

    def condemn(self):
        self.cell.condemned = True

    def at_moment(self, func):
        """Call it when the moment has come, in another task."""

        async def wait():
            await self.model.callers_done(self._callers)
            if self._phase is not None:
                await self.cell.at(self._phase).wait()
            await turns(self._turns)
            if not self.over:
                func()

        self._tasks.start_soon(wait)

    def stop_at_moment(self, func):
        self.at_moment(lambda: (self.condemn(), func()))

    def check(self, result):
        """A result says what the kernel did, no more and no less."""
        cell = self.cell
        if result.status == "aborted":
            assert cell.condemned, f"aborted: {self}"
            assert not cell.sent, f"ran though cancelled: {self}"
            assert result.outputs == []
            self.outcome = "never ran"
        elif result.ok:
            assert result.complete, f"not complete: {self}"
            assert result.outputs == folded(cell.pieces), f"{result.outputs}: {self}"
            assert result.execution_count == cell.count
            self.outcome = "ran"
        else:
            # A kernel that dies between idle and the reply leaves the same behind as an interrupt.
            assert cell.hits or self.model.dead, f"{result.error}: {self}"
            assert result.error.ename == "KeyboardInterrupt"
            assert result.outputs == cell.outputs, f"{result.outputs}: {self}"
            self.outcome = "interrupted"
        assert (cell.run, cell.sent) == ((0, 0) if result.status == "aborted" else (1, 1)), f"{self}"

    def check_own(self, result):
        """Nobody stopped it."""
        assert result.ok or not self.model.accurate, f"{result.status}: {self}"
        self.check(result)

    def check_stopped(self):
        self.outcome = "never ran" if not self.cell.sent else "interrupted" if self.cell.hits else "ran"

    # Callers that are not cancelled.

    async def executes(self):
        self.check_own(await self.call(self.kernel.execute))

    async def executes_with_on_output(self):
        seen = []

        async def on_output(output):
            await turns(self.rng.randrange(10))
            seen.append(output)

        timeout = self.rng.choice((None, 60, math.inf))
        result = await self.call(self.kernel.execute, on_output=on_output, timeout=timeout)
        self.check_own(result)
        if result.ok:
            assert [(o.name, o.text) for o in seen] == self.cell.pieces, f"{seen}: {self}"

    async def iterates(self):
        async with self.stream() as execution:
            seen = [output async for output in execution]
            result = await execution.wait()
        self.check_own(result)
        if result.ok:
            assert folded((o.name, o.text) for o in seen) == folded(self.cell.pieces), f"{seen}: {self}"

    async def waits_again_after_its_wait_was_cancelled(self):
        execution = await self.call(self.kernel.submit)
        with anyio.CancelScope() as scope:
            self.at_moment(scope.cancel)
            await execution.wait()
        self.check_own(await execution.wait())

    async def completes(self):
        await self.model.callers_done(self._callers // 2)  # not of all, for others may wait so too
        for i in range(4):
            code = f"{self.name} {i}"
            assert (await self.kernel.complete(code)).matches == [code]
            # Wait for the next interrupt, but not for long: one that is under way may hit what is asked now.
            seen = self.model.interrupts
            for _ in range(self.rng.choice((0, 50, 200))):
                if self.model.interrupts != seen:
                    break
                await anyio.lowlevel.checkpoint()
        self.outcome = "completed"

    # Callers that are.

    async def executes_in_a_scope(self):
        with anyio.CancelScope() as scope:
            self.stop_at_moment(scope.cancel)
            result = await self.call(self.kernel.execute)
            assert result.ok or not self.model.accurate, f"the cancellation was lost: {self}"
            self.check(result)
        if scope.cancelled_caught:
            self.check_stopped()

    async def executes_with_timeout(self):
        self.condemn()
        await self._expect_timeout(self.call(self.kernel.execute, timeout=self._timeout()))

    async def submits_with_timeout(self):
        self.condemn()
        execution = await self.call(self.kernel.submit, timeout=self._timeout())

        async def iterate():
            _ = [output async for output in execution]
            return execution.result

        ends = [execution.wait, iterate]
        self.rng.shuffle(ends)
        first = await self._expect_timeout(ends[0]())
        assert await self._expect_timeout(ends[1]()) is first

    async def executes_with_everything(self):
        """A timeout, `on_output` and a scope."""
        with anyio.CancelScope() as scope:
            self.stop_at_moment(scope.cancel)
            self.condemn()
            await self._expect_timeout(
                self.call(self.kernel.execute, timeout=self._timeout(), on_output=lambda _: turns(1))
            )
        if scope.cancelled_caught:
            self.check_stopped()

    async def is_cancelled_before_it_calls(self):
        self.condemn()
        with anyio.CancelScope() as scope:
            scope.cancel()
            await self.call(self.rng.choice((self.kernel.execute, self.kernel.submit)))
        assert scope.cancelled_caught
        assert not self.cell.sent, f"ran though cancelled: {self}"
        self.check_stopped()

    async def cancels_its_execution(self):
        execution = await self.call(self.kernel.submit)
        states = []

        async def cancel():
            settled = await execution.cancel()
            assert settled or not self.model.patient

        async def cancel_cancelled():
            with anyio.CancelScope() as scope:
                scope.cancel()
                await execution.cancel()
            assert execution.state == "settled" or not self.model.patient, f"cancel() was cut short: {self}"

        def stop():
            states.append(execution.state)
            for func in self.rng.choice(([cancel], [cancel_cancelled], [cancel, cancel_cancelled])):
                self._tasks.start_soon(func)

        self.stop_at_moment(stop)
        self.check(await execution.wait())

    async def cancels_its_execution_itself(self):
        execution = await self.call(self.kernel.submit)
        await turns(self.rng.randrange(30))
        queued = execution.state == "queued"
        self.condemn()
        assert await execution.cancel() or not self.model.patient
        result = await execution.wait()
        self.check(result)
        assert (result.status == "aborted") == queued, f"{result.status}: {self}"

    async def leaves_its_stream_early(self):
        async with self.stream() as execution:
            with anyio.CancelScope() as scope:
                self.at_moment(scope.cancel)
                await execution.wait()
            self.condemn()
        self.check(await execution.wait())

    async def leaves_its_stream_at_an_output(self):
        left = self.rng.randrange(3)
        async with self.stream() as execution:
            async for _ in execution:
                left -= 1
                if left < 0:
                    break
            self.condemn()
        self.check(await execution.wait())

    async def raises_in_on_output(self):
        async def on_output(_):
            await turns(self.rng.randrange(3))
            self.condemn()
            raise LookupError(self.name)

        with pytest.raises(LookupError, match=self.name):
            await self.call(self.kernel.execute, on_output=on_output)
        self.check_stopped()

    async def is_cancelled_by_asyncio(self):
        self.condemn()
        try:
            result = await asyncio.wait_for(self.call(self.kernel.execute), self._timeout())
        except asyncio.TimeoutError:
            self.check_stopped()
        else:
            assert result.ok or not self.model.accurate, f"{result.status}: {self}"
            self.check(result)

    async def abandons_a_completion(self):
        with anyio.CancelScope() as scope:
            self._tasks.start_soon(self._after_turns, scope.cancel)
            await self.kernel.complete(self.name)
        self.outcome = "completed"

    async def _after_turns(self, func):
        await turns(self._turns)
        func()

    def _timeout(self):
        return self.rng.choice((0, 0.001, 0.003, 0.2)) * self.rng.random()

    async def _expect_timeout(self, awaitable):
        try:
            result = await awaitable
        except ExecutionTimeoutError as exc:
            error = exc
        else:
            error = None
        if error is not None:
            assert error.settled or not self.model.patient
            if error.settled:
                self.check(error.result)
            else:
                assert self.cell.has_printed(error.result.outputs)
                self.check_stopped()
            return error.result
        assert result.ok or not self.model.accurate, f"no timeout raised: {self}"
        self.check(result)
        return result


QUIET = [
    Case.executes,
    Case.executes,
    Case.executes_with_on_output,
    Case.iterates,
    Case.waits_again_after_its_wait_was_cancelled,
    Case.completes,
]
ENDED_BY_MOMENT = [
    Case.executes_in_a_scope,
    Case.executes_with_everything,
    Case.cancels_its_execution,
    Case.leaves_its_stream_early,
]
ENDED_BY_TIMEOUT = [Case.executes_with_timeout, Case.submits_with_timeout, Case.is_cancelled_by_asyncio]
STOPPED = [
    *ENDED_BY_MOMENT,
    *ENDED_BY_TIMEOUT[:2],
    Case.cancels_its_execution_itself,
    Case.leaves_its_stream_at_an_output,
    Case.raises_in_on_output,
    Case.is_cancelled_before_it_calls,
    Case.abandons_a_completion,
]


@asynccontextmanager
async def modelled_kernel(seed, **options):
    async with scripted_kernel(**options) as (kernel, script):
        await anyio.wait_all_tasks_blocked()
        accurate, patient = options.get("max_in_flight", 1) == 1, options.get("interrupt_timeout", 5) > 1
        model = ModelKernel(script, Random(seed), accurate=accurate, patient=patient)
        async with open_task_group() as tasks:
            tasks.start_soon(model.run)
            yield kernel, model
            tasks.cancel_scope.cancel()


async def play(kernel, model, name, order, *extra):
    """Let fifty callers do what they do at once, until all are done."""
    model.begin_round()
    cases = [Case(kernel, model, f"{name}.{i}", order) for i in range(CALLERS)]
    try:
        with anyio.fail_after(10):
            async with open_task_group() as tasks:
                for case in cases:
                    tasks.start_soon(case.go, tasks)
                for func in extra:
                    tasks.start_soon(func)
    except TimeoutError:
        pytest.fail(f"still waiting: {[case for case in cases if not case.over]}")
    for case in cases:
        assert case.cell.run <= case.cell.sent <= 1, f"ran twice: {case}"
        assert case.cell.sent == case.end, f"sent after its caller was done: {case}"
    return Counter(case.outcome for case in cases)


def is_idle(kernel):
    """Nothing is queued, nothing lies in the kernel, and nothing holds back what comes next."""
    connection = kernel._link.connection
    dispatcher = connection.dispatcher
    return (dispatcher.busy, len(dispatcher._queued), dispatcher._held, len(connection.router)) == (False, 0, 0, 0)


async def play_rounds(seed, **options):
    outcomes = Counter()
    order = itertools.count()
    async with modelled_kernel(seed, **options) as (kernel, model):
        for i in range(ROUNDS):
            outcomes += await play(kernel, model, f"{seed}.{i}", order)
            # Behind whatever the round has left in the kernel.
            last = Case(kernel, model, f"{seed}.{i}.last", order)
            last.cell.endless = False
            with anyio.fail_after(5):
                await last.executes()
            assert is_idle(kernel)
            dropped = kernel._link.connection.router.transport.dropped
            assert dropped["error"] + dropped["content"] + dropped["repeated"] == 0, dropped
        outcomes["interrupts"] = model.interrupts
        return outcomes, model.strays


@pytest.mark.parametrize("seed", range(4))
async def test_whatever_is_cancelled_everybody_else_gets_exactly_their_own(seed):
    outcomes, strays = await play_rounds(seed)
    assert strays == []
    # That these came about at all.
    assert min(outcomes["never ran"], outcomes["interrupted"], outcomes["ran"], outcomes["completed"]) > 0


@pytest.mark.parametrize("seed", range(2))
async def test_with_more_in_the_kernel_an_interrupt_may_miss_but_nothing_is_lost_or_mixed_up(seed):
    outcomes, _ = await play_rounds(1000 + seed, max_in_flight=8)
    assert min(outcomes["never ran"], outcomes["interrupted"], outcomes["ran"]) > 0


@pytest.mark.parametrize("seed", range(2))
async def test_who_gives_up_on_code_that_does_not_settle_leaves_no_interrupt_for_others(seed):
    outcomes, strays = await play_rounds(3000 + seed, interrupt_timeout=0.01)
    assert strays == []
    assert min(outcomes["never ran"], outcomes["interrupts"], outcomes["ran"]) > 0


@pytest.mark.parametrize(("seed", "max_in_flight"), [(0, 1), (1, 8)])
async def test_a_kernel_that_dies_at_any_moment_ends_every_call(seed, max_in_flight):
    outcomes = Counter()
    for i in range(ROUNDS):
        rng = Random(f"{seed}.{i}")
        order = itertools.count()
        # So long that waiting for it would be noticed.
        options = {"interrupt_timeout": 20, "max_in_flight": max_in_flight}
        async with modelled_kernel(f"{seed}.{i}", **options) as (kernel, model):

            async def die(model=model, rng=rng):
                await model.callers_done(rng.randrange(CALLERS))
                await turns(rng.randrange(10))
                await model.die(rng)

            started = time.monotonic()
            outcomes += await play(kernel, model, f"{2000 + seed}.{i}", order, die)
            assert time.monotonic() - started < 5
            await kernel._link.connection.router.ended.wait()
            assert is_idle(kernel)
            assert not kernel.is_alive
            with pytest.raises(KernelDiedError):
                await kernel.execute("1")
    assert min(outcomes["never ran"], outcomes["ran"], outcomes["died"]) > 0
