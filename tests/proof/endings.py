"""What a process that runs tests does at its end: servers, engines and sites that it kept are removed, the last first.

They are removed while the process that the others report to still waits for this one, not when the interpreter ends.
"""

from __future__ import annotations

import atexit
import traceback
from collections.abc import Callable

_endings: list[Callable[[], object]] = []


def at_end(action: Callable[[], object]) -> None:
    """Run an action once, when this process has run its tests, or when it ends."""
    if not _endings:
        atexit.register(run)
    _endings.append(action)


def run() -> None:
    """Run what was given, the last first; what fails stops none of the others."""
    while _endings:
        try:
            _endings.pop()()
        except Exception:
            traceback.print_exc()
