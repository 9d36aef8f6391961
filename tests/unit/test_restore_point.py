"""Restore points that are begun before the gate closes: what is passed on, and what a failure costs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.application.application import App
from holdfast.errors import CancelledError, StepError
from holdfast.model import Copying
from holdfast.operations import parts, upgrade
from holdfast.steps.restore_point import CreateRestorePoint, PrepareRestorePoint
from tests.fakes import FakeDatabase
from tests.unit.applications import do, make_app, make_context


@pytest.fixture
def app(quick_folder: Path) -> Iterator[App]:
    made = make_app(quick_folder)
    database_of(made).execute("CREATE TABLE entry (id INTEGER)")
    yield made
    made.close()


def database_of(app: App) -> FakeDatabase:
    database = app.context.databases["main"]
    assert isinstance(database, FakeDatabase)
    return database


def test_what_was_done_ahead_is_passed_on(app: App) -> None:
    context, recorded, said = make_context()
    do(PrepareRestorePoint(), app.context, context)
    assert recorded == {"ahead": {"main": {"of": context.operation}}}
    after, _, _ = make_context({"restore_point.prepare": recorded})
    do(CreateRestorePoint(), app.context, after)
    assert database_of(app).prepared_with == [{"of": context.operation}]
    assert said == []


def test_without_the_step_the_whole_copy_is_made(app: App) -> None:
    """As in an operation that an earlier version planned."""
    context, _, _ = make_context()
    do(CreateRestorePoint(), app.context, context)
    assert database_of(app).prepared_with == [{}]


@pytest.mark.parametrize("failure", [StepError("the server has no space"), OSError("no space")])
def test_a_failure_is_said_and_stops_nothing(app: App, failure: Exception) -> None:
    database_of(app).ahead_fails = failure
    context, recorded, said = make_context()
    database_of(app).beside[f"{context.operation}.part"] = ("fake:9", b"")
    do(PrepareRestorePoint(), app.context, context)
    assert recorded == {"ahead": {}}
    assert len(said) == 1 and "main" in said[0] and "no space" in said[0]
    assert database_of(app).beside == {}, "the space of what was begun is free again"


def test_a_stop_on_request_stops(app: App) -> None:
    database_of(app).ahead_fails = CancelledError("stopped on request")
    context, _, _ = make_context()
    with pytest.raises(CancelledError):
        do(PrepareRestorePoint(), app.context, context)


def test_a_database_that_does_not_exist_is_left_out(quick_folder: Path) -> None:
    made = make_app(quick_folder)
    context, recorded, _ = make_context()
    do(PrepareRestorePoint(), made.context, context)
    assert recorded == {"ahead": {}}
    made.close()


def test_the_plan_has_the_step_where_there_is_something_to_do_and_says_what(app: App) -> None:
    assert parts.copy_ahead(app) == [PrepareRestorePoint()]
    assert [note for note in upgrade._restore_points(app) if "Before the window, a spell is prepared." in note]
    database_of(app).how = Copying(made="magic", back="casts another spell", why="it is too small")
    assert parts.copy_ahead(app) == []
    (note,) = upgrade._restore_points(app)
    assert note.startswith("The restore point of main is magic (") and "an undo casts another spell." in note
    assert note.endswith("it is too small.")
