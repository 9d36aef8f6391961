"""Going back where it says: to the data of the release that is meant, and never to what nobody knows."""

from __future__ import annotations

import contextlib
import re
import sqlite3
from collections.abc import Iterator

import pytest

from holdfast.drivers.protocols.vaults import Vault
from tests import kept, releases
from tests.e2e.cli import run
from tests.site import Site

_CHANGES_CONTENTS = """def apply(database, media):
    database.execute("UPDATE entries SET text = upper(text)")
"""
_ADDS_A_COLUMN = """def apply(database, media):
    database.execute("ALTER TABLE entries ADD COLUMN more TEXT")
"""


@pytest.fixture
def site() -> Iterator[Site]:
    with kept.site("sqlite", ("v1",)) as lent:
        releases.add(lent, "c1", "v1", "0011_contents", _CHANGES_CONTENTS)
        releases.add(lent, "c2", "c1", "0012_column", _ADDS_A_COLUMN)
        yield lent


def forget_migrations(site: Site) -> None:
    """As in an application whose migrations nobody described."""
    text = site.config.read_text()
    site.config.write_text(re.sub(r"\[migrations\]\n(?:[^\[\n].*\n|\n)*", "", text))
    assert site.open().loaded.configuration.migrations.kind == "none"


@contextlib.contextmanager
def vault_of(site: Site) -> Iterator[Vault]:
    app = site.open()
    try:
        assert app.context.vault is not None
        yield app.context.vault
    finally:
        app.close()


def instant_of(refused: str) -> str:
    return refused.split("--discard-writes-since ")[1].split()[0]


def test_over_two_releases_the_data_are_those_of_the_target(site: Site) -> None:
    before = site.fingerprint()
    assert run(site, "upgrade", "c1").returncode == 0
    site.post(b"written on c1")
    assert run(site, "upgrade", "c2").returncode == 0
    first = run(site, "release", "list", "--json").stdout
    assert "c2" in first
    refused = run(site, "rollback", "--to", "v1")
    assert refused.returncode == 4, refused.stderr
    assert "0011_contents, 0012_column" in refused.stderr
    assert "120 rows then, 121 now" in refused.stderr
    assert "rollback --to " in refused.stderr
    done = run(site, "rollback", "--to", "v1", "--discard-writes-since", instant_of(refused.stderr))
    assert done.returncode == 0, done.stderr
    assert site.get("/")[1] == {"version": "v1", "entries": 120}
    assert site.fingerprint() == before


def test_after_the_same_release_twice_it_goes_to_the_data_of_the_first(site: Site) -> None:
    assert run(site, "upgrade", "c1").returncode == 0
    site.post(b"written on the first c1")
    again = run(site, "upgrade", "c1")
    assert (again.returncode, "is already running" in again.stdout) == (0, True)
    assert run(site, "upgrade", "c1", "--again").returncode == 0
    site.post(b"written on the second c1")
    done = run(site, "rollback")
    assert done.returncode == 0, "the same code knows the present data"
    assert site.get("/")[1]["entries"] == 122


def test_a_migration_of_contents_that_nobody_described_refuses_code_alone(site: Site) -> None:
    forget_migrations(site)
    assert run(site, "upgrade", "c1").returncode == 0
    refused = run(site, "rollback")
    assert refused.returncode == 4
    assert "`migrate` may have changed contents" in refused.stderr
    assert "--keep-data" in refused.stderr
    source = run(site, "upgrade", "c2", "--source")
    assert (source.returncode, "needs to know the migrations" in source.stderr) == (4, True)
    assert run(site, "rollback", "--keep-data").returncode == 0
    forward = run(site, "rollback")
    assert forward.returncode == 0, forward.stderr
    assert site.get("/")[1]["version"] == "c1", "it ran on these data before"


def test_a_version_that_the_application_itself_keeps_refuses_code_alone(site: Site) -> None:
    """Such an application changes contents when it starts, without a task and without another table."""
    forget_migrations(site)
    text = site.config.read_text()
    site.config.write_text(re.sub(r"^migrate = .*\n", "", text, flags=re.MULTILINE))
    releases.add_files(site, "same", "v1", {"README": "other words"})
    assert run(site, "upgrade", "same").returncode == 0
    assert run(site, "rollback", "--dry-run").returncode == 0
    with contextlib.closing(sqlite3.connect(site.database)) as database:
        database.execute("PRAGMA user_version = 5")
        database.commit()
    refused = run(site, "rollback")
    assert (refused.returncode, "may not run on the present schema of main" in refused.stderr) == (4, True)


def test_what_retention_removed_is_unknown_and_refuses(site: Site) -> None:
    forget_migrations(site)
    assert run(site, "upgrade", "c2").returncode == 0
    with vault_of(site) as vault:
        vault.prune([backup.id for backup in vault.backups()], "test")
    refused = run(site, "rollback")
    assert refused.returncode == 4
    assert "the backup of its data is gone" in refused.stderr
    assert "that data cannot be restored" in refused.stderr
    gone = run(site, "rollback", "--discard-writes-since", "2026-01-01T00:00:00Z")
    assert (gone.returncode, "is gone" in gone.stderr) == (4, True)


def test_prune_keeps_the_data_for_a_way_back(site: Site) -> None:
    assert run(site, "upgrade", "c1").returncode == 0
    with vault_of(site) as vault:
        (way_back,) = [backup.id for backup in vault.backups() if backup.release.get("label") == "v1"]
    for _ in range(4):
        assert run(site, "backup", "create").returncode == 0
    planned = run(site, "backup", "prune", "--dry-run")
    assert f"keeps {way_back} (the data for a rollback to v1)" in planned.stdout + planned.stderr
    assert run(site, "backup", "prune", "--yes").returncode == 0
    refused = run(site, "rollback")
    assert run(site, "rollback", "--discard-writes-since", instant_of(refused.stderr)).returncode == 0


def test_a_set_of_a_good_state_comes_back_to_its_own_release(site: Site) -> None:
    """A rolling upgrade that fails leaves its compatible migrations; what was backed up then can be restored."""
    for tag in ("v2", "v5"):
        assert run(site, "upgrade", tag).returncode == 0
    text = site.config.read_text()
    site.config.write_text(text.replace('warm_cache = ["python3", "manage.py", "warm"]', 'warm_cache = ["false"]'))
    assert run(site, "upgrade", "v6", "--rolling").returncode == 10
    site.config.write_text(text)
    assert run(site, "backup", "create").returncode == 0
    site.post(b"written after the backup")
    done = run(site, "backup", "restore", "latest", "--yes")
    assert done.returncode == 0, done.stderr
    assert site.get("/")[1] == {"version": "v5", "entries": 120}


def test_one_version_in_the_database_tells_what_code_knows(site: Site) -> None:
    """As WordPress, Nextcloud, phpBB and many others have it."""
    for number in (5, 10):
        text = f"def apply(database, media):\n    database.execute('PRAGMA user_version = {number}')\n"
        releases.add(site, f"n{number}", "v1", f"00{number + 10}_version", text)
    forget_migrations(site)
    with open(site.config, "a") as file:
        file.write(
            '\n[migrations]\nkind = "version"\napplied = "PRAGMA user_version"\nshipped = "settings.json"\n'
            'pattern = \'"version": "[a-z](\\d+)"\'\n'
        )
    assert run(site, "upgrade", "n5").returncode == 0
    refused = run(site, "rollback")
    assert (refused.returncode, "does not know the applied migrations 5" in refused.stderr) == (4, True)
    assert run(site, "upgrade", "n10").returncode == 0, "10 is newer than 5, whatever their letters say"
    older = run(site, "upgrade", "n5")
    assert (older.returncode, "is older than its database: it does not know 10" in older.stderr) == (4, True)
    source = run(site, "upgrade", "n10", "--source", "--again")
    assert source.returncode == 0, source.stderr


def test_an_upgrade_to_an_older_release_says_what_it_is_not(site: Site) -> None:
    assert run(site, "upgrade", "c1").returncode == 0
    planned = run(site, "upgrade", "v1", "--dry-run")
    assert "v1 is older than the running c1. An upgrade does not bring its data back." in planned.stdout
    assert "older" not in run(site, "upgrade", "c2", "--dry-run").stdout


def test_a_rolling_upgrade_without_known_migrations_is_refused_before_anything_is_built(site: Site) -> None:
    forget_migrations(site)
    for arguments in (("--dry-run",), ()):
        done = run(site, "upgrade", "c1", "--rolling", *arguments)
        assert done.returncode == 4
        assert "needs to know the migrations" in done.stderr and "log show" not in done.stderr
