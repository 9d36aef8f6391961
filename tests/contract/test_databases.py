"""What every driver of a dataset that answers SQL promises in addition."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.drivers.protocols.databases import Database
from holdfast.errors import StepError
from tests import harnesses
from tests.harnesses.harness import SqlHarness

FOUND = harnesses.databases()


@pytest.fixture(params=harnesses.parameters(FOUND))
def missing(request: pytest.FixtureRequest, quick_folder: Path) -> Iterator[SqlHarness]:
    """A database that does not exist yet."""
    with FOUND[request.param](quick_folder) as made:
        assert isinstance(made, SqlHarness)
        assert isinstance(made.dataset, Database)
        yield made


@pytest.fixture
def harness(missing: SqlHarness) -> SqlHarness:
    missing.create()
    for text in ("one", "two"):
        missing.add(text)
    return missing


def test_query_reads_and_never_writes(harness: SqlHarness) -> None:
    assert harness.texts() == ["one", "two"]
    with pytest.raises(StepError):
        harness.database.query("DELETE FROM entry")
    with pytest.raises(StepError):
        harness.database.query("SELECT * FROM nothing")
    assert harness.texts() == ["one", "two"]


def test_a_missing_database_cannot_be_queried(missing: SqlHarness) -> None:
    assert missing.database.inspect()["exists"] is False
    with pytest.raises(StepError):
        missing.database.query("SELECT 1")
    assert missing.database.inspect()["exists"] is False, "asking does not create it"


def test_tables_have_columns_and_exact_rows(harness: SqlHarness) -> None:
    harness.execute('CREATE TABLE "odd ""name" (a INTEGER, b INTEGER)')
    assert harness.database.tables() == {
        "entry": {"rows": 2, "columns": ["id", "text"]},
        'odd "name': {"rows": 0, "columns": ["a", "b"]},
    }


def test_rows_beyond_the_budget_are_none(harness: SqlHarness) -> None:
    # Large enough that a count takes more steps than the driver lets pass between two looks at the clock.
    harness.execute(
        "INSERT INTO entry (text) WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300000)"
        " SELECT 'x' FROM n"
    )
    assert harness.database.tables(budget_seconds=0)["entry"] == {"rows": None, "columns": ["id", "text"]}


def test_a_candidate_answers_and_the_live_database_does_not_notice(harness: SqlHarness) -> None:
    dump = harness.dump_of("old")
    live = harness.identity()
    identity = harness.prepare("op", dump)
    for _ in range(2):
        with harness.database.candidate("op", identity) as candidate:
            assert [row[0] for row in candidate.query(harness.rows)] == ["old"]
            assert "text" in candidate.tables(budget_seconds=0)["entry"]["columns"]
            with pytest.raises(StepError):
                candidate.query("SELECT name FROM nowhere")
    assert (harness.identity(), harness.texts()) == (live, ["one", "two"])
    harness.database.swap("op", identity, "op")
    assert (harness.identity(), harness.texts()) == (identity, ["old"])
    with pytest.raises(StepError), harness.database.candidate("op", identity):
        pass  # pragma: no cover


def test_a_snapshot_answers_as_of_its_instant(harness: SqlHarness) -> None:
    dump = harness.folder / "dump"
    with harness.database.freeze_writes(None) as fix:
        harness.add("before")
        finish = fix(dump, [harness.rows], 10)
        harness.add("after")
        assert [row[0] for row in finish().answers[0]] == ["one", "two", "before"]


def test_a_snapshot_answers_as_of_the_moment_that_writers_are_held(harness: SqlHarness) -> None:
    with harness.database.freeze_writes(2) as fix:
        finish = fix(harness.folder / "dump", [harness.rows], 10)
        taken = finish()
        harness.add("after")
    assert [row[0] for row in taken.answers[0]] == ["one", "two"]
    assert taken.tables["entry"] == {"rows": 2, "columns": ["id", "text"]}
