"""Driving a run to its end: its timeout, and the user's functions.

That is done in the task of whoever waits for it (`execute`), or in a task of the kernel's (`submit`).
"""

from __future__ import annotations

import math

import anyio

from .._protocol import AnyKernelError, timeout_error
from .request import same
from .run import Run

__all__ = ["drive", "start_driving"]


async def drive(run: Run) -> None:
    """Run the user's functions and the timeout until it is over; stop it if that is cut short."""
    observation = run.observation
    if observation is not None:
        observation.attended = True
    try:
        if run.timeout is None:
            await _handle(run)
        else:
            with anyio.move_on_after(run.timeout) as scope:
                run.timeout_scope = scope
                await _handle(run)
            if not run.over:
                await run.stop_apart()
                limits = run.timeout, run.context.limits.interrupt_timeout, run.state
                run.fail(lambda: timeout_error(run.result, *limits))
            elif scope.cancelled_caught:
                await _handle(run)  # it settled in the same moment: its last outputs are still here
    except BaseException as exc:
        if observation is not None and isinstance(exc, Exception):
            observation.error = exc
        if not run.over:
            await run.stop_apart()
        raise
    finally:
        if observation is not None:
            observation.end(run.result, run.error)


async def _handle(run: Run) -> None:
    if run.handlers is not None:
        await run.handlers.run()
    if run.driven:
        await run.wait_until(lambda: run.over)
    else:
        await run.wait_settled()


def start_driving(run: Run) -> None:
    """Have it driven by a task of the kernel, if there is anything to drive."""
    if run.timeout is not None or run.handlers is not None:
        run.driven = True
        run.context.start_soon(lambda: _drive_alone(run))


async def _drive_alone(run: Run) -> None:
    """Drive it in a task without a caller; who waits gets what the user's functions raise."""
    try:
        await drive(run)
    except Exception as exc:  # noqa: BLE001 - whatever the user's functions raise
        run.error = same(exc)
    except anyio.get_cancelled_exc_class() as exc:
        if anyio.current_effective_deadline() == -math.inf:
            raise
        # Nobody has cancelled this task: a function of the user's has awaited a future of asyncio that was cancelled.
        run.error = same(AnyKernelError(f"the function given as on_output or stdin was cancelled: {exc!r}"))
    finally:
        run.release()
