"""What a MariaDB server has: tables and programs of a database, sessions, rights."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Sequence

from holdfast.drivers.databases.mariadb_client import Session, identifier, literal
from holdfast.errors import StepError

MARKER = "holdfast_marker"
"""The table that says whose content stands in a place of Holdfast's."""
ENDING = {"SUPER", "CONNECTION ADMIN"}
"""Rights by which other accounts' sessions may be ended."""
DEFINING = {"SUPER", "SET USER"}
"""Rights by which programs may be made for other accounts."""
_END_SECONDS = 60.0  # a session that is ended takes its changes back first
# Order in which things are dropped: what uses others first.
_KINDS = ("EVENT", "TRIGGER", "VIEW", "PROCEDURE", "FUNCTION", "PACKAGE")


def names(session: Session, database: str, kind: str) -> list[str]:
    """Names of a database's tables of one kind, or of its programs."""
    queries = {
        "EVENT": "SELECT event_name FROM information_schema.events WHERE event_schema",
        "TRIGGER": "SELECT trigger_name FROM information_schema.triggers WHERE trigger_schema",
        "VIEW": "SELECT table_name FROM information_schema.tables WHERE table_type = 'VIEW' AND table_schema",
    }
    routine = f"SELECT routine_name FROM information_schema.routines WHERE routine_type = '{kind}' AND routine_schema"
    return [str(name) for (name,) in session.rows(f"{queries.get(kind, routine)} = {literal(database)} ORDER BY 1")]


def drop_programs(session: Session, database: str) -> None:
    for kind in _KINDS:
        for name in names(session, database, kind):
            session.run(f"DROP {kind} IF EXISTS {identifier(database)}.{identifier(name)}")


def base_tables(session: Session, database: str) -> list[str]:
    return _tables(session, database, "'BASE TABLE', 'SYSTEM VERSIONED'")


def movable(session: Session, database: str) -> list[str]:
    """Tables and sequences."""
    return _tables(session, database, "'BASE TABLE', 'SYSTEM VERSIONED', 'SEQUENCE'")


def _tables(session: Session, database: str, types: str) -> list[str]:
    rows = session.rows(
        f"SELECT table_name FROM information_schema.tables WHERE table_schema = {literal(database)}"
        f" AND table_type IN ({types}) AND table_name <> {literal(MARKER)} ORDER BY 1"
    )
    return [str(name) for (name,) in rows]


def copying(session: Session, database: str, table: str) -> tuple[str, str, str]:
    """Columns to fill, what they are filled from, and which rows: all of history for a table that keeps it."""
    rows = session.rows(
        "SELECT column_name FROM information_schema.columns WHERE is_generated = 'NEVER'"
        f" AND table_schema = {literal(database)} AND table_name = {literal(table)} ORDER BY ordinal_position"
    )
    columns = [identifier(str(name)) for (name,) in rows]
    made = session.rows(f"SHOW CREATE TABLE {identifier(database)}.{identifier(table)}")[0][1] or ""
    history = ""
    if "WITH SYSTEM VERSIONING" in made:
        history = "FOR SYSTEM_TIME ALL"
        period = re.search(r"PERIOD FOR SYSTEM_TIME \((`[^`]+`), (`[^`]+`)\)", made)
        columns += [period[1], period[2]] if period is not None else ["row_start", "row_end"]
    listed = ", ".join(columns)
    return listed, listed, history


# --- sessions --------------------------------------------------------------------------------------------


def sessions(session: Session, databases: Iterable[str]) -> list[tuple[str, str, str, str]]:
    """Number, user, host and command of the sessions on databases, as far as this account may see them."""
    listed = ", ".join(literal(name) for name in databases)
    rows = session.rows(
        "SELECT id, user, host, command FROM information_schema.processlist"
        f" WHERE db IN ({listed}) AND id <> CONNECTION_ID() AND command <> 'Daemon'"
    )
    return [(str(number), str(user), str(host), str(command)) for number, user, host, command in rows]


def end(session: Session, databases: Sequence[str], name: str, only: Sequence[str] | None = None) -> None:
    """Ends sessions, all or `only` those, and waits until they are gone. Raises StepError naming those that stay."""
    deadline = time.monotonic() + _END_SECONDS
    while left := [found for found in sessions(session, databases) if only is None or found[0] in only]:
        for number, user, _, _ in left:
            kill(session, number, user, name)
        if time.monotonic() > deadline:
            raise StepError(f"database {name}: session {left[0][0]} of {left[0][1]} does not end")
        time.sleep(0.02)


def kill(session: Session, number: str, user: str, name: str) -> None:
    """Ends one session; one that is gone already is no error. Another account's needs a right of its own."""
    me = session.value("SELECT SUBSTRING_INDEX(USER(), '@', 1)")
    if user != me and not rights(session) & ENDING:
        raise StepError(
            f"database {name}: session {number} of {user} cannot be ended by this account",
            next_step=f"KILL {number}, as an administrator; then type the command again.",
        )
    session.run(
        "DELIMITER //\nBEGIN NOT ATOMIC DECLARE CONTINUE HANDLER FOR 1094 BEGIN END;"
        f" KILL CONNECTION {int(number)}; END//\nDELIMITER ;"
    )


def rights(session: Session) -> set[str]:
    """Rights of this account on the whole server."""
    return {str(right) for (right,) in session.rows("SELECT privilege_type FROM information_schema.user_privileges")}
