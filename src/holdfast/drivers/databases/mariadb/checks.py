"""Conditions that would stop or spoil an operation on a MariaDB or MySQL database, found before it begins."""

from __future__ import annotations

from holdfast.drivers.databases.mariadb.catalogue import DEFINING, ENDING, names, rights
from holdfast.drivers.databases.mariadb.client import Session, identifier, literal
from holdfast.drivers.databases.mariadb.dialect import Dialect, Finding, Version

_HISTORY_SINCE = (10, 11)


def version(session: Session) -> Version:
    """Return the major and minor version of the server."""
    major, minor = (session.value("SELECT VERSION()") or "0.0").split("-")[0].split(".")[:2]
    return int(major), int(minor)


def problems(session: Session, database: str, dialect: Dialect) -> list[Finding]:
    """Return severity, message and advice of conditions that would stop or spoil an operation on the database."""
    here = version(session)
    found: list[Finding] = []
    if here < dialect.oldest:
        found.append(
            (
                "error",
                f"the server is {here[0]}.{here[1]}; {dialect.too_old}",
                "Upgrade the server to a release that is still maintained.",
            )
        )
    doublewrite = session.value("SELECT @@innodb_doublewrite")
    if doublewrite in ("0", "OFF", "DETECT_ONLY"):  # DETECT_ONLY finds torn pages but cannot repair them
        found.append(
            (
                "error",
                f"the server runs with innodb_doublewrite = {doublewrite}: a crash can destroy its tables",
                "Set innodb_doublewrite = 1 and restart the server.",
            )
        )
    if session.value("SELECT @@innodb_flush_log_at_trx_commit") != "1":
        found.append(
            (
                "warning",
                "innodb_flush_log_at_trx_commit is not 1: a crash loses the application's last writes",
                "Run in SQL: SET GLOBAL innodb_flush_log_at_trx_commit = 1; and set it in the server's configuration.",
            )
        )
    if not session.rows(f"SELECT 1 FROM information_schema.schemata WHERE schema_name = {literal(database)}"):
        found.append(
            (
                "warning",
                f"the server has no database {database}",
                "Correct the database's name if it has another one. Otherwise run `holdfast install REF` or"
                " `holdfast backup restore latest`.",
            )
        )
        return found
    return (
        found
        + _moves(session, database, dialect)
        + _engines(session, database)
        + _floats(session, database)
        + dialect.own_findings(session, database, here)
        + _rights(session, database, dialect)
    )


def _engines(session: Session, database: str) -> list[Finding]:
    rows = session.rows(
        f"SELECT table_name, engine FROM information_schema.tables WHERE table_schema = {literal(database)}"
        " AND table_type IN ('BASE TABLE', 'SYSTEM VERSIONED') AND engine <> 'InnoDB'"
    )
    return [
        (
            "warning",
            f"table {table} uses the engine {engine}, which has no transactions: a dump made while it is written to"
            " mixes several states",
            f"Run in SQL: ALTER TABLE {table} ENGINE = InnoDB; or make backups at the level `quiesce`.",
        )
        for table, engine in rows
    ]


def broken_views(session: Session, database: str) -> list[Finding]:
    """Return views that refer to missing objects, at which the dump programs end.

    A view whose definer is gone is not one of them: it is dumped, and created again by an account that may define for
    others.
    """
    views = names(session, database, "VIEW")
    if not views:
        return []
    said: dict[str, str] = {}
    listed = ", ".join(f"{identifier(database)}.{identifier(view)}" for view in views)
    for table, _, kind, text in session.rows(f"CHECK TABLE {listed}"):
        if kind == "Error" and "specified as a definer" not in (text or ""):
            said.setdefault(str(table).removeprefix(f"{database}."), str(text))
    return [
        (
            "error",
            f"view {view} can be neither read nor dumped: {text}",
            f"Run in SQL: DROP VIEW {identifier(view)}; or create it again so that it can be read.",
        )
        for view, text in said.items()
    ]


def _floats(session: Session, database: str) -> list[Finding]:
    """Return columns of which a dump has fewer digits.

    Servers print six digits of a FLOAT, and the dump programs read what is printed.
    """
    rows = session.rows(
        "SELECT c.table_name, c.column_name FROM information_schema.columns c JOIN information_schema.tables t"
        " USING (table_schema, table_name) WHERE c.data_type = 'float' AND COALESCE(c.generation_expression, '') = ''"
        f" AND c.table_schema = {literal(database)} AND t.table_type IN ('BASE TABLE', 'SYSTEM VERSIONED')"
        " ORDER BY 1, 2"
    )
    if not rows:
        return []
    named = ", ".join(f"{table}.{column}" for table, column in rows)
    table, column = rows[0]
    return [
        (
            "warning",
            f"a backup keeps six digits of a FLOAT, as every dump of this server does: {named}",
            f"If more digits matter, run in SQL: ALTER TABLE {table} MODIFY {column} DOUBLE, with the column's other"
            " attributes. An undo from a restore point keeps all digits.",
        )
    ]


def _moves(session: Session, database: str, dialect: Dialect) -> list[Finding]:
    """Return objects that a RENAME of all tables cannot move."""
    here = literal(database)
    partitioned = (
        session.rows(
            f"SELECT table_name FROM information_schema.tables WHERE table_schema = {here}"
            " AND create_options LIKE '%partitioned%'"
        )
        if dialect.partitions_at_risk
        else []
    )
    found: list[Finding] = [
        (
            "warning",
            f"table {table} is partitioned: a server that crashes during a swap can lose it",
            "Keep a backup elsewhere, or remove the partitions: ALTER TABLE ... REMOVE PARTITIONING.",
        )
        for (table,) in partitioned
    ]
    keys = session.rows(
        "SELECT DISTINCT table_schema, table_name, constraint_name FROM information_schema.key_column_usage"
        f" WHERE referenced_table_schema = {here} AND table_schema <> {here} AND LEFT(table_schema, 3) <> 'hf-'"
    )
    found += [
        (
            "error",
            f"foreign key {key} of {place}.{table} refers to this database and would follow its replaced tables",
            f"Run in SQL: ALTER TABLE {place}.{table} DROP FOREIGN KEY {key}; create it again afterwards.",
        )
        for place, table, key in keys
    ]
    return found


def history(session: Session, database: str, here: Version) -> list[Finding]:
    """Return problems of tables that keep their history, which only MariaDB has."""
    by_transactions = session.rows(
        f"SELECT table_name FROM information_schema.columns WHERE table_schema = {literal(database)}"
        " AND generation_expression = 'ROW START' AND data_type = 'bigint'"
    )
    found: list[Finding] = [
        (
            "error",
            f"table {table} keeps its history by transactions, which neither a dump nor a copy can preserve",
            "Change the history to timestamps: ROW START and ROW END of the type TIMESTAMP(6).",
        )
        for (table,) in by_transactions
    ]
    if here >= _HISTORY_SINCE:
        return found
    rows = session.rows(
        f"SELECT table_name FROM information_schema.tables WHERE table_schema = {literal(database)}"
        " AND table_type = 'SYSTEM VERSIONED'"
    )
    found += [
        (
            "error",
            f"table {table} keeps its history, which a server before 10.11 cannot copy",
            "Upgrade the server, or remove the history: ALTER TABLE ... DROP SYSTEM VERSIONING.",
        )
        for (table,) in rows
    ]
    return found


def _rights(session: Session, database: str, dialect: Dialect) -> list[Finding]:
    """Return the rights that the account lacks.

    It can create candidate databases if a grant on a pattern of names, or on all names, allows that.
    """
    everywhere = rights(session)
    grants = " ".join(str(row[0]) for row in session.rows("SHOW GRANTS"))
    found: list[Finding] = []
    if "CREATE" not in everywhere and "`hf-%`.*" not in grants.replace("\\", ""):
        found.append(
            (
                "error",
                "this account may not create databases: restore points and restores are impossible",
                "Run in SQL, as an administrator: GRANT ALL ON `hf-%`.* TO this account.",
            )
        )
    if not everywhere & DEFINING or not dialect.definer_rights <= everywhere:
        rows = session.rows(
            "SELECT kind, name, definer FROM ("
            " SELECT 'view' kind, table_name name, definer, table_schema place FROM information_schema.views UNION ALL"
            " SELECT 'trigger', trigger_name, definer, trigger_schema FROM information_schema.triggers UNION ALL"
            " SELECT LOWER(routine_type), routine_name, definer, routine_schema"
            " FROM information_schema.routines UNION ALL"
            " SELECT 'event', event_name, definer, event_schema FROM information_schema.events) f"
            f" WHERE place = {literal(database)}"
            " AND definer <> CURRENT_USER()"
        )
        found += [
            (
                "error",
                f"{kind} {name} has the definer {definer}, for whom this account may not create it again",
                f"Create it again as this account; or run in SQL, as an administrator: {dialect.definer_advice}",
            )
            for kind, name, definer in rows
        ]
    if not everywhere & ENDING or "PROCESS" not in everywhere:
        found.append(
            (
                "warning",
                "this account cannot see or end the sessions of other clients: one of them can make a swap fail",
                f"Run in SQL, as an administrator: GRANT {dialect.session_rights} ON *.* TO this account.",
            )
        )
    return found
