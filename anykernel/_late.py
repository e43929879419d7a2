"""Public names whose modules are loaded by the first call: they are here for everybody, and cost nothing until then."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from ._protocol import MissingDependencyError

__all__ = ["late", "load"]


def load(module: str, extra: str) -> Any:
    """A module of this package that needs the libraries of an extra.

    Raises:
        MissingDependencyError: one of them is not installed.
    """
    try:
        return import_module(f"{__package__}.{module}")
    except ModuleNotFoundError as exc:
        if exc.name is None or exc.name.partition(".")[0] == __package__:
            raise  # a fault of ours
        raise MissingDependencyError(
            f"anykernel.{module} needs {exc.name}: pip install 'anykernel-client[{extra}]'", name=exc.name
        ) from exc


def late(module: str, name: str, extra: str) -> Callable[..., Any]:
    """A function of a module that is loaded when it is called first."""

    def call(*args: Any, **kwargs: Any) -> Any:
        return getattr(load(module, extra), name)(*args, **kwargs)

    call.__name__ = call.__qualname__ = name
    call.__doc__ = f"See `anykernel.{module}.{name}`, which is loaded when this is called."
    return call
