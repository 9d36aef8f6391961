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
    ("INT", "integer"),
    ("CHAR", "text"),
    ("CLOB", "text"),
    ("TEXT", "text"),
    ("UUID", "text"),
    ("BLOB", "binary"),
    ("REAL", "number"),
    ("FLOA", "number"),
    ("DOUB", "number"),
    ("NUM", "number"),
    ("DEC", "number"),
)
_GENERATED = (2, 3)
_HIDDEN = 1


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
    virtual = [one.name for one in virtual_tables(connection)]
    names = connection.execute(
        "SELECT name FROM main.sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY 1"
    ).fetchall()
    shadows = {name for (name,) in names for one in virtual if name.startswith(f"{one}_")}
    return [name for (name,) in names if name not in virtual and name not in shadows]


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
    rows = (
        connection.execute(f"SELECT max(rowid) FROM main.{place}").fetchone()[0] if _has_rowid(connection, name) else 0
    )
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
        rows=rows if isinstance(rows, int) else 0,
        size_bytes=(rows if isinstance(rows, int) else 0) * 100,
    )


def _has_rowid(connection: sqlite3.Connection, name: str) -> bool:
    try:
        connection.execute(f"SELECT rowid FROM main.{quoted(name)} LIMIT 0")
    except sqlite3.OperationalError:
        return False
    return True


def rowid_to_copy(connection: sqlite3.Connection, table: Table) -> bool:
    """Return whether rows have a number of their own that is none of the columns."""
    names = {column.name.lower() for column in table.columns}
    if "rowid" in names or not _has_rowid(connection, table.own_name):
        return False
    facts = connection.execute(f"PRAGMA main.table_xinfo({quoted(table.own_name)})").fetchall()
    keys = [type_ for _, _, type_, _, _, key, _ in facts if key]
    return not (len(keys) == 1 and keys[0].upper() == "INTEGER")


def _references(connection: sqlite3.Connection, place: str) -> tuple[Reference, ...]:
    found: dict[int, list[tuple[str, str, str | None]]] = {}
    for number, _, parent, here, there, *_ in connection.execute(f"PRAGMA main.foreign_key_list({place})").fetchall():
        found.setdefault(number, []).append((parent, here, there))
    made = []
    for columns in found.values():
        parent = columns[0][0]
        there = [one[2] for one in columns]
        if None in there:  # the primary key of the parent is meant
            facts = connection.execute(f"PRAGMA main.table_xinfo({quoted(parent)})").fetchall()
            there = [name for key, name in sorted((fact[5], fact[1]) for fact in facts if fact[5])]
        if len(there) == len(columns):
            made.append(Reference(tuple(one[1] for one in columns), parent, tuple(str(one) for one in there)))
    return tuple(made)


def kind_of(declared: str) -> Kind:
    """Return what a column of a declared type holds; one without a type may hold any text."""
    upper = declared.upper()
    return next((kind for word, kind in _KINDS if word in upper), "number" if upper else "text")
