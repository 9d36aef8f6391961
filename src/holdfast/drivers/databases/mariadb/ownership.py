"""Marks of a database's owner: at the end of its comment, or in a table outside where databases have no comment."""

from __future__ import annotations

import re

from holdfast.drivers.databases.mariadb.client import identifier, literal
from holdfast.drivers.databases.sql.session import Session

_MARK = re.compile(r"\n?\[holdfast owner: ([^\]]*)\]$")
_TABLE = "holdfast_owner"
_ENCRYPTION = re.compile(r"DEFAULT ENCRYPTION='[YN]'")


class InComment:
    def properties(self, session: Session, database: str) -> str:
        """Return the clause of CREATE and ALTER DATABASE for another one with the same comment, without the marker."""
        comment = _MARK.sub("", self._comment(session, database) or "")
        return f"COMMENT {literal(comment)}"

    def kept(self, session: Session, database: str, properties: str) -> str:
        """Return properties that leave a database its marker: the comment is last, so it goes into its quotes."""
        found = _MARK.search(self._comment(session, database) or "")
        if found is None or " COMMENT '" not in properties:
            return properties
        marker = literal(f"[holdfast owner: {found[1]}]")[1:]
        return properties[:-1] + ("" if properties.endswith(" COMMENT ''") else "\n") + marker

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
        with_marker = f"{comment}\n[holdfast owner: {owner}]" if comment else f"[holdfast owner: {owner}]"
        session.run(f"ALTER DATABASE {identifier(database)} COMMENT = {literal(with_marker)}")


class InTable:
    """The marker in Holdfast's own database for the live one, which no swap and no migration touches."""

    def properties(self, session: Session, database: str) -> str:
        """Return the clause that gives another database the same default encryption (servers since 8.0.16)."""
        made = session.rows(f"SHOW CREATE DATABASE {identifier(database)}")[0][1] or ""
        found = _ENCRYPTION.search(made)
        return found[0] if found is not None else ""

    def kept(self, session: Session, database: str, properties: str) -> str:
        return properties

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
