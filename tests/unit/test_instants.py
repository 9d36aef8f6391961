"""Which databases share an instant, and what is said of those that do not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from holdfast.app import App
from holdfast.drivers.protocols import Database, FixAll
from holdfast.model import Snapshot
from holdfast.steps import consistency
from tests.fakes import FakeDatabase
from tests.unit.applications import make_app, make_context

NAMES = ("main", "index", "log")


class Sharing(FakeDatabase):
    """One whose server reads several by one transaction; `begun` lists which were read by one."""

    def __init__(self, begun: list[int]) -> None:
        super().__init__()
        self.execute("CREATE TABLE entry (id INTEGER)")
        self.begun = begun

    def hold_with(self, others: Sequence[Database]) -> AbstractContextManager[FixAll] | None:
        databases = [self, *(other for other in others if isinstance(other, Sharing))]
        return self._hold_together(databases) if len(databases) > len(others) else None

    @contextmanager
    def _hold_together(self, databases: Sequence[FakeDatabase]) -> Iterator[FixAll]:
        def fix(orders: Sequence[tuple[Path, Sequence[str]]], budget_seconds: float) -> list[Callable[[], Snapshot]]:
            self.begun.append(len(orders))
            finishes = []
            for database, (target, queries) in zip(databases, orders, strict=True):
                with database.hold(None) as one:
                    finishes.append(one(target, queries, budget_seconds))
            return finishes

        yield fix


@pytest.fixture
def app(quick_folder: Path) -> Iterator[App]:
    app = make_app(quick_folder)
    yield app
    app.close()


def taken(app: App, *databases: FakeDatabase) -> consistency.Instant:
    app.opened.databases = dict(zip(NAMES, databases, strict=True))
    assert app.opened.vault is not None
    context, _, _ = make_context()
    run = app.opened.vault.begin("op1")
    run.folder.mkdir(parents=True, exist_ok=True)
    found = consistency.take(app.opened, run, context, level="live", databases=NAMES, files=(), stored={})
    assert set(found.snapshots) == set(NAMES)
    assert all((run.folder / f"database.{name}.fake").exists() for name in NAMES)
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
