"""Statements that bring a copy of a table up to its original, by a comparison of every column of every row.

The server joins both tables by their primary key. No digest is involved, so equal means equal; it also takes less time
than two digests of all rows, because nothing is computed.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from holdfast.drivers.databases.mariadb.client import Session, SqlError, identifier, literal

_NUMBERS = {"tinyint", "smallint", "mediumint", "int", "bigint"}
_PLAIN = {
    *_NUMBERS,
    "decimal",
    "date",
    "time",
    "datetime",
    "timestamp",
    "year",
    "bit",
    "binary",
    "varbinary",
    "tinyblob",
    "blob",
    "mediumblob",
    "longblob",
    "uuid",
    "inet4",
    "inet6",
}
_TEXTS = {"char", "varchar", "tinytext", "text", "mediumtext", "longtext"}
_COUNTED = {"enum", "set"}  # their texts may be the same where their numbers are not
_FLOATING = {"float", "double"}  # -0 and 0 are equal numbers
_JSON = {"json"}  # equal values may be of different types, and texts too
# Of the rows: with more that differ, a copy of all is quicker. MariaDB counts a row that is replaced twice, MySQL once.
_GIVEN_UP = 0.3
_KEYS = {*_NUMBERS, "decimal", "char", "varchar", "binary", "varbinary", "datetime", "timestamp", "uuid", "inet6"}


@dataclass
class Shape:
    """The columns of a table that are not computed from others, with their types; its primary key, if it has one."""

    columns: list[tuple[str, str]] = field(default_factory=list)
    key: list[str] = field(default_factory=list)
    has_part_keys: bool = False
    """Whether the primary key has only the first letters of a column."""
    has_unique: bool = False
    """Whether there is a unique key besides the primary one."""

    @property
    def listed(self) -> str:
        return ", ".join(identifier(name) for name, _ in self.columns)

    @property
    def number_key(self) -> str | None:
        """Return the one whole-number column that is the primary key, if that is so."""
        types = dict(self.columns)
        return self.key[0] if len(self.key) == 1 and types.get(self.key[0]) in _NUMBERS else None

    @property
    def is_comparable(self) -> bool:
        """Return whether every row can be found by its key, and every column compared to the last bit."""
        types = dict(self.columns)
        return (
            bool(self.key)
            and not self.has_part_keys
            and all(types.get(name) in _KEYS for name in self.key)
            and all(_same(name, kind) is not None for name, kind in self.columns)
        )


def shapes(session: Session, database: str) -> dict[str, Shape]:
    """Return the shapes of a database's tables."""
    found: dict[str, Shape] = {}
    for table, column, kind, computed in session.rows(
        "SELECT table_name, column_name, data_type, COALESCE(generation_expression, '') FROM information_schema.columns"
        f" WHERE table_schema = {literal(database)} ORDER BY table_name, ordinal_position"
    ):
        shape = found.setdefault(str(table), Shape())
        if not computed:
            shape.columns.append((str(column), str(kind).lower()))
    for table, index, column, part in session.rows(
        "SELECT table_name, index_name, column_name, sub_part FROM information_schema.statistics"
        f" WHERE table_schema = {literal(database)} AND non_unique = 0 ORDER BY table_name, index_name, seq_in_index"
    ):
        shape = found.setdefault(str(table), Shape())
        if index != "PRIMARY":
            shape.has_unique = True
            continue
        shape.key.append(str(column))
        shape.has_part_keys = shape.has_part_keys or part is not None
    return found


def _same(name: str, kind: str) -> str | None:
    """Return the condition that a column is the same in both tables to the last bit; None for an unknown type."""
    ours, theirs = f"l.{identifier(name)}", f"c.{identifier(name)}"
    if kind in _PLAIN:
        return f"{ours} <=> {theirs}"
    as_bytes = f"CAST({ours} AS BINARY) <=> CAST({theirs} AS BINARY)"
    if kind in _TEXTS:
        return as_bytes
    if kind in _COUNTED:
        return f"CAST({ours} AS UNSIGNED) <=> CAST({theirs} AS UNSIGNED)"
    if kind in _FLOATING:
        return f"{ours} <=> {theirs} AND CAST({ours} AS CHAR) <=> CAST({theirs} AS CHAR)"
    if kind in _JSON:
        return f"{ours} <=> {theirs} AND {as_bytes}"
    return None


def _differs(shape: Shape) -> str:
    """Return the condition that a row of `l` is not the same in `c`, or not there at all: then its key is NULL."""
    conditions = [_same(name, kind) or "FALSE" for name, kind in shape.columns]
    return f"NOT ({' AND '.join(conditions)})"


def _by_key(shape: Shape) -> str:
    return " AND ".join(f"l.{identifier(name)} = c.{identifier(name)}" for name in shape.key)


def replace(shape: Shape, source: str, target: str, where: str = "") -> str:
    """Return the statement that copies the rows which are missing in the target or differ there.

    A row that takes another one's value of a unique key removes that one. It differs too, or the original would have
    the value twice; so all rows of the original are in the target afterwards.
    """
    columns = ", ".join(f"l.{identifier(name)}" for name, _ in shape.columns)
    return (
        f"REPLACE INTO {target} ({shape.listed}) SELECT {columns} FROM {source} l LEFT JOIN {target} c"
        f" ON {_by_key(shape)} WHERE {_differs(shape)}{where}"
    )


def remove(shape: Shape, source: str, target: str) -> str:
    """Return the statement that removes rows whose key is not in the original."""
    gone = " AND ".join(f"l.{identifier(name)} <=> c.{identifier(name)}" for name in shape.key)
    return f"DELETE c FROM {target} c LEFT JOIN {source} l ON {_by_key(shape)} WHERE NOT ({gone})"


def surplus(source: str, target: str) -> str:
    """Return the query for the number of rows that the target has more than the original."""
    return f"SELECT CAST((SELECT COUNT(*) FROM {target}) AS SIGNED) - CAST((SELECT COUNT(*) FROM {source}) AS SIGNED)"


def between(column: str, low: int | None, high: int | None, prefix: str = "") -> str:
    """Return the condition on a key from `low` up to but not including `high`."""
    name = f"{prefix}{identifier(column)}"
    return " AND ".join(
        [*([f"{name} >= {low}"] if low is not None else []), *([f"{name} < {high}"] if high is not None else [])]
    )


def ranges(least: int, greatest: int, parts: int) -> Sequence[tuple[int | None, int | None]]:
    """Return ranges that together hold every number, and those from `least` to `greatest` in about equal parts."""
    width = greatest - least + 1
    limits = sorted({least + width * part // parts for part in range(1, parts)} - {least})
    return list(zip([None, *limits], [*limits, None], strict=True))


class Comparison:
    """The work to make a copied table equal to its original, in pieces that several sessions can share.

    With another unique key, a row of one piece may remove one of another piece, so a single session does all of them.
    """

    def __init__(self, shape: Shape, source: str, target: str, rows: int) -> None:
        """Take the number of `rows` in the original, as far as it is known."""
        self._shape = shape
        self._source = source
        self._target = target
        self._most_changes = _GIVEN_UP * rows + 1000
        self._changes: list[int] = []  # of each piece; threads append to it
        self._given_up = False
        self._pieces = [""]
        self._left = deque(self._pieces)
        self._done = itertools.count(1)

    def split(self, session: Session, parts: int) -> None:
        """Split the work, if the primary key is a whole number."""
        key = self._shape.number_key
        if key is None:
            return
        name = identifier(key)
        least, greatest = session.rows(f"SELECT MIN({name}), MAX({name}) FROM {self._source}")[0]
        if least is not None and greatest is not None:
            found = ranges(int(least), int(greatest), parts)
            self._pieces = [
                f" AND {between(key, low, high, 'l.')}" for low, high in found if (low, high) != (None, None)
            ]
            self._pieces = self._pieces or [""]
            self._left = deque(self._pieces)

    @property
    def sessions(self) -> int:
        """Return how many sessions can share it."""
        return 1 if self._shape.has_unique else len(self._pieces)

    def run(self, session: Session) -> None:
        """Do one of `sessions` shares."""
        for _ in range(len(self._pieces) // self.sessions):
            self._compare(session)

    def _compare(self, session: Session) -> None:
        where = self._left.popleft()
        if not self._given_up:
            statement = replace(self._shape, self._source, self._target, where)
            # In one request, because the client's mark behind it is a statement too.
            self._changes.append(int(session.rows(f"{statement};\nSELECT ROW_COUNT()")[0][0] or 0))
            if sum(self._changes) > self._most_changes:
                self._given_up = True  # never taken back: from here on pieces may be left out
        if next(self._done) == len(self._pieces):
            self._finish(session)

    def _finish(self, session: Session) -> None:
        """Remove what was deleted since. All rows of the original are there, so equal numbers mean equal tables."""
        if self._given_up:
            session.run(f"TRUNCATE TABLE {self._target}")
            listed = self._shape.listed
            session.run(f"INSERT INTO {self._target} ({listed}) SELECT {listed} FROM {self._source}")
            return
        query = surplus(self._source, self._target)
        if session.value(query) == "0":
            return
        session.run(remove(self._shape, self._source, self._target))
        if session.value(query) != "0":
            raise SqlError(f"the copy {self._target} does not become equal to its original")
