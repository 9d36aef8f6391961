"""What would stop or spoil an operation on a MariaDB or MySQL database, found before it begins."""

from __future__ import annotations

from holdfast.drivers.databases.mariadb.catalogue import DEFINING, ENDING, names, rights
from holdfast.drivers.databases.mariadb.client import Session, identifier, literal
from holdfast.drivers.databases.mariadb.dialect import Dialect, Finding, Version

_HISTORY_SINCE = (10, 11)


def version(session: Session) -> Version:
    """Major and minor version of the server."""
    major, minor = (session.value("SELECT VERSION()") or "0.0").split("-")[0].split(".")[:2]
    return int(major), int(minor)


def problems(session: Session, database: str, dialect: Dialect) -> list[Finding]:
    """Severity, message and advice of what would stop or spoil an operation on the database."""
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
    if doublewrite in ("0", "OFF", "DETECT_ONLY"):  # the last finds what it cannot mend
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
                "SET GLOBAL innodb_flush_log_at_trx_commit = 1, and in the server's configuration.",
            )
        )
    if not session.rows(f"SELECT 1 FROM information_schema.schemata WHERE schema_name = {literal(database)}"):
        found.append(
            (
                "warning",
                f"the server has no database {database}",
                "Correct its name where it is another one; else holdfast install REF, or `holdfast backup restore latest`.",
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
            f"table {table} is of the engine {engine}, whose rows are no part of a transaction: a dump"
            " of it while it is written to is of no one instant",
            f"ALTER TABLE {table} ENGINE = InnoDB, or back up at `quiesce`.",
        )
        for table, engine in rows
    ]


def broken_views(session: Session, database: str) -> list[Finding]:
    """Find views that refer to what is gone, at which the dump programs end.

    A view whose definer is gone is not one: it is dumped, and made again by an account that may define for others.
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
            f"DROP VIEW {identifier(view)}, or make it again so that it can be read.",
        )
        for view, text in said.items()
    ]


def _floats(session: Session, database: str) -> list[Finding]:
    """Find columns of which a dump has fewer digits: servers print six of a FLOAT, and the dump programs read what is printed."""
    rows = session.rows(
        "SELECT c.table_name, c.column_name FROM information_schema.columns c JOIN information_schema.tables t"
        " USING (table_schema, table_name) WHERE c.data_type = 'float' AND COALESCE(c.generation_expression, '') = ''"
        f" AND c.table_schema = {literal(database)} AND t.table_type IN ('BASE TABLE', 'SYSTEM VERSIONED') ORDER BY 1, 2"
    )
    if not rows:
        return []
    named = ", ".join(f"{table}.{column}" for table, column in rows)
    table, column = rows[0]
    return [
        (
            "warning",
            f"a backup keeps six digits of a FLOAT, as every dump of this server does: {named}",
            f"Where more digits count: ALTER TABLE {table} MODIFY {column} DOUBLE, with the column's other attributes. An undo"
            " from a restore point keeps all digits.",
        )
    ]


def _moves(session: Session, database: str, dialect: Dialect) -> list[Finding]:
    """What a RENAME of all tables cannot carry."""
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
            f"table {table} is partitioned: a server that dies in the moment of a swap can lose it",
            "Keep a backup elsewhere, or give up the partitions: ALTER TABLE ... REMOVE PARTITIONING.",
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
            f"foreign key {key} of {place}.{table} refers to this database and would follow its tables aside",
            f"ALTER TABLE {place}.{table} DROP FOREIGN KEY {key}, and make it again afterwards.",
        )
        for place, table, key in keys
    ]
    return found


def history(session: Session, database: str, here: Version) -> list[Finding]:
    """Of tables that keep their history, which MariaDB alone has."""
    by_transactions = session.rows(
        f"SELECT table_name FROM information_schema.columns WHERE table_schema = {literal(database)}"
        " AND generation_expression = 'ROW START' AND data_type = 'bigint'"
    )
    found: list[Finding] = [
        (
            "error",
            f"table {table} keeps its history by transactions, which neither a dump nor a copy can carry",
            "Keep it by time: ROW START and ROW END of the type TIMESTAMP(6).",
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
            "Upgrade the server, or give up the history: ALTER TABLE ... DROP SYSTEM VERSIONING.",
        )
        for (table,) in rows
    ]
    return found


def _rights(session: Session, database: str, dialect: Dialect) -> list[Finding]:
    """An account can make a place beside if a grant on a pattern of names, or on all of them, gives it that."""
    everywhere = rights(session)
    grants = " ".join(str(row[0]) for row in session.rows("SHOW GRANTS"))
    found: list[Finding] = []
    if "CREATE" not in everywhere and "`hf-%`.*" not in grants.replace("\\", ""):
        found.append(
            (
                "error",
                "this account may not create databases: no restore point and no restore",
                "GRANT ALL ON `hf-%`.* TO it, as an administrator.",
            )
        )
    if not everywhere & DEFINING or not dialect.definer_rights <= everywhere:
        rows = session.rows(
            "SELECT kind, name, definer FROM ("
            " SELECT 'view' kind, table_name name, definer, table_schema place FROM information_schema.views UNION ALL"
            " SELECT 'trigger', trigger_name, definer, trigger_schema FROM information_schema.triggers UNION ALL"
            " SELECT LOWER(routine_type), routine_name, definer, routine_schema FROM information_schema.routines UNION ALL"
            f" SELECT 'event', event_name, definer, event_schema FROM information_schema.events) f WHERE place = {literal(database)}"
            " AND definer <> CURRENT_USER()"
        )
        found += [
            (
                "error",
                f"{kind} {name} is of {definer}, for whom this account may not make it again",
                f"Make it as this account; or as an administrator: {dialect.definer_advice}",
            )
            for kind, name, definer in rows
        ]
    if not everywhere & ENDING or "PROCESS" not in everywhere:
        found.append(
            (
                "warning",
                "this account sees and ends no sessions of others: one of theirs can make a swap fail",
                f"GRANT {dialect.session_rights} ON *.* TO it, as an administrator.",
            )
        )
    return found
