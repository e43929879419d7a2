"""Where a kernel may be used: in the event loop that opened it. (See also ``test_other_loops``.)"""

from __future__ import annotations

import anyio
import anyio.from_thread
import anyio.to_thread
import pytest

from anykernel import UnsupportedError

from ..helpers.held import Held, refused


async def test_every_call_from_another_thread_is_refused_and_changes_nothing(kernel):
    async with Held(kernel) as held:
        outcomes = await anyio.to_thread.run_sync(anyio.run, held.use_elsewhere)
        assert refused(outcomes, "from_thread"), outcomes
        assert held.execution.state == "running"
        assert not held.comm.closed
    assert await anyio.to_thread.run_sync(anyio.from_thread.run, kernel.evaluate, "6 * 7") == 42


async def test_iterators_that_are_made_here_are_refused_elsewhere_too(kernel):
    async with Held(kernel) as held:
        watched, iterated = held.execution.watch(), held.execution.__aiter__()
        assert [output.text for output in await watched.__anext__()] == ["runs\n"]

        async def use():
            for iterator in (watched, iterated):
                with pytest.raises(UnsupportedError, match="from_thread"):
                    await iterator.__anext__()

        await anyio.to_thread.run_sync(anyio.run, use)
