"""A vault that is not on this machine: everything goes through its streams, from the first backup to a restore."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from holdfast.errors import OperationFailedError
from tests import kept
from tests.contract.memory_vault import MemoryVault
from tests.site import Site


class Elsewhere:
    """A site whose backups go into a vault in the memory of this process."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.vault = MemoryVault()

    def operate(self, name: str, *arguments: Any, **options: Any) -> Any:
        app = self.site.open()
        app.context.vault = self.vault
        try:
            return app.run(self.site.plan(app, name, *arguments, **options), wait_seconds=5)
        finally:
            app.close()

    def ids(self) -> list[str]:
        return [backup.id for backup in self.vault.backups()]

    def copies(self) -> list[Path]:
        """Return the copies of dumps that are left on this machine."""
        folder = self.site.state / "operations"
        return [*folder.glob("*/outgoing/*"), *folder.glob("*/incoming/*")]


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def elsewhere(request: pytest.FixtureRequest) -> Iterator[Elsewhere]:
    with kept.site(request.param) as site:
        yield Elsewhere(site)


def lose_everything(site: Site) -> None:
    """Remove files, code and packages, and change the database."""
    assert site.post(b"written after the backup")[0] == 201
    for path in [
        *site.media.iterdir(),
        *(site.state / "packages").iterdir(),
        *(site.app_folder / "releases").glob("2*"),
    ]:
        if path.name != ".holdfast":
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def test_a_restore_brings_back_what_a_backup_took(elsewhere: Elsewhere) -> None:
    site = elsewhere.site
    kept_here = sorted(path.name for path in (site.vault / "backups").iterdir())
    elsewhere.operate("backup")
    before, (wanted,) = site.fingerprint(), elsewhere.ids()
    assert elsewhere.vault.open_set(wanted).manifest.files.keys() > {"code.tar.zst", "code.json", "config.tar.zst"}
    lose_everything(site)
    elsewhere.operate("restore", wanted)
    assert site.fingerprint() == before
    assert site.get("/")[0] == 200
    assert [backup.safety for backup in elsewhere.vault.backups()] == [False, True]
    assert elsewhere.vault.verify(None, lambda *_: None, lambda: None) == []
    assert elsewhere.copies() == []
    assert sorted(path.name for path in (site.vault / "backups").iterdir()) == kept_here, "the other vault is not used"


def test_an_upgrade_that_fails_brings_back_the_files_of_its_own_backup(elsewhere: Elsewhere) -> None:
    site = elsewhere.site
    before = site.fingerprint()
    with pytest.raises(OperationFailedError):
        elsewhere.operate("upgrade", "v3")
    assert (site.fingerprint(), site.release_label()) == (before, "v1")
    elsewhere.operate("upgrade", "v2")
    assert site.release_label() == "v2"
    assert elsewhere.copies() == []


def test_an_export_and_a_prune_need_no_folder_either(elsewhere: Elsewhere, tmp_path: Path) -> None:
    for _ in range(5):
        elsewhere.operate("backup")
    (tmp_path / "away").mkdir()
    elsewhere.operate("export", elsewhere.ids()[-1], str(tmp_path / "away"))
    away = tmp_path / "away" / elsewhere.ids()[-1]
    assert json.loads((away / "manifest.json").read_bytes())["id"] == away.name
    assert {path.name.partition(".")[0] for path in away.iterdir()} >= {"database", "media", "code", "config"}
    elsewhere.operate("prune")
    assert len(elsewhere.ids()) == 3
