"""Markers of Holdfast's databases in MariaDB or MySQL: a table of one row that identifies the content."""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.drivers.databases.mariadb.client import Session, identifier, literal

MARKER = "holdfast_marker"
NEXT = "holdfast_next"
"""The marker that takes the live one's place in the statement that moves away the whole database."""


@dataclass(frozen=True)
class Marker:
    """The marker of one database.

    `placed` is false while the stored objects of the content are not in place; then the row's script creates them.
    `vacant` says that a swap left nothing in place; without tables there is then no database.
    """

    identity: str
    placed: bool
    vacant: bool


def read(session: Session, place: str) -> Marker | None:
    found = session.rows(
        f"SELECT 1 FROM information_schema.tables WHERE table_schema = {literal(place)}"
        f" AND table_name = {literal(MARKER)}"
    )
    if not found:
        return None
    rows = session.rows(f"SELECT identity, placed, vacant FROM {identifier(place)}.{MARKER}")
    return Marker(str(rows[0][0]), rows[0][1] == "1", rows[0][2] == "1") if rows else None


def make(
    session: Session,
    place: str,
    identity: str,
    *,
    script: bytes | None = None,
    properties: str = "",
    vacant: bool = False,
    table: str = MARKER,
) -> None:
    """Create a marker. Without a script, the stored objects of the content are in place already."""
    where = f"{identifier(place)}.{table}"
    session.run(f"CREATE DATABASE IF NOT EXISTS {identifier(place)}")
    session.run(
        f"DROP TABLE IF EXISTS {where}; CREATE TABLE {where} (identity VARCHAR(64) NOT NULL PRIMARY KEY,"
        " placed BOOLEAN NOT NULL,"
        " vacant BOOLEAN NOT NULL, charset TEXT NOT NULL, script LONGBLOB) ENGINE=InnoDB CHARACTER SET utf8mb4"
    )
    session.run(
        f"INSERT INTO {where} VALUES ({literal(identity)}, {int(script is None)}, {int(vacant)}, {literal(properties)},"
        f" {_blob(script)})"
    )


def keep_script(session: Session, place: str, script: bytes, properties: str) -> None:
    """Keep the script of the content's stored objects before they are dropped."""
    # Markers of earlier versions have a shorter column.
    session.run(f"ALTER TABLE {identifier(place)}.{MARKER} MODIFY charset TEXT NOT NULL")
    session.run(
        f"UPDATE {identifier(place)}.{MARKER} SET placed = 0, script = {_blob(script)}, charset = {literal(properties)}"
    )


def script_of(session: Session, place: str) -> tuple[str, bytes]:
    """Return the clauses of CREATE DATABASE for the content's database, and the script of its stored objects."""
    properties, script = session.rows(f"SELECT charset, HEX(script) FROM {identifier(place)}.{MARKER}")[0]
    return str(properties), bytes.fromhex(script or "")


def set_placed(session: Session, place: str) -> None:
    session.run(f"UPDATE {identifier(place)}.{MARKER} SET placed = 1")


def _blob(content: bytes | None) -> str:
    return "NULL" if content is None else f"x'{content.hex()}'" if content else "''"
