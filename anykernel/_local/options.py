"""The options of starting a kernel on this machine."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Literal

from .._core import OpenOptions
from .._protocol import ArgumentError, Limits, as_dict

__all__ = ["LaunchOptions"]


class LaunchOptions(OpenOptions, frozen=True, kw_only=True):
    """What `open_kernel` takes besides the kernel, and beyond what every door takes.

    Raises:
        ArgumentError: one has an unusable value.
    """

    cwd: str | os.PathLike[str] | None = None
    env: Mapping[str, str] | None = None
    transport: Literal["tcp", "ipc"] = "tcp"
    encryption: Literal["auto", "required", "disabled"] = "auto"
    on_death: Literal["raise", "restart"] = "raise"
    limits: Limits | None = None
    wrap: Sequence[str] = ()

    def __post_init__(self) -> None:
        check_choice("transport", self.transport, ("tcp", "ipc"))
        check_choice("encryption", self.encryption, ("auto", "required", "disabled"))
        check_choice("on_death", self.on_death, ("raise", "restart"))
        if not isinstance(self.limits, Limits | None):
            raise ArgumentError(f"limits must be Limits, not {self.limits!r:.200}")
        if isinstance(self.wrap, str) or not all(isinstance(arg, str) and "\0" not in arg for arg in self.wrap):
            raise ArgumentError(f"wrap must be a list of strings, not {self.wrap!r:.200}")
        env = as_dict("env", self.env)
        if not isinstance(self.cwd, str | os.PathLike | None):
            raise ArgumentError(f"cwd must be a path, not {self.cwd!r:.200}")
        for name, value in env.items():
            if not (isinstance(name, str) and isinstance(value, str)) or "\0" in name + value or "=" in name:
                raise ArgumentError(f"env must map names to strings: {name!r} to {value!r}")
        if self.cwd is not None and not os.path.isdir(self.cwd):  # noqa: PTH112 - a single stat
            raise ArgumentError(f"cwd is no directory: {os.fspath(self.cwd)!r}")
        OpenOptions.__post_init__(self)

    def wrapped(self, argv: list[str]) -> list[str]:
        """A kernel's command behind what it is to be started by."""
        return [*self.wrap, *argv]


def check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Raise an ArgumentError where the value is none of the choices."""
    if value not in choices:
        raise ArgumentError(f"{name} must be one of {', '.join(map(repr, choices))}, not {value!r}")
