"""PostgreSQL databases next to the live one: copied, filled, put in place by rename, dropped.

Everything is decided by OID. The name of a candidate or replaced database has a digest of the live one's name and the
operation's token; nobody can connect to it.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from holdfast.drivers.databases.postgresql.client import Clients, Session, SqlError, identifier, literal
from holdfast.drivers.databases.postgresql.locale import PgLocale
from holdfast.drivers.databases.postgresql.properties import OWNER_MARK, Properties
from holdfast.drivers.databases.postgresql.search_path import search_path
from holdfast.errors import RefusedError, StepError
from holdfast.model import Facts

_LEAVE_SECONDS = 5.0
_TERMINATE_SECONDS = 20.0
_NAME_BYTES = 63  # NAMEDATALEN less one
_NO_RIGHT = "42501"
# The kind of a session. Other roles see NULL here unless they may read all statistics. Only autovacuum has no user
# (backend_status.c: pgstat_bestart); the server itself ends it for a copy or a rename.
_KIND = "coalesce(backend_type, 'client backend')"
_INVALID = "-2"  # connection limit after a drop that was cut short: the database can only be dropped


class ShadowDatabases:
    def __init__(self, name: str, database: str, clients: Clients) -> None:
        """Take `name`, the dataset's, for messages."""
        self._name = name
        self._database = database
        self._clients = clients
        self.properties = Properties(name, database, clients)
        self.prefix = f"hf-{hashlib.sha256(database.encode()).hexdigest()[:6]}-"

    @contextmanager
    def maintenance(self) -> Iterator[Session]:
        with self._clients.kept.session(self._clients.server.maintenance) as session:
            yield session

    def _beside(self, token: str) -> str:
        name = self.prefix + token
        if len(name.encode()) > _NAME_BYTES:
            raise StepError(f"a database cannot be named {name}: over {_NAME_BYTES} bytes")
        return name

    def candidate(self, token: str) -> str:
        return self._beside(f"{token}.new")

    def _own(self, session: Session) -> list[tuple[str, str]]:
        """Return name and OID of each candidate and replaced database of the live one, oldest first."""
        rows = session.rows(
            f"SELECT datname, oid FROM pg_database WHERE starts_with(datname, {literal(self.prefix)}) ORDER BY oid"
        )
        return [(str(name), str(oid)) for name, oid in rows]

    def tokens(self) -> list[str]:
        with self.maintenance() as session:
            return [name.removeprefix(self.prefix) for name, _ in self._own(session)]

    def find(self, session: Session, identity: str) -> str:
        """Return the name of the candidate or replaced database with this identity. Raise StepError."""
        for name, oid in self._own(session):
            if oid == identity:
                return name
        raise StepError(f"database {self._name}: the database {identity} is gone")

    def _oid(self, session: Session, database: str) -> str | None:
        return session.value(f"SELECT oid FROM pg_database WHERE datname = {literal(database)}")

    # --- candidates --------------------------------------------------------------------------------------

    def checkpoint(self, token: str) -> None:
        """Have the server write all changed pages now, without a right that only a superuser can give.

        A copy by files begins and ends with a checkpoint, and so does one of an empty database. No visitor waits.
        """
        place = self.candidate(token)
        with self.maintenance() as session:
            self._drop(session, place)
            session.run(f"CREATE DATABASE {identifier(place)} TEMPLATE template0{_by_files(session)}")
            self._drop(session, place)

    def copy(self, token: str) -> str:
        """Make a copy of the live database with its grants and settings; return its identity.

        No session may be on the live one. Raise RefusedError where one stays.
        """
        candidate = self.candidate(token)
        with self.maintenance() as session:
            self._drop(session, candidate)
            with self.without_sessions(session):
                statement = (
                    f"CREATE DATABASE {identifier(candidate)} TEMPLATE {identifier(self._database)}"
                    f"{_by_files(session)}{self._owned_as_live(session)}"
                )
                if not (may_clone(session) and self._is_cloned(statement)):
                    self._drop(session, candidate)
                    session.run(statement)
                self.properties.apply(
                    session,
                    candidate,
                    {**self.properties.of(session, self._database), "comment": self._comment(session)},
                )
                self._close(session, candidate)
            return self._identity_of(session, candidate)

    @contextmanager
    def without_sessions(self, session: Session) -> Iterator[None]:
        """Let nobody connect to the live database while the body runs. Raise RefusedError where a session stays."""
        self._close(session, self._database)
        try:
            self._await_no_sessions(session)
            yield
        finally:
            with self.maintenance() as again:  # a new session, because an error has ended the other one
                self._open(again, self._database)

    def _is_cloned(self, statement: str) -> bool:
        """Return whether a copy could be made whose blocks are shared with the original, where the filesystem can.

        On some filesystems the server fails rather than copies; the reason is found by copying without it.
        """
        try:
            with self.maintenance() as own:  # of its own, because an error ends a session
                own.run("SET file_copy_method = clone")
                own.run(statement)
        except SqlError:
            return False
        return True

    def _owned_as_live(self, session: Session) -> str:
        """Return the clause that gives a copy the live database's owner, where that is another role than ours."""
        owner = session.value(
            "SELECT CASE WHEN pg_get_userbyid(datdba) <> current_user THEN pg_get_userbyid(datdba) END"
            f" FROM pg_database WHERE datname = {literal(self._database)}"
        )
        return f" OWNER {identifier(owner)}" if owner else ""

    @contextmanager
    def reachable(self, place: str) -> Iterator[None]:
        """Allow Holdfast's sessions onto a candidate or replaced database while the body runs."""
        with self.maintenance() as session:
            self._open(session, place)
        try:
            yield
        finally:
            with self.maintenance() as again:  # a new session, because an error has ended the other one
                self._close(again, place)

    def _identity_of(self, session: Session, database: str) -> str:
        found = self._oid(session, database)
        if found is None:
            raise StepError(f"database {self._name}: {database} is gone")
        return found

    def empty(self, token: str, facts: Facts) -> str:
        """Make an empty candidate in the encoding of a dump, with the live database's owner; return its identity."""
        candidate = self.candidate(token)
        owner, _ = self.like_live()
        with self.maintenance() as session:
            self._drop(session, candidate)
            clauses = [f"CREATE DATABASE {identifier(candidate)} TEMPLATE template0"]
            for key, keyword in (("encoding", "ENCODING"), ("collate", "LC_COLLATE"), ("ctype", "LC_CTYPE")):
                if facts.get(key):
                    clauses.append(f"{keyword} {literal(facts[key])}")
            clauses += PgLocale.from_facts(facts.get("locale")).clauses(session)
            if owner is not None:
                clauses.append(f"OWNER {identifier(owner)}")
            try:
                session.run(" ".join(clauses))
            except SqlError as error:
                if error.sql_state != _NO_RIGHT:
                    raise
                raise RefusedError(
                    f"database {self._name}: this role may not create a database: {error.what}",
                    next_step="Run in SQL, as a superuser: ALTER ROLE ... CREATEDB;",
                ) from error
            return self._identity_of(session, candidate)

    def like_live(self) -> tuple[str | None, Facts]:
        """Return the live database's owner and its encoding, for an empty database like it.

        The owner is None where it is our own role.
        """
        with self.maintenance() as session:
            found = session.rows(
                "SELECT CASE WHEN pg_get_userbyid(datdba) <> current_user THEN pg_get_userbyid(datdba) END,"
                " pg_encoding_to_char(encoding), datcollate, datctype FROM pg_database"
                f" WHERE datname = {literal(self._database)}"
            )
            locale = PgLocale.of(session, literal(self._database)).as_facts()
        if not found:
            return None, {}
        owner, encoding, collate, ctype = found[0]
        return owner, {"encoding": encoding, "collate": collate, "ctype": ctype, "locale": locale}

    def search_path(self) -> str:
        """Return the search path of this role in the live database; empty where there is no such database."""
        with self.maintenance() as session:
            if self._oid(session, self._database) is None:
                return ""
        with self._clients.session(self._database) as live:
            return search_path(live)

    def settle_loaded(self, candidate: str, facts: Facts) -> None:
        """Finish a load: apply grants and settings of the dump's database, and make everything durable."""
        with self._clients.session(candidate) as loaded:
            if facts.get("search_path"):  # set here, because the database's own settings are applied later
                loaded.run(f"SET search_path = {facts['search_path']}")
            loaded.run("ANALYZE")  # without it, queries are planned without statistics
        with self.maintenance() as session:
            if not facts.get("elsewhere"):
                self.properties.apply(session, candidate, facts)
            # A transactional message flushes the write-ahead log up to here, which makes the load durable.
            session.rows("SELECT pg_logical_emit_message(true, 'holdfast', 'barrier')")

    # --- the live one ------------------------------------------------------------------------------------

    def _close(self, session: Session, database: str) -> None:
        """Let nobody connect any more, and close sessions of our own that are idle."""
        self._clients.kept.release(database)
        session.run(f"ALTER DATABASE {identifier(database)} ALLOW_CONNECTIONS false")

    def _open(self, session: Session, database: str) -> None:
        closed = session.value(f"SELECT NOT datallowconn FROM pg_database WHERE datname = {literal(database)}")
        if closed == "t":
            session.run(f"ALTER DATABASE {identifier(database)} ALLOW_CONNECTIONS true")

    def open_live(self) -> None:
        """Let clients connect to the live database."""
        with self.maintenance() as session:
            self._open(session, self._database)

    def _sessions(self, session: Session) -> list[str]:
        rows = session.rows(
            "SELECT pid, usename, application_name, host(client_addr), backend_type FROM pg_stat_activity"
            f" WHERE datname = {literal(self._database)} AND pid <> pg_backend_pid() AND usesysid IS NOT NULL"
            f" AND {_KIND} <> 'parallel worker'"
        )
        return [
            f"pid {pid} ({user or kind}, {name or 'no name'}, {where or 'local'})"
            for pid, user, name, where, kind in rows
        ]

    def _await_no_sessions(self, session: Session) -> None:
        """Wait until sessions of stopped services are gone; end other ones if that is configured, else name them.

        Raise RefusedError where sessions stay.
        """
        if self._clients.server.end_sessions:
            self.terminate(session, f"datname = {literal(self._database)}")
        deadline = time.monotonic() + _LEAVE_SECONDS
        while left := self._sessions(session):
            if time.monotonic() > deadline:
                raise RefusedError(
                    f"database {self._name} is still in use by {', '.join(left)}",
                    next_step="End these sessions, make their program a service of the application, or set"
                    f" databases.{self._name}.end_sessions.",
                )
            time.sleep(0.05)

    def terminate(self, session: Session, condition: str, kinds: Sequence[str] = ("client backend",)) -> None:
        """End sessions of these kinds and wait until they are gone. Raise StepError with the name of one that stays.

        A session that this role may not end can be just ending by itself: it gets a moment.
        """
        which = (
            f"{condition} AND pid <> pg_backend_pid() AND usesysid IS NOT NULL"
            f" AND {_KIND} IN ({', '.join(map(literal, kinds))})"
        )
        may = "pg_has_role(usesysid, 'MEMBER') OR pg_has_role('pg_signal_backend', 'MEMBER')"
        begun = time.monotonic()
        while left := session.rows(f"SELECT pid, usename, {may} FROM pg_stat_activity WHERE {which}"):
            waited = time.monotonic() - begun
            for pid, user, allowed in left:
                if waited > (_TERMINATE_SECONDS if allowed == "t" else _LEAVE_SECONDS):
                    raise StepError(
                        f"database {self._name}: session {pid} of {user} cannot be ended by this role",
                        next_step=f"Run in SQL, as a superuser: SELECT pg_terminate_backend({pid}); then run the"
                        " command again.",
                    )
            session.rows(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {which} AND ({may})")
            time.sleep(0.02)

    def swap(self, identity: str | None, aside: str) -> None:
        """Rename both databases in one transaction, after ending the sessions on them. Idempotent."""
        with self.maintenance() as session:
            present = self._oid(session, self._database)
            if present is None and identity is None:
                return
            if present is None or present != identity:
                self._swap(session, present, identity, aside)
            if identity is not None:
                self._open(session, self._database)

    def _swap(self, session: Session, present: str | None, identity: str | None, aside: str) -> None:
        found = self.find(session, identity) if identity is not None else None
        statements = []
        if present is not None:
            self._close(session, self._database)
            self.terminate(session, f"datname = {literal(self._database)}")
            statements.append(
                f"ALTER DATABASE {identifier(self._database)} RENAME TO {identifier(self._free(session, aside))}"
            )
        if found is not None:
            self._close(session, found)
            self.terminate(session, f"datname = {literal(found)}")
            statements.append(f"ALTER DATABASE {identifier(found)} RENAME TO {identifier(self._database)}")
        session.run("BEGIN; " + "; ".join(statements) + "; COMMIT")

    def hand_over(self, token: str, name: str, rehearsal: bool) -> None:
        candidate = self.candidate(token)
        with self.maintenance() as session:
            if self._oid(session, candidate) is not None:
                if self._oid(session, name) is not None:
                    raise RefusedError(f"the server already has a database {name}")
                if rehearsal:
                    return
                self.terminate(session, f"datname = {literal(candidate)}")
                session.run(f"ALTER DATABASE {identifier(candidate)} RENAME TO {identifier(name)}")
            self._open(session, name)

    def _free(self, session: Session, aside: str) -> str:
        """Return a name that no other database has."""
        taken = {name for name, _ in self._own(session)}
        number, name = 1, self._beside(aside)
        while name in taken:
            number += 1
            name = self._beside(f"{aside}.{number}")
        return name

    def discard(self, token: str) -> None:
        with self.maintenance() as session:
            for name, _ in self._own(session):
                if name == self._beside(token) or name.startswith(f"{self._beside(token)}."):
                    self._drop(session, name)
            self._open(session, self._database)

    def _drop(self, session: Session, database: str) -> None:
        limit = session.value(f"SELECT datconnlimit FROM pg_database WHERE datname = {literal(database)}")
        if limit is None:
            return
        if limit != _INVALID:
            self._close(session, database)
            if session.value(f"SELECT datistemplate FROM pg_database WHERE datname = {literal(database)}") == "t":
                session.run(f"ALTER DATABASE {identifier(database)} IS_TEMPLATE false")  # a template cannot be dropped
            self.terminate(session, f"datname = {literal(database)}")
        session.run(f"DROP DATABASE {identifier(database)}")

    # --- marker and checks ----------------------------------------------------------------------------------

    # The marker is at the end of the database's comment, because its owner may set that; a custom setting needs a
    # superuser.

    def _comment(self, session: Session) -> str | None:
        return session.value(
            f"SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = {literal(self._database)}"
        )

    def owner(self) -> str | None:
        with self.maintenance() as session:
            found = OWNER_MARK.search(self._comment(session) or "")
        return found[1] if found is not None else None

    def claim(self, owner: str) -> None:
        with self.maintenance() as session:
            comment = self._comment(session)
            if self._oid(session, self._database) is None or OWNER_MARK.search(comment or ""):
                return
            with_marker = f"{comment}\n[holdfast owner: {owner}]" if comment else f"[holdfast owner: {owner}]"
            session.run(f"COMMENT ON DATABASE {identifier(self._database)} IS {literal(with_marker)}")


def may_clone(session: Session) -> bool:
    """Return whether the server can clone files (since 18, on systems that can)."""
    return bool(session.rows("SELECT 1 FROM pg_settings WHERE name = 'file_copy_method' AND 'clone' = ANY (enumvals)"))


def _by_files(session: Session) -> str:
    """Return the clause that copies a database by its files; before 15 the server knows no other way and no clause."""
    modern = int(session.value("SELECT current_setting('server_version_num')") or 0) >= 150000
    return " STRATEGY FILE_COPY" if modern else ""
