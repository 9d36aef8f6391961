"""Restores of backups that were made while a service added records to a database, a folder and a search index."""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from holdfast.application.application import App
from holdfast.config.load import load
from holdfast.operations import backup, install, restore
from holdfast.system.host import Host
from holdfast.system.processes import end_processes_with
from holdfast.wiring import open_app
from tests.proof import patience
from tests.proof.plugin import selection_of
from tests.search_store import SETTINGS
from tests.servers import search
from tests.servers.search import SearchServer

pytestmark = pytest.mark.faults

ROUNDS = 30
SAMPLE_ROUNDS = 2
WRITER = Path(__file__).parent / "writers" / "records.py"
ALIAS = "records"

CONFIGURATION = """
[application]
name = "records"
environment = "production"
state = "{folder}/state"

[source]
repository = "{folder}/repo"

[services.writer]
command = ["{python}", "{writer}", "write", "{database}", "{media}", "{url}", "records", "{pause}"]
settle_seconds = 0.05

[databases.main]
kind = "sqlite"
path = "shared/main.sqlite3"

[files.media]
path = "shared/media"

[indices.search]
kind = "elasticsearch"
name = "records"
url = "{url}"
content = "snapshot"
repository_type = "fs"
repository_settings = {{ location = "{snapshots}" }}
rebuild = ["{python}", "{writer}", "build", "{database}", "{media}", "{url}", "{{index}}", "{pause}"]

[vaults.local]
path = "{folder}/vault"

[backup]
references = {{ database = "main", files = "media", query = "SELECT file, sha256 FROM records" }}
"""


class Records:
    """The application, and what its three stores have."""

    def __init__(self, app: App, server: SearchServer, shared: Path) -> None:
        self.app = app
        self._server = server
        self._shared = shared

    def rows(self) -> dict[int, tuple[str, str]]:
        with contextlib.closing(sqlite3.connect(self._shared / "main.sqlite3", timeout=patience.limit(30))) as database:
            return {id: (file, sha256) for id, file, sha256 in database.execute("SELECT * FROM records ORDER BY id")}

    def files(self) -> dict[str, str]:
        found = [path for path in (self._shared / "media").iterdir() if path.is_file()]
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in found}

    def indexed(self) -> list[str]:
        return self._server.texts(ALIAS)

    def builds(self) -> int:
        """How many times the index was built from the rows."""
        noted = self._shared / "pause.builds"
        return len(noted.read_text().splitlines()) if noted.exists() else 0

    def write(self) -> None:
        """Let the service add some records."""
        self._pause.unlink(missing_ok=True)
        before = len(self.rows())
        patience.until(lambda: len(self.rows()) > before + 5)

    def pause(self) -> None:
        self._pause.touch()

    @property
    def _pause(self) -> Path:
        return self._shared / "pause"


@pytest.fixture
def records(disk_folder: Path) -> Iterator[Records]:
    """The application, installed, with its service running."""
    server = search.shared()
    server.clear()
    server.ask("PUT", f"/{ALIAS}_v1", {**SETTINGS, "aliases": {ALIAS: {}}})
    folder, host = disk_folder, Host()
    repository, shared = folder / "repo", folder / "app" / "shared"
    repository.mkdir()
    git = ["git", "-C", str(repository), "-c", "user.name=Records", "-c", "user.email=records@example.invalid"]
    host.capture([*git, "init", "--quiet"])
    (repository / "README").write_text("nothing but data\n")
    host.capture([*git, "add", "--all"])
    host.capture([*git, "commit", "--quiet", "--message", "v1"])
    host.capture([*git, "tag", "v1"])
    (shared / "media").mkdir(parents=True)
    with contextlib.closing(sqlite3.connect(shared / "main.sqlite3")) as database:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("CREATE TABLE records (id INTEGER PRIMARY KEY, file TEXT NOT NULL, sha256 TEXT NOT NULL)")
        database.commit()
    (folder / "app" / "holdfast.toml").write_text(
        CONFIGURATION.format(
            folder=folder,
            python=sys.executable,
            writer=WRITER,
            database=shared / "main.sqlite3",
            media=shared / "media",
            pause=shared / "pause",
            url=server.url,
            snapshots=server.folder / "snapshots" / "records",
        )
    )
    app = open_app(load(str(folder / "app")))
    try:
        app.run(install.plan(app, "v1"))
        yield Records(app, server, shared)
    finally:
        end_processes_with(f"HOLDFAST_INSTANCE=records.production@{folder}/state", grace_seconds=0, wait_seconds=10)
        app.close()


@pytest.mark.parametrize("level", ["live", "quiesce"])
def test_three_stores_agree_after_each_restore(
    records: Records, level: str, request: pytest.FixtureRequest, record_property: Callable[[str, object], None]
) -> None:
    app = records.app
    rounds = ROUNDS if selection_of(request.config).level == "everything" else SAMPLE_ROUNDS
    for _ in range(rounds):
        records.write()
        made = app.run(backup.plan(app, consistency=level))
        records.write()  # an index that is left as it is has these too
        records.pause()
        later = records.rows()
        app.run(restore.plan(app, made.facts["set_id"], safety=False))
        rows, files = records.rows(), records.files()
        assert rows != later
        for file, sha256 in rows.values():
            assert files.get(file) == sha256, f"{file} is named by the database and not there"
        assert records.indexed() == [sha256 for _, sha256 in rows.values()]
        if level == "quiesce":
            assert len(files) == len(rows), "with everything stopped, no file is without its row"
    assert records.builds() == (0 if level == "quiesce" else rounds)
    record_property("stores agree", f"{level}: {rounds} restores, {len(rows)} records at the end")
