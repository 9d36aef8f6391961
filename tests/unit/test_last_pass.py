"""The databases of a safety backup: what happens to one that cannot be dumped."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from holdfast.application.application import App
from holdfast.engine.handlers import StepContext
from holdfast.errors import CommandFailedError, NoSpaceError, StepError
from holdfast.model import Facts, Snapshot
from holdfast.steps import backup, closing, last_pass
from holdfast.steps.closing import CompleteBackup, TidyReplaced
from tests.fakes import FakeDatabase
from tests.unit.applications import do, make_app, make_context

TOLERANT = CompleteBackup(("main",), "before the restore", tolerant=True)


@pytest.fixture
def app(quick_folder: Path) -> Iterator[App]:
    app = make_app(quick_folder)
    app.context.files["media"].root.mkdir(parents=True)
    yield app
    app.close()


def prepared(app: App) -> StepContext:
    """After the commit of a restore: a finished run, the earlier database beside."""
    database = app.context.databases["main"]
    assert isinstance(database, FakeDatabase)
    database.execute("CREATE TABLE entry (id INTEGER)")
    live = database.inspect()["identity"]
    candidate = database.prepare("op1", None, {})
    context, recorded, _ = make_context()
    earlier = {}
    steps = (backup.CopyFiles(("media",), ("main",)), last_pass.TakeLastPass(("media",), "before the restore"))
    for step in steps:
        do(step, app.context, context)
        earlier[step.name] = dict(recorded)
        context.earlier = {**context.earlier, **earlier}
        recorded.clear()
    database.swap("op1", candidate, "op1.replaced")
    context.earlier = {**context.earlier, "database.load": {"databases": {"main": live}, "candidates": {}}}
    return context


def complete(app: App, context: StepContext, step: CompleteBackup) -> dict[str, object]:
    found: dict[str, object] = {}
    context.record = found.update
    do(step, app.context, context)
    return found


def fail(app: App, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def dump(*_: object) -> Snapshot:
        raise error

    monkeypatch.setattr(app.context.databases["main"], "dump", dump)


def no_server() -> Facts:
    raise StepError("no server")


def test_what_was_replaced_comes_into_the_set(app: App) -> None:
    context = prepared(app)
    assert complete(app, context, TOLERANT)["kept"] == []
    assert app.context.vault is not None
    (one,) = app.context.vault.backups()
    assert set(one.datasets) == {"main", "media"}
    assert one.size_bytes == sum(item["size_bytes"] for item in one.datasets.values())


@pytest.mark.parametrize("error", [StepError("malformed"), OSError(errno.EIO, "a bad sector")])
def test_one_that_is_broken_is_kept_also_if_the_step_died_after_the_set_was_listed(
    app: App, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    context = prepared(app)
    app.context.host.redactor.add("sector")
    fail(app, monkeypatch, error)
    for _ in range(2):
        assert complete(app, context, TOLERANT)["kept"] == ["main"]
    assert app.context.vault is not None
    (one,) = app.context.vault.backups()
    assert set(one.datasets) == {"media"} and "could not be dumped" in one.reason
    assert "sector" not in one.reason
    context.earlier = {**context.earlier, "backup.complete": {"kept": ["main"]}}
    do(TidyReplaced(), app.context, context)
    assert app.context.databases["main"].tokens() == ["op1.replaced"]


def test_a_dump_that_was_finished_before_the_step_died_is_not_made_again(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = prepared(app)
    assert app.context.vault is not None
    with monkeypatch.context() as patched:
        patched.setattr(app.context.vault, "publish", lambda run: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            complete(app, context, TOLERANT)
    fail(app, monkeypatch, StepError("malformed"))
    assert complete(app, context, TOLERANT)["kept"] == []
    (one,) = app.context.vault.backups()
    assert one.datasets["main"]["rows"] == {"entry": 0}


@pytest.mark.parametrize(
    "error",
    [CommandFailedError("ended", exit_code_of_command=-15), CommandFailedError("ended", exit_code_of_command=137)],
)
def test_a_failure_that_says_nothing_about_the_database_is_waited_for(
    app: App, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    context = prepared(app)
    with monkeypatch.context() as patched:
        fail(app, patched, error)
        with pytest.raises(CommandFailedError):
            complete(app, context, TOLERANT)
    with monkeypatch.context() as patched:
        fail(app, patched, StepError("no server"))
        patched.setattr(app.context.databases["main"], "inspect", no_server)
        with pytest.raises(StepError, match="no server"):
            complete(app, context, TOLERANT)
    assert complete(app, context, TOLERANT)["kept"] == []


def test_one_that_fails_once_is_in_the_set(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    context = prepared(app)
    database = app.context.databases["main"]
    real, failures = database.dump, [StepError("too many sessions")]

    def dump(*arguments: Any) -> Snapshot:
        if failures:
            raise failures.pop()
        return real(*arguments)

    monkeypatch.setattr(database, "dump", dump)
    assert complete(app, context, TOLERANT)["kept"] == []


def test_one_that_appeared_after_the_plan_is_kept(app: App) -> None:
    context = prepared(app)
    assert complete(app, context, structs.replace(TOLERANT, databases=()))["kept"] == ["main"]


def test_one_that_must_be_dumped_is_waited_for(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    context = prepared(app)
    fail(app, monkeypatch, StepError("gone"))
    with pytest.raises(StepError, match="gone"):
        complete(app, context, structs.replace(TOLERANT, tolerant=False))


def test_a_full_vault_is_waited_for(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    context = prepared(app)
    with monkeypatch.context() as patched:
        fail(app, patched, OSError(errno.ENOSPC, "full"))
        with pytest.raises(NoSpaceError, match="full"):
            complete(app, context, TOLERANT)
        fail(app, patched, StepError("said in words"))
        patched.setattr(closing.durable, "free_bytes", lambda _: 0)
        with pytest.raises(NoSpaceError, match="full"):
            complete(app, context, TOLERANT)
    assert complete(app, context, TOLERANT)["kept"] == []
