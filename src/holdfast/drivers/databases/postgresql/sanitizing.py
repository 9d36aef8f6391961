"""Sanitized dumps of PostgreSQL: COPY of expressions in one exported snapshot, between two halves of the schema.

Facts from the documentation and measured on 15: several sessions read one exported snapshot, and so does pg_dump; a
setting with a dot in its name can be given when a session is opened, and is then in no statement; COPY accepts values
of identity columns, and of a partitioned table as a whole; pg_dump's section `post-data` has indexes, constraints,
triggers and the refresh of materialized views, and neither section has large objects.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import msgspec

from holdfast.config.schema import Database as DatabaseSettings
from holdfast.drivers.databases.opening import Opening
from holdfast.drivers.databases.postgresql import sanitized_values as values
from holdfast.drivers.databases.postgresql.client import Clients, Session, SqlError, identifier, literal
from holdfast.drivers.databases.postgresql.sanitized_schema import read_contents, read_schema
from holdfast.drivers.protocols.sanitizing import Query, SanitizedDump, unchanged
from holdfast.errors import RefusedError
from holdfast.model import Server
from holdfast.sanitize import scan
from holdfast.sanitize.deciding import DatabasePlan, TablePlan
from holdfast.sanitize.detector import Content
from holdfast.sanitize.output import Compression
from holdfast.sanitize.scan import Canary
from holdfast.sanitize.schema import Schema
from holdfast.sanitize.writing import PartWriter
from holdfast.system.host import Host
from holdfast.system.pouring import pour

_READING = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
_LOCK_TIMEOUT_MS = 30_000
_READS_RANGES = 14_00_00
_SPLIT_BYTES = _PIECE_BYTES = 64 << 20
_SCHEMA = ("--no-password", "--no-owner", "--no-privileges", "--no-publications", "--no-subscriptions")
_HEADING = b"-- Sanitized dump of PostgreSQL. Load it with: psql --set ON_ERROR_STOP=1 --single-transaction\n\n"
_SEQUENCES = """
SELECT format('SELECT pg_catalog.setval(%L, %s, %L);', format('%I.%I', n.nspname, c.relname),
  coalesce(pg_sequence_last_value(c.oid), s.seqstart), pg_sequence_last_value(c.oid) IS NOT NULL)
FROM pg_sequence s JOIN pg_class c ON c.oid = s.seqrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE NOT EXISTS (SELECT 1 FROM pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e') ORDER BY 1"""

_REPEATED = """
SELECT s.schemaname, s.tablename, s.attname FROM pg_stats s
JOIN pg_namespace n ON n.nspname = s.schemaname JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = s.tablename
CROSS JOIN LATERAL (SELECT CASE WHEN s.n_distinct < 0 THEN -s.n_distinct * c.reltuples ELSE s.n_distinct END) AS d(n)
WHERE s.schemaname NOT IN ('pg_catalog', 'information_schema') AND s.inherited = (c.relkind = 'p')
  AND d.n BETWEEN 1 AND 20000 AND c.reltuples >= 20 * d.n"""
"""Columns with few distinct values, as far as the server's statistics know. Wrong ones cost time, nothing else."""


class _Piece(msgspec.Struct, frozen=True):
    """A table, or the rows in a range of its pages."""

    table: TablePlan
    select: str
    size_bytes: int


class PostgresqlSanitizer:
    extension = "sql"

    def __init__(self, name: str, settings: DatabaseSettings, server: Server, host: Host) -> None:
        self._name = name
        self._database = settings.name
        self._host = host
        self._clients = Clients(server, host)

    def quote(self, name: str) -> str:
        return identifier(name)

    def load_command(self, file: str) -> str:
        unpack = "zstd -dc" if file.endswith(".zst") else "gunzip -c"
        return f"{unpack} {file} | psql --set ON_ERROR_STOP=1 --single-transaction --dbname DATABASE"

    @contextmanager
    def _reading(self, key: str = "", snapshot: str = "") -> Iterator[Session]:
        """Yield a session in a transaction that cannot write. The key reaches the server with the connection."""
        settings = {
            "row_security": "off",
            "jit": "off",
            "max_parallel_workers_per_gather": "0",
            "lock_timeout": str(_LOCK_TIMEOUT_MS),
        }
        settings |= {"extra_float_digits": "3", "datestyle": "iso", "intervalstyle": "postgres", "timezone": "UTC"}
        # The small tables of values that repeat are joined by hash, whatever the server guesses of their size.
        settings |= {"enable_mergejoin": "off", "enable_nestloop": "off"}
        settings |= {"search_path": "pg_catalog,public"} | ({values.KEY: key} if key else {})
        with self._clients.session(self._database, **settings) as session:
            session.run(_READING)
            if snapshot:
                session.run(f"SET TRANSACTION SNAPSHOT {literal(snapshot)}")
            yield session

    # --- the schema --------------------------------------------------------------------------------

    def schema(self) -> Schema:
        with self._reading() as session:
            return read_schema(session)

    def contents(self, schema: Schema) -> dict[str, Content]:
        found: dict[str, Content] = {}
        with self._reading() as session:
            for table in schema.tables:
                columns = [one for one in table.columns if one.kind == "text" and not one.array and not one.generated]
                if columns:
                    found |= read_contents(session, table, columns)
        return found

    # --- statements --------------------------------------------------------------------------------

    def queries(self, plan: DatabasePlan) -> list[Query]:
        with self._reading() as session:
            repeated = self._repeated(session)
        tables = [one for one in plan.tables if not one.empty]
        return [Query(one.table.name, values.selection(plan, one, repeated=repeated)) for one in tables]

    def problems(self, plan: DatabasePlan) -> list[str]:
        found = []
        for one in plan.tables:
            if one.empty:
                continue
            try:
                with self._reading("check") as session:
                    session.rows(values.selection(plan, one, limit=0))
            except SqlError as error:
                if not error.sql_state:
                    raise
                found.append(f"{one.table.name}: {error.what.partition('(SELECT')[0].strip().rstrip('(').strip()}")
        return found

    def preview(self, plan: DatabasePlan, table: str, rows: int, key: str) -> list[tuple[str | None, ...]]:
        chosen = next(one for one in plan.tables if one.table.name == table)
        with self._reading(key) as session:
            return session.rows(values.selection(plan, chosen, limit=rows))

    # --- the dump ----------------------------------------------------------------------------------

    def write(
        self,
        plan: DatabasePlan,
        key: str,
        folder: Path,
        compression: Compression,
        passed: Callable[[int], None],
        jobs: int,
    ) -> SanitizedDump:
        with self._reading(key) as session:
            snapshot = str(session.value("SELECT pg_export_snapshot()"))
            if changed := unchanged(plan.schema, read_schema(session)):
                raise RefusedError(
                    f"database {self._name}: the schema changed meanwhile: {', '.join(changed)}",
                    next_step="Run the command again.",
                )
            tables = self._pieces(session, plan, jobs)
            by_size = sorted(range(len(tables)), key=lambda number: -tables[number].size_bytes)
            writer = PartWriter(plan, key, self._canaries(session, plan), folder, compression, passed)
            sequences = "".join(f"{line}\n" for (line,) in session.rows(_SEQUENCES))
            with ThreadPoolExecutor(max(1, jobs)) as pool:
                first = pool.submit(self._section, writer, 0, "pre-data", snapshot, _HEADING)
                futures = {
                    number: pool.submit(self._table, writer, number + 1, tables[number], key, snapshot)
                    for number in by_size
                }
                after = sequences.encode() + b"\n"
                last = pool.submit(self._section, writer, len(tables) + 1, "post-data", snapshot, after)
                parts = (first.result(), *(futures[number].result() for number in range(len(tables))), last.result())
        return SanitizedDump(writer.rows, writer.size_bytes, parts)

    def _section(self, writer: PartWriter, number: int, name: str, snapshot: str, before: bytes) -> Path:
        argv = self._clients.argv("pg_dump", f"--section={name}", f"--snapshot={snapshot}", *_SCHEMA, self._database)
        environment = self._clients.environment(row_security="off")
        return writer.section(number, lambda sink: pour(self._host, argv, sink, environment=environment), before)

    def _pieces(self, session: Session, plan: DatabasePlan, jobs: int) -> list[_Piece]:
        """Return the tables, large ones in pieces, so that the sessions end at about the same time.

        From 14 on a server reads only the pages of a piece.
        """
        found = []
        version = int(session.value("SELECT current_setting('server_version_num')") or 0)
        repeated = self._repeated(session)
        can_split = jobs > 1 and version >= _READS_RANGES
        for one in plan.tables:
            if one.empty:
                continue
            pages = 0
            if can_split and not one.table.virtual and one.table.size_bytes >= _SPLIT_BYTES:
                size = f"pg_relation_size({literal(values.place(one.table))}::regclass)"
                pages = int(session.value(f"SELECT {size} / current_setting('block_size')::integer") or 0)
            count = min(max(jobs, one.table.size_bytes // _PIECE_BYTES), pages)
            bounds = [pages * number // count for number in range(1, count)]
            for first, end in zip([0, *bounds], [*bounds, None], strict=True):
                address = f"{identifier(one.table.own_name)}.ctid"
                rows = [f"{address} >= '({first},0)'"] if first else []
                rows += [f"{address} < '({end},0)'"] if end is not None else []
                select = values.selection(plan, one, pages=" AND ".join(rows), repeated=repeated)
                found.append(_Piece(one, select, one.table.size_bytes // (len(bounds) + 1)))
        return found

    @staticmethod
    def _repeated(session: Session) -> frozenset[tuple[str, str, str]]:
        rows = session.rows(_REPEATED)
        return frozenset((schema or "", table or "", column or "") for schema, table, column in rows)

    def _table(self, writer: PartWriter, number: int, piece: _Piece, key: str, snapshot: str) -> Path:
        one = piece.table
        with self._reading(key, snapshot) as session:
            columns = ", ".join(identifier(decision.column.name) for decision in one.columns)
            before = f"COPY {values.place(one.table)} ({columns}) FROM stdin;\n".encode()
            return writer.table(number, one.table.name, before, partial(session.pour, piece.select), b"\\.\n\n")

    def _canaries(self, session: Session, plan: DatabasePlan) -> list[Canary]:
        """Return digests of some raw values that must not leave."""
        found = []
        for one, column in scan.columns(plan):
            text = values.matchable(column)
            first = f"SELECT {identifier(column.name)} FROM {values.place(one.table)} LIMIT {scan.LOOKED_AT}"
            rows = session.rows(
                f"SELECT length(textsend({text})), {values.digest(scan.CANARY, text)} FROM ({first}) AS looked_at"
                f" WHERE length(textsend({text})) BETWEEN {scan.LEAST_LENGTH} AND {scan.MOST_LENGTH}"
                f" AND translate({text}, {literal(scan.SEPARATORS)}, '') = {text}"
                f" AND {text} ~ '[^a-z]' LIMIT {scan.PER_COLUMN}"
            )
            place = f"{one.table.name}.{column.name}"
            found += [Canary(place, int(length or 0), str(value)) for length, value in rows]
        return scan.chosen(found)


def open_sanitizer(opening: Opening) -> PostgresqlSanitizer:
    return PostgresqlSanitizer(opening.name, opening.settings, opening.server, opening.host)
