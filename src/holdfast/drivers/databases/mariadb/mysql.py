"""MySQL of Oracle: the mechanism of MariaDB's driver, with MySQL's own programs and syntax.

Facts from the documentation of MySQL 8.0 to 9.7 and measured on 9.7.4: a RENAME of many tables is atomic (8.0); no
statement sets a variable for one query, but a hint limits the time of a SELECT (error 3024); databases have no comment;
data definition syncs InnoDB's log whatever innodb_flush_log_at_trx_commit says; SHOW MASTER STATUS became SHOW BINARY
LOG STATUS in 8.2 and was removed in 8.4, and either needs REPLICATION CLIENT; the statistics of tables are cached for a
day unless a session says otherwise; with a binary log, which is on by default, an account without SUPER creates no
trigger or function unless log_bin_trust_function_creators is set; an account with SET_ANY_DEFINER (8.2; SET_USER_ID
before) creates stored objects for others, but views, routines and events of an account that has SYSTEM_USER are created
and dropped only by one that has it too, which an account without rights cannot find out; SHOW GRANTS includes the
rights of active roles, information_schema.user_privileges does not.
"""

from __future__ import annotations

from holdfast.drivers.databases.mariadb import catalogue, checks, ownership
from holdfast.drivers.databases.mariadb.client import Session, identifier, literal
from holdfast.drivers.databases.mariadb.dialect import Dialect, Finding, Version
from holdfast.drivers.databases.mariadb.driver import MariadbDatabase
from holdfast.drivers.databases.opening import Opening
from holdfast.errors import HoldfastError
from holdfast.model import Problem

_SHOWN_AS_BINARY_LOG_SINCE = (8, 2)
_READ_POSITION = {"SUPER", "REPLICATION CLIENT"}


def _position(session: Session, held: bool) -> str | None:
    """Return the log's present position, which is the transaction's only while writers are held.

    Few accounts may read it; None for the rest.
    """
    if not held or not catalogue.rights(session) & _READ_POSITION:
        return None
    newer = checks.version(session) >= _SHOWN_AS_BINARY_LOG_SINCE
    rows = session.rows("SHOW BINARY LOG STATUS" if newer else "SHOW MASTER STATUS")
    return f"{rows[0][0]}:{rows[0][1]}" if rows else None


def _findings(session: Session, database: str, here: Version) -> list[Finding]:
    found: list[Finding] = []
    rights = catalogue.rights(session)
    if "CREATE" not in rights and session.value("SELECT @@partial_revokes") == "1":
        found.append(
            (
                "error",
                "the server runs with partial_revokes = 1: a right on `hf-%` applies only to exactly that name",
                "Run in SQL, as an administrator: SET PERSIST partial_revokes = 0;"
                " or: GRANT CREATE ON *.* TO this account.",
            )
        )
    trusted = session.value("SELECT NOT @@log_bin OR @@log_bin_trust_function_creators") == "1"
    if not trusted and "SUPER" not in rights:
        programs = session.rows(
            f"SELECT trigger_name FROM information_schema.triggers WHERE trigger_schema = {literal(database)} UNION ALL"
            f" SELECT routine_name FROM information_schema.routines WHERE routine_schema = {literal(database)}"
            " AND routine_type = 'FUNCTION'"
        )
        found += [
            (
                "error",
                f"{name} cannot be created again by this account, because the server writes a binary log",
                "Run in SQL, as an administrator: SET PERSIST log_bin_trust_function_creators = 1;",
            )
            for (name,) in programs
        ]
    made = session.rows(f"SHOW CREATE DATABASE {identifier(database)}")[0][1] or ""
    if "READ ONLY = 1" in made:
        found.append(
            (
                "error",
                f"database {database} is read only: no upgrade and no restore can change it",
                f"Run in SQL: ALTER DATABASE {database} READ ONLY = 0; set it again afterwards.",
            )
        )
    if "ENCRYPTION=" in made and "TABLE_ENCRYPTION_ADMIN" not in rights:
        checked, default = session.rows("SELECT @@table_encryption_privilege_check, @@default_table_encryption")[0]
        if checked == "1" and ("ENCRYPTION='Y'" in made) != (default == "1"):
            found.append(
                (
                    "error",
                    f"database {database} has another default encryption than the server, which this account"
                    " may not give to a copy",
                    "Run in SQL, as an administrator: GRANT TABLE_ENCRYPTION_ADMIN ON *.* TO this account.",
                )
            )
    return found


MYSQL = Dialect(
    product="MySQL",
    client="mysql",
    dumper="mysqldump",
    # These options avoid a right on tablespaces, statistics that another server cannot use, and transaction identifiers
    # that it may not accept.
    dumper_options=("--no-tablespaces", "--skip-column-statistics", "--set-gtid-purged=OFF"),
    rows_on_lines=False,
    opening=", max_execution_time = 0, information_schema_stats_expiry = 0",
    loading="",
    counting="SELECT /*+ MAX_EXECUTION_TIME({milliseconds}) */ COUNT(*) FROM {table}",
    position=_position,
    owner_marker=ownership.InTable(),
    oldest=(8, 0),
    too_old="before 8.0 it cannot rename many tables as one",
    partitions_at_risk=False,
    definer_rights=frozenset({"SYSTEM_USER"}),
    definer_advice="GRANT SET_ANY_DEFINER, SYSTEM_USER, SHOW_ROUTINE ON *.* TO this account (before 8.2 SET_USER_ID).",
    definer_grant="SET_ANY_DEFINER, SYSTEM_USER, SHOW_ROUTINE",
    session_rights="PROCESS, CONNECTION_ADMIN",
    own_findings=_findings,
    inner_tables="innodb_tables",
)


class MysqlDatabase(MariadbDatabase):
    dialect = MYSQL
    kind = "mysql"

    def check(self) -> list[Problem]:
        """Report MariaDB's programs of the same names, because they talk to this server but dump it wrongly."""
        clients = self._clients
        for program in (self.dialect.client, self.dialect.dumper):
            try:
                version = clients.host.capture(clients.started(program, "--version"))
            except (HoldfastError, OSError) as error:
                return [
                    Problem(
                        f"databases.{self.name}",
                        "error",
                        f"{program} cannot be run: {error}",
                        "Install MySQL's own client programs.",
                    )
                ]
            if "MariaDB" in version:
                return [
                    Problem(
                        f"databases.{self.name}",
                        "error",
                        f"{program} is MariaDB's here, not MySQL's",
                        "Install MySQL's own client programs, and put their folder first on PATH.",
                    )
                ]
        return super().check()


def open_dataset(opening: Opening) -> MysqlDatabase:
    return MysqlDatabase(opening.name, opening.settings.name, opening.server, opening.host)
