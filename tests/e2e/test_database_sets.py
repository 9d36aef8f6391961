"""Databases that rows of another one name, on MariaDB: found at each command, of one instant, restored as a set."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import kept
from tests.e2e.cli import run, run_json
from tests.servers import mariadb
from tests.site import Site
from tests.stores import MariadbStore


class BoxSite:
    """A guestbook whose table `sbas` names databases with a table of their own."""

    def __init__(self, site: Site) -> None:
        assert isinstance(site.store, MariadbStore)
        self.site = site
        self.store = site.store
        self.made: list[str] = []
        self.store.execute("CREATE TABLE sbas (dbname VARCHAR(64) PRIMARY KEY)")
        text = site.config.read_text()
        line = f'name = "{self.store.name}"\n'
        assert line in text
        site.config.write_text(text.replace(line, f'{line}discover = "SELECT dbname FROM sbas"\n'))

    def add(self, label: str) -> str:
        name = f"{self.store.name}{label}"
        with self.store.shared() as server:
            server.create_if_missing(name)
        self.made.append(name)
        self.run(name, "CREATE TABLE record (id INTEGER PRIMARY KEY, title VARCHAR(99))")
        self.store.execute(f"INSERT INTO sbas VALUES ('{name}')")
        return name

    def run(self, name: str, sql: str) -> str:
        with self.store.shared() as server:
            return str(server.run(name, sql, user=mariadb.USER))

    def remove(self) -> None:
        with self.store.shared() as server:
            for name in self.made:
                server.run("mysql", f"DROP DATABASE IF EXISTS `{name}`")

    def datasets(self) -> set[str]:
        return set(run_json(self.site, "backup", "list")["data"]["backups"][-1]["datasets"])


@pytest.fixture
def boxes() -> Iterator[BoxSite]:
    with kept.site("mariadb") as site:
        made = BoxSite(site)
        try:
            yield made
        finally:
            made.remove()


def test_one_plain_dump_of_each_database_as_it_is_now(boxes: BoxSite, folder: Path) -> None:
    first, second = boxes.add("box1"), boxes.add("box2")
    boxes.run(second, "INSERT INTO record VALUES (1, 'now')")
    export = ("backup", "export", "--databases", "--unsanitized", "--reason", "a test", str(folder / "away"))
    done = run(boxes.site, *export)
    assert done.returncode == 0, done.stderr
    (away,) = (folder / "away").iterdir()
    dumps = {f"database.{name}.sql" for name in ("main", f"main-{first}", f"main-{second}")}
    assert {path.name for path in away.iterdir()} == {*dumps, "manifest.json", "SHA256SUMS"}
    subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=away, check=True, capture_output=True)
    boxes.run(second, "DROP TABLE record")
    boxes.run(second, (away / f"database.main-{second}.sql").read_text())
    assert boxes.run(second, "SELECT title FROM record") == "now"
    listed = len(run_json(boxes.site, "backup", "list")["data"]["backups"])
    refused = run(boxes.site, *export[:-1], str(boxes.site.vault / "inside"))
    assert refused.returncode == 4 and "is inside the vault" in refused.stderr
    assert len(run_json(boxes.site, "backup", "list")["data"]["backups"]) == listed
    assert run(boxes.site, *export, "--only", "main").returncode == 2


def test_a_new_database_is_in_the_next_backup_and_the_set_goes_back_together(boxes: BoxSite) -> None:
    first = boxes.add("box1")
    assert run(boxes.site, "backup", "create").returncode == 0
    assert boxes.datasets() == {"main", "media", f"main-{first}"}
    second = boxes.add("box2")
    boxes.run(first, "INSERT INTO record VALUES (1, 'kept')")
    done = run(boxes.site, "backup", "create", "--consistency", "live")
    assert done.returncode == 0, done.stderr
    assert boxes.datasets() == {"main", "media", f"main-{first}", f"main-{second}"}
    found = run_json(boxes.site, "backup", "list")["data"]["backups"][-1]
    assert found["instants_apart_seconds"] == 0
    boxes.run(first, "DELETE FROM record")
    boxes.run(second, "INSERT INTO record VALUES (1, 'later')")
    done = run(boxes.site, "backup", "restore", "latest", "--yes")
    assert done.returncode == 0, done.stderr
    assert boxes.run(first, "SELECT title FROM record") == "kept"
    assert boxes.run(second, "SELECT COUNT(*) FROM record") == "0"
    _an_upgrade_that_fails_puts_the_set_back(boxes, first)
    _one_that_vanished_is_reported_and_comes_back(boxes, second)


def _an_upgrade_that_fails_puts_the_set_back(boxes: BoxSite, name: str) -> None:
    config = boxes.site.config
    before = config.read_text()
    socket = boxes.store.place["HOST"]
    client = f"mariadb --no-defaults --socket={socket} --user={mariadb.USER} {name} -e 'DELETE FROM record'; exit 3"
    line = 'migrate = ["python3", "manage.py", "migrate"]'
    assert line in before
    config.write_text(before.replace(line, f'migrate = ["sh", "-c", "{client}"]'))
    done = run(boxes.site, "upgrade", "v2")
    assert done.returncode == 6, done.stderr
    assert boxes.run(name, "SELECT title FROM record") == "kept"
    config.write_text(before)


def _one_that_vanished_is_reported_and_comes_back(boxes: BoxSite, name: str) -> None:
    last = run_json(boxes.site, "backup", "list")["data"]["backups"][-1]["id"]
    boxes.store.execute(f"DELETE FROM sbas WHERE dbname = '{name}'")
    with boxes.store.shared() as server:
        server.run("mysql", f"DROP DATABASE `{name}`")
    done = run(boxes.site, "backup", "create")
    assert done.returncode == 0, done.stderr
    assert f"Database {name} is not named any more by main; {last} is the last backup with it." in done.stderr
    assert f"main-{name}" not in boxes.datasets()
    done = run(boxes.site, "backup", "restore", last, "--yes")
    assert done.returncode == 0, done.stderr
    assert boxes.run(name, "SELECT title FROM record") == "later", "the last backup is that of the replaced data"


def test_without_an_answer_no_backup_is_made(boxes: BoxSite) -> None:
    boxes.store.execute("DROP TABLE sbas")
    done = run(boxes.site, "backup", "create")
    assert done.returncode == 4, done.stderr
    assert "its other databases are not known now" in done.stderr
    assert run(boxes.site, "status").returncode == 0


def test_a_name_from_data_is_not_trusted(boxes: BoxSite) -> None:
    boxes.store.execute("INSERT INTO sbas VALUES ('a`; DROP DATABASE x')")
    done = run(boxes.site, "backup", "create")
    assert done.returncode == 4, done.stderr
    assert "is not the name of a database" in done.stderr
