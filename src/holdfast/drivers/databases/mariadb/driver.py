"""MariaDB: dumps by mariadb-dump in one transaction, restore points copied by the server, swaps by one RENAME.

Facts from the documentation and measured on 10.11: LOCK TABLES ... READ waits for open transactions that have written
and then keeps writers out; a transaction WITH CONSISTENT SNAPSHOT sees what was committed when it began, and the status
variables `binlog_snapshot_file` and `binlog_snapshot_position` give its position in the binary log.
"""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from holdfast.drivers.databases.mariadb import (
    catalogue,
    checks,
    copies,
    markers,
    ownership,
    rewriting,
    snapshots,
    stored_objects,
)
from holdfast.drivers.databases.mariadb.client import Clients, Session, SqlError, identifier, literal, server_error
from holdfast.drivers.databases.mariadb.dialect import Dialect
from holdfast.drivers.databases.mariadb.dump import Dump, Part, Reading
from holdfast.drivers.databases.mariadb.live_copy import LiveCopy
from holdfast.drivers.databases.mariadb.plain_sql import Origin, adapted
from holdfast.drivers.databases.opening import Opening
from holdfast.drivers.databases.shadows import WithShadows
from holdfast.drivers.databases.sql.container_exec import end_inside, missing_programs
from holdfast.drivers.databases.sql.session import local_folder, retry_until_available
from holdfast.drivers.interchange import dump_source
from holdfast.drivers.interchange.dump_source import DumpSource
from holdfast.drivers.protocols.databases import Queryable
from holdfast.drivers.protocols.datasets import Dataset, JointSnapshotFn, SnapshotFn
from holdfast.errors import CommandFailedError, DamagedError, RefusedError, StepError
from holdfast.model import Copying, Facts, Problem, Server, Snapshot
from holdfast.system.host import Host

_GRACE_SECONDS = 2.0
_LOOK_AGAIN_SECONDS = 0.1
_GIVEN_UP = re.compile(r"ERROR (1969|3024) ")  # the time limit of a statement, in MariaDB and in MySQL
_NO_RIGHT = "42000"


def _position(session: Session, held: bool) -> str | None:
    """Return the position where the transaction began, which the server keeps for each."""
    status = {row[0]: row[1] for row in session.rows("SHOW STATUS LIKE 'binlog_snapshot_%'")}
    position = status.get("Binlog_snapshot_position") or "0"
    return f"{status.get('Binlog_snapshot_file')}:{position}" if position != "0" else None


MARIADB = Dialect(
    product="MariaDB",
    client="mariadb",
    dumper="mariadb-dump",
    dumper_options=(),
    rows_on_lines=True,
    opening=", max_statement_time = 0, check_constraint_checks = 0",
    loading=", check_constraint_checks = 0",
    counting="SET STATEMENT max_statement_time = {seconds:.3f} FOR SELECT COUNT(*) FROM {table}",
    position=_position,
    owner_marker=ownership.InComment(),
    oldest=(10, 6),  # the first release that undoes a RENAME of many tables after a crash in its middle
    too_old="before 10.6 it cannot rename many tables as one",
    partitions_at_risk=True,
    definer_rights=frozenset(),
    definer_advice="GRANT SET USER ON *.* TO this account; GRANT SELECT ON mysql.proc TO this account.",
    definer_grant="SET USER",
    session_rights="PROCESS, CONNECTION ADMIN",
    own_findings=checks.history,
    inner_tables="innodb_sys_tables",
)


# The text of one row may be longer than the row itself, and so more than a server accepts at once.
_TOO_LARGE = re.compile(r"\b(1153|2006|2013)\b")
_PACKET_ADVICE = (
    "A row of this dump may be longer than the server accepts at once. Run in SQL, as an administrator:"
    " SET GLOBAL max_allowed_packet = 1073741824; set it in the server's configuration too, then run the command again."
)


class MariadbDatabase(WithShadows[copies.ShadowDatabases]):
    dialect = MARIADB
    kind = "mariadb"
    extension = "sql.zst"
    candidate_has_views = False
    private_folder = None

    def __init__(self, name: str, database: str, server: Server, host: Host) -> None:
        """Take `name`, the dataset's, and `database`, the server's."""
        self.name = name
        self.database = database
        self._clients = Clients(server, host, self.dialect)
        self._server = server
        super().__init__(copies.ShadowDatabases(name, database, self._clients))
        self._live_copy = LiveCopy(name, database, self._clients, self._shadows)
        self._source = snapshots.Source(name, database, self._clients, self._shadows)

    # --- looking -----------------------------------------------------------------------------------

    def inspect(self) -> Facts:
        with self._clients.session() as session:
            identity = self._shadows.identity(session)
            version = session.value("SELECT VERSION()")
            folder = session.value("SELECT @@datadir")
            size = session.value(
                "SELECT SUM(data_length + index_length) FROM information_schema.tables"
                f" WHERE table_schema = {literal(self.database)}"
            )
        return {
            "exists": identity is not None,
            "identity": identity,
            "size_bytes": int(size or 0) if identity else 0,
            "tool": f"{self.dialect.product} {version}",
            "data_folder": local_folder(self._clients.server, folder),
        }

    def _refuse_missing(self) -> None:
        if not self.inspect()["exists"]:
            raise StepError(f"database {self.name}: the server has no tables in a database {self.database!r}")

    @contextmanager
    def _session(self) -> Iterator[Session]:
        with self._clients.session(self.database) as session:
            yield session

    def schema_version(self) -> str:
        return ""

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        with self._session() as session:
            session.run(f"{snapshots.STANDARD}; START TRANSACTION READ ONLY")
            return snapshots.answer(session, sql)

    def change(self, sql: str) -> None:
        with self._session() as session:
            session.run(sql)

    def tables(self, *, budget_seconds: float = 10) -> dict[str, Facts]:
        with self._session() as session:
            found = snapshots.columns(session, self.database)
            deadline = time.monotonic() + budget_seconds
            sizes = catalogue.sizes_bytes(session, self.database) if budget_seconds > 0 else {}
            for name, facts in sorted(found.items(), key=lambda item: sizes.get(item[0], 0)):
                left = deadline - time.monotonic()
                if left <= 0:
                    break
                try:
                    count = self.dialect.counting.format(
                        seconds=left, milliseconds=int(left * 1000) or 1, table=identifier(name)
                    )
                    facts["rows"] = int(session.value(count) or 0)
                except SqlError as error:
                    if error.sql_state == _NO_RIGHT or _GIVEN_UP.search(error.what):
                        break
                    raise
        return found

    # --- copies ------------------------------------------------------------------------------------

    @contextmanager
    def freeze_writes(self, limit_seconds: float | None) -> Iterator[SnapshotFn]:
        self._refuse_missing()
        with snapshots.freeze_writes(self._source, limit_seconds) as fix:
            yield fix

    def joint_snapshot(self, others: Sequence[Dataset]) -> AbstractContextManager[JointSnapshotFn] | None:
        """Read databases of one server in one transaction; return None for other databases."""
        mates = [other for other in others if isinstance(other, MariadbDatabase) and other._server == self._server]
        if len(mates) < len(others):
            return None
        return self._hold_together([self, *mates])

    @staticmethod
    @contextmanager
    def _hold_together(databases: Sequence[MariadbDatabase]) -> Iterator[JointSnapshotFn]:
        for database in databases:
            database._refuse_missing()
        with snapshots.hold_together([database._source for database in databases]) as fix:
            yield fix

    def dump(self, token: str, identity: str, target: Path, budget_seconds: float) -> Snapshot:
        """Dump the database; rows are counted while they pass, whatever the budget."""
        with self._clients.session() as session:
            place = self._shadows.find(session, token, identity)
        with self._clients.session(place) as session:
            columns = snapshots.columns(session, place)
            properties, script = markers.script_of(session, place)
            facts = {
                **snapshots.facts_of(self._source, session, place, held=False),
                "charset": properties,
                "binlog": None,
            }
            beside = snapshots.plan_parallel_dump(self._clients, session, place, facts)
            has_defaults = bool(catalogue.sequence_defaults(session, place))
        part = Part(place, target, [markers.MARKER], script, beside, has_defaults)
        dump = Dump(self._clients, [part], history=bool(facts["history"]))
        try:
            dump.start()
            return snapshots.snapshot(self.name, dump.finish()[place], columns, facts)
        finally:
            dump.close()

    @contextmanager
    def candidate(self, token: str, identity: str) -> Iterator[Queryable]:
        with self._clients.session() as session:
            place = self._shadows.find(session, token, identity)
        yield type(self)(self.name, place, self._server, self._clients.host)

    # --- candidates and swap -----------------------------------------------------------------------

    def copying(self) -> Copying:
        return Copying(
            made="a copy of each table by the server",
            ahead="tables are copied; in it, those that may have been written since are compared",
        )

    def copy_ahead(self, token: str) -> Facts:
        return self._live_copy.ahead(token)

    def prepare(self, token: str, source: Path | None, facts: Facts) -> str:
        if source is None:
            return self._live_copy.copy(token, facts)
        with self._clients.session() as session:
            self._refuse_others(session, facts)
            keeps_definers = bool(catalogue.rights(session) & catalogue.DEFINING)
        candidate = self._shadows.empty(token, facts.get("charset", ""))
        reading = Reading(source)
        try:
            self._clients.feed(candidate, reading.tables(), self.dialect.loading)
        except CommandFailedError as error:
            raise self._not_loaded(source.name, error) from error
        self._compare(candidate, facts.get("rows", {}), facts.get("history", {}))
        script = reading.programs
        if keeps_definers:
            try:
                return self._shadows.settle(candidate, script)
            except DamagedError:  # a definer may be an account for which this one has too few rights
                with self._clients.session() as session:
                    catalogue.drop_programs(session, candidate)
        self._shadows.warn_of_definers(script)
        return self._shadows.settle(candidate, stored_objects.without_definers(script))

    def _not_loaded(self, title: str, error: CommandFailedError, origin: str = "") -> DamagedError:
        writer = f", which {origin} wrote," if origin else ""
        said = server_error(error)
        return DamagedError(
            f"database {self.name}: {title}{writer} could not be loaded: {said}",
            next_step=_PACKET_ADVICE if _TOO_LARGE.search(said) else "",
        )

    def load(self, token: str, source: DumpSource) -> str:
        if source.format != dump_source.SQL:
            raise RefusedError(
                f"{source.title} is of the format {source.format}, which {self.dialect.product} does not read"
            )
        with self._clients.session() as session:
            properties = self._shadows.properties(session, self.database)
        candidate = self._shadows.empty(token, properties)
        origin = Origin()
        lines = adapted(rewriting.with_all_dates(origin.noted(source.chunks())), source.title)
        try:
            self._clients.feed(candidate, itertools.chain(lines, [b"\nCOMMIT;\n"]))
        except CommandFailedError as error:
            raise self._not_loaded(source.title, error, origin.server()) from error
        with self._clients.session() as session:
            if not catalogue.base_tables(session, candidate):
                raise DamagedError(f"database {self.name}: {source.title} holds no table")
            script = self._shadows.script(candidate)
            catalogue.drop_programs(session, candidate)
        return self._shadows.settle(candidate, script)

    def _refuse_others(self, session: Session, facts: Facts) -> None:
        """Raise RefusedError for the dump of a newer server, or of the other product, before anything changes."""
        here = checks.version(session)
        there = tuple(facts.get("server_version", (0, 0)))
        product = facts.get("product", MARIADB.product)  # backups of earlier versions do not name it
        if product != self.dialect.product or here < there:
            raise RefusedError(
                f"database {self.name}: the dump is of {product} {there[0]}.{there[1]}, but the server is"
                f" {self.dialect.product} {here[0]}.{here[1]}",
                next_step=f"Restore it into a server of {product} of that version or a newer one.",
            )

    def _compare(self, candidate: str, rows: Facts, history: Facts) -> None:
        """Raise DamagedError unless the loaded tables have the rows that were counted in the dump."""
        with self._clients.session(candidate) as session:
            for table, expected in {**rows, **history}.items():
                if expected is None:
                    continue
                every = "FOR SYSTEM_TIME ALL" if table in history else ""
                try:
                    loaded = int(session.value(f"SELECT COUNT(*) FROM {identifier(table)} {every}") or 0)
                except SqlError as error:
                    raise DamagedError(f"database {self.name}: table {table} is not in the dump") from error
                if loaded != expected:
                    raise DamagedError(f"database {self.name}: table {table} has {loaded} rows instead of {expected}")

    def swap(self, token: str, identity: str | None, aside: str) -> None:
        self._shadows.swap(token, identity, aside)

    def owner(self) -> str | None:
        return self._shadows.owner()

    def claim(self, owner: str) -> None:
        self._shadows.claim(owner)

    # --- sessions and state --------------------------------------------------------------------------

    def session_environment(self, operation: str) -> dict[str, str]:
        """Return nothing: the clients take no name for their sessions from the environment."""
        return {}

    def end_sessions(self, operation: str) -> None:
        """End what still runs for dead clients, waiting for a server that is restarting.

        A session whose client died ends as soon as its statement does; one that has a living client is idle in between.
        So a session that was never seen idle is ended.
        """

        def look() -> None:
            end_inside(self._clients.container, operation, self._clients.host)
            with self._clients.session() as session:
                self._end_busy(session)

        retry_until_available(look, self.name)

    def _end_busy(self, session: Session) -> None:
        places = [self.database, *self._shadows.own(session)]
        began = time.monotonic()
        suspects = {number for number, *_ in catalogue.sessions(session, places)}
        while suspects and time.monotonic() - began < _GRACE_SECONDS:
            time.sleep(_LOOK_AGAIN_SECONDS)
            now = catalogue.sessions(session, places)
            suspects &= {number for number, _, _, command in now if command != "Sleep"}
        if suspects:
            catalogue.end(self._clients, session, places, self.name, sorted(suspects))

    def check(self) -> list[Problem]:
        subject = f"databases.{self.name}"
        try:
            with self._clients.session() as session:
                found = checks.problems(session, self.database, self.dialect)
                views = checks.broken_views(session, self.database)
            return [
                *missing_programs(self._clients.container, subject, self._clients.host),
                *(Problem(subject, *one) for one in found),
                *(Problem(subject, *one, in_content=True) for one in views),
            ]
        except StepError as error:
            if other := self._other_product():
                message = f"the server is {other}, not {self.dialect.product}"
                return [Problem(subject, "error", message, f'Set kind = "{other.lower()}".')]
            advice = "Correct host, port, user, password or container, or start the server."
            return [Problem(subject, "error", error.what, advice)]

    def _other_product(self) -> str:
        """Return the product that the server is, if it is the other one.

        The session is not opened, because the settings of an opened one work only on its own product.
        """
        try:
            with self._clients.session(application=False) as session:
                version = session.value("SELECT VERSION()") or ""
        except StepError:
            return ""
        found = "MariaDB" if "MariaDB" in version else "MySQL"
        return found if found != self.dialect.product else ""


def open_dataset(opening: Opening) -> MariadbDatabase:
    return MariadbDatabase(opening.name, opening.settings.name, opening.server, opening.host)
