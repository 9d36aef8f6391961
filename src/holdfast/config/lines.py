"""The lines on which keys stand in a TOML text, for messages about a configuration that was refused."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping


def lines_of(text: str) -> dict[str, int]:
    """Return the line of each key and table of a valid TOML text, by its path."""
    found: dict[str, int] = {}
    table, statement, begun = "", "", 0
    for number, line in enumerate(text.splitlines(), 1):
        begun = begun or number
        statement += f"{line}\n"
        try:
            value = tomllib.loads(statement)
        except tomllib.TOMLDecodeError:
            continue  # it goes on: a list, or a text of several lines
        if statement.lstrip().startswith("["):
            table = f"{_path(value)}."
            found.setdefault(table.removesuffix("."), begun)
        else:
            for path in _paths(value, table):
                found.setdefault(path, begun)
        statement, begun = "", 0
    return found


def _path(value: Mapping[str, object]) -> str:
    """Return the path of the only table in a value."""
    names = []
    inner: object = value
    while isinstance(inner, Mapping) and inner:
        name, inner = next(iter(inner.items()))
        names.append(name)
    return ".".join(names)


def _paths(value: Mapping[str, object], prefix: str) -> Iterator[str]:
    for name, inner in value.items():
        yield f"{prefix}{name}"
        if isinstance(inner, Mapping):
            yield from _paths(inner, f"{prefix}{name}.")
