"""The row guard: what vanished between the stop and the start."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from holdfast.errors import StepError
from holdfast.steps import guard
from tests.fakes import FakeDatabase
from tests.unit.applications import do, make_app, make_context

Upgrade = Callable[..., tuple[dict[str, Any], list[str]]]

START = """
CREATE TABLE entry (id INTEGER, text TEXT); INSERT INTO entry VALUES (1, 'one'), (2, 'two'), (3, 'three');
CREATE TABLE session (id INTEGER); INSERT INTO session VALUES (1), (2);
CREATE TABLE nothing_in_it (id INTEGER);
"""


@pytest.fixture
def upgrade(quick_folder: Path) -> Iterator[Upgrade]:
    """Counts, lets a migration change the database, compares; what the comparison recorded and said."""
    application: list[Any] = []

    def run(migration: str, start: str = START, **section: Any) -> tuple[dict[str, Any], list[str]]:
        app = make_app(quick_folder, guard=section)
        application.append(app)
        database = app.context.databases["main"]
        assert isinstance(database, FakeDatabase)
        database.execute(start)
        context, counted, _ = make_context()
        do(guard.CountRows(), app.context, context)
        database.execute(migration)
        context, recorded, said = make_context({"guard.count": counted})
        do(guard.CompareRows(), app.context, context)
        return recorded, said

    yield run
    for app in application:
        app.close()


@pytest.mark.parametrize(
    "migration",
    [
        "SELECT 1",
        "INSERT INTO entry VALUES (4, 'four')",
        "UPDATE entry SET text = ''",
        "DROP TABLE nothing_in_it",
        "CREATE TABLE other (id INTEGER)",
        "ALTER TABLE entry RENAME TO message",
        "ALTER TABLE entry ADD COLUMN mood TEXT",
        "CREATE TABLE message (id INTEGER, text TEXT); INSERT INTO message SELECT * FROM entry; DROP TABLE entry",
    ],
)
def test_what_is_no_loss_passes(upgrade: Upgrade, migration: str) -> None:
    assert upgrade(migration) == ({}, [])


@pytest.mark.parametrize(
    ("migration", "told"),
    [
        ("DELETE FROM entry WHERE id = 3", "main.entry: 3 rows before, 2 after"),
        ("DELETE FROM entry", "main.entry: 3 rows before, 0 after"),
        ("DROP TABLE entry", "main.entry: 3 rows before, the table is gone"),
        ("DROP TABLE entry; CREATE TABLE message (id INTEGER, text TEXT)", "main.entry: 3 rows before, the table is"),
        ("ALTER TABLE entry RENAME TO message; DELETE FROM message WHERE id = 1", "main.entry: 3 rows before"),
        ("ALTER TABLE entry RENAME TO message; ALTER TABLE message RENAME COLUMN text TO body", "main.entry: 3 rows"),
        ("DROP TABLE entry; INSERT INTO session VALUES (3)", "main.entry: 3 rows before, the table is gone"),
    ],
)
def test_rows_that_vanished_stop_the_upgrade(upgrade: Upgrade, migration: str, told: str) -> None:
    with pytest.raises(StepError, match="rows vanished") as caught:
        upgrade(migration)
    assert told in caught.value.what
    assert 'may_shrink = ["entry"]' in caught.value.next_step


def test_an_accepted_shrink_passes_and_another_does_not(upgrade: Upgrade) -> None:
    assert upgrade("DELETE FROM session", may_shrink=["session"]) == ({}, [])


@pytest.mark.parametrize(
    ("migration", "section"),
    [
        ("DELETE FROM session", {"may_shrink": ["sess*"]}),
        ("DELETE FROM entry WHERE id = 3", {"may_lose": {"entry": "34%"}}),
        ("DELETE FROM entry WHERE id = 3", {"count": {"entry": "SELECT count(*) FROM entry WHERE id < 3"}}),
    ],
)
def test_a_pattern_a_share_and_rows_that_do_not_count(
    upgrade: Upgrade, migration: str, section: dict[str, Any]
) -> None:
    assert upgrade(migration, **section) == ({}, [])


@pytest.mark.parametrize(
    ("migration", "section"),
    [
        ("DELETE FROM entry WHERE id = 3", {"may_lose": {"entry": "33%"}}),
        ("DROP TABLE entry", {"may_lose": {"entry": "50%"}}),
        ("DELETE FROM entry WHERE id = 1", {"count": {"entry": "SELECT count(*) FROM entry WHERE id < 3"}}),
    ],
)
def test_more_than_that_is_a_loss(upgrade: Upgrade, migration: str, section: dict[str, Any]) -> None:
    with pytest.raises(StepError, match="rows vanished"):
        upgrade(migration, **section)


def test_a_query_that_counts_nothing_fails_before_the_migration(upgrade: Upgrade) -> None:
    with pytest.raises(StepError, match=r"guard\.count for entry counts nothing"):
        upgrade("SELECT 1", count={"entry": "SELECT text FROM entry"})


def test_a_table_may_shrink_once(quick_folder: Path) -> None:
    app = make_app(quick_folder)
    database = app.context.databases["main"]
    assert isinstance(database, FakeDatabase)
    database.execute(START)
    context, counted, _ = make_context()
    do(guard.CountRows(), app.context, context)
    database.execute("DELETE FROM session")
    context, _, _ = make_context({"guard.count": counted})
    with pytest.raises(StepError) as caught:
        do(guard.CompareRows(), app.context, context)
    assert "--may-shrink session" in (caught.value.next_step or "")
    do(guard.CompareRows(("session",)), app.context, context)
    app.close()


def test_the_line_to_accept_keeps_what_was_accepted_before(upgrade: Upgrade) -> None:
    with pytest.raises(StepError) as caught:
        upgrade("DELETE FROM session; DELETE FROM entry", may_shrink=["session"])
    assert "session:" not in caught.value.what
    assert 'may_shrink = ["entry", "session"]' in caught.value.next_step


def test_every_loss_is_told_at_once(upgrade: Upgrade) -> None:
    with pytest.raises(StepError) as caught:
        upgrade("DELETE FROM session; DROP TABLE entry")
    assert "main.entry" in caught.value.what
    assert "main.session" in caught.value.what


def test_what_was_not_counted_is_a_warning_only(upgrade: Upgrade) -> None:
    recorded, said = upgrade("DELETE FROM entry", budget_seconds=0)
    assert len(recorded["warnings"]) == 3
    assert said == recorded["warnings"]
    assert any("main.entry" in line for line in said)


TWINS = """
CREATE TABLE a (id INTEGER); INSERT INTO a VALUES (1);
CREATE TABLE b (id INTEGER); INSERT INTO b VALUES (2);
"""


def test_a_table_that_was_there_before_is_no_new_name_of_another(upgrade: Upgrade) -> None:
    with pytest.raises(StepError, match=r"main\.b: 1 rows before, the table is gone"):
        upgrade("DROP TABLE b", start=TWINS)


def test_one_new_table_is_the_new_name_of_one_table_only(upgrade: Upgrade) -> None:
    with pytest.raises(StepError, match="the table is gone"):
        upgrade("ALTER TABLE a RENAME TO c; DROP TABLE b", start=TWINS)


def test_several_databases_are_counted_at_the_same_time(quick_folder: Path) -> None:
    app = make_app(quick_folder)
    other = app.context.databases["other"] = FakeDatabase()
    for database in (app.context.databases["main"], other):
        assert isinstance(database, FakeDatabase)
        database.execute(START)
    context, counted, _ = make_context()
    do(guard.CountRows(), app.context, context)
    assert {name: tables["entry"]["rows"] for name, tables in counted["tables"].items()} == {"main": 3, "other": 3}
    other.execute("DELETE FROM entry")
    context, _, _ = make_context({"guard.count": counted})
    with pytest.raises(StepError, match=r"other\.entry: 3 rows before, 0 after"):
        do(guard.CompareRows(), app.context, context)
    app.close()
