"""MariaDB databases beside the live one: copied, filled, put in place by one RENAME of all tables, dropped.

MariaDB cannot rename a database, but renames any number of tables in one atomic statement (from 10.6; documentation of
"Atomic DDL"). So each place carries a marker, a table of one row that says whose content stands there, and moves in that
same statement: identity is decided by it alone. The live one's marker stands in a database of its own, so that the
application never meets it. Tables with triggers cannot be moved into another database, views, routines and events not
at all; they are kept as a script in the marker while their tables stand beside, and made again in place.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from holdfast.drivers.databases import mariadb_dump
from holdfast.drivers.databases.mariadb_catalogue import (
    MARKER,
    base_tables,
    copying,
    drop_programs,
    end,
    movable,
    names,
    sessions,
)
from holdfast.drivers.databases.mariadb_client import Clients, Session, SqlError, identifier, literal
from holdfast.errors import CommandFailedError, DamagedError, RefusedError, StepError

_OWNER_MARK = re.compile(r"\n?\[holdfast owner: ([^\]]*)\]$")
_UNMARKED = "first"  # the identity of a live database that was never swapped
_LEAVE_SECONDS = 5.0
_NAME_CHARACTERS = 64
_DENIED, _NO_STATE = ("42000", "28000"), "HY000"


@dataclass(frozen=True)
class Marker:
    """`placed` is false while the programs of the content are not in place; then `script` has them."""

    identity: str
    placed: bool


class Places:
    def __init__(self, name: str, database: str, clients: Clients) -> None:
        """`name` is the dataset's, for messages."""
        self._name = name
        self._database = database
        self._clients = clients
        self._own_place = f"hf-{hashlib.sha256(database.encode()).hexdigest()[:6]}"
        self._prefix = f"{self._own_place}-"

    def _beside(self, token: str) -> str:
        name = self._prefix + token
        if len(name) > _NAME_CHARACTERS:
            raise StepError(f"a database cannot be named {name}: over {_NAME_CHARACTERS} characters")
        return name

    def candidate(self, token: str) -> str:
        return self._beside(f"{token}.new")

    def own(self, session: Session) -> list[str]:
        """Databases of Holdfast's beside the live one."""
        rows = session.rows(
            "SELECT schema_name FROM information_schema.schemata"
            f" WHERE LEFT(schema_name, {len(self._prefix)}) = {literal(self._prefix)} ORDER BY 1"
        )
        return [str(name) for (name,) in rows]

    def tokens(self) -> list[str]:
        with self._clients.session() as session:
            return [name.removeprefix(self._prefix) for name in self.own(session)]

    # --- what stands where -------------------------------------------------------------------------------

    def _marker(self, session: Session, place: str) -> Marker | None:
        if not session.rows(
            f"SELECT 1 FROM information_schema.tables WHERE table_schema = {literal(place)}"
            f" AND table_name = {literal(MARKER)}"
        ):
            return None
        rows = session.rows(f"SELECT identity, placed FROM {identifier(place)}.{MARKER}")
        return Marker(str(rows[0][0]), rows[0][1] == "1") if rows else None

    def _make_marker(self, session: Session, place: str, identity: str, script: bytes | None, charset: str) -> None:
        where = f"{identifier(place)}.{MARKER}"
        session.run(f"CREATE DATABASE IF NOT EXISTS {identifier(place)}")
        session.run(
            f"CREATE OR REPLACE TABLE {where} (identity VARCHAR(64) NOT NULL, placed BOOLEAN NOT NULL, charset VARCHAR(200)"
            " NOT NULL, script LONGBLOB) ENGINE=InnoDB CHARACTER SET utf8mb4"
        )
        session.run(
            f"INSERT INTO {where} VALUES ({literal(identity)}, {int(script is None)}, {literal(charset)},"
            f" {_blob(script)}); COMMIT"
        )

    def identity(self, session: Session) -> str | None:
        """Of the live database; None where there is none, or an empty one that nothing was put into."""
        if not self.charset(session, self._database):
            return None  # dropped by hand, whatever its marker says
        marker = self._marker(session, self._own_place)
        if marker is not None:
            return marker.identity
        return _UNMARKED if movable(session, self._database) else None

    def charset(self, session: Session, database: str) -> str:
        rows = session.rows(
            "SELECT default_character_set_name, default_collation_name FROM information_schema.schemata"
            f" WHERE schema_name = {literal(database)}"
        )
        return f"CHARACTER SET {rows[0][0]} COLLATE {rows[0][1]}" if rows else ""

    # --- candidates --------------------------------------------------------------------------------------

    def empty(self, token: str, charset: str) -> str:
        """An empty candidate; its name."""
        candidate = self.candidate(token)
        with self._clients.session() as session:
            charset = charset or self.charset(session, self._database)
            self._create(session, "hf-%", f"CREATE OR REPLACE DATABASE {identifier(candidate)} {charset}")
        return candidate

    def _create(self, session: Session, grant_on: str, statement: str) -> None:
        """Raises RefusedError where the account has no right on such a name."""
        try:
            session.run(statement)
        except SqlError as error:
            if error.sql_state not in _DENIED:
                raise
            raise RefusedError(
                f"database {self._name}: this account may not create a database: {error.what}",
                next_step=f"GRANT ALL ON {identifier(grant_on)}.* TO the account of [databases], as an administrator.",
            ) from error

    def settle(self, candidate: str, script: bytes) -> str:
        """Proves that the programs can be made, marks the candidate and makes it durable; its identity."""
        try:
            self._clients.feed(candidate, [mariadb_dump.without_events(script)])
        except CommandFailedError as error:
            raise DamagedError(
                f"database {self._name}: its triggers, routines or views cannot be made: {error.output_tail.strip()}"
            ) from error
        identity = secrets.token_hex(12)
        with self._clients.session() as session:
            drop_programs(session, candidate)
            self._make_marker(session, candidate, identity, script, self.charset(session, candidate))
            barrier(session, candidate)
        return identity

    def copy(self, token: str) -> str:
        """A copy of the live database made by the server, table by table; its identity. No session may be on it."""
        with self._clients.session() as session:
            self._await_no_sessions(session)
            charset = self.charset(session, self._database)
            views = names(session, self._database, "VIEW")
            tables = [
                (table, copying(session, self._database, table)) for table in base_tables(session, self._database)
            ]
        candidate = self.empty(token, charset)
        self._clients.feed(candidate, mariadb_dump.structure(self._clients, self._database, views))
        source, target = identifier(self._database), identifier(candidate)

        def copy_some(first: int) -> None:
            with self._clients.session() as session:
                session.run("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED; SET check_constraint_checks = 0")
                for table, (into, what, history) in tables[first :: self._clients.server.jobs]:
                    if history:
                        session.run("SET system_versioning_insert_history = 1")
                    quoted = identifier(table)
                    session.run(
                        f"INSERT INTO {target}.{quoted} ({into}) SELECT {what} FROM {source}.{quoted} {history}"
                    )

        try:
            with ThreadPoolExecutor(self._clients.server.jobs) as pool:
                list(pool.map(copy_some, range(self._clients.server.jobs)))
        except SqlError as error:
            if error.sql_state != _NO_STATE:
                raise
            raise StepError(  # the server calls a full disk an unknown error
                f"database {self._name}: the server could not write a copy: {error.what}",
                next_step="See whether the server's disk is full; its log says more.",
            ) from error
        return self.settle(candidate, self.script(self._database))

    def script(self, database: str) -> bytes:
        """What makes the triggers, routines, views and events of a database."""
        with self._clients.session() as session:
            views = names(session, database, "VIEW")
        return mariadb_dump.programs(self._clients, database, views)

    def _await_no_sessions(self, session: Session) -> None:
        """Those of services just stopped go by themselves; others are named, or ended where that is configured."""
        if self._clients.server.end_sessions:
            end(session, [self._database], self._name)
        deadline = time.monotonic() + _LEAVE_SECONDS
        while left := sessions(session, [self._database]):
            if time.monotonic() > deadline:
                named = ", ".join(
                    f"session {number} ({user} from {host}, {command})" for number, user, host, command in left
                )
                raise RefusedError(
                    f"database {self._name} is still in use by {named}",
                    next_step="End what holds it, make it a service of the application, or set"
                    f" databases.{self._name}.end_sessions.",
                )
            time.sleep(0.05)

    # --- the live one ------------------------------------------------------------------------------------

    def swap(self, identity: str | None, aside: str) -> None:
        """One RENAME of all tables with both markers; sessions on either database are ended. May be repeated."""
        with self._clients.session() as session:
            if self.identity(session) != identity:
                self._swap(session, identity, aside)
            marker = self._marker(session, self._own_place)
            if identity is not None and marker is not None and not marker.placed:
                self._place(session)

    def _swap(self, session: Session, identity: str | None, aside: str) -> None:
        found = None
        if identity is not None:
            found = next((name for name in self.own(session) if self._holds(session, name, identity)), None)
            if found is None:
                raise StepError(f"database {self._name}: the database {identity} that should be put in place is gone")
        present = self.identity(session)
        session.run(f"CREATE DATABASE IF NOT EXISTS {identifier(self._database)}")
        moves = []
        if present is None:
            session.run(f"DROP TABLE IF EXISTS {identifier(self._own_place)}.{MARKER}")
        else:
            self._take_down(session)
            name = self._free(session, aside)
            session.run(f"CREATE DATABASE {identifier(name)} {self.charset(session, self._database)}")
            moves += [(self._database, table, name) for table in movable(session, self._database)]
            moves.append((self._own_place, MARKER, name))
        if found is not None:
            end(session, [found], self._name)
            session.run(f"CREATE DATABASE IF NOT EXISTS {identifier(self._own_place)}")
            moves += [(found, table, self._database) for table in movable(session, found)]
            moves.append((found, MARKER, self._own_place))
        session.run(_rename(moves))
        barrier(session, self._own_place)

    def _holds(self, session: Session, place: str, identity: str) -> bool:
        marker = self._marker(session, place)
        return marker is not None and marker.identity == identity

    def _take_down(self, session: Session) -> None:
        """Keeps the live database's programs in its marker, then drops them, so that its tables can be moved."""
        end(session, [self._database], self._name)
        marker = self._marker(session, self._own_place)
        if marker is None:
            self._make_marker(session, self._own_place, _UNMARKED, None, self.charset(session, self._database))
        if marker is None or marker.placed:  # else they are kept already, and may be partly gone
            script = self.script(self._database)
            session.run(
                f"UPDATE {identifier(self._own_place)}.{MARKER} SET placed = 0, script = {_blob(script)},"
                f" charset = {literal(self.charset(session, self._database))}; COMMIT"
            )
            barrier(session, self._own_place)
        drop_programs(session, self._database)

    def _place(self, session: Session) -> None:
        """Makes the programs of what stands in place, from its marker."""
        where = f"{identifier(self._own_place)}.{MARKER}"
        drop_programs(session, self._database)
        rows = session.rows(f"SELECT charset, HEX(script) FROM {where}")
        charset, script = str(rows[0][0]), bytes.fromhex(rows[0][1] or "")
        if charset:
            session.run(f"ALTER DATABASE {identifier(self._database)} {charset}")
        self._clients.feed(self._database, [script])
        session.run(f"UPDATE {where} SET placed = 1, script = NULL; COMMIT")
        barrier(session, self._own_place)

    def hand_over(self, token: str, name: str, rehearsal: bool) -> None:
        """The marker stays behind, so that a hand-over that died is finished from it."""
        candidate = self.candidate(token)
        with self._clients.session() as session:
            if self._marker(session, candidate) is None:
                return
            left = movable(session, candidate)
            if left and (movable(session, name) or names(session, name, "VIEW")):
                raise RefusedError(f"the server has tables in a database {name} already")
            where = f"{identifier(candidate)}.{MARKER}"
            charset, script = session.rows(f"SELECT charset, HEX(script) FROM {where}")[0]
            there = bool(self.charset(session, name))
            self._create(session, name, f"CREATE DATABASE IF NOT EXISTS {identifier(name)} {charset}")
            if rehearsal:
                if not there:
                    session.run(f"DROP DATABASE {identifier(name)}")
                return
            if left:
                session.run(_rename([(candidate, table, name) for table in left]))
            drop_programs(session, name)
            self._clients.feed(name, [bytes.fromhex(script or "")])
            session.run(f"DROP DATABASE {identifier(candidate)}")

    def _free(self, session: Session, aside: str) -> str:
        """A name that no earlier entry has."""
        taken = set(self.own(session))
        number, name = 1, self._beside(aside)
        while name in taken:
            number += 1
            name = self._beside(f"{aside}.{number}")
        return name

    def discard(self, token: str) -> None:
        with self._clients.session() as session:
            for name in self.own(session):
                if name == self._beside(token) or name.startswith(f"{self._beside(token)}."):
                    session.run(f"DROP DATABASE IF EXISTS {identifier(name)}")

    # --- marks -------------------------------------------------------------------------------------------

    # The mark stands at the end of the database's comment.

    def _comment(self, session: Session) -> str | None:
        return session.value(
            f"SELECT schema_comment FROM information_schema.schemata WHERE schema_name = {literal(self._database)}"
        )

    def owner(self) -> str | None:
        with self._clients.session() as session:
            found = _OWNER_MARK.search(self._comment(session) or "")
        return found[1] if found is not None else None

    def claim(self, owner: str) -> None:
        with self._clients.session() as session:
            comment = self._comment(session)
            if comment is None or _OWNER_MARK.search(comment):
                return
            marked = f"{comment}\n[holdfast owner: {owner}]" if comment else f"[holdfast owner: {owner}]"
            session.run(f"ALTER DATABASE {identifier(self._database)} COMMENT = {literal(marked)}")


def _rename(moves: Iterable[tuple[str, str, str]]) -> str:
    """One statement for all: from which database, which table, into which."""
    return "RENAME TABLE " + ", ".join(
        f"{identifier(source)}.{identifier(table)} TO {identifier(target)}.{identifier(table)}"
        for source, table, target in moves
    )


def _blob(content: bytes | None) -> str:
    return "NULL" if content is None else f"x'{content.hex()}'" if content else "''"


def barrier(session: Session, place: str) -> None:
    """Everything that was committed is durable. A commit of data definition flushes the log, whatever the setting.

    FLUSH ENGINE LOGS would need a right that owners of databases have not.
    """
    where = f"{identifier(place)}.holdfast_barrier"
    session.run(f"CREATE OR REPLACE TABLE {where} (a INT) ENGINE=InnoDB; DROP TABLE {where}")
