"""The copying of an SQLite database into a new file with replaced values, in a process that ends with it.

SQLite has no digest, so Python computes the values. That is why raw values stay in this process: the one that asks gets
counts, problems, and what leaves. The source is only read: nothing may write to it in this connection.

Facts from the documentation and measured on 3.40: a reader keeps writers out unless the database is in WAL mode, so any
other one is copied into memory first, unless it is large; pages that an UPDATE left keep old values, so rows are
inserted into a new file; a virtual table keeps the text of its rows in tables of its own, and one over the rows of
another table can be rebuilt.
"""

from __future__ import annotations

import os
import re
import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TypeAlias

import msgspec

from holdfast.drivers.databases.sqlite.sanitized_schema import (
    quoted,
    read_schema,
    rowid_to_copy,
    table_names,
    virtual_tables,
)
from holdfast.errors import RefusedError, StepError
from holdfast.sanitize import scan
from holdfast.sanitize.deciding import DatabasePlan, Decision, TablePlan
from holdfast.sanitize.detector import CONTENT_PATTERNS, Content
from holdfast.sanitize.methods import Keep, Null, Set, Sql
from holdfast.sanitize.scan import Canary, Scanner
from holdfast.sanitize.schema import Schema
from holdfast.sanitize.values import Value, Values

_BUSY_SECONDS = 30.0
_MOST_IN_MEMORY_BYTES = 512 << 20
"""A larger database that is not in WAL mode is read in place: its writers wait."""
_SAMPLE = 5000
_NEW = "holdfast_new"
_REBUILT = ("fts5", "fts4", "fts3")
_READ_ONLY = frozenset(
    {
        sqlite3.SQLITE_INSERT,
        sqlite3.SQLITE_UPDATE,
        sqlite3.SQLITE_DELETE,
        sqlite3.SQLITE_CREATE_TABLE,
        sqlite3.SQLITE_DROP_TABLE,
        sqlite3.SQLITE_ALTER_TABLE,
    }
)
_ROWS_AT_ONCE = 1000
_NUMBERS = ("user_version", "application_id")


class AskSchema(msgspec.Struct, frozen=True):
    pass


class AskContents(msgspec.Struct, frozen=True):
    schema: Schema


class AskProblems(msgspec.Struct, frozen=True):
    plan: DatabasePlan


class AskPreview(msgspec.Struct, frozen=True):
    plan: DatabasePlan
    table: str
    rows: int
    key: str


class AskCopy(msgspec.Struct, frozen=True):
    plan: DatabasePlan
    key: str
    target: Path


Order: TypeAlias = AskSchema | AskContents | AskProblems | AskPreview | AskCopy
Broken: TypeAlias = tuple[str, int | None, str, int]
Rows: TypeAlias = list[tuple[str | None, ...]]
Answer: TypeAlias = Schema | dict[str, Content] | list[str] | Rows | dict[str, int]


class SanitizingJob:
    """What the second process does: one order, one answer."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def handle(self, order: Order) -> Answer:
        try:
            with _source(self._path, whole=isinstance(order, AskCopy)) as connection:
                if isinstance(order, AskSchema):
                    return read_schema(connection)
                if isinstance(order, AskContents):
                    return _contents(connection, order.schema)
                if isinstance(order, AskProblems):
                    return _problems(connection, order.plan)
                if isinstance(order, AskPreview):
                    return _preview(connection, order)
                return _Copy(connection, order).run()
        except sqlite3.Error as error:
            raise StepError(f"database {self._path} cannot be read or copied: {error}") from None

    def finish(self) -> None:
        pass


@contextmanager
def _source(path: Path, *, whole: bool) -> Iterator[sqlite3.Connection]:
    """Yield a connection that cannot write to a database; `whole` where all of it will be read, which takes time."""
    with closing(
        sqlite3.connect(f"{path.as_uri()}?mode={_mode(path)}", uri=True, isolation_level=None, timeout=_BUSY_SECONDS)
    ) as live:
        live.execute("PRAGMA temp_store=MEMORY")
        live.text_factory = _decoded
        wal = live.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
        if wal or not whole or path.stat().st_size > _MOST_IN_MEMORY_BYTES:
            yield _only_reading(live)
            return
        with closing(sqlite3.connect(":memory:", isolation_level=None)) as copy:
            copy.execute("PRAGMA temp_store=MEMORY")
            copy.text_factory = _decoded
            live.backup(copy)
            yield _only_reading(copy)


def _mode(path: Path) -> str:
    """Return how to open a database so that nothing of it or beside it changes.

    The last connection that may write copies the WAL into the database; one that may not leaves an empty WAL behind
    where there was none, and cannot roll back what a killed writer left in a journal.
    """
    wal = Path(f"{path}-wal")
    return "ro" if wal.exists() and wal.stat().st_size else "rw"


def _only_reading(connection: sqlite3.Connection) -> sqlite3.Connection:
    def allowed(action: int, _: object, __: object, database: str | None, ___: object) -> int:
        return sqlite3.SQLITE_DENY if action in _READ_ONLY and database == "main" else sqlite3.SQLITE_OK

    connection.set_authorizer(allowed)
    return connection


# --- questions -----------------------------------------------------------------------------------


def _contents(connection: sqlite3.Connection, schema: Schema) -> dict[str, Content]:
    patterns = {what: re.compile(pattern) for what, pattern in CONTENT_PATTERNS.items()}
    found = {}
    for table in schema.tables:
        for column in table.columns:
            if column.generated:
                continue
            name = quoted(column.name)
            asked = f"SELECT {name} FROM main.{quoted(table.own_name)} WHERE {name} IS NOT NULL"
            if column.kind != "text":  # a declared type binds nobody: text may be anywhere
                asked += f" AND typeof({name}) = 'text'"
            texts = [str(value) for (value,) in connection.execute(f"{asked} LIMIT {_SAMPLE}")]
            if column.kind in ("date", "timestamp", "time"):
                texts = [text for text in texts if not text[:1].isdigit()]  # a date is much like a telephone number
            matching = {what: sum(1 for text in texts if one.search(text)) for what, one in patterns.items()}
            found[f"{table.name}.{column.name}"] = Content(len(texts), matching)
    return found


def _problems(connection: sqlite3.Connection, plan: DatabasePlan) -> list[str]:
    found = [
        f"{one.name}: Holdfast does not know the module {one.module} of this virtual table"
        for one in virtual_tables(connection)
        if one.module not in _REBUILT
    ]
    statements = Statements(connection, plan, "check")
    for one in plan.tables:
        if one.empty:
            continue
        try:
            connection.execute(f"EXPLAIN {statements.selection(one)}")
        except sqlite3.Error as error:
            found.append(f"{one.table.name}: {error}")
    return found


def _preview(connection: sqlite3.Connection, order: AskPreview) -> Rows:
    statements = Statements(connection, order.plan, order.key)
    chosen = next(one for one in order.plan.tables if one.table.name == order.table)
    rows = connection.execute(f"{statements.selection(chosen)} LIMIT {order.rows}").fetchall()
    return [tuple(None if value is None else _shown(value) for value in row) for row in rows]


def _shown(value: Value) -> str:
    return f"{len(value)} bytes" if isinstance(value, bytes) else str(value)


class Statements:
    """The SELECT of each table; methods are functions of this connection."""

    def __init__(self, connection: sqlite3.Connection | None, plan: DatabasePlan, key: str) -> None:
        """Without a connection, only the text of the statements is of use."""
        self._connection = connection
        self._values = Values(plan, key)
        self._number = 0

    def selection(self, table: TablePlan, *, more: Sequence[str] = ()) -> str:
        columns = ", ".join([*more, *(self._value(table, one) for one in table.columns)]) or "NULL"
        found = f"SELECT {columns} FROM main.{quoted(table.table.own_name)} AS {quoted(table.table.own_name)}"
        return f"{found} WHERE {table.selected.condition}" if table.selected.condition else found

    def _value(self, table: TablePlan, one: Decision) -> str:
        name = quoted(one.column.name)
        found = self._replaced(one, name)
        return table.guarded(one.column.name, name, found)

    def _replaced(self, one: Decision, name: str) -> str:
        method = one.method
        if isinstance(method, Keep):
            return name
        if isinstance(method, Null):
            return "NULL"
        if isinstance(method, Set):
            return _literal(method.value)
        if isinstance(method, Sql):
            return f"({method.expression})"
        self._number += 1
        function = f"holdfast_{method.name}_{self._number}"
        if self._connection is not None:
            self._connection.create_function(function, 1, self._values.function(one.column, method), deterministic=True)
        return f"CASE WHEN {name} IS NOT NULL THEN {function}({name}) END"


def _literal(value: str | float) -> str:
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return str(int(value)) if isinstance(value, bool) else str(value)


# --- the copy ------------------------------------------------------------------------------------


class _Copy:
    def __init__(self, connection: sqlite3.Connection, order: AskCopy) -> None:
        self._source = connection
        self._plan = order.plan
        self._key = order.key
        self._target = order.target

    def run(self) -> dict[str, int]:
        """Make the new file; return the rows of each table. Raise RefusedError, StepError."""
        objects = self._objects()
        os.close(os.open(self._target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        with closing(self._opened()) as new:
            for pragma in ("page_size", "encoding", "auto_vacuum"):
                value = self._source.execute(f"PRAGMA main.{pragma}").fetchone()[0]
                new.execute(f"PRAGMA {pragma} = {_literal(value)}")
            names = table_names(self._source)
            for kind, name, sql in objects:
                if kind == "table" and name in names:
                    new.execute(sql)
        self._source.execute(f"ATTACH {_literal(str(self._target))} AS {_NEW}")
        self._source.execute(f"PRAGMA {_NEW}.journal_mode=OFF")
        self._source.execute(f"PRAGMA {_NEW}.synchronous=OFF")
        self._source.execute("BEGIN")  # everything that is read from here on is of one instant
        if self._objects() != objects or read_schema(self._source).fingerprint() != self._plan.schema.fingerprint():
            raise RefusedError("the schema changed meanwhile", next_step="Run the command again.")
        rows = self._fill()
        canaries, broken = self._canaries(), _broken_references(self._source)
        numbers = {name: self._source.execute(f"PRAGMA main.{name}").fetchone()[0] for name in _NUMBERS}
        self._source.execute("COMMIT")
        self._source.execute(f"DETACH {_NEW}")
        with closing(self._opened()) as new:
            for wanted in ("index", "view", "trigger"):
                for kind, _, sql in objects:
                    if kind == wanted:
                        new.execute(sql)
            for one in virtual_tables(self._source):
                new.execute(one.sql)
                if one.content:
                    new.execute(f"INSERT INTO {quoted(one.name)}({quoted(one.name)}) VALUES ('rebuild')")
                else:
                    rows[one.name] = 0
            for name, value in numbers.items():
                new.execute(f"PRAGMA {name} = {value}")
            self._verify(new, broken)
            self._look(new, canaries)
        return rows

    def _opened(self) -> sqlite3.Connection:
        found = sqlite3.connect(self._target, isolation_level=None)
        for setting in ("journal_mode=OFF", "synchronous=OFF", "temp_store=MEMORY"):
            found.execute(f"PRAGMA {setting}")
        return found

    def _objects(self) -> list[tuple[str, str, str]]:
        """Return what the schema is made of, as kind, name and statement."""
        return self._source.execute(
            "SELECT type, name, sql FROM main.sqlite_master WHERE sql IS NOT NULL"
            " AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY rowid"
        ).fetchall()

    def _fill(self) -> dict[str, int]:
        """Insert the rows of all tables."""
        statements = Statements(self._source, self._plan, self._key)
        rows = {}
        for one in self._plan.tables:
            if one.empty:
                continue
            place = f"{_NEW}.{quoted(one.table.own_name)}"
            number = rowid_to_copy(self._source, one.table)
            more = [number] if number else []
            names = ", ".join([*more, *(quoted(decision.column.name) for decision in one.columns)])
            try:
                done = self._source.execute(f"INSERT INTO {place} ({names}) {statements.selection(one, more=more)}")
            except sqlite3.OperationalError as error:
                if "user-defined function" not in str(error):
                    raise
                raise StepError(
                    f"{one.table.name}: a rule met a value that it cannot read, such as text that is not UTF-8"
                ) from None
            rows[one.table.name] = done.rowcount
        if self._source.execute(f"SELECT 1 FROM {_NEW}.sqlite_master WHERE name = 'sqlite_sequence'").fetchone():
            self._source.execute(f"DELETE FROM {_NEW}.sqlite_sequence")
            self._source.execute(f"INSERT INTO {_NEW}.sqlite_sequence SELECT name, seq FROM main.sqlite_sequence")
        return rows

    def _verify(self, new: sqlite3.Connection, broken: Counter[Broken]) -> None:
        answer = new.execute("PRAGMA integrity_check(1)").fetchone()[0]
        if answer != "ok":
            raise StepError(f"the new file is not whole: {answer}")
        more = list(_broken_references(new) - broken)
        if more:
            raise StepError(f"a row of {more[0][0]} refers to one of {more[0][2]} that is not there")

    # --- a last look -------------------------------------------------------------------------------

    def _look(self, new: sqlite3.Connection, canaries: Sequence[Canary]) -> None:
        """Look at every value of the new file. Raise RefusedError where one must not leave.

        Values are looked at and not the file, where a long one lies in pieces, and pages of indexes repeat them.
        """
        new.text_factory = _decoded
        domains = (self._plan.email_domain, *self._plan.allowed_email_domains)
        for one in self._plan.tables:
            if one.empty:
                continue
            scanner = Scanner(self._key, domains, canaries)
            names = ", ".join(quoted(decision.column.name) for decision in one.columns)
            cursor = new.execute(f"SELECT {names} FROM {quoted(one.table.own_name)}")
            while rows := cursor.fetchmany(_ROWS_AT_ONCE):
                scanner.feed(one.table.name, b"".join(_line(row) for row in rows))
            scanner.end(one.table.name)

    def _canaries(self) -> list[Canary]:
        digest = Values(self._plan, self._key).digest(scan.CANARY)
        found = []
        for one, column in scan.columns(self._plan):
            name = quoted(column.name)
            asked = (
                f"SELECT DISTINCT {name} FROM (SELECT {name} FROM main.{quoted(one.table.own_name)}"
                f" LIMIT {scan.LOOKED_AT}) WHERE typeof({name}) = 'text' AND"
                f" length({name}) BETWEEN {scan.LEAST_LENGTH} AND {scan.MOST_LENGTH} LIMIT {scan.PER_COLUMN * 5}"
            )
            texts = [text for (text,) in self._source.execute(asked) if scan.is_one_word(text)][: scan.PER_COLUMN]
            place = f"{one.table.name}.{column.name}"
            found += [Canary(place, len(text.encode()), digest(text)) for text in texts]
        return scan.chosen(found)


def _broken_references(connection: sqlite3.Connection) -> Counter[Broken]:
    """Return the references to rows that are not there: table, row, parent, and the number of the foreign key."""
    found: Counter[Broken] = Counter()
    for name in table_names(connection):
        try:
            found.update(connection.execute(f"PRAGMA main.foreign_key_check({quoted(name)})").fetchall())
        except sqlite3.OperationalError:  # it refers to columns that are not unique, so SQLite enforces nothing
            continue
    return found


def _decoded(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")


def _line(row: tuple[Value, ...]) -> bytes:
    return b"\t".join(_bytes(value) for value in row) + b"\n"


def _bytes(value: Value) -> bytes:
    if isinstance(value, bytes):
        try:
            value.decode()
        except UnicodeDecodeError:  # an image or the like, in which chance makes addresses
            return b""
        return value
    return str(value).encode("utf-8", "surrogateescape")
