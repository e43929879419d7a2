"""The stream whose producer never waits: in order, bounded in bytes, and nothing lost to a cancelled consumer."""

from __future__ import annotations

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anykernel import ProtocolError
from anykernel._core.streams import ByteBoundedStream

from ..helpers.strategies import quick


def stream_of(*items, limit=1000, size=1):
    stream = ByteBoundedStream(limit)
    for item in items:
        stream.send_nowait(item, size)
    return stream


async def collect(stream, received):
    async for item in stream:
        received.append(item)


async def test_items_are_received_in_order_and_then_the_end():
    stream = stream_of(1, 2, 3)
    stream.end()
    assert [item async for item in stream] == [1, 2, 3]
    assert stream.dropped == 0
    with pytest.raises(anyio.EndOfStream):
        await stream.receive()


async def test_receive_waits_for_an_item():
    stream, received = stream_of(), []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(collect, stream, received)
        for number in range(3):
            await anyio.wait_all_tasks_blocked()
            assert received == list(range(number))
            stream.send_nowait(number, 1)
        await anyio.wait_all_tasks_blocked()
        assert received == [0, 1, 2]
        stream.end()


async def test_what_a_slow_consumer_lets_pile_up_beyond_the_limit_loses_its_oldest_and_is_counted():
    stream = stream_of(*range(10), limit=30, size=10)
    stream.end()
    assert [item async for item in stream] == [7, 8, 9]
    assert stream.dropped == 7


async def test_what_was_received_makes_room():
    stream = stream_of(limit=10)
    for number in range(100):
        stream.send_nowait(number, 10)
        assert await stream.receive() == number
    assert stream.dropped == 0


async def test_one_item_is_kept_however_large():
    stream = stream_of("small", "large", limit=10, size=1000)
    stream.end()
    assert [item async for item in stream] == ["large"]
    assert stream.dropped == 1


async def test_what_is_closed_frees_its_items_and_drops_nothing():
    stream = stream_of(1, 2, 3)
    stream.close()
    stream.send_nowait(4, 1)
    assert [item async for item in stream] == []
    assert stream.dropped == 0
    assert (len(stream._items), stream._size) == (0, 0)


async def test_an_error_comes_after_the_items_that_were_there_and_again_for_who_asks_again():
    stream = stream_of(1, 2)
    stream.end(ProtocolError("broken"))
    assert [await stream.receive(), await stream.receive()] == [1, 2]
    for _ in range(2):
        with pytest.raises(ProtocolError, match="broken"):
            await stream.receive()


async def test_nothing_is_taken_after_the_end():
    stream = stream_of(1)
    stream.end()
    stream.send_nowait(2, 1)
    assert [item async for item in stream] == [1]


@pytest.mark.parametrize("ending", ["end", "error", "close"])
async def test_the_end_wakes_all_who_wait(ending):
    stream, outcomes = stream_of(), []

    async def receive():
        try:
            await stream.receive()
        except (anyio.EndOfStream, ProtocolError) as exc:
            outcomes.append(type(exc))

    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(receive)
        await anyio.wait_all_tasks_blocked()
        assert outcomes == []
        if ending == "close":
            stream.close()
        else:
            stream.end(ProtocolError("broken") if ending == "error" else None)
    assert outcomes == [ProtocolError if ending == "error" else anyio.EndOfStream] * 3


async def test_of_several_who_wait_each_item_goes_to_one():
    stream, received = stream_of(), []
    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(collect, stream, received)
        for number in range(10):
            if number % 4 == 0:
                await anyio.wait_all_tasks_blocked()
            stream.send_nowait(number, 1)
        await anyio.wait_all_tasks_blocked()
        assert received == list(range(10))
        stream.end()


async def test_who_waits_again_in_the_moment_of_being_woken_is_woken_again():
    stream, received = stream_of(), []
    async with anyio.create_task_group() as tasks:
        for _ in range(2):
            tasks.start_soon(collect, stream, received)
        await anyio.wait_all_tasks_blocked()
        stream.send_nowait(1, 1)  # wakes both, and one finds nothing
        await anyio.wait_all_tasks_blocked()
        stream.send_nowait(2, 1)
        await anyio.wait_all_tasks_blocked()
        assert received == [1, 2]
        stream.end()


@pytest.mark.parametrize("order", ["cancel_first", "send_first"])
async def test_a_cancelled_receive_takes_no_item_with_it(order):
    stream, received = stream_of(), []
    async with anyio.create_task_group() as tasks:
        with anyio.CancelScope() as scope:

            async def interfere():
                await anyio.wait_all_tasks_blocked()
                # Both in one turn: the receiver is woken and cancelled when it runs again.
                if order == "cancel_first":
                    scope.cancel()
                stream.send_nowait("item", 1)
                scope.cancel()

            tasks.start_soon(interfere)
            received.append(await stream.receive())
    # Whoever asks next has it, if the cancelled one did not return it.
    if not received:
        received.append(await stream.receive())
    assert received == ["item"]
    assert len(stream._items) == 0


async def test_a_receive_that_is_cancelled_before_it_starts_takes_nothing():
    stream = stream_of("item")
    with anyio.CancelScope() as scope:
        scope.cancel()
        await stream.receive()
    assert scope.cancelled_caught
    assert await stream.receive() == "item"


async def test_a_cancelled_waiter_takes_nothing_from_another_that_waits():
    stream, received, scope = stream_of(), [], anyio.CancelScope()

    async def cancelled():
        with scope:
            received.append(await stream.receive())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(cancelled)
        await anyio.wait_all_tasks_blocked()
        tasks.start_soon(collect, stream, received)
        await anyio.wait_all_tasks_blocked()
        stream.send_nowait("item", 1)
        scope.cancel()
        await anyio.wait_all_tasks_blocked()
        assert received == ["item"]
        stream.end()


@given(st.lists(st.integers(1, 12) | st.just("receive"), max_size=40), st.integers(0, 30))
@quick
async def test_whatever_comes_and_goes_the_newest_that_fit_are_kept_in_order(steps, limit):
    stream, sent, received, lost = ByteBoundedStream(limit), [], [], 0
    for step in steps:
        if step != "receive":
            item = (len(sent), step)
            sent.append(item)
            stream.send_nowait(item, step)
        elif stream._items:
            received.append(await stream.receive())
        held = [item for item, _ in stream._items]
        total = sum(size for _, size in held)
        assert total <= limit or len(held) == 1
        assert held == sent[len(sent) - len(held) :]
        assert received == sorted(received)
        gone = [item for item in sent if item not in held and item not in received]
        assert stream.dropped == len(gone)
        if len(gone) > lost:
            # The last one had to go: with it, there would have been too much.
            assert gone[-1][1] + total > limit
            lost = len(gone)


async def test_who_is_cancelled_while_waiting_takes_nobody_with_him_and_leaves_nothing():
    stream, received = stream_of(), []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(collect, stream, received)
        for _ in range(3):
            with anyio.move_on_after(0.01) as scope:
                await stream.receive()
            assert scope.cancelled_caught
        assert len(stream._changed._waiters) == 1
        stream.send_nowait("item", 1)
        stream.end()
    assert received == ["item"]
