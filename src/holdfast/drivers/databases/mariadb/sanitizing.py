"""Sanitized dumps of MariaDB and MySQL: rows that the server writes as SQL, in one transaction that only reads.

Facts from the documentation and measured on MariaDB 10.11 and MySQL 9.7: a transaction WITH CONSISTENT SNAPSHOT, READ
ONLY reads one instant; QUOTE escapes quotes, backslashes and the character 0, and prints NULL as a word; a function
whose result is longer than max_allowed_packet gives NULL, with no more than a warning.

The key crosses under a pad of random bytes that the server made for it and that is used once: only the padded key is in
a statement, so neither the general log, the slow log, the binary log nor the process list has it. (What LOAD DATA LOCAL
reads is in the binary log with binlog_format = STATEMENT, even for a temporary table.) The key is then a variable of
the session; performance_schema.user_variables_by_thread shows those to administrators as long as a session is open.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from holdfast.drivers.databases.mariadb import catalogue, rewriting, stored_objects
from holdfast.drivers.databases.mariadb import sanitized_values as values
from holdfast.drivers.databases.mariadb.client import ERROR, Clients, Session, SqlError, identifier
from holdfast.drivers.databases.mariadb.dialect import Dialect
from holdfast.drivers.databases.mariadb.driver import MARIADB
from holdfast.drivers.databases.mariadb.mysql import MYSQL
from holdfast.drivers.databases.mariadb.sanitized_schema import read_contents, read_schema, unlike_keys
from holdfast.drivers.databases.opening import Opening
from holdfast.drivers.databases.sql.container_exec import running
from holdfast.drivers.databases.sql.session import CONNECT_SECONDS, Row, open_session
from holdfast.drivers.protocols.sanitizing import Query, SanitizedDump, unchanged
from holdfast.errors import RefusedError, StepError
from holdfast.model import Server
from holdfast.sanitize import scan
from holdfast.sanitize.deciding import DatabasePlan, TablePlan
from holdfast.sanitize.detector import Content
from holdfast.sanitize.output import Compression
from holdfast.sanitize.scan import Canary
from holdfast.sanitize.schema import Schema
from holdfast.sanitize.writing import PartWriter
from holdfast.system.host import Host

_PAD = "@holdfast_pad"
_PAD_BYTES = 8  # of a whole number of the server's
_TOO_LONG = b"NULL"
"""The row whose text has more bytes than max_allowed_packet."""
_STATEMENT_BYTES = 1 << 20
_OPENING = (
    "SET NAMES utf8mb4, SESSION sql_mode = '', lock_wait_timeout = 30, wait_timeout = 28800, time_zone = '+00:00',"
    " net_write_timeout = 3600, group_concat_max_len = 1048576"
)
_HEADING = b"-- Sanitized dump of %s. Load it into an empty database.\n\n"
_SETTINGS = (
    b"\n/*!40101 SET NAMES utf8mb4 */;\n/*!40103 SET TIME_ZONE='+00:00' */;\n"
    b"/*!40014 SET UNIQUE_CHECKS=0, FOREIGN_KEY_CHECKS=0 */;\n/*!40101 SET " + rewriting.WIDER_MODE + b";\n\n"
)
_ENDING = b"\n/*!40014 SET FOREIGN_KEY_CHECKS=1, UNIQUE_CHECKS=1 */;\n-- Dump completed\n"


class _Raw:
    """Syntax of the clients in their raw batch mode. The end marker is a line that nobody knows."""

    def __init__(self) -> None:
        self._marker = f"holdfast-{secrets.token_hex(16)}"
        self.end_marker = f"\n{self._marker}\n".encode()

    def order(self, sql: str) -> bytes:
        # The empty line before it makes even an answer without rows end with the marker.
        return f"SELECT '';\n{sql.rstrip().rstrip(';')}\n;\nSELECT '{self._marker}';\n".encode()

    def selection(self, sql: str) -> str:
        return sql

    def rows(self, answer: bytes) -> list[Row]:
        return [(line,) for line in answer.decode(errors="replace")[1:].split("\n")] if answer else []

    def error(self, text: bytes) -> tuple[str, str]:
        found = ERROR.search(text)
        lines = text.decode(errors="replace").strip()
        return (found[0].decode(errors="replace"), found[2].decode()) if found is not None else (lines, "")


class MariadbSanitizer:
    extension = "sql"

    def __init__(self, name: str, database: str, server: Server, host: Host, dialect: Dialect = MARIADB) -> None:
        self._name = name
        self._database = database
        self._host = host
        self._dialect = dialect
        self._clients = Clients(server, host, dialect)

    def quote(self, name: str) -> str:
        return identifier(name)

    def load_command(self, file: str) -> str:
        unpack = "zstd -dc" if file.endswith(".zst") else "gunzip -c"
        return f"{unpack} {file} | {self._dialect.client} DATABASE"

    # --- the schema --------------------------------------------------------------------------------

    def schema(self) -> Schema:
        with self._clients.session(self._database) as session:
            return read_schema(session, self._database)

    def contents(self, schema: Schema) -> dict[str, Content]:
        found: dict[str, Content] = {}
        with self._clients.session(self._database) as session:
            for table in schema.tables:
                columns = [one for one in table.columns if one.kind == "text" and not one.generated]
                if columns:
                    found |= read_contents(session, table, columns)
        return found

    # --- statements --------------------------------------------------------------------------------

    def queries(self, plan: DatabasePlan) -> list[Query]:
        return [Query(one.table.name, values.selection(plan, one)) for one in plan.tables if not one.empty]

    def problems(self, plan: DatabasePlan) -> list[str]:
        found = []
        tables = [one for one in plan.tables if not one.empty]
        with self._clients.session(self._database) as session:
            versioned = session.rows(
                "SELECT table_name, table_type FROM information_schema.tables WHERE table_schema = DATABASE()"
                " AND table_type IN ('SYSTEM VERSIONED', 'SEQUENCE')"
            )
            found += [f"{name}: {str(type_).lower()} tables cannot be sanitized yet" for name, type_ in versioned]
            found += unlike_keys(session, self._database, plan)
        asked = [(one.table.name, values.selection(plan, one, limit=0)) for one in tables]
        asked.append(("the key needs RANDOM_BYTES, which MariaDB has since 10.10", "SELECT LENGTH(RANDOM_BYTES(1))"))
        while asked:
            # A client ends at its first error, and another one goes on after it.
            try:
                with self._clients.session(self._database) as session:
                    session.run("SET sql_mode = ''")
                    while asked:
                        session.rows(asked[0][1])
                        del asked[0]
            except SqlError as error:
                if not error.sql_state:
                    raise
                found.append(f"{asked[0][0]}: {error.what.partition(' (SELECT')[0]}")
                del asked[0]
        return found

    def preview(self, plan: DatabasePlan, table: str, rows: int, key: str) -> list[tuple[str | None, ...]]:
        chosen = next(one for one in plan.tables if one.table.name == table)
        with self._reading(key) as session:
            found: list[bytes] = []
            session.pour(values.preview(plan, chosen, rows), found.append)
        return [_decoded(line) for line in b"".join(found).splitlines() if line != _TOO_LONG]

    # --- the dump ----------------------------------------------------------------------------------

    @contextmanager
    def _reading(self, key: str) -> Iterator[Session]:
        """Yield a session in a transaction that cannot write. The key is in no statement."""
        options = ("--batch", "--raw", "--quick", "--skip-column-names", "--unbuffered", "--binary-mode")
        more = ("--skip-local-infile", "--max-allowed-packet=1G", f"--connect-timeout={CONNECT_SECONDS}")
        argv = self._clients.argv(self._dialect.client, *options, *more, f"--database={self._database}")
        with (
            running(self._clients.container, self._clients.environment(), self._host) as run,
            open_session(self._host, _Raw(), argv, run.environment, run.end) as session,
        ):
            session.run(_OPENING + self._dialect.opening)
            _give(session, key)
            session.run("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            session.run("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")
            yield session

    def write(
        self,
        plan: DatabasePlan,
        key: str,
        folder: Path,
        compression: Compression,
        passed: Callable[[int], None],
        jobs: int,
    ) -> SanitizedDump:
        writer = PartWriter(plan, key, self._canaries(plan, key), folder, compression, passed)
        with self._clients.session(self._database) as session:
            views = catalogue.names(session, self._database, "VIEW")
        first = writer.section(0, partial(self._definitions, views), _HEADING % self._dialect.product.encode())
        with self._reading(key) as session:
            parts = [
                self._table(writer, number, one, session)
                for number, one in enumerate((one for one in plan.tables if not one.empty), 1)
            ]
        with self._clients.session(self._database) as session:
            if changed := unchanged(plan.schema, read_schema(session, self._database)):
                raise RefusedError(
                    f"database {self._name}: the schema changed meanwhile: {', '.join(changed)}",
                    next_step="Run the command again.",
                )
        last = writer.section(len(parts) + 1, partial(self._programs, views))
        return SanitizedDump(writer.rows, writer.size_bytes, (first, *parts, last))

    def _definitions(self, views: list[str], sink: Callable[[bytes], None]) -> None:
        pieces: list[bytes] = []
        ignored = [f"--ignore-table={self._database}.{view}" for view in views]
        options = ("--no-data", "--skip-triggers", "--skip-lock-tables", "--skip-add-drop-table", *ignored)
        self._clients.dump(pieces.append, *options, names=[self._database])
        sink(rewriting.SANDBOX.sub(b"", b"".join(pieces)).replace(b"\n-- Dump completed", b"\n-- Tables completed"))
        sink(_SETTINGS)

    def _programs(self, views: list[str], sink: Callable[[bytes], None]) -> None:
        script = stored_objects.programs(self._clients, self._database, views)
        sink(stored_objects.without_definers(script).replace(b"\n-- Dump completed", b"\n-- Objects completed"))
        sink(_ENDING)

    def _table(self, writer: PartWriter, number: int, one: TablePlan, session: Session) -> Path:
        columns = ", ".join(identifier(decision.column.name) for decision in one.columns)
        begin = f"INSERT INTO {identifier(one.table.own_name)} ({columns}) VALUES ".encode()

        def fill(sink: Callable[[bytes], None]) -> None:
            inserts = Inserts(begin, sink, one.table.name)
            session.pour(values.selection(writer.plan, one), inserts.feed)
            inserts.end()

        return writer.table(number, one.table.name, b"", fill, b"\n")

    def _canaries(self, plan: DatabasePlan, key: str) -> list[Canary]:
        """Return digests of some raw values that must not leave."""
        found = []
        with self._reading(key) as session:
            for one, column in scan.columns(plan):
                text = f"CONVERT({identifier(column.name)} USING utf8mb4)"
                rows: list[bytes] = []
                session.pour(
                    f"SELECT CONCAT(LENGTH({text}), ' ', {values.digest(scan.CANARY, text)}) FROM"
                    f" (SELECT {identifier(column.name)} FROM {identifier(one.table.own_name)} LIMIT {scan.LOOKED_AT})"
                    f" AS looked_at WHERE LENGTH({text}) BETWEEN {scan.LEAST_LENGTH} AND"
                    f" {scan.MOST_LENGTH} AND {text} NOT REGEXP '[^[:alnum:]._@+/=$-]'"
                    f" AND {text} COLLATE utf8mb4_bin REGEXP '[^a-z]' LIMIT {scan.PER_COLUMN}",
                    rows.append,
                )
                for line in b"".join(rows).decode().splitlines():
                    length, _, digest = line.partition(" ")
                    found.append(Canary(f"{one.table.name}.{column.name}", int(length), digest))
        return scan.chosen(found)


def _give(session: Session, key: str) -> None:
    """Give the server the key, which is in no statement: only what the server can uncover with its pad."""
    plain = key.encode()
    count = -(-len(plain) // _PAD_BYTES)
    session.run(f"SET {_PAD} = CONCAT({', '.join([f'HEX(RANDOM_BYTES({_PAD_BYTES}))'] * count)})")
    pad = bytes.fromhex(session.value(f"SELECT {_PAD}") or "")
    padded = bytes(one ^ other for one, other in zip(plain.ljust(len(pad), b"\0"), pad, strict=True))
    width = 2 * _PAD_BYTES
    parts = []
    for number in range(count):
        here = f"CAST(CONV(SUBSTR({_PAD}, {number * width + 1}, {width}), 16, 10) AS UNSIGNED)"
        covered = int.from_bytes(padded[number * _PAD_BYTES : (number + 1) * _PAD_BYTES])
        parts.append(f"LPAD(HEX({here} ^ {covered}), {width}, '0')")
    uncovered = f"UNHEX(LEFT(CONCAT({', '.join(parts)}), {2 * len(plain)}))"
    session.run(f"SET {values.KEY} = CONVERT({uncovered} USING utf8mb4), {_PAD} = NULL")


class Inserts:
    """Joins rows, one on each line, to statements of about a megabyte."""

    def __init__(self, begin: bytes, sink: Callable[[bytes], None], place: str) -> None:
        self._begin = begin
        self._sink = sink
        self._place = place
        self._held: list[bytes] = []
        """The beginning of a row, whose end is still to come."""
        self._size = 0
        """Bytes of the statement that is open; 0 where none is."""

    def feed(self, data: bytes) -> None:
        """Take a piece of the rows. Raise StepError where the server had no room for one."""
        cut = data.rfind(b"\n") + 1
        if not cut:
            self._held.append(data)
            return
        rows, self._held = b"".join((*self._held, data[:cut])), [data[cut:]]
        if rows.startswith(_TOO_LONG) or b"\n" + _TOO_LONG + b"\n" in rows:
            raise StepError(
                f"{self._place}: a row is longer than the server can write it (max_allowed_packet)",
                next_step="Raise max_allowed_packet in the configuration of the server, or replace the long values.",
            )
        # A statement is left open for the comma before the next row, or for the end.
        before = (b",\n" if self._size < _STATEMENT_BYTES else b";\n") if self._size else b""
        if self._size >= _STATEMENT_BYTES:
            self._size = 0
        start = b"" if self._size else self._begin
        self._size += len(rows)
        self._sink(before + start + rows[:-1].replace(b"\n", b",\n"))

    def end(self) -> None:
        if self._size:
            self._sink(b";\n")


def _decoded(line: bytes) -> tuple[str | None, ...]:
    return tuple(None if one is None else str(one) for one in json.loads(line))


def open_sanitizer(opening: Opening) -> MariadbSanitizer:
    dialect = MYSQL if opening.settings.kind == "mysql" else MARIADB
    return MariadbSanitizer(opening.name, opening.settings.name, opening.server, opening.host, dialect)
