"""The schema of an SQLite database, as rules see it."""

from __future__ import annotations

import re
import sqlite3

import msgspec

from holdfast.sanitize.schema import Column, Kind, Reference, Schema, Table

_LENGTH = re.compile(r"\((\d+)\)")
_MODULE = re.compile(r"CREATE\s+VIRTUAL\s+TABLE\s.*?\sUSING\s+(\w+)", re.IGNORECASE | re.DOTALL)
_CONTENT = re.compile(r"""content\s*=\s*['"]?(\w*)""", re.IGNORECASE)
# The first word that a declared type contains says what the column holds; the affinity of SQLite decides the rest.
_KINDS: tuple[tuple[str, Kind], ...] = (
    ("BOOL", "boolean"),
    ("DATETIME", "timestamp"),
    ("TIMESTAMP", "timestamp"),
    ("DATE", "date"),
    ("TIME", "time"),
    ("JSON", "json"),
    ("INTERVAL", "text"),
    ("POINT", "text"),
    ("INT", "integer"),
    ("SERIAL", "integer"),
    ("CHAR", "text"),
    ("CLOB", "text"),
    ("TEXT", "text"),
    ("UUID", "text"),
    ("BLOB", "binary"),
    ("BINARY", "binary"),
    ("BYTEA", "binary"),
    ("REAL", "number"),
    ("FLOA", "number"),
    ("DOUB", "number"),
    ("NUM", "number"),
    ("DEC", "number"),
    ("MONEY", "number"),
)
_GENERATED = (2, 3)
_HIDDEN = 1
_MOST_LIKELY_ROWS = 10_000_000
_ROW_NUMBERS = ("rowid", "_rowid_", "oid")


class Virtual(msgspec.Struct, frozen=True):
    """A virtual table: its module, and the table whose rows it indexes if there is one."""

    name: str
    sql: str
    module: str
    content: str


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def virtual_tables(connection: sqlite3.Connection) -> list[Virtual]:
    found = []
    for name, sql in connection.execute("SELECT name, sql FROM main.sqlite_master WHERE type = 'table'").fetchall():
        module = _MODULE.match(sql or "")
        if module is not None:
            content = _CONTENT.search(sql)
            found.append(Virtual(name, sql, module[1].lower(), content[1] if content is not None else ""))
    return found


def table_names(connection: sqlite3.Connection) -> list[str]:
    """Return the ordinary tables: none of SQLite's own, no virtual one and none that a virtual one keeps."""
    no_table = {one.name for one in virtual_tables(connection)}
    no_table |= {name for _, name, kind, *_ in connection.execute("PRAGMA main.table_list") if kind == "shadow"}
    names = connection.execute(
        "SELECT name FROM main.sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY 1"
    ).fetchall()
    return [name for (name,) in names if name not in no_table]


def read_schema(connection: sqlite3.Connection) -> Schema:
    """Return the tables of the main database."""
    return Schema("sqlite", tuple(_table(connection, name) for name in table_names(connection)))


def _table(connection: sqlite3.Connection, name: str) -> Table:
    place = quoted(name)
    facts = connection.execute(f"PRAGMA main.table_xinfo({place})").fetchall()
    keys = [column for _, column, _, _, _, key, _ in facts if key]
    unique, together = ({keys[0]} if len(keys) == 1 else set()), (set(keys) if len(keys) > 1 else set())
    for _, index, is_unique, *_ in connection.execute(f"PRAGMA main.index_list({place})").fetchall():
        columns = [row[2] for row in connection.execute(f"PRAGMA main.index_info({quoted(index)})").fetchall()]
        if is_unique and len(columns) == 1:
            unique.add(columns[0])
        elif is_unique:
            together.update(columns)
    rows = _rows(connection, name)
    return Table(
        name=name,
        schema="",
        own_name=name,
        columns=tuple(
            Column(
                name=column,
                type=type_.lower() or "any",
                kind=kind_of(type_),
                length=int(found[1]) if (found := _LENGTH.search(type_)) and kind_of(type_) == "text" else None,
                nullable=not not_null and not key,
                unique=column in unique,
                in_key=column in together,
                generated=hidden in _GENERATED,
            )
            for _, column, type_, not_null, _, key, hidden in facts
            if hidden != _HIDDEN
        ),
        references=_references(connection, place),
        rows=rows,
        size_bytes=rows * 100,
    )


def _rows(connection: sqlite3.Connection, name: str) -> int:
    """Return about how many rows a table has: the greatest number of one, unless it is no likely count."""
    if _has_rowid(connection, name):
        (greatest,) = connection.execute(f"SELECT max(rowid) FROM main.{quoted(name)}").fetchone()
        if greatest is None or (isinstance(greatest, int) and 0 <= greatest <= _MOST_LIKELY_ROWS):
            return greatest or 0
    return int(connection.execute(f"SELECT count(*) FROM main.{quoted(name)}").fetchone()[0])


def _has_rowid(connection: sqlite3.Connection, name: str, number: str = "rowid") -> bool:
    try:
        connection.execute(f"SELECT {number} FROM main.{quoted(name)} LIMIT 0")
    except sqlite3.OperationalError:
        return False
    return True


def rowid_to_copy(connection: sqlite3.Connection, table: Table) -> str:
    """Return the name by which rows have a number of their own that is none of the columns; empty if they have none."""
    names = {column.name.lower() for column in table.columns}
    free = [name for name in _ROW_NUMBERS if name not in names]
    if not free or not _has_rowid(connection, table.own_name, free[0]):
        return ""
    facts = connection.execute(f"PRAGMA main.table_xinfo({quoted(table.own_name)})").fetchall()
    keys = [type_ for _, _, type_, _, _, key, _ in facts if key]
    return "" if len(keys) == 1 and keys[0].upper() == "INTEGER" else free[0]


def _references(connection: sqlite3.Connection, place: str) -> tuple[Reference, ...]:
    found: dict[int, list[tuple[str, str, str | None]]] = {}
    for number, _, parent, here, there, *_ in connection.execute(f"PRAGMA main.foreign_key_list({place})").fetchall():
        found.setdefault(number, []).append((parent, here, there))
    made = []
    for columns in found.values():
        parent = _spelled(columns[0][0], table_names(connection))
        facts = connection.execute(f"PRAGMA main.table_xinfo({quoted(parent)})").fetchall()
        there = [one[2] for one in columns if one[2] is not None]
        if not there:  # the primary key of the parent is meant
            there = [name for key, name in sorted((fact[5], fact[1]) for fact in facts if fact[5])]
        if len(there) == len(columns):
            of_parent = [fact[1] for fact in facts]
            made.append(
                Reference(tuple(one[1] for one in columns), parent, tuple(_spelled(one, of_parent) for one in there))
            )
    return tuple(made)


def _spelled(name: str, names: list[str]) -> str:
    """Return a name as its table or column spells it: references may have it in other letters."""
    return next((one for one in names if one.lower() == name.lower()), name)


def kind_of(declared: str) -> Kind:
    """Return what a column of a declared type holds; without one, or with one such as STRING, it may be any text."""
    upper = declared.upper()
    return next((kind for word, kind in _KINDS if word in upper), "text")
