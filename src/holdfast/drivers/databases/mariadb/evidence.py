"""Evidence that a table was not written since it was copied, of which every piece must be the same afterwards.

Facts from the documentation and measured on MariaDB 10.11 and MySQL 9.7. `UPDATE_TIME` has whole seconds and is only in
memory: it is NULL after a restart, and after the server has dropped the table from its memory. It changes at a commit,
but MariaDB writes the time at which the transaction began, so a commit after the copy may show a time before it, even
the same one as an earlier commit. On MariaDB a TRUNCATE leaves it as it was. A partitioned table shows the latest time
of those of its partitions that are in memory. Renames and EXCHANGE PARTITION put another table under the name.

So the time alone proves nothing. It does together with the number that InnoDB gives each table, and with the start of
the oldest transaction that was open at the copy: a later commit has a time at or after that. Both need the right
PROCESS. Without it, or where a piece is missing, there is no evidence, and the table is compared.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from holdfast.drivers.databases.mariadb import catalogue
from holdfast.drivers.databases.mariadb.client import Session, literal
from holdfast.drivers.databases.mariadb.dialect import Dialect

UTC = "SET SESSION time_zone = '+00:00'"
"""Times are compared as texts, and TIMESTAMP columns as times; neither may meet an hour that comes twice."""
_MARGIN_SECONDS = 10  # far more than a commit takes from its time stamp until others see it
_TRANSACTIONAL = "InnoDB"


@dataclass(frozen=True)
class TableState:
    """What the catalogues say of one table. Times are texts in UTC; `inner` is InnoDB's own entry."""

    engine: str
    partitioned: bool
    created: str | None
    updated: str | None
    auto_increment: str | None
    rows: int
    """About how many rows it has."""
    row_bytes: int
    size_bytes: int
    inner: str = ""

    @property
    def is_transactional(self) -> bool:
        return self.engine == _TRANSACTIONAL

    @property
    def mark(self) -> str:
        """Return all evidence as one text; empty where a piece is missing."""
        known = self.is_transactional and not self.partitioned and self.inner and self.created and self.updated
        return f"{self.inner} {self.created} {self.updated}" if known else ""

    def mark_before(self, bound: str) -> str:
        """Return the evidence; empty where its times are not before `bound`, so a later commit could leave them."""
        return self.mark if max(self.created or "", self.updated or "") < bound else ""


def server(session: Session) -> str:
    """Return a text that another server, to which the same address leads after a failover, does not have."""
    return "/".join(str(value) for value in session.rows("SELECT @@hostname, @@server_id, @@datadir")[0])


def now(session: Session) -> str:
    return session.value("SELECT NOW()") or ""


def may_know(session: Session) -> bool:
    """Return whether this account may read InnoDB's own catalogue and its list of transactions."""
    return "PROCESS" in catalogue.rights(session)


def bound(session: Session) -> str:
    """Return a time that every commit from now on will be at or after.

    InnoDB's list of transactions may be a tenth of a second old, which the margin covers.
    """
    found = session.value(
        f"SELECT LEAST(NOW() - INTERVAL {_MARGIN_SECONDS} SECOND, COALESCE((SELECT MIN({in_utc('trx_started')})"
        " FROM information_schema.innodb_trx), NOW()))"
    )
    return found or ""


def in_utc(column: str) -> str:
    """Return the expression for a local time of the server in UTC: the earlier one in an hour that comes twice.

    InnoDB shows the start of a transaction in the server's own time zone, whatever that of the session.
    """
    later = f"COALESCE(CONVERT_TZ({column}, 'SYSTEM', '+00:00'), '1971-01-01 00:00:00')"
    earlier = (f"{later} - INTERVAL {minutes} MINUTE" for minutes in (30, 60))  # no zone has another shift today
    found = (f"IF(CONVERT_TZ({one}, '+00:00', 'SYSTEM') = {column}, {one}, {later})" for one in earlier)
    return f"LEAST({later}, {', '.join(found)})"


def states(
    session: Session, database: str, dialect: Dialect, *, knowing: bool, table: str | None = None
) -> dict[str, TableState]:
    """Return the states of a database's tables, or of one of them. `knowing` is what `may_know` returned."""
    named = f" AND table_name = {literal(table)} AND {catalogue.is_exactly('table_name', table)}" if table else ""
    rows = session.rows(
        "SELECT table_name, engine, COALESCE(create_options, ''), create_time, update_time, auto_increment,"
        " COALESCE(table_rows, 0), COALESCE(avg_row_length, 0), COALESCE(data_length, 0) FROM information_schema.tables"
        f" WHERE table_schema = {literal(database)} AND table_type IN ('BASE TABLE', 'SYSTEM VERSIONED')"
        f" AND {catalogue.is_exactly('table_schema', database)}{named}"
    )
    inner = _inner(session, database, dialect, table) if knowing else {}
    return {
        str(name): TableState(
            str(engine),
            "partitioned" in str(options),
            created,
            updated,
            number,
            int(count or 0),
            int(row or 0),
            int(size or 0),
            inner.get(encoded(str(name)) or "", ""),
        )
        for name, engine, options, created, updated, number, count, row, size in rows
    }


def _inner(session: Session, database: str, dialect: Dialect, table: str | None) -> Mapping[str, str]:
    """Return InnoDB's own entry of each table by its encoded name: its number and what a change in place changes."""
    place = encoded(database)
    if place is None:
        return {}
    where = f"LEFT(name, {len(place) + 1}) = {literal(place + '/')}"
    if table is not None:
        where = f"name = {literal(place + '/' + (encoded(table) or ''))}"
    rows = session.rows(f"SELECT name, i.* FROM information_schema.{dialect.inner_tables} i WHERE {where}")
    return {str(row[0]).rpartition("/")[2]: " ".join(str(value) for value in row[1:]) for row in rows}


def encoded(name: str) -> str | None:
    """Return a name as InnoDB writes it in its own catalogue; None for letters for which that has a table of codes."""
    if not name.isascii():
        return None
    return re.sub(r"[^0-9A-Za-z_]", lambda found: f"@{ord(found[0]):04x}", name)
