"""The options of executing and of opening: written once, parsed and checked where they are made."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from typing import Any

import msgspec

from .._protocol import ArgumentError, as_dict, as_integer, as_seconds, as_timeout, check_msg_id, check_text
from .handlers import OnOutput, StdinHandler

__all__ = ["ExecuteOptions", "OpenOptions"]


class ExecuteOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What `Kernel.execute`, `submit` and `stream` take besides the code.

    Raises:
        ArgumentError: one has an unusable value.
    """

    timeout: float | None = None
    """Seconds; None, or infinity, for no limit."""
    silent: bool = False
    store_history: bool = True
    user_expressions: Mapping[str, str] | None = None
    stop_on_error: bool = False
    stdin: StdinHandler | None = None
    check: bool = False
    on_output: OnOutput | None = None
    msg_id: str | None = None
    metadata: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.timeout is not None:
            seconds = as_timeout("timeout", self.timeout)
            if seconds is not self.timeout or seconds == math.inf:
                msgspec.structs.force_setattr(self, "timeout", None if seconds == math.inf else seconds)
        if self.user_expressions is not None:
            for name, expression in as_dict("user_expressions", self.user_expressions).items():
                if not (isinstance(name, str) and isinstance(expression, str)):
                    raise ArgumentError(
                        f"user_expressions must map names to expressions, both str, not {name!r} to {expression!r:.200}"
                    )
                check_text("user_expressions", name + expression)
        if self.stdin is not None:
            _check_stdin(self.stdin)
        if self.on_output is not None and not callable(self.on_output):
            raise ArgumentError(f"on_output must be a function, not {self.on_output!r}")
        if self.msg_id is not None:
            check_msg_id(self.msg_id)
        if self.metadata is not None:
            as_dict("metadata", self.metadata)

    def less(self, seconds: float) -> ExecuteOptions:
        """The same, with what is left of the timeout after so many seconds."""
        if self.timeout is None:
            return self
        return msgspec.structs.replace(self, timeout=max(0, self.timeout - seconds))

    def content(self, code: str) -> dict[str, Any]:
        """The content of the request that runs the code so, but for what only its sending decides."""
        return {
            "code": code,
            "silent": self.silent,
            "store_history": self.store_history and not self.silent,
            "user_expressions": as_dict("user_expressions", self.user_expressions),
            "stop_on_error": self.stop_on_error,
        }


def _check_stdin(function: object) -> None:
    """Raise an ArgumentError for what is no function, or cannot be called as a stdin handler is."""
    if not callable(function):
        raise ArgumentError(f"stdin must be a function, not {function!r}")
    try:
        inspect.signature(function).bind("prompt", False)
    except ValueError:
        return  # it has no signature to look at
    except TypeError as exc:
        raise ArgumentError(
            "stdin is called with the prompt and whether the answer is a password, as `lambda prompt, password: ...` can be; "
            f"{function!r} cannot: {exc}"
        ) from exc


class OpenOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What every door takes: times and limits.

    Raises:
        ArgumentError: one has an unusable value.
    """

    startup_timeout: float = 60.0
    """Seconds until the kernel must be ready."""
    shutdown_timeout: float = 5.0
    """Seconds that it gets to end by itself."""
    interrupt_timeout: float = 5.0
    """Seconds that stopped code gets to settle."""
    output_limit: int = 64 * 2**20
    """Bytes of output kept for each execution."""
    max_in_flight: int = 1
    """Execute requests of ours in the kernel at once, for each shell."""
    heartbeat_interval: float = 3.0
    """Seconds between heartbeats, and that each may take."""
    heartbeat_misses: int = 4
    """How many in a row mean that the kernel does not answer."""

    def __post_init__(self) -> None:
        for name, kind, positive in (
            ("startup_timeout", float, False),
            ("shutdown_timeout", float, False),
            ("interrupt_timeout", float, False),
            ("output_limit", int, False),
            ("max_in_flight", int, True),
            ("heartbeat_interval", float, True),
            ("heartbeat_misses", int, True),
        ):
            given = getattr(self, name)
            value = as_seconds(given) if kind is float else as_integer(given)
            if value is None or value < 0 or (positive and value == 0):
                what = f"{'positive' if positive else 'non-negative'} {'number' if kind is float else 'integer'}"
                raise ArgumentError(f"{name} must be a {what}, not {given!r}")
            msgspec.structs.force_setattr(self, name, value)
