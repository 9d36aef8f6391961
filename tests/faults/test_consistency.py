"""Backups while writers add, replace and delete rows together with their files: each level keeps its promise."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from holdfast.application.application import App
from holdfast.config.load import load
from holdfast.drivers.databases.mariadb import parallel
from holdfast.operations import backup, install
from holdfast.system.host import Host
from holdfast.system.processes import end_processes_with
from holdfast.wiring import open_app
from tests.proof import patience
from tests.proof.plugin import selection_of
from tests.stores import MariadbStore, MysqlStore, PostgresqlStore

pytestmark = pytest.mark.faults

ROUNDS = 50
SAMPLE_ROUNDS = 4  # where kill points are taken in rotation, too
CHURN = Path(__file__).parent / "writers" / "churn.py"

CONFIGURATION = """
[application]
name = "churn"
environment = "production"
state = "{folder}/state"

[source]
repository = "{folder}/repo"

[services.one]
command = ["{python}", "{churn}", "{place}", "{folder}/app/shared/media", "1"]
settle_seconds = 0.05
[services.two]
command = ["{python}", "{churn}", "{place}", "{folder}/app/shared/media", "2"]
settle_seconds = 0.05

[databases.main]
{database}
[files.media]
path = "shared/media"

[vaults.local]
path = "{folder}/vault"

[backup]
references = {{ database = "main", files = "media", query = "SELECT file, sha256 FROM inside UNION ALL \
SELECT file, sha256 FROM outside" }}
keep = {{ last = 2 }}
"""


TABLES = "CREATE TABLE {table} (id {key}, file TEXT NOT NULL UNIQUE, sha256 TEXT NOT NULL)"


@contextlib.contextmanager
def sqlite_place(shared: Path) -> Iterator[dict[str, str]]:
    """What the configuration says of an SQLite database that has the two tables."""
    with contextlib.closing(sqlite3.connect(shared / "main.sqlite3")) as database:
        database.execute("PRAGMA journal_mode=WAL")
        for table in ("inside", "outside"):
            database.execute(TABLES.format(table=table, key="INTEGER PRIMARY KEY"))
        database.commit()
    yield {
        "churn": str(CHURN),
        "place": str(shared / "main.sqlite3"),
        "database": 'kind = "sqlite"\npath = "shared/main.sqlite3"',
    }


@contextlib.contextmanager
def postgresql_place(shared: Path) -> Iterator[dict[str, str]]:
    store = PostgresqlStore.create()
    try:
        for table in ("inside", "outside"):
            store.execute(TABLES.format(table=table, key="SERIAL PRIMARY KEY"))
        yield {
            "churn": str(CHURN.with_name("churn_server.py")),
            "place": store.dsn,
            "database": store.lines,
        }
    finally:
        store.remove()


@contextlib.contextmanager
def mariadb_place(kind: type[MariadbStore]) -> Iterator[dict[str, str]]:
    store = kind.create()
    try:
        for table in ("inside", "outside"):
            store.execute(
                f"CREATE TABLE {table} (id INTEGER PRIMARY KEY AUTO_INCREMENT, file VARCHAR(190) NOT NULL UNIQUE,"
                " sha256 TEXT NOT NULL)"
            )
        yield {"churn": str(CHURN.with_name("churn_server.py")), "place": store.dsn, "database": store.lines}
    finally:
        store.remove()


PLACES = {
    "sqlite": sqlite_place,
    "postgresql": postgresql_place,
    "mariadb": lambda shared: mariadb_place(MariadbStore),
    "mysql": lambda shared: mariadb_place(MysqlStore),
}


@pytest.fixture(
    params=[pytest.param(name, marks=[pytest.mark.variant("mysql")] if name == "mysql" else []) for name in PLACES]
)
def churning(request: pytest.FixtureRequest, disk_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[App]:
    """An application whose two services write all the time, installed and running.

    On a disk: in memory they change more between two looks than `live` bears in its tries.
    """
    folder = disk_folder
    monkeypatch.setattr(parallel, "_LEAST_BYTES", 0)  # two dump programs, as larger databases have
    host = Host()
    repository = folder / "repo"
    repository.mkdir()
    git = ["git", "-C", str(repository), "-c", "user.name=Churn", "-c", "user.email=churn@example.invalid"]
    host.capture([*git, "init", "--quiet"])
    (repository / "README").write_text("nothing but data\n")
    host.capture([*git, "add", "--all"])
    host.capture([*git, "commit", "--quiet", "--message", "v1"])
    host.capture([*git, "tag", "v1"])
    shared = folder / "app" / "shared"
    for name in ("inside", "outside"):
        (shared / "media" / name).mkdir(parents=True)
    with PLACES[request.param](shared) as place:
        (folder / "app" / "holdfast.toml").write_text(
            CONFIGURATION.format(folder=folder, python=sys.executable, **place)
        )
        app = open_app(load(str(folder / "app")))
        try:
            app.run(install.plan(app, "v1"))
            yield app
        finally:
            end_processes_with(f"HOLDFAST_INSTANCE=churn.production@{folder}/state", grace_seconds=0, wait_seconds=10)
            app.close()


def rows_and_files(app: App) -> tuple[dict[str, dict[str, str]], dict[str, str]]:
    """From the newest set: table -> file -> digest, and the digests of the files in the listing."""
    assert app.context.vault is not None
    newest = app.context.vault.backups()[-1]
    source = app.context.vault.open_set(newest.id)
    files = {entry.path: entry.sha256 for entry in source.listing("media") if entry.kind == "file"}
    dumped = source.place_of("")
    assert dumped is not None
    return {table: rows_of(dumped, table) for table in ("inside", "outside")}, files


def rows_of(folder: Path, table: str) -> dict[str, str]:
    """File and digest of a table's rows in a set's dump, read by the engine's own tool."""
    if (folder / "database.main.sqlite3").exists():
        with contextlib.closing(sqlite3.connect(f"file:{folder}/database.main.sqlite3?immutable=1", uri=True)) as found:
            return dict(found.execute(f"SELECT file, sha256 FROM {table}").fetchall())
    if (folder / "database.main.sql.zst").exists():
        text = subprocess.run(
            ["zstd", "-dcq", str(folder / "database.main.sql.zst")], capture_output=True, text=True, check=True
        ).stdout
        pieces = re.findall(rf"^INSERT INTO `{table}` VALUES\s(.*?);$", text, re.MULTILINE | re.DOTALL)
        return dict(re.findall(r"\(\d+,'([^']+)','([^']+)'\)", "\n".join(pieces)))
    text = subprocess.run(
        ["pg_restore", "--data-only", "--table", table, "--file", "-", str(folder / "database.main.dump")],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    rows = text.partition(f"COPY public.{table} (id, file, sha256) FROM stdin;\n")[2].partition("\\.\n")[0]
    return {line.split("\t")[1]: line.split("\t")[2] for line in rows.splitlines()}


def _sampled(config: pytest.Config) -> bool:
    return selection_of(config).level != "everything"


def check(level: str, tables: dict[str, dict[str, str]], files: dict[str, str]) -> None:
    if level in ("pause", "quiesce"):
        inside = {path: digest for path, digest in files.items() if path.startswith("inside/")}
        assert inside == tables["inside"], "rows and files changed within one transaction disagree"
    if level == "quiesce":
        outside = {path: digest for path, digest in files.items() if path.startswith("outside/")}
        assert outside == tables["outside"], "with everything stopped, rows and files disagree"
    if level == "live":
        for table in tables.values():
            for path, digest in table.items():
                assert files.get(path) == digest, f"{path} is named by the database and not in the set"


@pytest.mark.parametrize("level", ["live", "pause", "quiesce"])
def test_each_level_keeps_its_promise(
    churning: App, level: str, request: pytest.FixtureRequest, record_property: Callable[[str, object], None]
) -> None:
    held = []
    engine = churning.context.databases["main"].kind
    rounds = SAMPLE_ROUNDS if _sampled(request.config) else ROUNDS
    shared = churning.loaded.root / "shared"
    noted = [shared / f"longest-{seed}" for seed in (1, 2)]
    deadline = patience.deadline(120)
    while not all(path.exists() for path in noted):  # before that a set would have nothing in it that can be torn
        assert time.monotonic() < deadline, "the writers do not write"
        time.sleep(0.05)
    for number in range(rounds):
        result = churning.run(backup.plan(churning, consistency=level))
        step = next(step for step in churning.journal.steps(result.operation) if step.name == "backup.finish")
        held.append(step.facts["writer_held_seconds"])
        tables, files = rows_and_files(churning)
        check(level, tables, files)
        if number % 5 == 4:
            from holdfast.operations import prune

            churning.run(prune.plan(churning))
    assert churning.context.vault is not None
    assert churning.context.vault.verify(None, lambda *_: None, lambda: None) == []
    waited = max(float(path.read_text()) for path in noted)
    record_property(
        "writers held",
        f"{engine}, {level}, {rounds} rounds: by Holdfast at most {max(held) * 1000:.0f} ms; a writer waited at most"
        f" {waited * 1000:.0f} ms ({len(tables['inside'])} + {len(tables['outside'])} rows at the end)",
    )


def test_the_churn_really_disagrees_without_a_level(folder: Path) -> None:
    """The test above can fail: copying files and database one after the other without any care is found out."""
    shared = folder / "shared"
    for name in ("inside", "outside"):
        (shared / "media" / name).mkdir(parents=True)
    with contextlib.closing(sqlite3.connect(shared / "main.sqlite3")) as database:
        database.execute("PRAGMA journal_mode=WAL")
        for table in ("inside", "outside"):
            database.execute(
                f"CREATE TABLE {table} (id INTEGER PRIMARY KEY, file TEXT NOT NULL UNIQUE, sha256 TEXT NOT NULL)"
            )
        database.commit()
    writer = subprocess.Popen([sys.executable, str(CHURN), str(shared / "main.sqlite3"), str(shared / "media"), "1"])
    try:
        disagreements = 0
        for _ in range(3000):
            if disagreements:
                break
            with contextlib.closing(sqlite3.connect(shared / "main.sqlite3", timeout=patience.limit(30))) as database:
                rows = dict(database.execute("SELECT file, sha256 FROM inside").fetchall())
            found = {}
            for name in os.listdir(shared / "media" / "inside"):
                with contextlib.suppress(FileNotFoundError):
                    found[f"inside/{name}"] = hashlib.sha256(
                        (shared / "media" / "inside" / name).read_bytes()
                    ).hexdigest()
            disagreements += found != rows
        assert disagreements > 0
    finally:
        writer.terminate()
        writer.wait(patience.limit(10))
