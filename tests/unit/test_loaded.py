"""What a loaded database is asked while the live one serves, and what has to wait until it is in place."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from holdfast.application.application import App
from holdfast.engine.handlers import StepContext
from holdfast.errors import RefusedError, StepError
from holdfast.model import Facts, Release
from holdfast.operations import parts
from holdfast.steps import migrations
from holdfast.steps.loaded import CheckLoadedMigrations, CheckReferences
from holdfast.steps.migrate import CheckMigrations
from tests.fakes import FakeDatabase, FakeFiles
from tests.unit.applications import do, make_app, make_backup, make_context

_FILES = {"kind": "files", "applied": "SELECT name FROM done", "shipped": "migrations/*"}


@pytest.fixture
def made(quick_folder: Path) -> Iterator[Callable[..., App]]:
    apps: list[App] = []

    def make(**section: Any) -> App:
        apps.append(make_app(quick_folder, migrations=section))
        return apps[-1]

    yield make
    for app in apps:
        app.close()


def release_at(folder: Path, *names: str) -> Release:
    for name in names:
        (folder / "r1" / "migrations").mkdir(parents=True, exist_ok=True)
        (folder / "r1" / "migrations" / name).touch()
    return Release("r1", "p1", "v1", "c1", str(folder / "r1"), "2026-01-01T00:00:00Z", "op1")


def candidate_with(app: App, *statements: str) -> FakeDatabase:
    """Let a candidate stand beside the live database, in which these statements were run."""
    database = app.context.databases["main"]
    assert isinstance(database, FakeDatabase)
    other = FakeDatabase()
    for statement in statements or ("CREATE TABLE other (a)",):
        other.execute(statement)
    assert other.live is not None
    database.beside["op1"] = ("wanted", other.live[1])
    return database


def asked() -> tuple[StepContext, Facts, list[str]]:
    return make_context({"database.import": {"candidates": {"main": "wanted"}, "databases": {"main": None}}})


def test_a_candidate_is_asked_and_not_the_live_database(made: Callable[..., App], quick_folder: Path) -> None:
    app = made(**_FILES)
    database = candidate_with(app, "CREATE TABLE done (name)", "INSERT INTO done VALUES ('0001'), ('0002')")
    database.execute("CREATE TABLE done (name); INSERT INTO done VALUES ('0001')")
    context, recorded, _ = asked()
    with pytest.raises(RefusedError, match="it does not know 0002"):
        do(CheckLoadedMigrations(release_at(quick_folder, "0001")), app.context, context)
    assert not recorded
    context, recorded, _ = asked()
    do(CheckLoadedMigrations(release_at(quick_folder, "0001", "0002")), app.context, context)
    assert recorded == {"verified": ["main"]}


def test_what_may_be_a_view_waits_for_the_swap(made: Callable[..., App], quick_folder: Path) -> None:
    app = made(**_FILES)
    database = candidate_with(app)
    database.candidate_has_views = False
    context, recorded, said = asked()
    do(CheckLoadedMigrations(release_at(quick_folder, "0001")), app.context, context)
    assert not recorded
    assert "compared after the swap" in said[0]
    checks = parts.check_loaded(app, release_at(quick_folder))
    assert [step.name for step in (*checks.before, *checks.after)] == ["migrations.check_loaded", "migrations.check"]
    assert "view" in checks.notes[0]


def test_a_command_that_fails_with_the_live_database_waits_for_the_swap(
    made: Callable[..., App], quick_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An import may be the way to repair a live database with which the application cannot start."""
    app = made(kind="django")
    candidate_with(app, "CREATE TABLE django_migrations (app, name)", "INSERT INTO django_migrations VALUES ('a', '1')")
    release = release_at(quick_folder)

    def fails(*_: object) -> None:
        raise StepError("manage.py cannot connect")

    monkeypatch.setattr(migrations.tasks, "invoke", fails)
    context, recorded, said = asked()
    do(CheckLoadedMigrations(release), app.context, context)
    assert not recorded
    assert "manage.py cannot connect" in said[0]
    assert [step.name for step in parts.check_loaded(app, release).after] == ["migrations.check"]
    monkeypatch.setattr(migrations, "shipped", lambda *_: ["b.1"])
    with pytest.raises(RefusedError, match=r"it does not know a\.1"):
        do(CheckLoadedMigrations(release), app.context, context)


def test_the_release_of_the_set_itself_is_not_compared(made: Callable[..., App], quick_folder: Path) -> None:
    app = made(**_FILES)
    release, backup = release_at(quick_folder), make_backup(1, "2026-01-01T00:00:00Z")
    assert [step.name for step in parts.check_loaded(app, release, backup).before] == ["migrations.check_loaded"]
    backup.release["commit"] = release.commit
    assert parts.check_loaded(app, release, backup) == parts.MigrationChecks()


def test_what_was_compared_before_is_not_compared_again(made: Callable[..., App], quick_folder: Path) -> None:
    app = made(kind="django")
    context, _, _ = asked()
    context.earlier = {"migrations.check_loaded": {"verified": ["main"]}}
    do(CheckMigrations(release_at(quick_folder), "maintenance"), app.context, context)


def test_files_that_a_loaded_database_names_and_nobody_has_are_noted(quick_folder: Path) -> None:
    references = {"database": "main", "files": "media", "query": "SELECT path FROM done"}
    app = make_app(quick_folder, backup={"references": references})
    files = app.context.files["media"]
    assert isinstance(files, FakeFiles)
    (files.root / "album").mkdir(parents=True)
    (files.root / "album" / "there").write_bytes(b"x")
    candidate_with(app, "CREATE TABLE done (path)", "INSERT INTO done VALUES ('album/there'), ('gone'), ('album')")
    context, recorded, said = asked()
    do(CheckReferences(), app.context, context)
    assert recorded == {"warnings": ["2 files that the candidate database names are not in media, for example album"]}
    assert "holdfast import files SOURCE --into media" in said[0]
    candidate_with(app, "CREATE TABLE other (path)")
    context, recorded, said = asked()
    do(CheckReferences(), app.context, context)
    assert not recorded
    assert "could not be listed" in said[0]
    app.close()
