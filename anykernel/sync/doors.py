"""The doors of the blocking face: the async ones, by way of the portal."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from typing import Any, ParamSpec, TypeVar

from .kernels import Kernel
from .pools import Pool
from .portal import Portal, get_portal
from .twins import Block

__all__ = ["block_of", "call_of"]

P = ParamSpec("P")
T = TypeVar("T")


def block_of(
    original: Callable[P, AbstractAsyncContextManager[Any]], wrap: Callable[[Any, Portal], T]
) -> Callable[P, Block[T]]:
    """The blocking twin of a door."""

    def door(*args: P.args, **kwargs: P.kwargs) -> Block[T]:
        return Block(get_portal, lambda: original(*args, **kwargs), wrap)

    return _like(original, door)


def call_of(original: Callable[P, Coroutine[Any, Any, T]], own: tuple[str, ...] = ()) -> Callable[P, T]:
    """The blocking twin of an async function; ``own`` are its arguments that are functions of the caller's."""

    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        def make(theirs: Callable[[Any], Any]) -> Coroutine[Any, Any, T]:
            function: Any = original
            made: Coroutine[Any, Any, T] = function(
                *map(_inner, args), **{k: theirs(v) if k in own else _inner(v) for k, v in kwargs.items()}
            )
            return made

        return get_portal().call(make)

    return _like(original, call)


def _inner(value: Any) -> Any:
    """What a twin stands for; everything else is itself."""
    return value.inner if isinstance(value, Kernel | Pool) else value


def _like(original: Any, twin: Callable[P, T]) -> Callable[P, T]:
    functools.update_wrapper(twin, original)
    shown: Any = twin
    del shown.__wrapped__
    shown.__signature__ = inspect.signature(original)
    return twin
