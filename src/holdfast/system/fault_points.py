"""Points between two changes of an operation, at which a test ends the process as a kill or lost power would.

In production nobody listens, and a point does nothing.
"""

from __future__ import annotations

from collections.abc import Callable

Listener = Callable[[str], None]
_listeners: list[Listener] = []


def reach(label: str) -> None:
    """Pass a point. Equal runs of an operation pass the same points in the same order."""
    for listener in _listeners:
        listener(label)


def listen(listener: Listener) -> None:
    """Call a function at each point from now on."""
    _listeners.append(listener)


def forget(listener: Listener) -> None:
    """Call a function no longer."""
    _listeners.remove(listener)
