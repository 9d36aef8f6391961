"""What would stop or spoil an operation on a PostgreSQL database, found before it begins."""

from __future__ import annotations

from holdfast.drivers.databases.postgresql.client import Session, literal

Finding = tuple[str, str, str]
"""Severity, message, advice."""


def problems(session: Session, database: str) -> list[Finding]:
    """Severity, message and advice of what would stop or spoil an operation on the database."""
    here = f"database = {literal(database)}"
    found = []
    for setting in ("fsync", "full_page_writes"):
        if session.value(f"SELECT current_setting('{setting}')") != "on":
            found.append(
                (
                    "error",
                    f"the server runs with {setting} = off: a crash can destroy every database of it",
                    f"ALTER SYSTEM SET {setting} = on; and reload the server.",
                )
            )
    if not session.rows(f"SELECT 1 FROM pg_database WHERE datname = {literal(database)}"):
        found.append(
            (
                "warning",
                f"the server has no database {database}",
                "Correct its name where it is another one; else holdfast install REF, or `holdfast backup restore latest`.",
            )
        )
        return found
    for (gid,) in session.rows(f"SELECT gid FROM pg_prepared_xacts WHERE {here}"):
        found.append(
            (
                "error",
                f"prepared transaction {gid} stands open and blocks copies and renames",
                f"COMMIT PREPARED or ROLLBACK PREPARED '{gid}'.",
            )
        )
    for (slot,) in session.rows(f"SELECT slot_name FROM pg_replication_slots WHERE {here}"):
        found.append(
            (
                "error",
                f"replication slot {slot} belongs to the database and would be lost with it",
                f"SELECT pg_drop_replication_slot('{slot}'), and make it again afterwards.",
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
                f"subscription {name} goes into the database and would not survive a copy",
                f"DROP SUBSCRIPTION {name}, and make it again afterwards.",
            )
        )
    return [*found, *_rights(session, database), *_settings(session, database)]


def _settings(session: Session, database: str) -> list[Finding]:
    """Find settings of the database that its own role may not give to a copy: an undo or a restore leaves them out."""
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
            f"database {database} has the setting {setting}{f' of role {role}' if role else ''}, which only a superuser may give:"
            " an undo or a restore leaves it out, and prints the statement that gives it again",
            "Give the role of [databases] the right to set it, or have a superuser at hand.",
        )
        for role, setting in rows
    ]


def in_database(session: Session) -> list[Finding]:
    """Return what a session of the database itself finds: tables of which a dump may not have every row, so that it fails."""
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
                f"row-level security of table {table} holds for role {role} too: it cannot be backed up whole",
                f"ALTER ROLE {role} BYPASSRLS, as a superuser; or {change}.",
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
                f"role {role} may not create databases: no restore point and no restore",
                f"ALTER ROLE {role} CREATEDB, as a superuser.",
            )
        )
    if owns != "t":
        found.append(
            (
                "error",
                f"role {role} does not own database {database}",
                f"ALTER DATABASE {database} OWNER TO {role}, as a superuser.",
            )
        )
    return found
