"""The instant of a dump: of one database, or of several of one server by one transaction, with writers held or not.

Facts from the documentation and measured on MariaDB 10.11 and MySQL 9.7: LOCK TABLES ... READ waits for open
transactions that have written and then keeps writers out; a transaction WITH CONSISTENT SNAPSHOT sees what was
committed when it began; a dump program that is given several databases reads all of them in one such transaction.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from holdfast.drivers.databases.mariadb import catalogue, checks
from holdfast.drivers.databases.mariadb.client import Clients, Session, SqlError, identifier
from holdfast.drivers.databases.mariadb.copies import ShadowDatabases
from holdfast.drivers.databases.mariadb.dump import Dump, Part
from holdfast.drivers.databases.mariadb.parallel import Share, half, largest, split_by_key
from holdfast.drivers.databases.mariadb.plain_sql import Quotes
from holdfast.drivers.protocols.datasets import JointSnapshotFn, SnapshotFn
from holdfast.errors import StepError
from holdfast.model import Facts, Snapshot

_LOCK_SECONDS = 0.25  # with a longer one, visitors would queue behind a lock request that waits itself
_LOCK_ATTEMPTS = 5
_BEGIN_SECONDS = 5.0  # for the dump programs, while writers wait
# The configuration's queries must mean the same on every engine: here too, `||` concatenates.
STANDARD = "SET SESSION sql_mode = 'PIPES_AS_CONCAT'"
_READING = "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY"


@dataclass(frozen=True)
class Source:
    """One database that is dumped; `name` is the dataset's."""

    name: str
    database: str
    clients: Clients
    places: ShadowDatabases


@dataclass(frozen=True)
class _Taken:
    """The facts read of one database at its instant; the session's transaction stays open to answer queries."""

    source: Source
    session: Session
    columns: Facts
    facts: Facts
    part: Part


@dataclass(frozen=True)
class _Lock:
    """A session that keeps writers out of these tables."""

    session: Session
    tables: Sequence[str]


@contextmanager
def freeze_writes(source: Source, limit_seconds: float | None) -> Iterator[SnapshotFn]:
    """Yield the function that fixes one database; with a limit, its tables are locked until the dump has begun."""
    with _sessions([source]) as (stack, sessions):
        locked = [] if limit_seconds is None else [stack.enter_context(_locked(source, limit_seconds))]
        fix = partial(_fix, stack, [source], sessions, locked, time.monotonic())
        yield lambda target, queries, budget_seconds: fix([(target, queries)], budget_seconds)[0]


@contextmanager
def hold_together(sources: Sequence[Source]) -> Iterator[JointSnapshotFn]:
    """Yield the function that fixes several databases of one server in one transaction, without locks."""
    with _sessions(sources) as (stack, sessions):
        yield partial(_fix, stack, sources, sessions, [], 0.0)


@contextmanager
def _sessions(sources: Sequence[Source]) -> Iterator[tuple[ExitStack, list[Session]]]:
    """Yield sessions, connected before anyone has to wait."""
    with ExitStack() as stack:
        yield stack, [stack.enter_context(source.clients.session(source.database)) for source in sources]


@contextmanager
def _locked(source: Source, limit_seconds: float) -> Iterator[_Lock]:
    """Lock every table against writers, in a few attempts with a lock time-out too short for visitors to notice.

    Raise StepError where that fails within the limit.
    """
    began = time.monotonic()
    for attempt in range(1, _LOCK_ATTEMPTS + 1):
        with source.clients.session(source.database) as holder:
            names = catalogue.base_tables(holder, source.database)
            locks = ", ".join(f"{identifier(name)} READ" for name in names)
            try:
                if locks:
                    holder.run(f"LOCK TABLES {locks}", _LOCK_SECONDS)
            except SqlError as error:
                late = attempt == _LOCK_ATTEMPTS or time.monotonic() - began > limit_seconds
                if error.sql_state or late:
                    raise StepError(
                        f"database {source.name}: writers cannot be held within {limit_seconds:g} s: {error.what}"
                    ) from error
            else:
                yield _Lock(holder, names)
                return
        time.sleep(0.05 * 2**attempt)


def _fix(
    stack: ExitStack,
    sources: Sequence[Source],
    sessions: Sequence[Session],
    locked: Sequence[_Lock],
    locked_at: float,
    orders: Sequence[tuple[Path, Sequence[str]]],
    budget_seconds: float,
) -> list[Callable[[], Snapshot]]:
    """Fix the instant, which is the start of the dump's transaction.

    Two transactions cannot be made to see the same state. So where queries are to be answered at the dump's own
    instant, writers of that database are held for that moment at every level. Rows are counted whatever the budget.
    """
    asked = [source for source, (_, queries) in zip(sources, orders, strict=True) if queries]
    still = sources if locked else asked
    with ExitStack() as moment:
        if asked and not locked:
            limit = _LOCK_SECONDS * _LOCK_ATTEMPTS
            locked = [moment.enter_context(_locked(source, limit)) for source in asked]
            locked_at = time.monotonic()
        only = locked[0] if len(sources) == 1 and locked else None
        taken = [
            _take(source, session, target, held=source in still, lock=only)
            for source, session, (target, _) in zip(sources, sessions, orders, strict=True)
        ]
        dump = Dump(sources[0].clients, [one.part for one in taken], history=any(one.facts["history"] for one in taken))
        stack.callback(dump.close)
        dump.start(_BEGIN_SECONDS if locked else None)
        for lock in locked:
            lock.session.run("UNLOCK TABLES")
        held = time.monotonic() - locked_at if locked else 0.0
    return [
        partial(_finish, dump, one, queries, held if locked else 0.0)
        for one, (_, queries) in zip(taken, orders, strict=True)
    ]


def _take(source: Source, session: Session, target: Path, *, held: bool, lock: _Lock | None) -> _Taken:
    """Read one database's facts at its instant.

    With a lock, several programs may dump it: nothing is written until all have begun.
    """
    session.run(_READING)
    views = catalogue.names(session, source.database, "VIEW")
    facts = facts_of(source, session, source.database, held=held)
    found = columns(session, source.database)
    # The lock's own session asks, because another one could wait behind a statement that waits to change a table.
    beside = (
        plan_parallel_dump(source.clients, lock.session, source.database, facts, lock.tables)
        if lock is not None
        else []
    )
    has_defaults = bool(catalogue.sequence_defaults(session, source.database))
    part = Part(source.database, target, views, beside=beside, has_sequence_defaults=has_defaults)
    return _Taken(source, session, found, facts, part)


def plan_parallel_dump(
    clients: Clients, session: Session, database: str, facts: Facts, locked: Sequence[str] | None = None
) -> list[Share]:
    """Return the shares of further dump programs, of tables that are all `locked` or unreachable for others.

    History is read with options that apply to all tables of a call. The dump programs ignore case in the names of
    tables to leave out. In these cases there are no shares.
    """
    tables = catalogue.base_tables(session, database)
    told_apart = len({name.casefold() for name in tables}) == len(tables)
    unreachable = locked is None or set(locked) == set(tables)
    if facts["history"] or clients.server.jobs == 1 or not told_apart or not unreachable:
        return []
    known = catalogue.sizes_bytes(session, database)
    sizes = {name: known.get(name, 0) for name in tables}
    most = largest(sizes)
    key = catalogue.number_key(session, database, most) if most is not None else None
    return split_by_key(most, key) if most is not None and key is not None else half(sizes)


def _finish(dump: Dump, taken: _Taken, queries: Sequence[str], held_seconds: float) -> Snapshot:
    taken.session.run(STANDARD)
    answers = [answer(taken.session, sql) for sql in queries]
    rows = dump.finish()[taken.part.database]
    return snapshot(taken.source.name, rows, taken.columns, taken.facts, answers, held_seconds)


def snapshot(
    name: str,
    rows: dict[str, int],
    found: Facts,
    facts: Facts,
    answers: list[list[tuple[Any, ...]]] | None = None,
    held_seconds: float = 0.0,
) -> Snapshot:
    """Return a finished dump's facts, with the rows of the tables that existed at its instant.

    Raise StepError where tables came or went meanwhile.
    """
    if set(rows) != set(found):
        raise StepError(
            f"database {name}: tables came or went during the dump: {', '.join(sorted(set(rows) ^ set(found)))}"
        )
    # A dump of a table that keeps its history has more rows than a query shows.
    kept = {table: rows[table] for table in facts["history"]}
    tables = {table: {**one, "rows": None if table in kept else rows[table]} for table, one in found.items()}
    return Snapshot(tables, {**facts, "history": kept}, answers or [], held_seconds)


def facts_of(source: Source, session: Session, database: str, *, held: bool) -> Facts:
    """Return the facts that a dump lacks and its restore needs."""
    return {
        "product": source.clients.dialect.product,
        "server_version": list(checks.version(session)),
        "charset": source.places.properties(session, database),
        "history": catalogue.versioned(session, database),
        "binlog": source.clients.dialect.position(session, held),
    }


def answer(session: Session, sql: str) -> list[tuple[Any, ...]]:
    """Return a query's rows. Raise StepError for an unfinished one, for whose end the client would wait."""
    quotes = Quotes()
    for line in sql.encode().splitlines(keepends=True):
        quotes.feed(line)
    if quotes.open():
        raise StepError(f"a quote or comment is not closed in the query {sql!r}")
    return list(session.rows(sql))


def columns(session: Session, database: str) -> dict[str, Facts]:
    """Return the tables with their columns; rows are not counted yet."""
    found: dict[str, Facts] = {name: {"rows": None, "columns": []} for name in catalogue.base_tables(session, database)}
    for table, column in catalogue.columns(session, database):
        if table in found:
            found[table]["columns"].append(column)
    return found
