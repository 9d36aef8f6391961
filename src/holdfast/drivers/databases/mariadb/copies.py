"""MariaDB and MySQL databases next to the live one: copied, filled, swapped by one RENAME of all tables, dropped.

Neither can rename a database, but both rename any number of tables in one atomic statement (MariaDB from 10.6, MySQL
from 8.0; documentation of "Atomic DDL" and "Atomic Data Definition Statement Support"). So each candidate and replaced
database has a marker, a table of one row that identifies its content, and the marker moves in that same statement:
identity is decided by it alone. The live one's marker is in a database of its own, so that the application never sees
it. Tables with triggers cannot be moved into another database, and views, routines and events cannot be moved at all; a
script in the marker holds them until the tables are in place, and creates them again there.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import time
from collections.abc import Iterable

from holdfast.drivers.databases.mariadb import catalogue, markers, rewriting, stored_objects
from holdfast.drivers.databases.mariadb.catalogue import (
    KINDS,
    drop_programs,
    end,
    movable,
    names,
    sessions,
)
from holdfast.drivers.databases.mariadb.client import Clients, Session, SqlError, identifier, literal, server_error
from holdfast.drivers.databases.mariadb.markers import MARKER, NEXT
from holdfast.errors import CommandFailedError, DamagedError, RefusedError, StepError

_UNMARKED = "first"  # the identity of a live database that was never swapped
_LEAVE_SECONDS = 5.0
_NAME_CHARACTERS = 64
_DENIED = ("42000", "28000")
_NO_ROUTINE = re.compile(r"ERROR 1305 ")


class ShadowDatabases:
    def __init__(self, name: str, database: str, clients: Clients) -> None:
        """Take `name`, the dataset's, for messages."""
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
        """Return the candidate and replaced databases of the live one."""
        rows = session.rows(
            "SELECT schema_name FROM information_schema.schemata"
            f" WHERE LEFT(schema_name, {len(self._prefix)}) = {literal(self._prefix)} ORDER BY 1"
        )
        return [str(name) for (name,) in rows]

    def find(self, session: Session, token: str, identity: str) -> str:
        """Return the operation's candidate or replaced database with this identity. Raise StepError.

        Only the operation's own are searched: one of another operation may have the same identity, that of a live
        database which was never swapped and was created again by hand.
        """
        for name in self._of(session, token):
            if self._holds(session, name, identity):
                return name
        raise StepError(f"database {self._name}: the database {identity} is gone")

    def _of(self, session: Session, token: str) -> list[str]:
        """Return the candidate and replaced databases of one operation."""
        place = self._beside(token)
        return [name for name in self.own(session) if name == place or name.startswith(f"{place}.")]

    def tokens(self) -> list[str]:
        with self._clients.session() as session:
            return [name.removeprefix(self._prefix) for name in self.own(session)]

    # --- identities and properties -----------------------------------------------------------------------

    def identity(self, session: Session) -> str | None:
        """Return the live database's identity; None where it is missing, or empty and left so by a swap."""
        if not self.charset(session, self._database):
            return None  # dropped by hand, whatever its marker says
        filled = bool(movable(session, self._database))
        marker = markers.read(session, self._own_place)
        if marker is not None:
            return marker.identity if filled or not marker.vacant else None
        return _UNMARKED if filled else None

    def charset(self, session: Session, database: str) -> str:
        rows = session.rows(
            "SELECT default_character_set_name, default_collation_name FROM information_schema.schemata"
            f" WHERE schema_name = {literal(database)}"
        )
        return f"CHARACTER SET {rows[0][0]} COLLATE {rows[0][1]}" if rows else ""

    def properties(self, session: Session, database: str) -> str:
        """Return the clauses with which CREATE DATABASE makes one like it; empty where there is no such database."""
        charset = self.charset(session, database)
        return f"{charset} {self._clients.dialect.owner_marker.properties(session, database)}" if charset else ""

    # --- candidates --------------------------------------------------------------------------------------

    def empty(self, token: str, properties: str) -> str:
        """Create an empty candidate; return its name."""
        candidate = self.candidate(token)
        quoted = identifier(candidate)
        with self._clients.session() as session:
            properties = properties or self.properties(session, self._database)
            self._create(session, "hf-%", f"DROP DATABASE IF EXISTS {quoted}; CREATE DATABASE {quoted} {properties}")
        return candidate

    def _create(self, session: Session, grant_on: str, statement: str) -> None:
        """Run a statement. Raise RefusedError where the account has no right on such a name."""
        try:
            session.run(statement)
        except SqlError as error:
            if error.sql_state not in _DENIED:
                raise
            raise RefusedError(
                f"database {self._name}: this account may not create a database: {error.what}",
                next_step=f"Run in SQL, as an administrator: GRANT ALL ON {identifier(grant_on)}.* TO the account of"
                " [databases].",
            ) from error

    def settle(self, candidate: str, script: bytes) -> str:
        """Prove that the stored objects can be created, mark the candidate and make it durable; return its identity.

        Raise DamagedError where they cannot.
        """
        script = rewriting.of_own_tables(stored_objects.in_no_database(script), self._database)
        try:
            self._clients.feed(candidate, [stored_objects.without_events(script)])
        except CommandFailedError as error:
            raise DamagedError(
                f"database {self._name}: its triggers, routines or views cannot be created: {server_error(error)}"
            ) from error
        identity = secrets.token_hex(12)
        with self._clients.session() as session:
            drop_programs(session, candidate)
            properties = self.properties(session, candidate)
            markers.make(session, candidate, identity, script=script, properties=properties)
            barrier(session, candidate)
        return identity

    def warn_of_definers(self, script: bytes) -> None:
        """Warn about stored objects that get this account as their definer, and name the right that avoids it."""
        with self._clients.session() as session:
            user, _, host = str(session.value("SELECT CURRENT_USER()")).rpartition("@")
        me = f"{identifier(user)}@{identifier(host)}"
        others = sorted(stored_objects.definers(script) - {me})
        if others:
            self._clients.host.warn(
                f"database {self._name}: objects of the definers {', '.join(others)} are created with the definer {me},"
                " which may not create them for others. To keep the definers, run in SQL, as an administrator:"
                f" GRANT {self._clients.dialect.definer_grant} ON *.* TO {me}; then restore again."
            )

    def script(self, database: str, *, whatever_is_broken: bool = False) -> bytes:
        """Return the script that creates the triggers, routines, views and events of a database.

        A broken view of a database that is replaced may be left out: it could not be created again anyway.
        """
        with self._clients.session() as session:
            views = names(session, database, "VIEW")
        try:
            return stored_objects.programs(self._clients, database, views)
        except CommandFailedError:
            if not whatever_is_broken:
                raise
        whole = [view for view in views if self._is_whole(database, view)]
        broken = [view for view in views if view not in whole]
        return stored_objects.programs(self._clients, database, whole, broken=broken)

    def _is_whole(self, database: str, view: str) -> bool:
        try:
            with self._clients.session() as session:
                session.rows(f"SELECT 1 FROM {identifier(database)}.{identifier(view)} LIMIT 0")
        except SqlError:
            return False
        return True

    def await_no_sessions(self, session: Session) -> None:
        """Wait until sessions of stopped services are gone; end other ones if that is configured, else name them.

        Raise RefusedError where sessions stay.
        """
        if self._clients.server.end_sessions:
            end(self._clients, session, [self._database], self._name)
        deadline = time.monotonic() + _LEAVE_SECONDS
        while left := sessions(session, [self._database]):
            if time.monotonic() > deadline:
                named = ", ".join(
                    f"session {number} ({user} from {host}, {command})" for number, user, host, command in left
                )
                raise RefusedError(
                    f"database {self._name} is still in use by {named}",
                    next_step="End these sessions, make their program a service of the application, or set"
                    f" databases.{self._name}.end_sessions.",
                )
            time.sleep(0.05)

    # --- the live one ------------------------------------------------------------------------------------

    def swap(self, token: str, identity: str | None, aside: str) -> None:
        """Rename all tables and both markers in one statement, after ending sessions on both databases. Idempotent."""
        with self._clients.session() as session:
            grants = catalogue.routine_grants(session, self._database)
            if self.identity(session) != identity:
                self._swap(session, token, identity, aside)
            marker = markers.read(session, self._own_place)
            if identity is not None and marker is not None and not marker.placed:
                self._place(session)
                self._grant_again(grants)

    def _swap(self, session: Session, token: str, identity: str | None, aside: str) -> None:
        found = self.find(session, token, identity) if identity is not None else None
        moves: list[tuple[str, str, str, str]] = []
        if self.identity(session) is None:
            if self.charset(session, self._own_place):  # its marker is of a database that is gone
                session.run(f"DROP TABLE IF EXISTS {identifier(self._own_place)}.{MARKER}")
            session.run(f"CREATE DATABASE IF NOT EXISTS {identifier(self._database)}")
        else:
            self._take_down(session)
            name = self._free(session, aside)
            session.run(f"CREATE DATABASE {identifier(name)} {self.properties(session, self._database)}")
            moves += [(self._database, table, name, table) for table in movable(session, self._database)]
            moves.append((self._own_place, MARKER, name, MARKER))
        if found is not None:
            end(self._clients, session, [found], self._name)
            session.run(f"CREATE DATABASE IF NOT EXISTS {identifier(self._own_place)}")
            moves += [(found, table, self._database, table) for table in movable(session, found)]
            moves.append((found, MARKER, self._own_place, MARKER))
        else:
            # The application's next content of this database gets an identity that no earlier content had.
            markers.make(session, self._own_place, secrets.token_hex(12), vacant=True, table=NEXT)
            moves.append((self._own_place, NEXT, self._own_place, MARKER))
        session.run(_rename(moves))
        barrier(session, self._own_place)

    def _holds(self, session: Session, place: str, identity: str) -> bool:
        marker = markers.read(session, place)
        return marker is not None and marker.identity == identity

    def _take_down(self, session: Session) -> None:
        """Keep the live database's stored objects in its marker, then drop them, so that its tables can be moved."""
        end(self._clients, session, [self._database], self._name)
        marker = markers.read(session, self._own_place)
        properties = self.properties(session, self._database)
        if marker is None:
            markers.make(session, self._own_place, _UNMARKED, properties=properties)
        if marker is None or marker.placed:  # otherwise they are kept already, and may be partly dropped
            script = stored_objects.in_no_database(self.script(self._database, whatever_is_broken=True))
            markers.keep_script(session, self._own_place, script, properties)
            barrier(session, self._own_place)
        drop_programs(session, self._database)

    def _place(self, session: Session) -> None:
        """Create the stored objects of the database in place from its marker, for this account where it has to be."""
        drop_programs(session, self._database)
        properties, script = markers.script_of(session, self._own_place)
        if properties:
            kept = self._clients.dialect.owner_marker.kept(session, self._database, properties)
            session.run(f"ALTER DATABASE {identifier(self._database)} {kept}")
        try:
            self._clients.feed(self._database, [script])
        except CommandFailedError:
            drop_programs(session, self._database)
            self.warn_of_definers(script)
            self._clients.feed(self._database, [stored_objects.without_definers(script)])
        markers.set_placed(session, self._own_place)
        barrier(session, self._own_place)

    def _grant_again(self, statements: Iterable[str]) -> None:
        """Restore rights of others on routines that exist; warn about those that this account may not grant."""
        for statement in statements:
            try:
                with self._clients.session() as session:  # one per statement, because an error ends the session
                    session.run(statement)
            except SqlError as error:
                if not _NO_ROUTINE.search(error.what):
                    self._clients.host.warn(
                        f"database {self._name}: a right was lost with its routine. Run in SQL, as an administrator:"
                        f" {statement};"
                    )

    def hand_over(self, token: str, name: str, rehearsal: bool) -> None:
        """Hand the candidate over under `name`.

        The marker stays behind until the end, so that an interrupted hand-over is finished from it: it is `placed` once
        the name is Holdfast's.
        """
        candidate = self.candidate(token)
        with self._clients.session() as session:
            marker = markers.read(session, candidate)
            if marker is None:
                return
            if not marker.placed and (movable(session, name) or any(names(session, name, kind) for kind in KINDS)):
                raise RefusedError(f"the server already has a database {name} that is not empty")
            properties, script = markers.script_of(session, candidate)
            there = bool(self.charset(session, name))
            self._create(session, name, f"CREATE DATABASE IF NOT EXISTS {identifier(name)} {properties}")
            if rehearsal:
                if not there:
                    session.run(f"DROP DATABASE {identifier(name)}")
                return
            markers.set_placed(session, candidate)
            if left := movable(session, candidate):
                session.run(_rename([(candidate, table, name, table) for table in left]))
            drop_programs(session, name)
            self._clients.feed(name, [script])
        catalogue.drop_database(self._clients, candidate, self._database)

    def _free(self, session: Session, aside: str) -> str:
        """Return a name that no other database has."""
        taken = set(self.own(session))
        number, name = 1, self._beside(aside)
        while name in taken:
            number += 1
            name = self._beside(f"{aside}.{number}")
        return name

    def discard(self, token: str) -> None:
        with self._clients.session() as session:
            found = self._of(session, token)
        for name in found:
            catalogue.drop_database(self._clients, name, self._database)

    # --- owner -------------------------------------------------------------------------------------------

    def owner(self) -> str | None:
        with self._clients.session() as session:
            return self._clients.dialect.owner_marker.read(session, self._database, self._own_place)

    def claim(self, owner: str) -> None:
        with self._clients.session() as session:
            self._clients.dialect.owner_marker.write(session, self._database, self._own_place, owner)


def _rename(moves: Iterable[tuple[str, str, str, str]]) -> str:
    """Return one statement for all moves, each from a database and table to another."""
    return "RENAME TABLE " + ", ".join(
        f"{identifier(source)}.{identifier(old)} TO {identifier(target)}.{identifier(new)}"
        for source, old, target, new in moves
    )


def barrier(session: Session, place: str) -> None:
    """Make everything durable that was committed. A commit of data definition flushes the log, whatever the setting.

    FLUSH ENGINE LOGS would need a right that owners of databases do not have.
    """
    where = f"{identifier(place)}.holdfast_barrier"
    session.run(
        f"DROP TABLE IF EXISTS {where}; CREATE TABLE {where} (a INT PRIMARY KEY) ENGINE=InnoDB; DROP TABLE {where}"
    )
