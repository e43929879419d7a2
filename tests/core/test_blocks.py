"""Doors that are used otherwise than by ``async with`` say how they are to be used."""

from __future__ import annotations

import inspect
from contextlib import AsyncExitStack

import pytest

from anykernel import ArgumentError, connect_kernel, open_kernel, open_pool
from anykernel._core import block

OPENED = []


@block
async def open_thing(name, *, size=1):
    """A thing for a block."""
    OPENED.append(name)
    try:
        yield name * size
    finally:
        OPENED.remove(name)


async def test_a_block_is_entered_and_left_also_by_a_stack_and_as_a_decorator():
    async with open_thing("a", size=2) as thing:
        assert (thing, OPENED) == ("aa", ["a"])
    async with AsyncExitStack() as stack:
        assert await stack.enter_async_context(open_thing("b")) == "b"
        assert OPENED == ["b"]

    @open_thing("c")
    async def inside():
        return list(OPENED)

    assert await inside() == ["c"]
    assert await inside() == ["c"]
    assert OPENED == []
    with pytest.raises(ValueError, match="bare"):
        async with open_thing("d"):
            raise ValueError("bare")
    assert list(inspect.signature(open_thing).parameters) == ["name", "size"]


@pytest.mark.parametrize("door", [open_thing, open_kernel, connect_kernel, open_pool])
async def test_what_is_not_entered_says_how_to(door):
    opened = door("python3")
    hint = rf"async with {door.__name__}\(\.\.\.\) as" if door is not open_pool else "open_pool"
    if door is open_pool:
        hint = r"async with open_pool"
    with pytest.raises(ArgumentError, match=hint):
        await opened
    with pytest.raises(ArgumentError, match=hint), opened:
        pytest.fail("it is async")
    with pytest.raises(ArgumentError, match=hint):
        async for _ in opened:
            pytest.fail("it is no iterator")
    with pytest.raises(AttributeError, match=hint):
        opened.execute
    assert OPENED == []
