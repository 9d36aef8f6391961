"""Drivers by their kind.

A class is imported when its kind is first asked for, so that a command pays for what it uses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from holdfast.errors import ConfigurationError

_DriverT = TypeVar("_DriverT")
DriverClass = Callable[[], Callable[..., _DriverT]]
"""Imports the class of a driver and returns it."""


def driver(table: Mapping[str, DriverClass[_DriverT]], kind: str, key: str) -> Callable[..., _DriverT]:
    """Return the class of a driver. Raise ConfigurationError that names the key and the known kinds."""
    if kind not in table:
        raise ConfigurationError(
            "holdfast.toml is wrong", [f"{key}: no driver {kind!r}; known are {', '.join(sorted(table))}"]
        )
    return table[kind]()
