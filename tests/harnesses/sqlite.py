"""SQLite files, in both kinds of journal modes."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

from holdfast.drivers.databases.sqlite.driver import SqliteDatabase
from tests.harnesses.harness import OpenHarness, SqlHarness, WriterHeldError


class SqliteHarness(SqlHarness):
    def free_name(self) -> str:
        return str(self.folder / "other.sqlite3")


@contextmanager
def _other(name: str) -> Iterator[SqliteDatabase]:
    yield SqliteDatabase("other", Path(name))


@contextmanager
def opened(folder: Path, mode: str) -> Iterator[SqliteHarness]:
    path = folder / "app.sqlite3"

    def execute(sql: str) -> None:
        try:
            with closing(sqlite3.connect(path, timeout=0.05)) as connection, connection:
                connection.execute(f"PRAGMA journal_mode={mode}")
                connection.execute(sql)
        except sqlite3.OperationalError as error:
            raise WriterHeldError(str(error)) from error

    yield SqliteHarness(SqliteDatabase("main", path), folder, execute, other=_other)


ANSWERS_SQL = True
DATASETS: Mapping[str, OpenHarness] = {
    "sqlite-wal": lambda folder: opened(folder, "wal"),
    "sqlite-delete": lambda folder: opened(folder, "delete"),
}
