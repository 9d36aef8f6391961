"""Conditions that would stop or spoil an operation on a PostgreSQL database, found before it begins."""

from __future__ import annotations

from holdfast.drivers.databases.postgresql.client import Session, literal

Finding = tuple[str, str, str]
"""Severity, message, advice."""


def problems(session: Session, database: str) -> list[Finding]:
    """Return severity, message and advice of conditions that would stop or spoil an operation on the database."""
    here = f"database = {literal(database)}"
    found = []
    for setting in ("fsync", "full_page_writes"):
        if session.value(f"SELECT current_setting('{setting}')") != "on":
            found.append(
                (
                    "error",
                    f"the server runs with {setting} = off: a crash can destroy all its databases",
                    f"Run in SQL: ALTER SYSTEM SET {setting} = on; then reload the server.",
                )
            )
    if not session.rows(f"SELECT 1 FROM pg_database WHERE datname = {literal(database)}"):
        found.append(
            (
                "warning",
                f"the server has no database {database}",
                "Correct the database's name if it has another one. Otherwise run `holdfast install REF` or"
                " `holdfast backup restore latest`.",
            )
        )
        return found
    for (gid,) in session.rows(f"SELECT gid FROM pg_prepared_xacts WHERE {here}"):
        found.append(
            (
                "error",
                f"prepared transaction {gid} is open and blocks copies and renames",
                f"Run in SQL: COMMIT PREPARED '{gid}' or ROLLBACK PREPARED '{gid}'.",
            )
        )
    for (slot,) in session.rows(f"SELECT slot_name FROM pg_replication_slots WHERE {here}"):
        found.append(
            (
                "error",
                f"replication slot {slot} belongs to the database and would be lost with it",
                f"Run in SQL: SELECT pg_drop_replication_slot('{slot}'); create it again afterwards.",
            )
        )
    subscriptions = session.rows(
        "SELECT subname FROM pg_subscription WHERE subdbid ="
        f" (SELECT oid FROM pg_database WHERE datname = {literal(database)})"
    )
    for (name,) in subscriptions:
        found.append(
            (
                "error",
                f"subscription {name} replicates into the database and would not survive a copy",
                f"Run in SQL: DROP SUBSCRIPTION {name}; create it again afterwards.",
            )
        )
    return [*found, *_rights(session, database), *_settings(session, database)]


def _settings(session: Session, database: str) -> list[Finding]:
    """Return settings of the database that its role may not set for a copy: an undo or a restore leaves them out."""
    modern = int(session.value("SELECT current_setting('server_version_num')") or 0) >= 150000
    granted = "has_parameter_privilege(s.name, 'SET')" if modern else "false"
    rows = session.rows(
        "SELECT CASE WHEN d.setrole = 0 THEN NULL ELSE pg_get_userbyid(d.setrole) END, c.setting"
        " FROM pg_db_role_setting d JOIN pg_roles r ON r.rolname = current_user AND NOT r.rolsuper,"
        " unnest(d.setconfig) c(setting) LEFT JOIN pg_settings s ON s.name = split_part(c.setting, '=', 1)"
        f" WHERE d.setdatabase = (SELECT oid FROM pg_database WHERE datname = {literal(database)})"
        f" AND ((s.context IN ('superuser', 'superuser-backend') AND NOT {granted})"
        " OR (d.setrole <> 0 AND d.setrole <> r.oid AND NOT r.rolcreaterole))"
    )
    return [
        (
            "warning",
            f"database {database} has the setting {setting}{f' of role {role}' if role else ''}, which only a superuser"
            " may set: an undo or a restore leaves it out and prints the statement that sets it again",
            "Grant the role of [databases] the right to set it, or have a superuser set it after an undo or a restore.",
        )
        for role, setting in rows
    ]


def in_database(session: Session) -> list[Finding]:
    """Return tables of which a dump may not read every row, so that it fails, as seen in the database itself."""
    rows = session.rows(
        "SELECT c.oid::regclass, quote_ident(current_user), pg_has_role(c.relowner, 'USAGE') FROM pg_class c"
        " WHERE c.relrowsecurity AND row_security_active(c.oid) ORDER BY 1"
    )
    found: list[Finding] = []
    for table, role, owned in rows:
        change = (
            f"ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY"
            if owned == "t"
            else f"ALTER TABLE {table} OWNER TO {role}"
        )
        found.append(
            (
                "error",
                f"row-level security of table {table} also applies to role {role}: it cannot be backed up completely",
                f"Run in SQL, as a superuser: ALTER ROLE {role} BYPASSRLS; or run: {change}.",
            )
        )
    return found


def _rights(session: Session, database: str) -> list[Finding]:
    role, superuser, creates, owns = session.rows(
        "SELECT r.rolname, r.rolsuper, r.rolcreatedb, pg_has_role(d.datdba, 'USAGE') FROM pg_roles r, pg_database d"
        f" WHERE r.rolname = current_user AND d.datname = {literal(database)}"
    )[0]
    found = []
    if "t" not in (superuser, creates):
        found.append(
            (
                "error",
                f"role {role} may not create databases: restore points and restores are impossible",
                f"Run in SQL, as a superuser: ALTER ROLE {role} CREATEDB;",
            )
        )
    if owns != "t":
        found.append(
            (
                "error",
                f"role {role} does not own database {database}",
                f"Run in SQL, as a superuser: ALTER DATABASE {database} OWNER TO {role};",
            )
        )
    return found
