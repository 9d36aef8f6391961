"""Which databases share an instant, and what is said of those that do not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from holdfast.application.application import App
from holdfast.drivers.protocols.datasets import Dataset, JointSnapshotFn, SnapshotFn
from holdfast.model import Snapshot
from holdfast.steps import consistency, vault_files
from tests.fakes import FakeDatabase
from tests.unit.applications import make_app, make_context

NAMES = ("main", "index", "log")


class Sharing(FakeDatabase):
    """One whose server reads several by one transaction; `begun` lists which were read by one."""

    def __init__(self, begun: list[int]) -> None:
        super().__init__()
        self.execute("CREATE TABLE entry (id INTEGER)")
        self.begun = begun

    def joint_snapshot(self, others: Sequence[Dataset]) -> AbstractContextManager[JointSnapshotFn] | None:
        databases = [self, *(other for other in others if isinstance(other, Sharing))]
        return self._hold_together(databases) if len(databases) > len(others) else None

    @contextmanager
    def _hold_together(self, databases: Sequence[FakeDatabase]) -> Iterator[JointSnapshotFn]:
        def fix(orders: Sequence[tuple[Path, Sequence[str]]], budget_seconds: float) -> list[Callable[[], Snapshot]]:
            self.begun.append(len(orders))
            finishes = []
            for database, (target, queries) in zip(databases, orders, strict=True):
                with database.freeze_writes(None) as one:
                    finishes.append(one(target, queries, budget_seconds))
            return finishes

        yield fix


@pytest.fixture
def app(quick_folder: Path) -> Iterator[App]:
    app = make_app(quick_folder)
    yield app
    app.close()


def taken(app: App, *databases: FakeDatabase) -> consistency.Instant:
    app.context.databases = dict(zip(NAMES, databases, strict=True))
    assert app.context.vault is not None
    context, _, _ = make_context()
    run = app.context.vault.begin("op1")
    found = consistency.take(app.context, run, context, level="live", databases=NAMES, files=(), stored={})
    assert set(found.snapshots) == set(NAMES)
    assert all(vault_files.keep_dump(app.context, run, name) for name in NAMES)
    return found


def test_all_of_one_server_are_of_one_instant(app: App) -> None:
    begun: list[int] = []
    assert taken(app, Sharing(begun), Sharing(begun), Sharing(begun)).apart_seconds == 0
    assert begun == [3]


def test_one_of_another_server_is_apart(app: App) -> None:
    begun: list[int] = []
    alone = FakeDatabase()
    alone.execute("CREATE TABLE entry (id INTEGER)")
    assert taken(app, Sharing(begun), alone, Sharing(begun)).apart_seconds > 0
    assert begun == [2]


class Fleeting(FakeDatabase):
    """Names a file that is there from when a backup looks for its instant until just after it."""

    def __init__(self, place: Path) -> None:
        super().__init__()
        self.execute("CREATE TABLE entry (path TEXT); INSERT INTO entry VALUES ('fleeting')")
        self._place = place

    @contextmanager
    def freeze_writes(self, limit_seconds: float | None) -> Iterator[SnapshotFn]:
        self._place.write_bytes(b"here for a moment")
        with super().freeze_writes(limit_seconds) as fix:

            def fix_and_lose(target: Path, queries: Sequence[str], budget_seconds: float) -> Callable[[], Snapshot]:
                found = fix(target, queries, budget_seconds)
                self._place.unlink()
                return found

            yield fix_and_lose


def test_what_is_there_for_a_moment_around_the_instant_is_in_the_set(quick_folder: Path) -> None:
    references = {"database": "main", "files": "media", "query": "SELECT path FROM entry"}
    app = make_app(quick_folder, backup={"references": references})
    media = quick_folder / "shared" / "media"
    media.mkdir(parents=True)
    app.context.databases = {"main": Fleeting(media / "fleeting")}
    assert app.context.vault is not None
    context, _, said = make_context()
    run = app.context.vault.begin("op1")
    run.store_tree(
        "media", app.context.files["media"], keep_vanished=False, check=lambda: None, progress=context.progress
    )
    consistency.take(app.context, run, context, level="live", databases=["main"], files=["media"], stored={})
    assert [entry.path for entry in run.listing("media")] == ["fleeting"]
    assert len(said) == 1, "the first try met it too late"
    app.close()
