"""Plain SQL, as `.dump` of the sqlite3 program writes it, run one statement at a time."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from holdfast.drivers.interchange.compressed import ERRORS
from holdfast.drivers.interchange.dump_source import DumpSource
from holdfast.errors import DamagedError


def execute(target: Path, source: DumpSource) -> None:
    """Make a database file from the statements. Raise DamagedError."""
    statement = ""
    with closing(sqlite3.connect(target, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous=OFF")
        connection.set_authorizer(_only_this_database)
        try:
            for line in source.stream:
                statement += line.decode()
                if sqlite3.complete_statement(statement):
                    connection.execute(statement)
                    statement = ""
        except (sqlite3.Error, UnicodeDecodeError, *ERRORS) as error:
            raise DamagedError(f"{source.title} could not be loaded: {error}") from error
        if statement.strip() or connection.in_transaction:
            raise DamagedError(f"{source.title} was cut short: its last statement or transaction is not complete")


def _only_this_database(action: int, *_: object) -> int:
    """Deny ATTACH, because a dump from elsewhere must not open other files of this machine."""
    return sqlite3.SQLITE_DENY if action == sqlite3.SQLITE_ATTACH else sqlite3.SQLITE_OK
