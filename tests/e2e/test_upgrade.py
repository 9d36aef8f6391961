"""Upgrades through the command line, good and bad ones, in the three modes."""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import kept
from tests.e2e.cli import run, run_json
from tests.site import Site


@pytest.fixture
def installed() -> Iterator[Site]:
    with kept.site() as site:
        yield site


def test_install_upgrade_and_release_list(installed: Site) -> None:
    assert installed.get("/")[1]["version"] == "v1"
    done = run(installed, "upgrade", "v2")
    assert done.returncode == 0, done.stderr
    assert installed.get("/")[1]["version"] == "v2"
    releases = run_json(installed, "release", "list")["data"]
    assert [release["label"] for release in releases["releases"]] == ["v2", "v1"]
    assert releases["current"] == releases["releases"][0]["id"]


def test_a_second_install_is_refused_and_changes_nothing(installed: Site) -> None:
    before = installed.fingerprint()
    done = run(installed, "install", "v2")
    assert done.returncode == 4
    assert "holdfast upgrade v2" in done.stderr
    assert installed.fingerprint() == before


@pytest.mark.parametrize(("tag", "said"), [("v3", "exit code 1"), ("v4", "answered 500")])
def test_a_bad_release_is_undone_by_itself(installed: Site, tag: str, said: str) -> None:
    assert run(installed, "upgrade", "v2").returncode == 0
    before = installed.fingerprint()
    done = run(installed, "upgrade", tag)
    assert done.returncode == 6
    assert said in done.stderr
    assert "the state before the operation is back" in done.stderr
    assert "holdfast log show" in done.stderr
    assert installed.fingerprint() == before
    assert installed.get("/") == (200, {"version": "v2", "entries": 120})
    assert run_json(installed, "log", "list")["data"]["operations"][0]["outcome"] == "undone"


@pytest.mark.parametrize("target", ["relative", "absolute"])
def test_a_database_behind_a_link_is_the_file_that_the_link_leads_to(installed: Site, target: str) -> None:
    """As where it lies on a larger disk; whatever comes back comes back there, and the link stays a link."""
    real = installed.app_folder / "disk" / "real.sqlite3"
    real.parent.mkdir()
    installed.shut_down()
    for ending in ("-wal", "-shm"):
        installed.database.with_name(f"{installed.database.name}{ending}").unlink(missing_ok=True)
    installed.database.rename(real)
    installed.database.symlink_to("../disk/real.sqlite3" if target == "relative" else real)
    assert run(installed, "service", "start").returncode == 0
    assert run(installed, "upgrade", "v2").returncode == 0
    before = installed.fingerprint()
    done = run(installed, "upgrade", "v3")
    assert done.returncode == 6 and "the state before the operation is back" in done.stderr
    assert installed.fingerprint() == before
    assert installed.database.is_symlink() and not real.is_symlink()
    with contextlib.closing(sqlite3.connect(real)) as connection:
        assert connection.execute("SELECT count(*) FROM entries").fetchone() == (120,)
    installed.post(b"since")
    text = installed.config.read_text()
    installed.config.write_text(text.replace("[tasks]", '[tasks]\nafter_restore = ["false"]'))
    since = installed.fingerprint()
    done = run(installed, "backup", "restore", "latest")
    assert done.returncode == 6, done.stderr
    assert installed.fingerprint() == since and installed.database.is_symlink()


def test_dry_run_prints_the_commands_and_changes_nothing(installed: Site) -> None:
    before = installed.fingerprint()
    done = run(installed, "upgrade", "v2", "--dry-run")
    assert done.returncode == 0
    assert "python3 manage.py migrate" in done.stdout
    assert "commit" in done.stdout
    assert "needs" in done.stdout
    assert installed.fingerprint() == before
    assert len(run_json(installed, "log", "list")["data"]["operations"]) == 1


def test_the_plan_names_how_restore_points_are_made(installed: Site) -> None:
    first = run(installed, "upgrade", "v2", "--dry-run")
    assert "The restore point of main is a copy of the file (about 1 MiB)" in first.stdout + first.stderr
    assert "last time" not in first.stdout + first.stderr
    installed.operate("upgrade", "v2")
    assert "last time" not in run(installed, "upgrade", "v5", "--dry-run").stderr, "it took no time worth telling"
    with contextlib.closing(sqlite3.connect(installed.state / "journal.sqlite3")) as journal, journal:
        journal.execute("UPDATE step SET seconds = 3.25 WHERE name = 'restore_point.create'")
    again = run(installed, "upgrade", "v5", "--dry-run")
    assert "The window's part of making restore points took 3.2 s last time." in again.stdout + again.stderr


def test_no_backup_says_what_an_undo_loses(installed: Site) -> None:
    done = run(installed, "upgrade", "v2", "--no-backup")
    assert done.returncode == 0
    assert "files of media" in done.stderr


def test_rolling_is_refused_for_a_migration_that_is_not_declared_compatible(installed: Site) -> None:
    before = installed.fingerprint()
    done = run(installed, "upgrade", "v2", "--rolling")
    assert done.returncode == 4
    assert "0002_mood" in done.stderr
    assert installed.fingerprint() == before


def test_source_is_refused_with_a_pending_migration(installed: Site) -> None:
    done = run(installed, "upgrade", "v2", "--source")
    assert done.returncode == 4
    assert "0002_mood" in done.stderr


def test_code_older_than_its_database_is_refused(installed: Site) -> None:
    assert run(installed, "upgrade", "v2").returncode == 0
    done = run(installed, "upgrade", "v1")
    assert done.returncode == 4
    assert "older than its database" in done.stderr
    assert installed.get("/")[1]["version"] == "v2"


def test_a_failed_rolling_upgrade_ends_degraded_and_keeps_every_write(installed: Site) -> None:
    for tag in ("v2", "v5"):
        assert run(installed, "upgrade", tag).returncode == 0
    text = installed.config.read_text().replace(
        'warm_cache = ["python3", "manage.py", "warm"]', 'warm_cache = ["false"]'
    )
    installed.config.write_text(text)
    status, body = installed.post(b"written before the rolling upgrade")
    assert status == 201
    done = run(installed, "upgrade", "v6", "--rolling")
    assert done.returncode == 10
    assert "0006_place stay" in done.stderr
    assert installed.get("/")[1]["version"] == "v5"
    assert installed.get(f"/entry?id={body['id']}") == (200, installed.get(f"/entry?id={body['id']}")[1])


def test_rollback_names_what_was_written_and_needs_the_instant(installed: Site) -> None:
    before = installed.fingerprint()
    assert run(installed, "upgrade", "v2").returncode == 0
    installed.post(b"written on v2")
    refused = run(installed, "rollback")
    assert refused.returncode == 4
    assert "main.entries: 120 rows then, 121 now" in refused.stderr
    instant = refused.stderr.split("--discard-writes-since ")[1].split()[0]
    wrong = run(installed, "rollback", "--discard-writes-since", "2020-01-01T00:00:00Z")
    assert wrong.returncode == 4
    done = run(installed, "rollback", "--discard-writes-since", instant)
    assert done.returncode == 0, done.stderr
    assert installed.get("/")[1] == {"version": "v1", "entries": 120}
    assert installed.fingerprint() == before


def test_an_operators_own_maintenance_survives_an_upgrade(installed: Site) -> None:
    assert run(installed, "maintenance", "on", "--duration", "30m", "--comment", "disks").returncode == 0
    assert run(installed, "upgrade", "v2").returncode == 0
    assert installed.get("/")[0] == 503
    assert "disks" in run(installed, "maintenance", "status").stdout
    assert run(installed, "maintenance", "off").returncode == 0
    assert installed.get("/")[1]["version"] == "v2"


def test_only_services_that_ran_before_run_after(installed: Site) -> None:
    assert run(installed, "service", "stop", "web").returncode == 0
    assert run(installed, "upgrade", "v2").returncode == 0
    services = run_json(installed, "service", "status")["data"]["services"]
    assert [service["name"] for service in services if service["running"]] == ["front"]


def test_package_build_list_deploy_and_short_commits(installed: Site) -> None:
    from holdfast.system.host import Host

    commit = Host().capture(["git", "-C", str(installed.repository), "rev-parse", "v2"]).strip()
    assert run(installed, "package", "build", commit[:9]).returncode == 0
    listed = run_json(installed, "package", "list")["data"]["packages"]
    assert commit in {package["commit"] for package in listed}
    assert run(installed, "package", "deploy", "v2").returncode == 0
    assert installed.get("/")[1]["version"] == "v2"


def test_console_runs_in_the_current_release(installed: Site) -> None:
    assert run(installed, "console", "--", "migrate").returncode == 0


def test_a_task_that_hangs_is_ended_and_undone(installed: Site) -> None:
    text = installed.config.read_text()
    text = text.replace('warm_cache = ["python3", "manage.py", "warm"]', 'warm_cache = ["sleep", "600"]')
    text = re.sub(r"task_timeout_seconds = .*", "task_timeout_seconds = 1", text)
    installed.config.write_text(text)
    before = installed.fingerprint()
    done = run(installed, "upgrade", "v2")
    assert done.returncode == 6
    assert "time-out" in done.stderr
    assert installed.fingerprint() == before
    assert installed.get("/")[1]["version"] == "v1"


def _open_below(folder: Path) -> list[str]:
    """Return what this process has open below a folder."""
    found = []
    for path in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.append(os.readlink(path))
    return [name for name in found if name.startswith(f"{folder}/")]


def test_an_operation_leaves_nothing_open(installed: Site) -> None:
    """A descriptor would keep the disk of the data busy, and belongs to nobody any more."""
    for operation in ("backup", "upgrade"):
        installed.operate(operation, *(["v2"] if operation == "upgrade" else []))
        assert _open_below(installed.folder) == [], operation


def test_the_row_guard_stops_a_silent_loss_and_accepts_a_declared_one(installed: Site) -> None:
    text = installed.config.read_text()
    loses = (
        'import sqlite3; c = sqlite3.connect("guestbook.sqlite3"); c.execute("DELETE FROM entries WHERE id > 60");'
        " c.commit()"
    )
    migrate = re.search(r"^migrate = (.*)$", text, re.MULTILINE)
    assert migrate is not None
    installed.config.write_text(text.replace(migrate[0], f"migrate = [{migrate[1]}, ['python3', '-c', '{loses}']]"))
    before = installed.fingerprint()
    done = run(installed, "upgrade", "v2")
    assert done.returncode == 6
    assert "main.entries: 120 rows before, 60 after" in done.stderr
    assert 'may_shrink = ["entries"]' in done.stderr
    assert "run warm_cache" not in done.stderr, "it is found right after the migration"
    assert installed.fingerprint() == before
    assert run(installed, "upgrade", "v2", "--may-shrink", "entries").returncode == 0
    assert installed.get("/")[1]["entries"] == 60


def test_wipe_installs_afresh_outside_production_after_a_backup(site: Site) -> None:
    text = site.config.read_text().replace('environment = "production"', 'environment = "staging"')
    site.config.write_text(text)
    try:
        assert run(site, "install", "v1").returncode == 0
        site.post(b"to be wiped")
        assert run(site, "install", "v1", "--wipe").returncode == 0
        assert site.get("/")[1]["entries"] == 120
        assert len(run_json(site, "backup", "list")["data"]["backups"]) == 2
    finally:
        from holdfast.system.processes import end_processes_with

        end_processes_with(f"HOLDFAST_INSTANCE=guestbook.staging@{site.state}", grace_seconds=0, wait_seconds=10)


def test_wipe_is_refused_in_production(installed: Site) -> None:
    done = run(installed, "install", "v1", "--wipe")
    assert done.returncode == 4
    assert "production" in done.stderr


def test_wipe_is_refused_without_a_vault(site: Site) -> None:
    text = site.config.read_text().replace('environment = "production"', 'environment = "staging"')
    start = text.index("[vaults.")
    end = text.find("\n[", start)
    site.config.write_text(text[:start] + (text[end + 1 :] if end > 0 else ""))
    done = run(site, "install", "v1", "--wipe")
    assert done.returncode == 4
    assert "no vault is configured" in done.stderr


def test_what_is_newer_is_told_and_a_fetch_that_fails_too(installed: Site) -> None:
    found = run_json(installed, "status", "--updates")["data"]["updates"]
    assert "v2" in [tag["name"] for tag in found["tags"]]
    assert "v1" not in [tag["name"] for tag in found["tags"]]
    assert not found["fetched"] and found["problems"] == []
    with (installed.repository / ".git" / "config").open("a") as config:
        config.write('[remote "origin"]\n\turl = /nonexistent/repository\n')
    done = run(installed, "status", "--updates", "--fetch")
    assert done.returncode == 0, done.stderr
    assert "newer        v2 (" in done.stdout
    assert "showing what was fetched before" in done.stdout
    assert run(installed, "status", "--fetch").returncode == 2
