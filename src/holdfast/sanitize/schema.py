"""What a database holds: its tables, their columns and how rows refer to each other, as a driver reads it."""

from __future__ import annotations

import hashlib
from typing import Literal

import msgspec

Kind = Literal[
    "text",
    "integer",
    "number",
    "boolean",
    "date",
    "timestamp",
    "time",
    "uuid",
    "inet",
    "json",
    "binary",
    "enum",
    "search",
    "other",
]
"""What a column holds. `search` is derived from text, such as tsvector; `other` has no methods of its own."""


class Column(msgspec.Struct, frozen=True):
    name: str
    type: str
    """The type as the engine writes it."""
    kind: Kind
    array: bool = False
    length: int | None = None
    """The greatest number of characters, or of bytes for the kind `binary`."""
    nullable: bool = True
    unique: bool = False
    """Whether each value occurs once, by this column alone."""
    in_key: bool = False
    """Whether it is one of several columns of a key that is unique."""
    generated: bool = False
    """Whether the server computes it from other columns."""
    labels: tuple[str, ...] = ()
    """The values of an enumeration."""


class Reference(msgspec.Struct, frozen=True):
    """A foreign key."""

    columns: tuple[str, ...]
    parent: str
    parent_columns: tuple[str, ...]


class Check(msgspec.Struct, frozen=True):
    """A condition that every row of a table meets."""

    name: str
    condition: str


class Table(msgspec.Struct, frozen=True):
    name: str
    """The name that rules use: with the schema only where it is not the usual one."""
    schema: str
    own_name: str
    columns: tuple[Column, ...]
    references: tuple[Reference, ...] = ()
    checks: tuple[Check, ...] = ()
    rows: int = 0
    """About how many."""
    size_bytes: int = 0
    virtual: str = ""
    """The module of a virtual table, whose content the engine keeps in tables of its own."""

    def column(self, name: str) -> Column | None:
        return next((column for column in self.columns if column.name == name), None)


class Schema(msgspec.Struct, frozen=True):
    engine: str
    tables: tuple[Table, ...]

    def table(self, name: str) -> Table | None:
        return next((table for table in self.tables if table.name == name), None)

    def fingerprint(self) -> str:
        """Return a digest of everything that a decision depends on; the number of rows is not part of it."""
        lines = sorted(
            f"{table.name} {column.name} {column.type} {column.nullable} {column.unique} {column.generated}"
            f" {column.in_key} {column.labels}"
            for table in self.tables
            for column in table.columns
        )
        lines += sorted(f"{table.name} {one}" for table in self.tables for one in table.references)
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()
