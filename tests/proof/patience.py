"""How long tests wait before they give up: times a factor that a slow or busy machine sets.

`TESTS_PATIENCE=10 make test` is for a machine that is ten times slower than it should be.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

FACTOR = float(os.environ.get("TESTS_PATIENCE", "1"))
_MARGIN = 10


def limit(seconds: float) -> float:
    """Return a bound that only a test that fails reaches: ten times what a quiet machine needs, and the factor."""
    return seconds * _MARGIN * max(1.0, FACTOR / _MARGIN)


def deadline(seconds: float) -> float:
    """Return the instant of the monotonic clock at which such a bound is reached."""
    return time.monotonic() + limit(seconds)


def wait(seconds: float) -> float:
    """Return a time that is waited out where something is meant to fail, so that it costs what it says."""
    return seconds * FACTOR


def until(condition: Callable[[], object], seconds: float = 30) -> None:
    """Wait until something holds. Raise AssertionError at the bound."""
    end = deadline(seconds)
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.02)
