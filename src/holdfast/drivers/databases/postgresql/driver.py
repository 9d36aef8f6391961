"""PostgreSQL: dumps by pg_dump on an exported snapshot, restore points by template copy, swaps by two renames.

Facts from the documentation and measured on 15: a copy and a rename need a database without sessions, and both work
while ALLOW_CONNECTIONS is false, which the owner may set; two renames in one transaction are atomic; grants and
settings belong to the OID and stay with the database that is renamed, so they are set again on the other one.
"""

from __future__ import annotations

import itertools
import re
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from holdfast.drivers.databases.opening import Opening
from holdfast.drivers.databases.postgresql import checks, copies
from holdfast.drivers.databases.postgresql.archive import Archives
from holdfast.drivers.databases.postgresql.catalogue import TABLES, counted
from holdfast.drivers.databases.postgresql.client import (
    Clients,
    Session,
    SqlError,
    application_name,
    identifier,
    literal,
    quoted,
)
from holdfast.drivers.databases.postgresql.plain_sql import adapted
from holdfast.drivers.databases.postgresql.search_path import references, with_search_path
from holdfast.drivers.databases.shadows import WithShadows
from holdfast.drivers.databases.sql.container_exec import end_inside, missing_programs
from holdfast.drivers.databases.sql.session import local_folder, retry_until_available
from holdfast.drivers.interchange import dump_source
from holdfast.drivers.interchange.dump_source import DumpSource
from holdfast.drivers.protocols.databases import Queryable
from holdfast.drivers.protocols.datasets import Dataset, SnapshotFn
from holdfast.errors import CommandFailedError, DamagedError, RefusedError, StepError
from holdfast.model import Facts, Problem, Server, Snapshot
from holdfast.system.host import Host

_LOCK_TIMEOUT_MS = 250  # with a longer one, visitors would queue behind a lock request that waits itself
_LOCK_ATTEMPTS = 5
# The first minor release of each version whose psql has \\restrict (release notes of August 2025).
_RESTRICTED = {13: 22, 14: 19, 15: 14, 16: 10, 17: 6}
_READING = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
_NO_LOCK = "55P03"


class PostgresqlDatabase(WithShadows[copies.ShadowDatabases]):
    kind = "postgresql"
    extension = "dump"
    copied_by = "a template copy, which is a file copy by the server"
    copied_ahead = "a checkpoint makes the server write what it would otherwise write in the window"
    candidate_has_views = True
    private_folder = None

    def __init__(self, name: str, database: str, server: Server, host: Host) -> None:
        """Take `name`, the dataset's, and `database`, the server's."""
        self.name = name
        self.database = database
        self._host = host
        self._clients = Clients(server, host)
        super().__init__(copies.ShadowDatabases(name, database, self._clients))
        self._archives = Archives(name, self._clients)

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
        return {
            "exists": bool(found),
            "identity": identity,
            "size_bytes": int(size or 0),
            "tool": f"PostgreSQL {version}",
            "data_folder": local_folder(self._clients.server, folder),
        }

    def _refuse_missing(self) -> None:
        if not self.inspect()["exists"]:
            raise StepError(f"database {self.name}: the server has no database {self.database!r}")

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

    def copy_ahead(self, token: str) -> Facts:
        self._shadows.checkpoint(token)
        return {}

    def prepare(self, token: str, source: Path | None, facts: Facts) -> str:
        if source is None:
            return self._shadows.copy(token)
        self._refuse_newer(facts)
        self._archives.check(source)
        candidate = self._shadows.candidate(token)
        options = ["--exit-on-error", "--no-password", f"--dbname={candidate}"]
        if facts.get("elsewhere") or not self._shadows.properties.has_roles(facts):
            owner, _ = self._shadows.like_live()
            options += _mapped_to(owner)
        identity = self._shadows.empty(token, facts)
        left_out = self._not_to_be_made(candidate, facts)
        with self._archives.without_extensions(left_out, source) as chosen:
            try:
                try:
                    self._archives.load(
                        *options, *chosen, dump=source, jobs=self._clients.server.jobs, search_path=None
                    )
                except CommandFailedError as error:
                    self._raise_unless_missing(error)
                    identity = self._shadows.empty(token, facts)
                    self._load_by_path(candidate, [*options, *chosen], source, str(facts.get("search_path", "")))
            except StepError as error:
                raise DamagedError(
                    f"database {self.name}: {source.name} could not be loaded: {error.state or error.what}"
                ) from error
        self._shadows.settle_loaded(candidate, facts)
        self._compare(candidate, facts.get("rows", {}))
        return identity

    def _raise_unless_missing(self, error: CommandFailedError) -> None:
        """Raise the error again if another search path cannot help, for example a full disk.

        The text is looked at only where the server's messages are in English.
        """
        with self._shadows.maintenance() as session:
            language = session.value("SELECT current_setting('lc_messages')") or "C"
        in_english = language.startswith(("C", "POSIX", "en"))
        if in_english and "ERROR:" in error.output_tail and "does not exist" not in error.output_tail:
            raise error

    def _load_by_path(self, candidate: str, options: Sequence[str], source: Path, search_path: str) -> None:
        """Load a dump with a search path; every name in it must keep its meaning. Raise StepError."""
        jobs = self._clients.server.jobs
        self._archives.load(*options, dump=source, jobs=jobs, search_path=search_path)
        chosen = [option for option in options if option.startswith("--use-list=")]
        with tempfile.TemporaryFile() as wanted, tempfile.TemporaryFile() as loaded:
            self._archives.schema(*chosen, dump=source, output=wanted)
            self._archives.schema_of(candidate, loaded)
            wanted.seek(0)
            loaded.seek(0)
            expected, found = references(wanted), references(loaded)
        for name in sorted((expected - found) | (found - expected)):
            raise StepError(
                f"with its search path the name {name.decode(errors='replace')} would refer to another object"
            )

    def _not_to_be_made(self, candidate: str, facts: Facts) -> list[str]:
        """Return extensions of the dump that this role may not create, after a warning with the statement to run."""
        wanted = [str(name) for name, _ in facts.get("extensions", ())]
        if not wanted:
            return []
        names = ", ".join(literal(name) for name in wanted)
        with self._clients.session(candidate) as session:
            rows = session.rows(
                "SELECT name FROM pg_available_extension_versions v JOIN pg_available_extensions e USING (name)"
                f" WHERE name IN ({names}) AND version = default_version AND v.superuser AND NOT v.trusted"
                " AND NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user)"
                " AND NOT EXISTS (SELECT FROM pg_extension WHERE extname = name) ORDER BY 1"
            )
        found = [str(name) for (name,) in rows]
        for name in found:
            self._host.warn(
                f"database {self.name}: extension {name} is left out, because only a superuser may create it."
                f" Run as a superuser, in that database: CREATE EXTENSION {identifier(name)};"
            )
        return found

    @contextmanager
    def candidate(self, token: str, identity: str) -> Iterator[Queryable]:
        with self._shadows.maintenance() as session:
            place = self._shadows.find(session, identity)
        with self._shadows.reachable(place):
            yield PostgresqlDatabase(self.name, place, self._clients.server, self._host)

    def dump(self, token: str, identity: str, target: Path, budget_seconds: float) -> Snapshot:
        with self._shadows.maintenance() as session:
            place = self._shadows.find(session, identity)
        with self._shadows.reachable(place), self._clients.session(place) as exporter:
            exporter.run(_READING)
            return self._dump(place, exporter, _export(exporter), target, [], budget_seconds)

    def load(self, token: str, source: DumpSource) -> str:
        if source.format not in (dump_source.SQL, dump_source.CUSTOM, dump_source.TAR, dump_source.DIRECTORY):
            raise RefusedError(f"{source.title} is of the format {source.format}, which PostgreSQL does not read")
        if source.path is not None:
            self._archives.refuse_folder(source.path)
        owner, facts = self._shadows.like_live()
        path = self._shadows.search_path()
        identity = self._shadows.empty(token, facts)
        candidate = self._shadows.candidate(token)
        try:
            try:
                self._run(candidate, owner, source, None)
            except CommandFailedError as error:
                self._raise_unless_missing(error)
                if source.path is None:  # a stream is read once
                    raise
                identity = self._shadows.empty(token, facts)
                with dump_source.opened(str(source.path)) as again:
                    self._run(candidate, owner, again, path)
        except CommandFailedError as error:
            raise DamagedError(
                f"database {self.name}: {source.title} could not be loaded: {error.output_tail.strip() or error.what}"
            ) from error
        self._shadows.settle_loaded(candidate, {"search_path": path})
        with self._clients.session(candidate) as session:
            if not session.rows(TABLES):
                raise DamagedError(f"database {self.name}: {source.title} holds no table")
        return identity

    def _run(self, candidate: str, owner: str | None, source: DumpSource, search_path: str | None) -> None:
        """Load with the search path of the dump, which is mostly empty, or another one. Raise CommandFailedError."""
        if source.format == dump_source.SQL:
            self._run_sql(candidate, owner, source, search_path)
        else:
            self._run_archive(candidate, owner, source, search_path)

    def _run_archive(self, candidate: str, owner: str | None, source: DumpSource, search_path: str | None) -> None:
        """Load an archive; objects get the live database's owner, and no grants to others are restored."""
        options = ["--exit-on-error", "--no-password", f"--dbname={candidate}", *_mapped_to(owner)]
        if source.path is not None:
            jobs = 1 if source.format == dump_source.TAR else self._clients.server.jobs  # a tar is read sequentially
            self._archives.load(*options, dump=source.path, jobs=jobs, search_path=search_path)
        else:
            self._clients.feed("pg_restore", *options, chunks=source.chunks(), environment=self._clients.environment())

    def _run_sql(self, candidate: str, owner: str | None, source: DumpSource, search_path: str | None) -> None:
        """Load SQL in restricted mode, because a dump from elsewhere must not run psql's own commands."""
        self._refuse_unrestricted()
        key = secrets.token_hex(16)
        settings = {"role": owner} if owner is not None else {}
        if search_path:
            settings["search_path"] = search_path
        chunks = source.chunks() if search_path is None else with_search_path(source.chunks())
        options = ["-X", "-q", "-w", "-v", "ON_ERROR_STOP=1", "-o", "/dev/null", "-d", candidate]
        lines = itertools.chain([f"\\restrict {key}\n".encode()], adapted(chunks, source.title))
        self._clients.feed("psql", *options, chunks=lines, environment=self._clients.environment(**settings))

    def _refuse_unrestricted(self) -> None:
        text = self._host.capture(self._clients.argv("psql", "--version"))
        found = re.search(r"(\d+)\.(\d+)", text)
        major, minor = (int(found[1]), int(found[2])) if found is not None else (0, 0)
        if minor < _RESTRICTED.get(major, 0 if major > max(_RESTRICTED) else 999):
            raise RefusedError(
                f"plain SQL is not run by {text.strip()}, which cannot keep it from running commands on this machine",
                next_step="Update the PostgreSQL client, or make a dump with `pg_dump --format=custom`.",
            )

    def _refuse_newer(self, facts: Facts) -> None:
        """Raise RefusedError for the dump of a newer server, before anything changes."""
        with self._shadows.maintenance() as session:
            version = int(session.value("SELECT current_setting('server_version_num')") or 0)
        if version // 10000 < int(facts.get("server_version", 0)) // 10000:
            raise RefusedError(
                f"database {self.name}: the dump is of PostgreSQL {int(facts['server_version']) // 10000},"
                f" but the server is {version // 10000}",
                next_step="Restore it into a server of that version or a newer one.",
            )

    def _compare(self, candidate: str, rows: Facts) -> None:
        """Raise DamagedError unless the loaded tables have the rows that were counted in the snapshot."""
        with self._clients.session(candidate) as session:
            found = counted(session, 3600 if rows else 0)
        for table, expected in rows.items():
            loaded = found.get(table, {}).get("rows")
            if expected is not None and loaded != expected:
                raise DamagedError(f"database {self.name}: table {table} has {loaded} rows instead of {expected}")

    def swap(self, token: str, identity: str | None, aside: str) -> None:
        self._shadows.swap(identity, aside)

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
            end_inside(self._clients.container, operation, self._host)
            with self._shadows.maintenance() as session:
                self._shadows.terminate(session, f"application_name = {literal(application_name(operation))}")

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


def _mapped_to(owner: str | None) -> list[str]:
    """Return arguments by which pg_restore gives objects to the owner or the connected role, without grants."""
    return ["--no-owner", "--no-acl", *([f"--role={owner}"] if owner is not None else [])]


def _export(session: Session) -> str:
    snapshot = session.value("SELECT pg_export_snapshot()")
    assert snapshot is not None
    return snapshot


def open_dataset(opening: Opening) -> PostgresqlDatabase:
    return PostgresqlDatabase(opening.name, opening.settings.name, opening.server, opening.host)
