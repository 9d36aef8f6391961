"""Marks of whose a database is: at the end of its comment, or in a table beside it where databases have no comment."""

from __future__ import annotations

import re

from holdfast.drivers.databases.mariadb.client import identifier, literal
from holdfast.drivers.databases.sql.session import Session

_MARK = re.compile(r"\n?\[holdfast owner: ([^\]]*)\]$")
_TABLE = "holdfast_owner"


class InComment:
    def _comment(self, session: Session, database: str) -> str | None:
        return session.value(
            f"SELECT schema_comment FROM information_schema.schemata WHERE schema_name = {literal(database)}"
        )

    def read(self, session: Session, database: str, own_place: str) -> str | None:
        found = _MARK.search(self._comment(session, database) or "")
        return found[1] if found is not None else None

    def write(self, session: Session, database: str, own_place: str, owner: str) -> None:
        comment = self._comment(session, database)
        if comment is None or _MARK.search(comment):
            return
        marked = f"{comment}\n[holdfast owner: {owner}]" if comment else f"[holdfast owner: {owner}]"
        session.run(f"ALTER DATABASE {identifier(database)} COMMENT = {literal(marked)}")


class InTable:
    """In the place that is Holdfast's own for the database, where no swap and no migration meets it."""

    def _exists(self, session: Session, database: str) -> bool:
        return bool(session.rows(f"SELECT 1 FROM information_schema.schemata WHERE schema_name = {literal(database)}"))

    def read(self, session: Session, database: str, own_place: str) -> str | None:
        table = session.rows(
            f"SELECT 1 FROM information_schema.tables WHERE table_schema = {literal(own_place)}"
            f" AND table_name = {literal(_TABLE)}"
        )
        if not table or not self._exists(session, database):
            return None
        return session.value(f"SELECT owner FROM {identifier(own_place)}.{_TABLE}")

    def write(self, session: Session, database: str, own_place: str, owner: str) -> None:
        if not self._exists(session, database):
            return
        where = f"{identifier(own_place)}.{_TABLE}"
        session.run(
            f"CREATE DATABASE IF NOT EXISTS {identifier(own_place)};"
            f" CREATE TABLE IF NOT EXISTS {where} (one INT PRIMARY KEY, owner VARCHAR(500) NOT NULL) ENGINE=InnoDB"
            " CHARACTER SET utf8mb4"
        )
        session.run(f"INSERT IGNORE INTO {where} VALUES (1, {literal(owner)})")
