"""What a PostgreSQL database has outside of its content, and its dump therefore lacks: grants, settings, limits, owner.

A copy and a loaded candidate get them before they take the place of the live database.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from holdfast.drivers.databases.postgresql.client import Clients, Session, SqlError, identifier, literal
from holdfast.drivers.databases.postgresql.locale import PgLocale
from holdfast.drivers.databases.postgresql.search_path import search_path
from holdfast.errors import RefusedError
from holdfast.model import Facts

OWNER_MARK = re.compile(r"\n?\[holdfast owner: ([^\]]*)\]$")
_NO_RIGHT = "42501"
_NO_LIMIT = -1
# List settings are written into ALTER as the catalogue has them, all others as one quoted text (guc.c: GUC_LIST_QUOTE).
_LISTS = {
    "local_preload_libraries",
    "search_path",
    "session_preload_libraries",
    "shared_preload_libraries",
    "temp_tablespaces",
    "unix_socket_directories",
}
# Roles that own objects or have grants; pg_shdepend leaves out the role that created the cluster.
_ROLES = (
    "SELECT DISTINCT pg_get_userbyid(role) FROM ("
    " SELECT refobjid AS role FROM pg_shdepend WHERE refclassid = 'pg_authid'::regclass"
    " AND dbid = (SELECT oid FROM pg_database WHERE datname = current_database())"
    " UNION SELECT nspowner FROM pg_namespace WHERE nspname !~ '^pg_'"
    " AND nspname NOT IN ('information_schema', 'public')"
    " UNION SELECT relowner FROM pg_class WHERE oid >= 16384 AND relkind IN ('r', 'p', 'v', 'm', 'S', 'f')"
    " UNION SELECT proowner FROM pg_proc WHERE oid >= 16384) found ORDER BY 1"
)


class Properties:
    """The properties of one live database, and their transfer to databases that are to take its place."""

    def __init__(self, name: str, database: str, clients: Clients) -> None:
        """Take `name`, the dataset's, for messages."""
        self._name = name
        self._database = database
        self._clients = clients

    def facts(self, session: Session) -> Facts:
        """Return the facts that the dump of the session's database lacks and a restore needs."""
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
            "comment": OWNER_MARK.sub("", row[5]) if row[5] is not None else None,
            "roles": [role for (role,) in roles],
            "search_path": search_path(session),
            "extensions": [
                list(item) for item in session.rows("SELECT extname, extversion FROM pg_extension ORDER BY 1")
            ],
            **self.of(session),
        }

    @staticmethod
    def of(session: Session, database: str | None = None) -> Facts:
        """Return the grants (None: the default ones), settings and limits of a database."""
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

    def apply(self, session: Session, database: str, facts: Facts) -> None:
        """Give a database the grants, settings, limits and comment of another.

        Raise RefusedError where the role may not.
        """
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
                    next_step="Set a role in [databases] that may grant it, or revoke that grant.",
                ) from error

    def _give_settings(self, database: str, settings: Sequence[Sequence[str | None]]) -> None:
        """Give a database its own settings; leave out, with a warning, one that only a superuser may set."""
        for role, setting in settings:
            try:
                with self._clients.session(
                    self._clients.server.maintenance
                ) as session:  # one per setting, because an error ends the session
                    session.run(_setting_statement(database, role, str(setting)))
            except SqlError as error:
                if error.sql_state != _NO_RIGHT:
                    raise
                self._clients.host.warn(
                    f"database {self._name}: left out a setting that this role may not set. Run as a superuser:"
                    f" {_setting_statement(self._database, role, str(setting))};"
                )

    def has_roles(self, facts: Facts) -> bool:
        """Return whether this role may give ownership and grants to every role that a dump names."""
        with self._clients.session(self._clients.server.maintenance) as session:
            known = {str(role) for (role,) in session.rows("SELECT rolname FROM pg_roles")}
            superuser = session.value("SELECT rolsuper FROM pg_roles WHERE rolname = current_user") == "t"
            me = session.value("SELECT current_user")
        roles = set(facts.get("roles", []))
        return roles <= known if superuser else roles <= {me}


def _setting_statement(database: str, role: str | None, setting: str) -> str:
    """Return the statement that applies a `KEY=VALUE` setting to a database, for all roles or one."""
    key, _, value = setting.partition("=")
    name = ".".join(identifier(part) for part in key.split("."))
    given = value if key in _LISTS else literal(value)
    whose = (
        f"DATABASE {identifier(database)}"
        if role is None
        else f"ROLE {identifier(role)} IN DATABASE {identifier(database)}"
    )
    return f"ALTER {whose} SET {name} TO {given}"
