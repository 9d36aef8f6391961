"""Catalogue queries of a MariaDB or MySQL server: tables and stored objects of a database, sessions, rights."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Sequence

from holdfast.drivers.databases.mariadb.client import SQL_MODE, Clients, Session, SqlError, identifier, literal
from holdfast.drivers.databases.mariadb.markers import MARKER, NEXT
from holdfast.drivers.databases.mariadb.parallel import Key
from holdfast.errors import RefusedError, StepError

ENDING = {"SUPER", "CONNECTION ADMIN", "CONNECTION_ADMIN"}
"""Rights that allow ending sessions of other accounts, of either product."""
DEFINING = {"SUPER", "SET USER", "SET_USER_ID", "SET_ANY_DEFINER"}
"""Rights that allow creating stored objects with another definer, of either product."""
_ON_EVERYTHING = re.compile(r"GRANT ([A-Z_, ]+) ON \*\.\* TO ")
_GONE_ALREADY = re.compile(r"ERROR 1094 ")
_FOLDER_NOT_EMPTY = re.compile(r"ERROR 1010 ")
_END_SECONDS = 60.0  # a session that is ended rolls its changes back first
_WHOLE_NUMBERS = {"tinyint", "smallint", "mediumint", "int", "bigint"}
# The order of dropping: objects that use others come first.
KINDS = ("EVENT", "TRIGGER", "VIEW", "PROCEDURE", "FUNCTION", "PACKAGE")


def is_exactly(column: str, database: str) -> str:
    """Return a condition on the exact name.

    The catalogue ignores case when it compares, but on most servers names that differ in case are different databases.
    """
    text = literal(database)
    return f"IF(@@lower_case_table_names = 0, BINARY {column} = {text}, LOWER({column}) = LOWER({text}))"


def names(session: Session, database: str, kind: str) -> list[str]:
    """Return the names of a database's views, or of its stored objects of one kind."""
    table, name, place, more = {
        "EVENT": ("events", "event_name", "event_schema", "TRUE"),
        "TRIGGER": ("triggers", "trigger_name", "trigger_schema", "TRUE"),
        "VIEW": ("tables", "table_name", "table_schema", "table_type = 'VIEW'"),
    }.get(kind, ("routines", "routine_name", "routine_schema", f"routine_type = '{kind}'"))
    rows = session.rows(
        f"SELECT {name} FROM information_schema.{table} WHERE {place} = {literal(database)} AND {more}"
        f" AND {is_exactly(place, database)} ORDER BY 1"
    )
    return [str(found) for (found,) in rows]


def drop_programs(session: Session, database: str) -> None:
    for kind in KINDS:
        found = names(session, database, kind)
        if found and kind == "PACKAGE":  # the parser knows packages only in this mode
            session.run("SET sql_mode = 'ORACLE'")
        for name in found:
            session.run(f"DROP {kind} IF EXISTS {identifier(database)}.{identifier(name)}")
        if found and kind == "PACKAGE":
            session.run(f"SET sql_mode = {literal(SQL_MODE)}")


def drop_database(clients: Clients, database: str, known_as: str) -> None:
    """Drop one of Holdfast's databases; one that is missing is fine.

    `known_as` is the live database, from which its stored objects were copied. A trigger name that a crashed server
    left behind is in no catalogue, yet prevents the removal of the folder; so triggers with the live one's names are
    dropped.
    """
    try:
        with clients.session() as session:
            session.run(f"DROP DATABASE IF EXISTS {identifier(database)}")
    except SqlError as error:
        if not _FOLDER_NOT_EMPTY.search(error.what):
            raise
        with clients.session() as session:
            for name in names(session, known_as, "TRIGGER"):
                session.run(f"DROP TRIGGER IF EXISTS {identifier(database)}.{identifier(name)}")
            session.run(f"DROP DATABASE {identifier(database)}")


def base_tables(session: Session, database: str) -> list[str]:
    return _tables(session, database, "'BASE TABLE', 'SYSTEM VERSIONED'")


def sizes_bytes(session: Session, database: str) -> dict[str, int]:
    """Return the sizes of a database's tables, as far as the engine knows them."""
    rows = session.rows(
        "SELECT table_name, COALESCE(data_length, 0) FROM information_schema.tables"
        f" WHERE table_schema = {literal(database)}"
    )
    return {str(name): int(size or 0) for name, size in rows}


def number_key(session: Session, database: str, table: str) -> Key | None:
    """Return the key of a transactional table with rows whose primary key is one whole-number column, else None."""
    where = (
        f"table_schema = {literal(database)} AND {is_exactly('table_schema', database)}"
        f" AND table_name = {literal(table)} AND {is_exactly('table_name', table)}"
    )
    if session.value(f"SELECT engine FROM information_schema.tables WHERE {where}") != "InnoDB":
        return None
    rows = session.rows(
        f"SELECT column_name, data_type FROM information_schema.columns WHERE {where} AND column_key = 'PRI'"
    )
    # The dump program repeats its condition on rows in a comment, which a name with a newline would end.
    if len(rows) != 1 or str(rows[0][1]).lower() not in _WHOLE_NUMBERS or not re.fullmatch(r"\w+", str(rows[0][0])):
        return None
    column = str(rows[0][0])
    found = session.rows(
        f"SELECT MIN({identifier(column)}), MAX({identifier(column)}) FROM {identifier(database)}.{identifier(table)}"
    )
    least, greatest = found[0]
    return Key(column, int(least), int(greatest)) if least is not None and greatest is not None else None


def movable(session: Session, database: str) -> list[str]:
    """Return the tables and sequences."""
    return _tables(session, database, "'BASE TABLE', 'SYSTEM VERSIONED', 'SEQUENCE'")


def _tables(session: Session, database: str, types: str) -> list[str]:
    rows = session.rows(
        f"SELECT table_name FROM information_schema.tables WHERE table_schema = {literal(database)}"
        f" AND table_type IN ({types}) AND {is_exactly('table_schema', database)}"
        f" AND table_name NOT IN ({literal(MARKER)}, {literal(NEXT)}) ORDER BY 1"
    )
    return [str(name) for (name,) in rows]


def sequence_defaults(session: Session, database: str) -> list[tuple[str, str, str]]:
    """Return table, column and default where the default comes from a sequence of the same database.

    MariaDB stores such a default with the name of the database, and dumps it that way.
    """
    pattern = literal("val(" + identifier(database) + ".")
    rows = session.rows(
        "SELECT table_name, column_name, column_default FROM information_schema.columns"
        f" WHERE table_schema = {literal(database)} AND {is_exactly('table_schema', database)}"
        f" AND LOCATE({pattern}, column_default) ORDER BY 1, ordinal_position"
    )
    return [(str(table), str(column), str(default)) for table, column, default in rows]


def versioned(session: Session, database: str) -> list[str]:
    """Return the tables that keep their history."""
    return _tables(session, database, "'SYSTEM VERSIONED'")


_PERIOD = re.compile(r"PERIOD FOR SYSTEM_TIME \((`(?:[^`]|``)+`), (`(?:[^`]|``)+`)\)")


def copying(session: Session, database: str, table: str, history: bool) -> tuple[str, str]:
    """Return the columns to copy, and the clause that selects all history of a table that keeps it.

    Raise RefusedError for history that is kept by transactions.
    """
    rows = session.rows(
        "SELECT column_name FROM information_schema.columns WHERE COALESCE(generation_expression, '') = ''"
        f" AND table_schema = {literal(database)} AND {is_exactly('table_schema', database)}"
        f" AND BINARY table_name = {literal(table)} ORDER BY ordinal_position"
    )
    columns = [identifier(str(name)) for (name,) in rows]
    if not history:
        return ", ".join(columns), ""
    made = session.rows(f"SHOW CREATE TABLE {identifier(database)}.{identifier(table)}")[0][1] or ""
    period = _PERIOD.search(made)
    begin, end_ = (period[1], period[2]) if period is not None else ("row_start", "row_end")
    if re.search(rf"^\s*{re.escape(begin)} bigint", made, re.MULTILINE):
        raise RefusedError(
            f"table {table} keeps its history by transactions, which the server cannot copy",
            next_step="Change the history to timestamps: ROW START and ROW END of the type TIMESTAMP(6).",
        )
    return ", ".join((*columns, begin, end_)), "FOR SYSTEM_TIME ALL"


# --- sessions --------------------------------------------------------------------------------------------


def sessions(session: Session, databases: Iterable[str]) -> list[tuple[str, str, str, str]]:
    """Return number, user, host and command of the sessions on databases, as far as this account may see them."""
    chosen = " OR ".join(is_exactly("db", name) for name in databases)
    rows = session.rows(
        "SELECT id, user, host, command FROM information_schema.processlist"
        f" WHERE db IS NOT NULL AND ({chosen}) AND id <> CONNECTION_ID() AND command <> 'Daemon'"
    )
    return [(str(number), str(user), str(host), str(command)) for number, user, host, command in rows]


def end(
    clients: Clients, session: Session, databases: Sequence[str], name: str, only: Sequence[str] | None = None
) -> None:
    """End sessions, all or `only` those, and wait until they are gone.

    Raise StepError with the name of one that stays.
    """
    deadline = time.monotonic() + _END_SECONDS
    while left := [found for found in sessions(session, databases) if only is None or found[0] in only]:
        for number, user, _, _ in left:
            kill(clients, session, number, user, name)
        if time.monotonic() > deadline:
            raise StepError(f"database {name}: session {left[0][0]} of {left[0][1]} does not end")
        time.sleep(0.02)


def kill(clients: Clients, session: Session, number: str, user: str, name: str) -> None:
    """End one session; one that is gone already is no error.

    A session of another account needs a right of its own; without it, raise StepError. The statement runs in a session
    of its own, because the client ends at an error.
    """
    me = session.value("SELECT SUBSTRING_INDEX(USER(), '@', 1)")
    if user != me and not rights(session) & ENDING:
        raise StepError(
            f"database {name}: session {number} of {user} cannot be ended by this account",
            next_step=f"Run in SQL, as an administrator: KILL {number}; then run the command again.",
        )
    with clients.session() as own:
        try:
            own.run(f"KILL CONNECTION {int(number)}")
        except SqlError as error:
            if not _GONE_ALREADY.search(error.what):
                raise


def rights(session: Session) -> set[str]:
    """Return this account's rights on the whole server, including those of its active roles."""
    found = {str(right) for (right,) in session.rows("SELECT privilege_type FROM information_schema.user_privileges")}
    for (line,) in session.rows("SHOW GRANTS"):
        granted = _ON_EVERYTHING.match(line or "")
        found |= set(re.split(r", ?", granted[1])) if granted is not None else set()
    return found


def routine_grants(session: Session, database: str) -> list[str]:
    """Return statements that grant the rights on single routines of a database, which vanish when those are dropped.

    Few accounts may see the rights of others; the rest get an empty list.
    """
    shown = " ".join(str(line) for (line,) in session.rows("SHOW GRANTS")).replace("`", "")
    if "SELECT" not in rights(session) and not re.search(r"SELECT\b[^.]* ON mysql\.(\*|procs_priv) ", shown):
        return []
    rows = session.rows(
        "SELECT host, user, routine_name, routine_type, proc_priv FROM mysql.procs_priv"
        f" WHERE db = {literal(database)} AND proc_priv <> '' ORDER BY 4, 3, 2, 1"
    )
    found = []
    for host, user, name, kind, given in rows:
        listed = str(given).split(",")
        granted = ", ".join(right.upper() for right in listed if right != "Grant") or "USAGE"
        whose = identifier(str(user)) + (f"@{identifier(host)}" if host else "")  # a role has no host
        option = " WITH GRANT OPTION" if "Grant" in listed else ""
        place = f"{identifier(database)}.{identifier(str(name))}"
        found.append(f"GRANT {granted} ON {kind} {place} TO {whose}{option}")
    return found


def columns(session: Session, database: str) -> list[tuple[str, str]]:
    """Return table and column, in the tables' own order."""
    rows = session.rows(
        f"SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = {literal(database)}"
        " ORDER BY table_name, ordinal_position"
    )
    return [(str(table), str(column)) for table, column in rows]
