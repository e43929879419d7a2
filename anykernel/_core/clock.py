"""The time that passes, also where a test has stopped the clocks that Python programs look at (as freezegun does)."""

from __future__ import annotations

import functools
import time

__all__ = ["monotonic"]

# The same clock as that of `time.monotonic`, which is what would be replaced.
monotonic = (
    functools.partial(time.clock_gettime, time.CLOCK_MONOTONIC)
    if hasattr(time, "clock_gettime")
    else functools.partial(time.monotonic)
)
"""Seconds since some moment."""
