"""The commands and the SQL of docs/howto/files-of-a-backup.md, run as they stand there."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from tests import kept
from tests.e2e.cli import run_json, succeed
from tests.proof import patience
from tests.servers import mariadb, postgresql
from tests.site import Site
from tests.stores import MariadbStore, PostgresqlStore

PAGE = (Path(__file__).parents[2] / "docs" / "howto" / "files-of-a-backup.md").read_text()
_LATER = "2026-11-20-082512"
_TARGET = "/tmp/from-the-backup"
_FILES = ("2026/harbour.jpg", "2026/05/boat.jpg", "2026/05/quay.jpg")


def commands() -> list[list[str]]:
    """The arguments of every command on the page, without those about databases."""
    lines = "\n".join(re.findall(r"```sh\n(.*?)```", PAGE, re.S)).splitlines()
    found = [shlex.split(line.removeprefix("holdfast ")) for line in lines if line.startswith("holdfast backup ")]
    assert len(found) == len([*filter(None, lines)])
    return [command for command in found if "--into" not in command]


def test_the_commands_of_the_page_find_and_bring_back_files(folder: Path) -> None:
    with kept.site() as site:
        for name in _FILES:
            (site.media / name).parent.mkdir(parents=True, exist_ok=True)
            (site.media / name).write_text(f"of the backup: {name}")
        site.operate("backup")
        id = run_json(site, "backup", "list")["data"]["backups"][-1]["id"]
        printed = {}
        assert len(commands()) == 9
        for command in commands():
            shutil.rmtree(site.media / "2026", ignore_errors=True)
            words = [word.replace(_LATER, id).replace(_TARGET, str(folder / "out")) for word in command]
            printed[tuple(command)] = succeed(site, *words)
            if command[1] != "restore":
                continue
            root = folder / "out" / "media" if "--to" in command else site.media
            back = {str(path.relative_to(root)) for path in root.rglob("*.jpg")}
            assert back == ({_FILES[0]} if command.count("--path") == 1 and "--to" not in command else {*_FILES})
            assert all((root / name).read_text() == f"of the backup: {name}" for name in back)
        heading = "BACKUP             BACKUPS  CONTENT         SIZE  MODIFIED (UTC)       PATH"
        assert heading in PAGE and printed["backup", "find", "harbour.jpg"].startswith(heading)
        assert all(name in printed["backup", "files", "latest", "media/2026", "--recursive"] for name in _FILES)
        assert "5 removed in files" in printed["backup", "diff", "latest"]


def rows_back(site: Site, name: str) -> None:
    """Lose rows, load the backup under a name by the page's command, and copy the rows by the page's SQL."""
    kind = "postgresql" if isinstance(site.store, PostgresqlStore) else ""
    kind = kind or ("mariadb" if isinstance(site.store, MariadbStore) else "sqlite")
    site.operate("backup")
    before = site.store.digest()
    site.store.execute("DELETE FROM entries WHERE id < 20")
    assert site.store.digest() != before
    [command] = [line for line in PAGE.splitlines() if line.startswith("holdfast") and "--into guestbook_look" in line]
    words = shlex.split(command.replace("guestbook_look", name))[1:]
    succeed(site, *words)
    found = re.search(rf"<!-- rows: {kind} -->\n```sql\n(.*?)```", PAGE, re.S)
    assert found is not None
    script = found[1].replace("guestbook_look", name).replace("/srv/guestbook/look.sqlite3", name)
    if isinstance(site.store, PostgresqlStore):
        place = {
            "PGHOST": site.store.place["HOST"],
            "PGUSER": postgresql.ROLE,
            "PGPORT": str(postgresql.PostgresqlServer.port),
        }
        argv = ["psql", "-X", "-v", "ON_ERROR_STOP=1", site.store.name]
        subprocess.run(
            argv, input=script, text=True, check=True, env={**os.environ, **place}, timeout=patience.limit(60)
        )
    elif isinstance(site.store, MariadbStore):
        site.store.execute(script)
    else:
        with closing(sqlite3.connect(site.database)) as connection:
            connection.executescript(script)
    assert site.store.digest() == before
    assert site.get("/")[1]["entries"] == 120


def test_rows_of_sqlite_come_back(folder: Path) -> None:
    with kept.site() as site:
        rows_back(site, str(site.app_folder / "look.sqlite3"))


@pytest.mark.variant("postgresql")
def test_rows_of_postgresql_come_back() -> None:
    with kept.site("postgresql") as site, postgresql.shared() as server:
        assert isinstance(site.store, PostgresqlStore)
        name = f"{site.store.name}look"
        rows_back(site, name)
        server.run("postgres", f"DROP DATABASE {name}")


@pytest.mark.variant("mariadb")
def test_rows_of_mariadb_come_back() -> None:
    with kept.site("mariadb") as site, mariadb.shared() as server:
        assert isinstance(site.store, MariadbStore)
        name = f"{site.store.name}look"
        server.run("mysql", f"GRANT ALL ON `{name}`.* TO {mariadb.USER}@localhost")
        rows_back(site, name)
        server.run("mysql", f"DROP DATABASE `{name}`")
