"""What is opened for the length of a block, and says so where that is forgotten."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncContextDecorator, asynccontextmanager
from types import TracebackType
from typing import NoReturn, ParamSpec, TypeVar

from .._protocol import ArgumentError

__all__ = ["Block", "block"]

P = ParamSpec("P")
T_co = TypeVar("T_co", covariant=True)


class Block(AbstractAsyncContextManager[T_co], AsyncContextDecorator):
    """An async context manager that tells how it is to be used to whoever uses it otherwise."""

    def __init__(self, name: str, make: Callable[[], AbstractAsyncContextManager[T_co]]) -> None:
        self._name = name
        self._make = make
        self._inner: AbstractAsyncContextManager[T_co] | None = None

    async def __aenter__(self) -> T_co:
        self._inner = self._make()
        return await self._inner.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        assert self._inner is not None
        return await self._inner.__aexit__(kind, error, traceback)

    def _recreate_cm(self) -> Block[T_co]:  # for use as a decorator: each call opens anew
        return Block(self._name, self._make)

    def _hint(self) -> str:
        return f"{self._name}() is opened for a block: `async with {self._name}(...) as ...:`"

    def __await__(self) -> NoReturn:
        raise ArgumentError(self._hint())

    def __enter__(self) -> NoReturn:
        raise ArgumentError(f"{self._hint()}, with `async`")

    def __exit__(self, *exc: object) -> None:
        """Only so that `with` gets as far as the hint."""

    def __aiter__(self) -> NoReturn:
        raise ArgumentError(self._hint())

    def __getattr__(self, name: str) -> NoReturn:
        # Names of Python's own are asked for by whoever copies or shows it.
        raise AttributeError(name if name.startswith("_") else f"no attribute {name!r}: {self._hint()}")

    def __repr__(self) -> str:
        return f"<{self._hint()}>"


def block(function: Callable[P, AsyncIterator[T_co]]) -> Callable[P, Block[T_co]]:
    """Make a `Block` of an async generator function, as `contextlib.asynccontextmanager` makes a context manager."""
    make = asynccontextmanager(function)

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> Block[T_co]:
        return Block(function.__name__, functools.partial(make, *args, **kwargs))

    return call
