"""A backup that verifies can be restored: its databases are loaded beside the live ones, once or when asked."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests import kept
from tests.e2e.cli import run, run_json
from tests.site import Site
from tests.stores import PostgresqlStore

# No row can be in another database than its own.
_CANNOT_BE_LOADED = "ALTER TABLE entries ADD CONSTRAINT here_only CHECK (current_database() NOT LIKE 'hf-%')"


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    with kept.site(request.param) as lent:
        lent.config.write_text(lent.config.read_text().replace("prove = false", "prove = true"))
        yield lent


def beside(site: Site) -> list[str]:
    app = site.open()
    try:
        return [token for database in app.context.databases.values() for token in database.tokens()]
    finally:
        app.close()


def test_it_is_loaded_once_and_when_asked_and_nothing_is_left(site: Site) -> None:
    rows, stays = site.store.digest(), beside(site)
    first = run(site, "backup", "create")
    assert first.returncode == 0, first.stderr
    assert "warning" not in first.stderr
    assert (site.state / "proven.json").exists()
    asked = run(site, "backup", "verify", "--load")
    assert asked.returncode == 0, asked.stderr
    assert "load candidate databases of main, compare and drop them: done" in asked.stderr
    assert site.store.digest() == rows
    assert beside(site) == stays


@pytest.fixture
def unloadable() -> Iterator[Site]:
    with kept.site("postgresql") as lent:
        lent.config.write_text(lent.config.read_text().replace("prove = false", "prove = true"))
        store = lent.store
        assert isinstance(store, PostgresqlStore)
        store.execute(_CANNOT_BE_LOADED)
        yield lent


def test_what_cannot_be_loaded_is_told_when_it_is_made(unloadable: Site) -> None:
    site = unloadable
    made = run(site, "backup", "create")
    assert made.returncode == 0, "the backup is made all the same"
    assert "warning: backup" in made.stderr
    assert "cannot be restored: main:" in made.stderr
    assert "here_only" in made.stderr
    asked = run(site, "backup", "verify", "--load")
    assert asked.returncode == 9, asked.stderr
    assert "cannot be restored" in asked.stderr
    assert run_json(site, "status")["data"]["operations"] == []
    again = run(site, "backup", "create")
    assert "cannot be restored" in again.stderr, "until it can be"
    store = site.store
    assert isinstance(store, PostgresqlStore)
    store.execute("ALTER TABLE entries DROP CONSTRAINT here_only")
    mended = run(site, "backup", "create")
    assert "cannot be restored" not in mended.stderr
    assert run(site, "backup", "verify", "--load").returncode == 0
    assert beside(site) == []
