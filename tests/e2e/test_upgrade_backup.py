"""The backup of an upgrade: whole before the window, exact after it, and its databases never dumped in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.drivers.databases.sqlite.driver import SqliteDatabase
from holdfast.drivers.vaults.local.vault import LocalVault
from holdfast.engine.records import Owner
from holdfast.errors import InterruptedOperationError, NoSpaceError
from holdfast.model import Backup, Snapshot
from holdfast.operations import recover
from tests import kept
from tests.e2e.cli import run
from tests.site import Site


@pytest.fixture
def installed() -> Iterator[Site]:
    with kept.site() as site:
        yield site


def backups(site: Site) -> list[Backup]:
    app = site.open()
    try:
        assert app.context.vault is not None
        return app.context.vault.backups()
    finally:
        app.close()


def rows(backup: Backup) -> int:
    found = backup.datasets["main"]["rows"]["entries"]
    assert isinstance(found, int)
    return found


def write_after_publication(site: Site, monkeypatch: pytest.MonkeyPatch, *, pin: bool = False) -> None:
    """A visitor writes between the backup before the window and the window; an operator may pin that backup."""
    publish = LocalVault.publish
    published: list[str] = []

    def publish_and_write(self: LocalVault, run: str) -> str:
        published.append(publish(self, run))
        if len(published) == 1:
            assert site.post(b"after the first backup")[0] == 201
            if pin:
                self.pin(published[0], "operator", True)
        return published[-1]

    monkeypatch.setattr(LocalVault, "publish", publish_and_write)


def test_it_is_of_the_moment_when_everything_stood_still(installed: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    before = len(backups(installed))
    count = installed.get("/")[1]["entries"]
    write_after_publication(installed, monkeypatch)
    result = installed.operate("upgrade", "v2")
    (made,) = backups(installed)[before:]
    assert (made.consistency, rows(made), made.id) == ("quiesce", count + 1, result.facts["set_id"])
    assert made.release["label"] == "v1"
    assert run(installed, "backup", "verify").returncode == 0
    done = run(installed, "rollback", "--discard-writes-since", made.instant, "--yes")
    assert done.returncode == 0, done.stderr
    assert installed.get("/") == (200, {"version": "v1", "entries": count + 1})


def test_what_an_operator_pinned_meanwhile_stays(installed: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    before = len(backups(installed))
    write_after_publication(installed, monkeypatch, pin=True)
    installed.operate("upgrade", "v2")
    first, made = backups(installed)[before:]
    assert (first.consistency, first.pinned, made.pinned) == ("live", True, False)
    assert rows(made) == rows(first) + 1


def test_an_undone_upgrade_leaves_the_whole_backup_from_before(installed: Site) -> None:
    before = len(backups(installed))
    assert run(installed, "upgrade", "v3").returncode == 6
    (made,) = backups(installed)[before:]
    assert (made.consistency, made.pinned) == ("live", False)
    assert rows(made) == installed.get("/")[1]["entries"]
    assert list((installed.vault / "tmp").iterdir()) == []


def test_a_recent_backup_saves_the_dump_before_the_window(installed: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(installed, "backup", "create").returncode == 0
    before = len(backups(installed))
    dumped: list[str] = []
    dump = SqliteDatabase.dump

    def count(self: SqliteDatabase, token: str, target: Path, *rest: float) -> Snapshot:
        dumped.append(token)
        return dump(self, token, target, *rest)

    monkeypatch.setattr(SqliteDatabase, "dump", count)
    result = installed.operate("upgrade", "v2")
    (made,) = backups(installed)[before:]
    assert (made.consistency, made.id, len(dumped)) == ("quiesce", result.facts["set_id"], 1)
    assert run(installed, "backup", "verify").returncode == 0
    assert run(installed, "upgrade", "v3").returncode == 6
    assert len(backups(installed)) == before + 1, "the undone upgrade left no backup of its own"
    assert list((installed.vault / "tmp").iterdir()) == []


def test_a_dump_that_fails_after_the_commit_is_made_by_recover(
    installed: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    dump = SqliteDatabase.dump

    def no_space(self: SqliteDatabase, token: str, target: Path, budget_seconds: float) -> Snapshot:
        target.write_bytes(b"a part of it")
        raise NoSpaceError("the vault is full")

    before = len(backups(installed))
    monkeypatch.setattr(SqliteDatabase, "dump", no_space)
    with pytest.raises(InterruptedOperationError, match="after the commit"):
        installed.operate("upgrade", "v2")
    assert installed.get("/")[1]["version"] == "v2", "visitors are served"
    monkeypatch.setattr(SqliteDatabase, "dump", dump)
    monkeypatch.setattr(Owner, "alive", lambda self: False)  # as if its process had ended with the error
    recover.recover(installed.state)
    (made,) = backups(installed)[before:]
    assert made.consistency == "quiesce" and rows(made) == installed.get("/")[1]["entries"]
    assert run(installed, "backup", "verify").returncode == 0


def test_files_that_are_missing_already_stop_no_upgrade(installed: Site) -> None:
    missing = sorted(installed.media.rglob("*.bin"))[0]
    missing.unlink()
    assert run(installed, "backup", "create", "--consistency", "live").returncode == 6, "a backup says so"
    before = len(backups(installed))
    done = run(installed, "upgrade", "v2")
    assert done.returncode == 0, done.stderr
    assert "1 files that the database names are not in the backup" in done.stdout + done.stderr
    assert [made.consistency for made in backups(installed)[before:]] == ["quiesce"]
