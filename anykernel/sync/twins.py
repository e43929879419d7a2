"""What blocking twins are made of: calls, blocks and iterations of something async, by way of the portal."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from types import TracebackType
from typing import Any, Generic, TypeVar

from .portal import Portal

__all__ = ["Block", "Iteration", "Twin", "as_it_is", "iteration_of"]

T = TypeVar("T")


class Twin:
    """A blocking twin of something async."""

    def __init__(self, inner: Any, portal: Portal) -> None:
        self._inner = inner
        self._portal = portal

    @property
    def inner(self) -> Any:
        """What it stands for; to be used in the portal's event loop only."""
        return self._inner

    def __repr__(self) -> str:
        return repr(self._inner)


class Block(AbstractContextManager[T], Generic[T]):
    """Something that is opened for a block: ``with ... as``; what it gives is made by ``wrap``."""

    def __init__(
        self,
        portal: Callable[[], Portal],
        make: Callable[[], AbstractAsyncContextManager[Any]],
        wrap: Callable[[Any, Portal], T],
    ) -> None:
        self._get_portal = portal
        self._make = make
        self._wrap = wrap
        self._leave: Callable[[], None] | None = None

    def __enter__(self) -> T:
        portal = self._get_portal()
        value, self._leave = portal.enter(self._make)
        return self._wrap(value, portal)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._leave is not None
        leave, self._leave = self._leave, None
        leave()

    def __iter__(self) -> Iterator[Any]:
        """Iterate over what it gives, and leave the block at the end."""
        with self as opened:
            iterable: Any = opened
            yield from iterable


class Iteration(Generic[T]):
    """Iterates over something async, or what a function makes in the event loop."""

    def __init__(
        self,
        inner: AsyncIterable[Any] | Callable[[], AsyncIterable[Any]],
        portal: Portal,
        wrap: Callable[[Any, Portal], T],
    ) -> None:
        self._iterable = inner
        self._iterator: Any = None
        self._portal = portal
        self._wrap = wrap

    def __iter__(self) -> Iteration[T]:
        return self

    def __next__(self) -> T:
        ended, value = self._portal.call(lambda _: self._next())
        if ended:
            raise StopIteration
        return self._wrap(value, self._portal)

    async def _next(self) -> tuple[bool, Any]:
        if self._iterator is None:
            self._iterator = aiter(self._iterable() if callable(self._iterable) else self._iterable)
        try:
            return False, await anext(self._iterator)
        except StopAsyncIteration:
            return True, None


def as_it_is(value: Any, portal: Portal) -> Any:  # noqa: ARG001
    """What needs no twin."""
    return value


def iteration_of(value: AsyncIterable[Any], portal: Portal) -> Iteration[Any]:
    """Something async that is iterated over, and nothing more."""
    return Iteration(value, portal, as_it_is)
