"""Drivers by their kind.

A class is imported when its kind is first asked for, and a dataset is opened when it is, so that a command pays for
what it uses.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
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


class OpenedOnDemand(Mapping[str, _DriverT]):
    """Drivers by the names of their sections; each is opened when it is first asked for."""

    def __init__(self, names: Collection[str], open_one: Callable[[str], _DriverT]) -> None:
        self._names = tuple(names)
        self._open_one = open_one
        self._opened: dict[str, _DriverT] = {}

    def __getitem__(self, name: str) -> _DriverT:
        if name not in self._opened:
            if name not in self._names:
                raise KeyError(name)
            self._opened[name] = self._open_one(name)
        return self._opened[name]

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)
