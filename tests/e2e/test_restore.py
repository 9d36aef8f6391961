"""`backup restore` in its less common forms, and what a rollback goes by where no migrations are known."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests import kept
from tests.e2e.cli import run, run_json
from tests.proof import patience
from tests.servers import mariadb, postgresql
from tests.site import Site
from tests.standins.visitor import Visitor
from tests.stores import MariadbStore, PostgresqlStore


@pytest.fixture(
    params=[
        "sqlite",
        "postgresql",
        *(pytest.param(name, marks=pytest.mark.variant(name)) for name in ("mariadb", "mysql")),
    ]
)
def installed(request: pytest.FixtureRequest) -> Iterator[Site]:
    with kept.site(request.param) as site:
        yield site


@pytest.fixture
def plain() -> Iterator[Site]:
    with kept.site() as site:
        yield site


def newest(site: Site) -> str:
    return str(run_json(site, "backup", "list")["data"]["backups"][-1]["id"])


def look_into(site: Site, folder: Path, *arguments: str) -> int:
    """Restores under another name by the command line; how many entries are there."""
    store = site.store
    if isinstance(store, PostgresqlStore):
        done = run(site, "backup", "restore", *arguments, "--into", f"{store.name}look")
        assert done.returncode == 0, done.stderr
        with postgresql.shared() as server:
            found = server.run(f"{store.name}look", "SELECT count(*) FROM entries", user=postgresql.ROLE)
            server.run("postgres", f"DROP DATABASE {store.name}look")
        return int(found)
    if isinstance(store, MariadbStore):
        name = f"{store.name}look"
        with store.shared() as server:
            server.run("mysql", f"GRANT ALL ON `{name}`.* TO {mariadb.USER}@localhost")
            done = run(site, "backup", "restore", *arguments, "--into", name)
            assert done.returncode == 0, done.stderr
            found = server.run(name, "SELECT SUM(entries), shout('a') FROM authors", user=mariadb.USER)
            server.run("mysql", f"DROP DATABASE `{name}`")
        return int(found.split("\t")[0])
    done = run(site, "backup", "restore", *arguments, "--into", str(folder / "look.sqlite3"))
    assert done.returncode == 0, done.stderr
    with closing(sqlite3.connect(folder / "look.sqlite3")) as connection:
        return int(connection.execute("SELECT count(*) FROM entries").fetchone()[0])


def test_a_database_is_loaded_beside_to_look_into_it(installed: Site, folder: Path) -> None:
    installed.operate("backup")
    chosen = newest(installed)
    installed.post(b"since the backup")
    before = installed.fingerprint()
    assert look_into(installed, folder, chosen, "--only", "main") == 120
    assert installed.fingerprint() == before
    assert installed.get("/")[1]["entries"] == 121
    app = installed.open()
    assert app.context.databases["main"].tokens() == []
    app.close()


def test_a_name_that_is_taken_or_not_allowed_is_refused(installed: Site) -> None:
    installed.operate("backup")
    before = installed.fingerprint()
    store = installed.store
    taken = store.name if isinstance(store, (PostgresqlStore, MariadbStore)) else str(installed.database)
    done = run(installed, "backup", "restore", "latest", "--into", taken)
    assert done.returncode == 4, done.stderr
    if isinstance(store, MariadbStore):
        done = run(installed, "backup", "restore", "latest", "--into", "nobodysname")
        assert done.returncode == 4 and "GRANT ALL ON `nobodysname`" in done.stderr
    assert run(installed, "backup", "restore", "latest", "latest", "--into", "x").returncode == 2
    assert installed.fingerprint() == before
    app = installed.open()
    assert app.context.databases["main"].tokens() == [] and not app.journal.unfinished()
    app.close()


def test_partial_sets_are_joined_and_their_instants_shown(plain: Site) -> None:
    site = plain
    assert run(site, "backup", "create", "--only", "main").returncode == 0
    rows = newest(site)
    site.post(b"since the rows")
    files_then = {path.name for path in site.media.rglob("*.bin")}
    assert run(site, "backup", "create", "--only", "media").returncode == 0
    media = newest(site)
    next(site.media.rglob("*.bin")).unlink()
    alone = run(site, "backup", "restore", rows, "--dry-run")
    assert "not changed: media" in alone.stdout + alone.stderr
    shown = run(site, "backup", "restore", rows, media, "--dry-run")
    text = shown.stdout + shown.stderr
    assert f"from {rows}" in text and f"from {media}" in text and "different instants" in text
    done = run(site, "backup", "restore", rows, media)
    assert done.returncode == 0, done.stderr
    assert site.get("/")[1]["entries"] == 120
    assert {path.name for path in site.media.rglob("*.bin")} == files_then


def safety_backup(site: Site) -> dict[str, Any]:
    """The newest set, which the last operation made."""
    sets = run_json(site, "backup", "list")["data"]["backups"]
    return dict(run_json(site, "backup", "show", sets[-1]["id"])["data"])


def test_what_is_replaced_is_in_a_safety_backup(installed: Site) -> None:
    site = installed
    assert run(site, "backup", "create").returncode == 0
    first = newest(site)
    site.post(b"written since")
    before = site.fingerprint()
    done = run(site, "backup", "restore", first)
    assert done.returncode == 0, done.stderr
    assert site.get("/")[1]["entries"] == 120
    saved = newest(site)
    assert saved != first
    assert run(site, "backup", "verify").returncode == 0
    done = run(site, "backup", "restore", saved)
    assert done.returncode == 0, done.stderr
    assert site.fingerprint() == before


def test_the_same_words_do_not_bring_back_what_was_just_replaced(plain: Site) -> None:
    run(plain, "backup", "create")
    good = plain.fingerprint()
    with closing(sqlite3.connect(plain.database)) as connection, connection:
        connection.execute("DELETE FROM entries")
    for _ in range(2):
        done = run(plain, "backup", "restore", "latest")
        assert done.returncode == 0, done.stderr
        assert plain.fingerprint() == good
    listed = run(plain, "backup", "list").stdout
    assert listed.count("safety") == 2


@pytest.mark.parametrize("how", ["a page", "all of it"])
def test_a_broken_database_is_restored_over_and_kept(plain: Site, how: str) -> None:
    site = plain
    assert run(site, "backup", "create").returncode == 0
    path = site.database
    whole = path.read_bytes()
    garbage = os.urandom(len(whole) - 4096 if how == "a page" else len(whole))
    site.shut_down()
    path.write_bytes(whole[: len(whole) - len(garbage)] + garbage)
    run(site, "service", "start")
    done = run(site, "backup", "restore", "latest")
    assert done.returncode == 0, done.stderr
    assert "could not be dumped and is kept next to" in done.stdout + done.stderr
    assert site.get("/")[1]["entries"] == 120
    kept = [file for file in path.parent.rglob(path.name) if file != path]
    assert [file.read_bytes()[-len(garbage) :] for file in kept] == [garbage]
    assert run(site, "backup", "verify").returncode == 0
    shown = safety_backup(site)
    assert "main" not in shown["datasets"] and "media" in shown["datasets"], shown
    again = run(site, "backup", "restore", "latest", "--dry-run")
    assert shown["id"] not in again.stdout + again.stderr, "what was replaced is no `latest`"
    assert "main and media go back to" in again.stdout + again.stderr


def test_a_table_of_somebody_else_does_not_stop_a_restore(folder: Path) -> None:
    """What pg_dump may not read stands for what it cannot read."""
    site = Site(folder / "s", engine="postgresql")
    try:
        site.operate("install", "v1")
        assert run(site, "backup", "create").returncode == 0
        assert isinstance(site.store, PostgresqlStore)
        with postgresql.shared() as server:
            server.run(site.store.name, "CREATE TABLE theirs AS SELECT 1 AS a")
        done = run(site, "backup", "restore", "latest")
        assert done.returncode == 0, done.stderr
        assert "could not be dumped and is kept next to" in done.stdout + done.stderr
        assert site.get("/")[1]["entries"] == 120
        app = site.open()
        assert [token.partition(".")[2] for token in app.context.databases["main"].tokens()] == ["replaced"]
        assert not app.journal.unfinished()
        app.close()
    finally:
        site.remove()


def test_quiesce_is_a_consistency(plain: Site) -> None:
    assert run(plain, "backup", "create", "--quiesce").returncode == 0
    assert run_json(plain, "backup", "list")["data"]["backups"][-1]["consistency"] == "quiesce"
    assert run(plain, "backup", "create", "--quiesce", "--consistency", "live").returncode == 2


def test_a_rollback_over_another_schema_is_refused_where_no_migrations_are_known(plain: Site) -> None:
    site = plain
    text = site.config.read_text()
    assert 'kind = "files"' in text
    site.config.write_text(text.replace('kind = "files"', 'kind = "none"'))
    done = run(site, "upgrade", "v2")
    assert done.returncode == 0, done.stderr
    site.post(b"written on v2")
    refused = run(site, "rollback")
    assert refused.returncode == 4
    assert (
        "v1 may not run on the present schema of main. It needs the data as it was at" in refused.stderr
        and "--keep-data" in refused.stderr
    )
    assert "main.entries: 120 rows then, 121 now" in refused.stderr
    done = run(site, "rollback", "--keep-data")
    assert done.returncode == 0, done.stderr
    assert site.get("/")[1] == {"version": "v1", "entries": 121}


def test_a_rollback_over_the_same_schema_asks_where_migrate_ran(plain: Site) -> None:
    site = plain
    for tag in ("v2", "v5", "v6"):
        site.operate("upgrade", tag)
    text = site.config.read_text()
    site.config.write_text(text.replace('kind = "files"', 'kind = "none"'))
    assert run(site, "upgrade", "v6.1").returncode == 0
    site.post(b"written on v6.1")
    refused = run(site, "rollback")
    assert (refused.returncode, "may have changed contents" in refused.stderr) == (4, True)
    done = run(site, "rollback", "--keep-data")
    assert done.returncode == 0, done.stderr
    assert site.get("/")[1] == {"version": "v6", "entries": 121}


@pytest.mark.parametrize("dataset", ["media", "main"])
def test_one_dataset_alone_is_restored_and_the_other_stays(plain: Site, dataset: str) -> None:
    site = plain
    site.operate("backup")
    before = site.store.digest()
    victim = next(path for path in sorted(site.media.rglob("*.bin")))
    content = victim.read_bytes()
    victim.unlink()
    site.post(b"since the backup")
    done = run(site, "backup", "restore", "latest", "--only", dataset)
    assert done.returncode == 0, done.stderr
    assert victim.exists() == (dataset == "media")
    assert (site.store.digest() == before) == (dataset == "main")
    assert dataset == "main" or victim.read_bytes() == content
    assert run(site, "status").returncode == 0


def with_configured_files(site: Site) -> None:
    text = site.config.read_text()
    site.config.write_text(text.replace("[backup]\n", '[backup]\nconfig_files = [".env", "conf"]\n'))
    (site.app_folder / ".env").write_text("PASSWORD=old\n")
    (site.app_folder / ".env").chmod(0o640)
    (site.app_folder / "conf").mkdir()
    (site.app_folder / "conf" / "proxy.conf").write_text("old\n")


def test_configuration_that_is_missing_comes_back_and_nothing_else_is_touched(installed: Site) -> None:
    with_configured_files(installed)
    assert run(installed, "backup", "create").returncode == 0
    (installed.app_folder / ".env").unlink()
    (installed.app_folder / "conf" / "proxy.conf").write_text("new\n")
    done = run(installed, "backup", "restore", "latest", "--yes")
    assert done.returncode == 0, done.stderr
    assert "Missing configuration that comes back: .env" in done.stderr
    assert "not changed: conf/proxy.conf" in done.stderr.replace("holdfast.toml, ", "")
    assert (installed.app_folder / ".env").read_text() == "PASSWORD=old\n"
    assert (installed.app_folder / ".env").stat().st_mode & 0o777 == 0o640
    assert (installed.app_folder / "conf" / "proxy.conf").read_text() == "new\n"


def test_configuration_alone_goes_over_what_is_there_and_keeps_it(installed: Site) -> None:
    with_configured_files(installed)
    assert run(installed, "backup", "create").returncode == 0
    (installed.app_folder / "conf" / "proxy.conf").write_text("new\n")
    pid = installed.open().context.runtime.statuses()
    done = run(installed, "backup", "restore", "latest", "--only", "config", "--yes")
    assert done.returncode == 0, done.stderr
    assert (installed.app_folder / "conf" / "proxy.conf").read_text() == "old\n"
    (kept,) = (installed.app_folder / "conf").glob("proxy.conf.before-*")
    assert kept.read_text() == "new\n"
    assert not list(installed.app_folder.glob("holdfast.toml.before-*")), "what is the same stays"
    assert installed.open().context.runtime.statuses().keys() == pid.keys()
    assert run(installed, "backup", "restore", "latest", "--except", "config", "--yes").returncode == 0


def test_a_damaged_file_of_a_backup_is_found_while_visitors_are_served(plain: Site) -> None:
    """Only what the restore would bring is read; what the tree has already is not asked of the backup."""
    assert run(plain, "backup", "create").returncode == 0
    wanted = newest(plain)
    lost, kept_one = sorted(
        path for path in plain.media.rglob("*") if path.is_file() and ".holdfast" not in path.parts
    )[:2]
    content, other = lost.read_bytes(), kept_one.read_bytes()
    spoil(plain.vault, other)
    lost.unlink()
    assert run(plain, "backup", "restore", wanted, "--only", "media").returncode == 0
    assert lost.read_bytes() == content
    lost.unlink()
    spoil(plain.vault, content)
    before = plain.fingerprint()
    with Visitor(plain.port, "/") as visitor:
        patience.until(lambda: visitor.statuses[200])
        done = run(plain, "backup", "restore", wanted)
    assert done.returncode == 6, done.stderr
    assert "is damaged" in done.stderr and "Choose another backup" in done.stderr
    assert set(visitor.statuses) == {200}
    assert plain.fingerprint() == before


def spoil(vault: Path, content: bytes) -> None:
    """Change one content in the vault, wherever it lies."""
    for path in vault.rglob("*"):
        found = path.read_bytes() if path.is_file() else b""
        if content in found:
            path.chmod(0o600)
            path.write_bytes(found.replace(content, content[:-1] + bytes([content[-1] ^ 1])))


def test_a_backup_that_does_not_say_its_migrations_is_asked_for_them_once_it_is_loaded(plain: Site) -> None:
    """As one made before its migrations were described: the loaded database says what the manifest does not."""
    text = plain.config.read_text()
    assert run(plain, "upgrade", "v2").returncode == 0
    plain.config.write_text(text.replace('kind = "files"', 'kind = "none"'))
    assert run(plain, "backup", "create").returncode == 0
    wanted = newest(plain)
    plain.config.write_text(text)
    plain.operate("rollback", discard_writes_since=instant_of_v1(plain))
    before = plain.fingerprint()
    with Visitor(plain.port, "/") as visitor:
        patience.until(lambda: visitor.statuses[200])
        done = run(plain, "backup", "restore", wanted, "--except", "code")
    assert done.returncode == 4, done.stderr
    assert "it does not know 0002_mood" in done.stderr
    assert set(visitor.statuses) == {200}
    assert plain.fingerprint() == before
    assert run(plain, "backup", "restore", wanted).returncode == 0
    assert plain.get("/")[1]["version"] == "v2"


def instant_of_v1(site: Site) -> str:
    app = site.open()
    try:
        assert app.context.vault is not None
        return next(item.instant for item in app.context.vault.backups() if item.release.get("label") == "v1")
    finally:
        app.close()
