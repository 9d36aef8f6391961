"""PostgreSQL databases beside the live one: copied, filled, put in place by rename, dropped.

Everything is decided by OID. A database of Holdfast's carries the live one's digest and the operation's token in its
name; while it stands beside, nobody can connect to it.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from holdfast.drivers.databases.postgresql.client import Clients, Session, SqlError, identifier, literal
from holdfast.drivers.databases.postgresql.locale import PgLocale
from holdfast.drivers.databases.postgresql.search_path import search_path
from holdfast.errors import RefusedError, StepError
from holdfast.model import Facts

_OWNER_MARK = re.compile(r"\n?\[holdfast owner: ([^\]]*)\]$")
_LEAVE_SECONDS = 5.0
_TERMINATE_SECONDS = 20.0
_NAME_BYTES = 63  # NAMEDATALEN less one
_NO_RIGHT = "42501"
# What a session is, which is shown to other roles as nothing unless they may see all statistics. Only autovacuum has no
# user (backend_status.c: pgstat_bestart); the server itself ends it for a copy or a rename.
_KIND = "coalesce(backend_type, 'client backend')"
_NO_LIMIT = -1
_INVALID = "-2"  # connection limit of what a drop that was cut short left behind: nothing but a drop is possible
# Settings that are lists are stored as they are written, all others as one text (guc.c: GUC_LIST_QUOTE).
_LISTS = {
    "local_preload_libraries",
    "search_path",
    "session_preload_libraries",
    "shared_preload_libraries",
    "temp_tablespaces",
    "unix_socket_directories",
}
# Whom objects belong or are granted to; the catalogue of dependencies leaves out the role that made the cluster.
_ROLES = (
    "SELECT DISTINCT pg_get_userbyid(role) FROM ("
    " SELECT refobjid AS role FROM pg_shdepend WHERE refclassid = 'pg_authid'::regclass"
    " AND dbid = (SELECT oid FROM pg_database WHERE datname = current_database())"
    " UNION SELECT nspowner FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname NOT IN ('information_schema', 'public')"
    " UNION SELECT relowner FROM pg_class WHERE oid >= 16384 AND relkind IN ('r', 'p', 'v', 'm', 'S', 'f')"
    " UNION SELECT proowner FROM pg_proc WHERE oid >= 16384) found ORDER BY 1"
)


class Places:
    def __init__(self, name: str, database: str, clients: Clients) -> None:
        """`name` is the dataset's, for messages."""
        self._name = name
        self._database = database
        self._clients = clients
        self._prefix = f"hf-{hashlib.sha256(database.encode()).hexdigest()[:6]}-"

    @contextmanager
    def maintenance(self) -> Iterator[Session]:
        with self._clients.session(self._clients.server.maintenance) as session:
            yield session

    def _beside(self, token: str) -> str:
        name = self._prefix + token
        if len(name.encode()) > _NAME_BYTES:
            raise StepError(f"a database cannot be named {name}: over {_NAME_BYTES} bytes")
        return name

    def candidate(self, token: str) -> str:
        return self._beside(f"{token}.new")

    def _own(self, session: Session) -> list[tuple[str, str]]:
        """Name and OID of each database of Holdfast's beside the live one, oldest first."""
        rows = session.rows(
            f"SELECT datname, oid FROM pg_database WHERE starts_with(datname, {literal(self._prefix)}) ORDER BY oid"
        )
        return [(str(name), str(oid)) for name, oid in rows]

    def tokens(self) -> list[str]:
        with self.maintenance() as session:
            return [name.removeprefix(self._prefix) for name, _ in self._own(session)]

    def find(self, session: Session, identity: str) -> str:
        """The name of the database beside the live one that has this identity. Raises StepError."""
        for name, oid in self._own(session):
            if oid == identity:
                return name
        raise StepError(f"database {self._name}: the database {identity} is gone")

    def _oid(self, session: Session, database: str) -> str | None:
        return session.value(f"SELECT oid FROM pg_database WHERE datname = {literal(database)}")

    # --- what belongs to a database but not to its content ------------------------------------------------

    def facts(self, session: Session) -> Facts:
        """What a dump of the session's database does not hold and its restore needs."""
        row = session.rows(
            "SELECT current_setting('server_version_num'), pg_encoding_to_char(encoding), datcollate, datctype,"
            " pg_get_userbyid(datdba), shobj_description(oid, 'pg_database') FROM pg_database"
            " WHERE datname = current_database()"
        )[0]
        roles = session.rows(_ROLES)
        return {
            "server_version": int(row[0] or 0),
            "encoding": row[1],
            "collate": row[2],
            "ctype": row[3],
            "owner": row[4],
            "comment": _OWNER_MARK.sub("", row[5]) if row[5] is not None else None,
            "roles": [role for (role,) in roles],
            "search_path": search_path(session),
            "extensions": [
                list(item) for item in session.rows("SELECT extname, extversion FROM pg_extension ORDER BY 1")
            ],
            **self._properties(session),
        }

    @staticmethod
    def _properties(session: Session, database: str | None = None) -> Facts:
        """Return grants (None: the default ones), settings, and what else its catalogue entry says of a database."""
        where = literal(database) if database is not None else "current_database()"
        limit, is_template = session.rows(
            f"SELECT datconnlimit, datistemplate FROM pg_database WHERE datname = {where}"
        )[0]
        grants = session.rows(
            "SELECT CASE WHEN grantee = 0 THEN NULL ELSE pg_get_userbyid(grantee) END, privilege_type, is_grantable"
            f" FROM pg_database, aclexplode(datacl) WHERE datname = {where} ORDER BY 1 NULLS FIRST, 2"
        )
        has_grants = session.value(f"SELECT datacl IS NOT NULL FROM pg_database WHERE datname = {where}") == "t"
        settings = session.rows(
            "SELECT CASE WHEN setrole = 0 THEN NULL ELSE pg_get_userbyid(setrole) END, unnest(setconfig)"
            f" FROM pg_db_role_setting WHERE setdatabase = (SELECT oid FROM pg_database WHERE datname = {where})"
        )
        return {
            "grants": [list(item) for item in grants] if has_grants else None,
            "settings": [list(item) for item in settings],
            "connection_limit": int(limit or _NO_LIMIT),
            "is_template": is_template == "t",
            "locale": PgLocale.of(session, where).as_facts(),
        }

    def _apply(self, session: Session, database: str, facts: Facts) -> None:
        """Give a database the grants, settings, limits and comment of another. Raises RefusedError where the role may not."""
        quoted = identifier(database)
        known = {str(role) for (role,) in session.rows("SELECT rolname FROM pg_roles")}
        statements = []
        if facts.get("grants") is not None:
            statements.append(f"REVOKE ALL ON DATABASE {quoted} FROM PUBLIC")
            for role, privilege, grantable in facts["grants"]:
                if role is None or role in known:
                    who = "PUBLIC" if role is None else identifier(role)
                    option = " WITH GRANT OPTION" if grantable == "t" else ""
                    statements.append(f"GRANT {privilege} ON DATABASE {quoted} TO {who}{option}")
        self._give_settings(
            database, [item for item in facts.get("settings", []) if item[0] is None or item[0] in known]
        )
        if facts.get("connection_limit", _NO_LIMIT) != _NO_LIMIT:
            statements.append(f"ALTER DATABASE {quoted} CONNECTION LIMIT {int(facts['connection_limit'])}")
        if facts.get("is_template"):
            statements.append(f"ALTER DATABASE {quoted} IS_TEMPLATE true")
        if facts.get("comment") is not None:
            statements.append(f"COMMENT ON DATABASE {quoted} IS {literal(facts['comment'])}")
        for statement in statements:
            try:
                session.run(statement)
            except SqlError as error:
                if error.sql_state != _NO_RIGHT:
                    raise
                raise RefusedError(
                    f"database {self._name} has a grant that this role cannot give to a copy: {error.what}",
                    next_step="Give [databases] a role that may, or remove that grant.",
                ) from error

    def _give_settings(self, database: str, settings: Sequence[Sequence[str | None]]) -> None:
        """Give a database settings of its own; one that only a superuser may give is left out, and said."""
        for role, setting in settings:
            try:
                with self.maintenance() as session:  # of its own: an error ends it
                    session.run(_setting_statement(database, role, str(setting)))
            except SqlError as error:
                if error.sql_state != _NO_RIGHT:
                    raise
                self._clients.host.warn(
                    f"database {self._name}: a setting is left out that this role may not give; type, as a superuser:"
                    f" {_setting_statement(self._database, role, str(setting))};"
                )

    def has_roles(self, facts: Facts) -> bool:
        """Whether every role that owns or is granted something in a dump is here and may be given it."""
        with self.maintenance() as session:
            known = {str(role) for (role,) in session.rows("SELECT rolname FROM pg_roles")}
            superuser = session.value("SELECT rolsuper FROM pg_roles WHERE rolname = current_user") == "t"
            me = session.value("SELECT current_user")
        roles = set(facts.get("roles", []))
        return roles <= known if superuser else roles <= {me}

    # --- candidates --------------------------------------------------------------------------------------

    def copy(self, token: str) -> str:
        """A copy of the live database with its grants and settings; its identity. No session may be on the live one."""
        candidate = self.candidate(token)
        with self.maintenance() as session:
            self._drop(session, candidate)
            self._close(session, self._database)
            try:
                self._await_no_sessions(session)
                modern = int(session.value("SELECT current_setting('server_version_num')") or 0) >= 150000
                session.run(
                    f"CREATE DATABASE {identifier(candidate)} TEMPLATE {identifier(self._database)}"
                    + (" STRATEGY FILE_COPY" if modern else "")
                    + self._owned_as_live(session)
                )
                self._apply(
                    session,
                    candidate,
                    {**self._properties(session, self._database), "comment": self._comment(session)},
                )
                self._close(session, candidate)
            finally:
                with self.maintenance() as again:  # an error has ended the other session
                    self._open(again, self._database)
            return self._identity_of(session, candidate)

    def _owned_as_live(self, session: Session) -> str:
        """Return the words that give a copy the owner of the live database, where that is another role than ours."""
        owner = session.value(
            "SELECT CASE WHEN pg_get_userbyid(datdba) <> current_user THEN pg_get_userbyid(datdba) END"
            f" FROM pg_database WHERE datname = {literal(self._database)}"
        )
        return f" OWNER {identifier(owner)}" if owner else ""

    @contextmanager
    def reachable(self, place: str) -> Iterator[None]:
        """Lets sessions of ours onto a database beside the live one, which nobody reaches else."""
        with self.maintenance() as session:
            self._open(session, place)
        try:
            yield
        finally:
            with self.maintenance() as again:  # an error has ended the other session
                self._close(again, place)

    def _identity_of(self, session: Session, database: str) -> str:
        found = self._oid(session, database)
        if found is None:
            raise StepError(f"database {self._name}: {database} is gone")
        return found

    def empty(self, token: str, facts: Facts) -> str:
        """An empty candidate in the encoding of a dump, owned like the live database; its identity."""
        candidate = self.candidate(token)
        owner, _ = self.like_live()
        with self.maintenance() as session:
            self._drop(session, candidate)
            words = [f"CREATE DATABASE {identifier(candidate)} TEMPLATE template0"]
            for key, word in (("encoding", "ENCODING"), ("collate", "LC_COLLATE"), ("ctype", "LC_CTYPE")):
                if facts.get(key):
                    words.append(f"{word} {literal(facts[key])}")
            words += PgLocale.from_facts(facts.get("locale")).words(session)
            if owner is not None:
                words.append(f"OWNER {identifier(owner)}")
            try:
                session.run(" ".join(words))
            except SqlError as error:
                if error.sql_state != _NO_RIGHT:
                    raise
                raise RefusedError(
                    f"database {self._name}: this role may not create a database: {error.what}",
                    next_step="ALTER ROLE ... CREATEDB, as a superuser.",
                ) from error
            return self._identity_of(session, candidate)

    def like_live(self) -> tuple[str | None, Facts]:
        """Who owns the live database, where that is another role than ours, and its encoding, for an empty one like it."""
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
        """Return that of this role in the live database; empty where there is none."""
        with self.maintenance() as session:
            if self._oid(session, self._database) is None:
                return ""
        with self._clients.session(self._database) as live:
            return search_path(live)

    def settle_loaded(self, candidate: str, facts: Facts) -> None:
        """After a load: grants and settings of the dump's database, and everything durable."""
        with self._clients.session(candidate) as loaded:
            if facts.get("search_path"):  # the settings of its database come after it
                loaded.run(f"SET search_path = {facts['search_path']}")
            loaded.run("ANALYZE")  # else every query is planned without knowing the tables
        with self.maintenance() as session:
            if not facts.get("elsewhere"):
                self._apply(session, candidate, facts)
            # A message in a transaction of its own makes the log durable up to here.
            session.rows("SELECT pg_logical_emit_message(true, 'holdfast', 'barrier')")

    # --- the live one ------------------------------------------------------------------------------------

    def _close(self, session: Session, database: str) -> None:
        session.run(f"ALTER DATABASE {identifier(database)} ALLOW_CONNECTIONS false")

    def _open(self, session: Session, database: str) -> None:
        closed = session.value(f"SELECT NOT datallowconn FROM pg_database WHERE datname = {literal(database)}")
        if closed == "t":
            session.run(f"ALTER DATABASE {identifier(database)} ALLOW_CONNECTIONS true")

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
        """Those of services just stopped go by themselves; others are named, or ended where that is configured."""
        if self._clients.server.end_sessions:
            self.terminate(session, f"datname = {literal(self._database)}")
        deadline = time.monotonic() + _LEAVE_SECONDS
        while left := self._sessions(session):
            if time.monotonic() > deadline:
                raise RefusedError(
                    f"database {self._name} is still in use by {', '.join(left)}",
                    next_step="End what holds it, make it a service of the application, or set"
                    f" databases.{self._name}.end_sessions.",
                )
            time.sleep(0.05)

    def terminate(self, session: Session, condition: str) -> None:
        """Ends sessions and waits until they are gone. Raises StepError naming those that stay."""
        which = f"{condition} AND pid <> pg_backend_pid() AND usesysid IS NOT NULL AND {_KIND} = 'client backend'"
        may = "pg_has_role(usesysid, 'MEMBER') OR pg_has_role('pg_signal_backend', 'MEMBER')"
        deadline = time.monotonic() + _TERMINATE_SECONDS
        while left := session.rows(f"SELECT pid, usename, {may} FROM pg_stat_activity WHERE {which}"):
            for pid, user, allowed in left:
                if allowed != "t" or time.monotonic() > deadline:
                    raise StepError(
                        f"database {self._name}: session {pid} of {user} cannot be ended by this role",
                        next_step=f"SELECT pg_terminate_backend({pid}), as a superuser; then type the command again.",
                    )
            session.rows(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {which}")
            time.sleep(0.02)

    def swap(self, identity: str | None, aside: str) -> None:
        """Two renames in one transaction; sessions on either database are ended. May be repeated."""
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
                    raise RefusedError(f"the server has a database {name} already")
                if rehearsal:
                    return
                self.terminate(session, f"datname = {literal(candidate)}")
                session.run(f"ALTER DATABASE {identifier(candidate)} RENAME TO {identifier(name)}")
            self._open(session, name)

    def _free(self, session: Session, aside: str) -> str:
        """A name that no earlier entry has."""
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
                session.run(f"ALTER DATABASE {identifier(database)} IS_TEMPLATE false")  # else it could not be dropped
            self.terminate(session, f"datname = {literal(database)}")
        session.run(f"DROP DATABASE {identifier(database)}")

    # --- marks and findings --------------------------------------------------------------------------------

    # The mark stands at the end of the database's comment: its owner may set that, and a setting of our own only a
    # superuser.

    def _comment(self, session: Session) -> str | None:
        return session.value(
            f"SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = {literal(self._database)}"
        )

    def owner(self) -> str | None:
        with self.maintenance() as session:
            found = _OWNER_MARK.search(self._comment(session) or "")
        return found[1] if found is not None else None

    def claim(self, owner: str) -> None:
        with self.maintenance() as session:
            comment = self._comment(session)
            if self._oid(session, self._database) is None or _OWNER_MARK.search(comment or ""):
                return
            marked = f"{comment}\n[holdfast owner: {owner}]" if comment else f"[holdfast owner: {owner}]"
            session.run(f"COMMENT ON DATABASE {identifier(self._database)} IS {literal(marked)}")


def _setting_statement(database: str, role: str | None, setting: str) -> str:
    """Return the statement that gives a database a setting, as the catalogue has it (`KEY=VALUE`), for all roles or one."""
    key, _, value = setting.partition("=")
    name = ".".join(identifier(part) for part in key.split("."))
    given = value if key in _LISTS else literal(value)
    whose = (
        f"DATABASE {identifier(database)}"
        if role is None
        else f"ROLE {identifier(role)} IN DATABASE {identifier(database)}"
    )
    return f"ALTER {whose} SET {name} TO {given}"
