"""PostgreSQL: dumps by pg_dump on an exported snapshot, restore points by template copy, swaps by two renames.

Where a server in a container belongs to the application alone, restore points are made by its log (`log_points`).

Facts from the documentation and measured on 15: a copy and a rename need a database without sessions, and both work
while ALLOW_CONNECTIONS is false, which the owner may set; two renames in one transaction are atomic; grants and
settings belong to the OID and stay with the database that is renamed, so they are set again on the other one.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from holdfast.config.schema import RestorePoint
from holdfast.drivers.databases.opening import Opening
from holdfast.drivers.databases.postgresql import checks, copies
from holdfast.drivers.databases.postgresql.archive import Archives
from holdfast.drivers.databases.postgresql.catalogue import TABLES, counted
from holdfast.drivers.databases.postgresql.client import (
    Clients,
    Session,
    SqlError,
    application_name,
    literal,
    quoted,
)
from holdfast.drivers.databases.postgresql.loading import DumpLoader
from holdfast.drivers.databases.postgresql.log_points import LogPoints, is_point
from holdfast.drivers.databases.shadows import WithShadows
from holdfast.drivers.databases.sql.container_exec import end_inside, missing_programs
from holdfast.drivers.databases.sql.session import local_folder, retry_until_available
from holdfast.drivers.interchange.dump_source import DumpSource
from holdfast.drivers.protocols.databases import Queryable
from holdfast.drivers.protocols.datasets import Dataset, SnapshotFn
from holdfast.errors import StepError
from holdfast.model import Copying, Facts, Problem, Server, Snapshot
from holdfast.system.host import Host

_LOCK_TIMEOUT_MS = 250  # with a longer one, visitors would queue behind a lock request that waits itself
_LOCK_ATTEMPTS = 5
_READING = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
_NO_LOCK = "55P03"


BY_COPY = Copying(
    made="a template copy, which is a file copy by the server",
    ahead="a checkpoint makes the server write what it would otherwise write in the window",
)
BY_LOG = Copying(
    made="a named point in the server's log, which takes no time",
    ahead="all data of the server are copied, and the log is kept from then on",
    back="stops the server, applies the log to that copy, puts it in place and starts the server: some seconds, and"
    " more for a large log",
)


class PostgresqlDatabase(WithShadows[copies.ShadowDatabases]):
    kind = "postgresql"
    extension = "dump"
    candidate_has_views = True
    private_folder = None

    def __init__(
        self, name: str, database: str, server: Server, host: Host, *, restore_point: RestorePoint = "copy"
    ) -> None:
        """Take `name`, the dataset's, and `database`, the server's."""
        self.name = name
        self.database = database
        self._host = host
        self._clients = Clients(server, host)
        super().__init__(copies.ShadowDatabases(name, database, self._clients))
        self._archives = Archives(name, self._clients)
        self._loader = DumpLoader(name, self._clients, self._archives, self._shadows)
        self._log: LogPoints | None = None
        if self._clients.container is not None and restore_point != "copy":
            self._log = LogPoints(name, database, self._clients, self._shadows, restore_point)

    # --- looking -----------------------------------------------------------------------------------

    def inspect(self) -> Facts:
        with self._shadows.maintenance() as session:
            found = session.rows(
                f"SELECT oid, pg_database_size(oid) FROM pg_database WHERE datname = {literal(self.database)}"
            )
            version = session.value("SELECT current_setting('server_version')")
            folder = session.value(
                "SELECT CASE WHEN pg_has_role('pg_read_all_settings', 'MEMBER')"
                " THEN current_setting('data_directory') END"
            )
            identity, size = found[0] if found else (None, None)
            if self._log is not None:
                identity = self._log.present(session, identity)
        return {
            "exists": bool(found),
            "identity": identity,
            "size_bytes": int(size or 0),
            "tool": f"PostgreSQL {version}",
            "data_folder": local_folder(self._clients.server, folder),
        }

    def answer(self) -> None:
        """Raise SqlError unless the database answers."""
        with self._clients.session(self.database) as session:
            session.value("SELECT 1")

    def _refuse_missing(self) -> None:
        if not self.inspect()["exists"]:
            raise StepError(f"database {self.name}: the server has no database {self.database!r}")

    def schema_version(self) -> str:
        return ""

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        with self._clients.kept.session(self.database) as session:
            session.run("BEGIN READ ONLY")
            found = list(session.rows(sql))
            session.run("ROLLBACK")
            return found

    def change(self, sql: str) -> None:
        with self._clients.kept.session(self.database) as session:
            session.run(sql)

    def tables(self, *, budget_seconds: float = 10) -> dict[str, Facts]:
        with self._clients.kept.session(self.database) as session:
            return counted(session, budget_seconds)

    def _dump(
        self,
        database: str,
        exporter: Session,
        snapshot: str,
        target: Path,
        queries: Sequence[str],
        budget_seconds: float,
    ) -> Snapshot:
        """Dump an exported snapshot; count rows and answer queries in the same snapshot meanwhile."""
        with self._clients.session(database) as counter, ThreadPoolExecutor(1) as meanwhile:
            counter.run(_READING)
            counter.run(f"SET TRANSACTION SNAPSHOT {literal(snapshot)}")
            answers = [list(counter.rows(sql)) for sql in queries]
            facts = self._shadows.properties.facts(counter)
            size = int(counter.value("SELECT pg_database_size(current_database())") or 0)
            tables = meanwhile.submit(counted, counter, budget_seconds)
            self._archives.write(database, snapshot, target, size)
            exporter.run("ROLLBACK")
            return Snapshot(tables.result(), facts, answers)

    @contextmanager
    def freeze_writes(self, limit_seconds: float | None) -> Iterator[SnapshotFn]:
        """Lock every table against writers, in a few attempts with a lock time-out too short for visitors to notice."""
        self._refuse_missing()
        began = time.monotonic()
        with self._clients.session(self.database) as exporter:
            exporter.run(_READING)  # connects before anyone has to wait; the first statement takes the snapshot
            if limit_seconds is None:
                yield partial(self._fix, None, exporter, began)
                return
            for attempt in range(1, _LOCK_ATTEMPTS + 1):
                with self._clients.session(self.database) as holder:
                    holder.run("BEGIN")
                    locked_at = time.monotonic()
                    try:
                        self._lock(holder)
                    except SqlError as error:
                        late = attempt == _LOCK_ATTEMPTS or time.monotonic() - began > limit_seconds
                        if error.sql_state != _NO_LOCK or late:
                            raise StepError(
                                f"database {self.name}: writers cannot be held within {limit_seconds:g} s: {error.what}"
                            ) from error
                    else:
                        yield partial(self._fix, holder, exporter, locked_at)
                        return
                time.sleep(0.05 * 2**attempt)

    @staticmethod
    def _lock(holder: Session) -> None:
        holder.run(f"SET LOCAL lock_timeout = {_LOCK_TIMEOUT_MS}")
        names = [(str(schema), str(name)) for schema, name in holder.rows(TABLES)]
        if names:
            holder.run(f"LOCK TABLE {quoted(names)} IN SHARE MODE")

    def _fix(
        self,
        holder: Session | None,
        exporter: Session,
        locked_at: float,
        target: Path,
        queries: Sequence[str],
        budget_seconds: float,
    ) -> Callable[[], Snapshot]:
        """Fix the instant after all locks; writers go on at once, because the exported snapshot keeps it."""
        snapshot = _export(exporter)
        held = 0.0
        if holder is not None:
            holder.run("ROLLBACK")
            held = time.monotonic() - locked_at

        def finish() -> Snapshot:
            found = self._dump(self.database, exporter, snapshot, target, queries, budget_seconds)
            return Snapshot(found.tables, found.facts, found.answers, held)

        return finish

    def joint_snapshot(self, others: Sequence[Dataset]) -> None:
        """Return None: a snapshot covers only one database."""

    # --- candidates and swap -----------------------------------------------------------------------

    def copying(self) -> Copying:
        why = self._why_no_log()
        return BY_COPY if why is None else BY_LOG if not why else replace(BY_COPY, why=why)

    def _why_no_log(self) -> str | None:
        """Return why a restore point is not made by the log; empty if it is, None where that is out of the question."""
        if self._log is None:
            return None
        facts = self.inspect()
        return self._log.why_not(facts["size_bytes"]) if facts["exists"] else None

    def copy_ahead(self, token: str) -> Facts:
        if self._log is not None and self._why_no_log() == "":
            try:
                return self._log.begin(token)
            except StepError as error:
                self._host.warn(
                    f"database {self.name}: no restore point by the log: {error.state.strip() or error.what}. The"
                    " database will be copied in the window."
                )
                self._log.discard(token)
        self._shadows.checkpoint(token)
        return {}

    def prepare(self, token: str, source: Path | None, facts: Facts) -> str:
        if source is None:
            return self._point(token, facts)
        return self._loader.restore(token, source, facts)

    def _point(self, token: str, facts: Facts) -> str:
        """Make a restore point: by the log if that was begun and is whole, else by a copy."""
        if self._log is not None and facts.get("method") == "log":
            with self._shadows.maintenance() as session, self._shadows.without_sessions(session):
                pass
            try:
                return self._log.mark(token, facts)
            except StepError as error:
                self._host.warn(
                    f"database {self.name}: no restore point by the log: {error.what}. The database is copied instead,"
                    " while visitors wait."
                )
            with suppress(StepError):  # the copy needs the space
                self._log.discard(token)
        return self._shadows.copy(token)

    @contextmanager
    def _served(self, token: str, identity: str) -> Iterator[PostgresqlDatabase]:
        """Yield the database as of a point in the log, from a server of its own."""
        assert self._log is not None
        with self._log.served(token, identity) as server:
            served = PostgresqlDatabase(self.name, self.database, server, self._host)
            retry_until_available(served.answer, self.name)
            yield served

    @contextmanager
    def candidate(self, token: str, identity: str) -> Iterator[Queryable]:
        if self._log is not None and is_point(identity):
            with self._served(token, identity) as served:
                yield served
            return
        with self._shadows.maintenance() as session:
            place = self._shadows.find(session, identity)
        with self._shadows.reachable(place):
            yield PostgresqlDatabase(self.name, place, self._clients.server, self._host)

    def dump(self, token: str, identity: str, target: Path, budget_seconds: float) -> Snapshot:
        if self._log is not None and is_point(identity):
            with self._served(token, identity) as served, served.freeze_writes(None) as fix:
                return fix(target, [], budget_seconds)()
        with self._shadows.maintenance() as session:
            place = self._shadows.find(session, identity)
        with self._shadows.reachable(place), self._clients.session(place) as exporter:
            exporter.run(_READING)
            return self._dump(place, exporter, _export(exporter), target, [], budget_seconds)

    def load(self, token: str, source: DumpSource) -> str:
        return self._loader.load(token, source)

    def swap(self, token: str, identity: str | None, aside: str) -> None:
        if self._log is None or identity is None or not self._log.put_back(token, identity):
            self._shadows.swap(identity, aside)
        else:
            self._shadows.open_live()

    def discard(self, token: str) -> None:
        super().discard(token)
        if self._log is not None:
            self._log.discard(token)

    def tokens(self) -> list[str]:
        found = super().tokens()
        return [*found, *self._log.tokens()] if self._log is not None else found

    def owner(self) -> str | None:
        return self._shadows.owner()

    def claim(self, owner: str) -> None:
        self._shadows.claim(owner)

    # --- sessions and state --------------------------------------------------------------------------

    def session_environment(self, operation: str) -> dict[str, str]:
        return {"PGAPPNAME": application_name(operation)}

    def end_sessions(self, operation: str) -> None:
        """End the operation's sessions, waiting for a server that is restarting."""

        def terminate() -> None:
            if self._log is not None and self._log.fence(operation):
                return
            end_inside(self._clients.container, operation, self._host)
            with self._shadows.maintenance() as session:
                which = f"application_name = {literal(application_name(operation))}"
                self._shadows.terminate(session, which, kinds=("client backend", "walsender"))

        retry_until_available(terminate, self.name)

    def check(self) -> list[Problem]:
        subject = f"databases.{self.name}"
        try:
            with self._shadows.maintenance() as session:
                found = [Problem(subject, *one) for one in checks.problems(session, self.database)]
                found += self._tool_problems(subject, session)
                found += missing_programs(self._clients.container, subject, self._host)
                open_now = session.rows(
                    f"SELECT 1 FROM pg_database WHERE datname = {literal(self.database)} AND datallowconn"
                    " AND has_database_privilege(oid, 'CONNECT')"
                )
            if open_now:
                with self._clients.session(self.database) as session:
                    found += [Problem(subject, *one, in_content=True) for one in checks.in_database(session)]
            return found
        except StepError as error:
            advice = "Correct host, port, user, password or container, or start the server."
            return [Problem(subject, "error", error.what, advice)]

    def _tool_problems(self, subject: str, session: Session) -> list[Problem]:
        """Report clients older than their server, because they cannot dump it."""
        server = int(session.value("SELECT current_setting('server_version_num')") or 0) // 10000
        text = self._host.capture(self._clients.argv("pg_dump", "--version"))
        found = re.search(r"(\d+)[.\d]*", text)
        if found is not None and int(found[1]) < server:
            return [
                Problem(
                    subject,
                    "error",
                    f"pg_dump is of version {found[1]}, but the server is of version {server}",
                    f"Install postgresql-client-{server}.",
                )
            ]
        return []


def _export(session: Session) -> str:
    snapshot = session.value("SELECT pg_export_snapshot()")
    assert snapshot is not None
    return snapshot


def open_dataset(opening: Opening) -> PostgresqlDatabase:
    item = opening.settings
    return PostgresqlDatabase(opening.name, item.name, opening.server, opening.host, restore_point=item.restore_point)
