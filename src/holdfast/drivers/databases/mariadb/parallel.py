"""Shares of a database for further dump programs, because each program keeps only one core busy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from holdfast.drivers.databases.mariadb.client import identifier

_LEAST_BYTES = 16 << 20  # of tables; with fewer, the start of another program takes as long as it saves
_MOST_TABLES = 100  # for a second program: it looks up each of them before it begins, while writers wait


@dataclass(frozen=True)
class Key:
    """The whole-number column that is a table's primary key, with its least and greatest value."""

    column: str
    least: int
    greatest: int


@dataclass(frozen=True)
class Share:
    """The tables for one program.

    `where` selects half of the rows of a single table; `defines` says whether the table's definition is dumped too.
    """

    tables: tuple[str, ...]
    where: str = ""
    defines: bool = True

    @property
    def options(self) -> list[str]:
        return ([f"--where={self.where}"] if self.where else []) + ([] if self.defines else ["--no-create-info"])


def largest(sizes_bytes: Mapping[str, int]) -> str | None:
    """Return the table that has more than half of all bytes, and enough for two programs; else None."""
    name = max(sizes_bytes, key=lambda name: sizes_bytes[name], default=None)
    if name is None or sizes_bytes[name] < 2 * _LEAST_BYTES or sizes_bytes[name] * 2 <= sum(sizes_bytes.values()):
        return None
    return name


def split_by_key(table: str, key: Key) -> list[Share]:
    """Split one table between two programs. Every row is in one of the two: no key is NULL."""
    column = identifier(key.column)
    middle = (key.least + key.greatest + 1) // 2
    return [Share((table,), f"{column} < {middle}"), Share((table,), f"{column} >= {middle}", defines=False)]


def half(sizes_bytes: Mapping[str, int]) -> list[Share]:
    """Return large tables for a second program, so that both have about the same amount to dump."""
    names = sorted(sizes_bytes, key=lambda name: (-sizes_bytes[name], name))
    second: list[str] = []
    loads = [sum(sizes_bytes[name] for name in names[_MOST_TABLES:]), 0]
    for name in names[:_MOST_TABLES]:
        lesser = loads.index(min(loads))
        loads[lesser] += sizes_bytes[name]
        second += [name] if lesser == 1 else []
    return [Share(tuple(second))] if second and loads[1] >= _LEAST_BYTES else []


def tables_of(shares: Sequence[Share]) -> list[str]:
    """Return the tables that the first program leaves out."""
    return sorted({table for share in shares for table in share.tables})
