"""The database in memory that stands in unit tests."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.fakes import FakeDatabase
from tests.harnesses.harness import OpenHarness, SqlHarness, WriterHeldError


class FakeHarness(SqlHarness):
    def free_name(self) -> str:
        return "fakeother"


@contextmanager
def opened(folder: Path) -> Iterator[FakeHarness]:
    database = FakeDatabase()

    def execute(sql: str) -> None:
        try:
            database.execute(sql)
        except sqlite3.OperationalError as error:
            raise WriterHeldError(str(error)) from error

    @contextmanager
    def other(name: str) -> Iterator[FakeDatabase]:
        yield FakeDatabase(database.given[name])

    yield FakeHarness(database, folder, execute, other=other)


ANSWERS_SQL = True
HARNESSES: Mapping[str, OpenHarness] = {"fake": opened}
