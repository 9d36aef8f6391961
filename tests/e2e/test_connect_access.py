"""Every titled task of Connect Access's maintenance pages, by Holdfast, on a stand-in with its services and volumes."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import containers
from tests.e2e.cli import run, run_json, succeed
from tests.standins.connect_access import ConnectAccess
from tests.standins.project import BAD, PERSONS
from tests.standins.uso import elsewhere
from tests.standins.visitor import Visitor, ask

_HOLDFAST = (sys.executable, "-m", "holdfast")
_SERVICES = ("django", "celeryworker", "celerybeat")


@pytest.fixture
def site(folder: Path) -> Iterator[ConnectAccess]:
    """It runs by its own commands, and Holdfast has taken it over."""
    made = ConnectAccess(folder)
    try:
        made.start()
        succeed(made, "adopt")
        yield made
    finally:
        made.remove()
        assert made.left_behind() == []


def images(site: ConnectAccess) -> dict[str, str]:
    return {service: site.image_of(service) for service in _SERVICES}


def uploads(site: ConnectAccess) -> list[Path]:
    return [path for path in sorted(site.media.rglob("*")) if path.is_file() and ".holdfast" not in path.parts]


def newest_set(site: ConnectAccess) -> str:
    return str(run_json(site, "backup", "list")["data"]["backups"][-1]["id"])


@pytest.mark.combination
def test_update_the_application_code(site: ConnectAccess) -> None:
    """Backup the database, remember the changeset, pull, migrate, rebuild and restart: one command."""
    old, version = images(site), site.git("rev-parse", "HEAD")
    assert site.upload(b"of a visitor")[0] == 201
    with Visitor(site.port) as visitor:
        succeed(site, "upgrade", "v2")
    assert set(visitor.statuses) <= {200, 503}
    status, page = site.get("/")
    assert (status, page["version"], page["persons"]) == (200, "v2", PERSONS)
    assert site.sql("SELECT count(*) FROM connect_access_upload WHERE label = upper(title)") == str(page["uploads"])
    assert all(image != old[service] for service, image in images(site).items())
    shown = run_json(site, "backup", "list")["data"]["backups"][-1]
    assert {"main", "media"} <= set(shown["datasets"])
    assert shown["release"]["commit"] == version
    assert set(site.running()) >= {*_SERVICES, "postgres", "redis", "nginx", "traefik"}
    assert containers.id_of("connect_access_django:production") == site.image_of("django")


@pytest.mark.combination
def test_rollback_to_the_previous_version(site: ConnectAccess) -> None:
    """Rollback the database, and rollback the files: by ids, without a build."""
    old, before = images(site), site.fingerprint()
    succeed(site, "upgrade", "v2")
    assert site.upload(b"on the new version")[0] == 201
    refused = run(site, "rollback")
    assert refused.returncode == 4 and "--discard-writes-since" in refused.stderr
    instant = refused.stderr.partition("--discard-writes-since ")[2].split()[0]
    succeed(site, "rollback", "--discard-writes-since", instant)
    assert site.get("/")[1]["version"] == "v1"
    assert (images(site), site.fingerprint()) == (old, before)
    assert containers.id_of("connect_access_django:production") == old["django"]


@pytest.mark.combination
def test_manage_database_backups_and_backup_the_user_files(site: ConnectAccess, folder: Path) -> None:
    """List them, look into them, copy them somewhere else, restore the database or the user files alone."""
    before = site.fingerprint()
    succeed(site, "backup", "create")
    made = newest_set(site)
    assert "verified: undamaged" in succeed(site, "backup", "verify", made)
    succeed(site, "backup", "export", made, str(folder / "away"), "--unsanitized", "--reason", "a test")
    away = folder / "away" / made
    subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=away, check=True)
    with tarfile.open(away / "media.tar.gz") as carried:
        names = {name.removeprefix("./") for name in carried.getnames()}
    assert {str(path.relative_to(site.media)) for path in uploads(site)} <= names
    dump = subprocess.run(
        ["pg_restore", "--list", next(away.glob("database.main.*"))], capture_output=True, text=True, check=True
    )
    assert "TABLE DATA public connect_access_upload" in dump.stdout
    archive = next((site.state.parent / "vault" / "backups" / made).glob("config.tar.zst"))
    listed = subprocess.run(["tar", "--zstd", "-tf", str(archive)], capture_output=True, text=True, check=True).stdout
    assert ".env_production" in listed.split()
    victim = uploads(site)[0]
    content = victim.read_bytes()
    victim.unlink()
    site.sql("UPDATE connect_access_person SET name = 'nobody'")
    succeed(site, "backup", "restore", made, "--only", "media")
    assert victim.read_bytes() == content
    assert site.fingerprint() != before, "rows were not asked for"
    succeed(site, "backup", "restore", made, "--only", "main")
    assert site.fingerprint() == before


@pytest.mark.combination
def test_copy_the_production_database_to_the_staging_environment(site: ConnectAccess, folder: Path) -> None:
    staging = ConnectAccess(folder / "other", "staging")
    try:
        staging.start()
        succeed(staging, "adopt")
        site.sql("UPDATE connect_access_person SET name = 'of production'")
        assert site.upload(b"of production")[0] == 201
        before = site.fingerprint()
        succeed(staging, "clone", str(site.config), str(staging.config), "--unsanitized", "--reason", "a test")
        assert staging.fingerprint() == before == site.fingerprint()
        assert staging.get("/")[0] == 200
        assert set(staging.running()) == set(site.running())
        tables = "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'"
        assert staging.sql(tables) == "debug"
    finally:
        staging.remove()
        assert staging.left_behind() == []


@pytest.mark.combination
def test_a_bad_release_ends_with_the_old_one(
    site: ConnectAccess, record_property: Callable[[str, object], None]
) -> None:
    """Does not build, does not start, answers 500, its worker dies, its migration dies or loses rows."""
    succeed(site, "upgrade", "v2")
    old, before = images(site), site.fingerprint()
    for version in BAD:
        with Visitor(site.port) as visitor:
            done = run(site, "upgrade", version)
        assert done.returncode == 6, f"{version}: {done.stdout}{done.stderr}"
        record_property("visitors waited", f"Connect Access, {version}: {visitor.longest_seconds:.1f} s")
        assert set(visitor.statuses) <= {200, 503}, version
        assert {json.loads(body).get("version", "v2") for body in visitor.bodies} <= {"v2"}, version
        assert site.get("/")[1]["version"] == "v2", version
        assert (images(site), site.fingerprint()) == (old, before), version
        assert set(site.running()) >= set(_SERVICES), version
        assert containers.id_of("connect_access_django:production") == old["django"], version


@pytest.mark.combination
def test_its_configuration_is_found_out_and_upgrades_without_an_edit(folder: Path) -> None:
    site = ConnectAccess(folder)
    try:
        site.start()
        site.config.unlink()
        done = subprocess.run(
            [*_HOLDFAST, "init", str(site.folder)], cwd=site.folder, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        text = site.config.read_text()
        assert "volume = " in text and '"compose:postgres"' in text
        site.config.write_text(elsewhere(text, site.state))
        succeed(site, "adopt")
        succeed(site, "upgrade", "v2")
        assert ask(site.web_port, "/")[0] == 200
        assert site.get("/", site.web_port)[1]["version"] == "v2"
        assert "main" in run_json(site, "backup", "list")["data"]["backups"][-1]["datasets"]
    finally:
        site.remove()
