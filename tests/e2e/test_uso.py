"""Every titled task of USO's maintenance page, on a stand-in with its checkout, instance folder and scripts."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.cli import run, run_json, succeed
from tests.servers import podman
from tests.standins.project import PERSONS
from tests.standins.uso import Uso
from tests.standins.visitor import Visitor

_BAD = ("does-not-build", "does-not-start", "answers-500", "migration-dies", "loses-rows")


COMMANDS = {"docker": ("docker", "compose"), "podman": podman.command()}


@pytest.fixture(params=["docker", pytest.param("podman", marks=pytest.mark.variant("podman"))])
def site(request: pytest.FixtureRequest, folder: Path) -> Iterator[Uso]:
    """It runs by its own commands, and Holdfast has taken it over."""
    made = Uso(folder, COMMANDS[request.param])
    try:
        made.start()
        succeed(made, "adopt")
        yield made
    finally:
        made.remove()
        assert made.left_behind() == []


def kept(site: Uso) -> dict[str, bytes]:
    """What no update may touch: the instance's own files."""
    names = (".env", "docker-compose.yml", "local/settings.py", "local/.dbinit", "local/media/robots.txt")
    return {name: (site.instance / name).read_bytes() for name in names}


def check_visitors(site: Uso, visitor: Visitor, note: Callable[[str, object], None], what: str) -> None:
    """Nobody meets anything but a good answer or the page.

    The name server of Podman 4.3 knows no name for a moment when a container joins or leaves on a busy machine, and the
    application asks for its database by name with each request (docs/howto/podman.md). How often is told.
    """
    seen = dict(visitor.statuses)
    if site.engine == "podman":
        assert all(b"Name or service not known" in said or b"in name resolution" in said for said in visitor.errors), (
            what
        )
        note("visitors met", f"USO on Podman, {what}: {seen.pop(500, 0)} of {sum(seen.values())} answers were 500")
    assert set(seen) <= {200, 503}, f"{what}: {dict(visitor.errors + visitor.unanswered)}"


def test_update_in_five_steps(site: Uso, record_property: Callable[[str, object], None]) -> None:
    """Stop, backup, pull, rebuild by the project's script, restart with its migrations: one command."""
    before, old, head = kept(site), site.image_of("uso"), site.git("rev-parse", "HEAD")
    with Visitor(site.port) as visitor:
        succeed(site, "upgrade", "v2")
    check_visitors(site, visitor, record_property, "an update")
    status, page = site.get("/")
    assert (status, page["version"], page["persons"]) == (200, "v2", PERSONS)
    assert site.sql("SELECT count(*) FROM usonline_upload WHERE label = upper(title)") == str(page["uploads"])
    assert site.image_of("uso") == site.image("v2") == site.image("latest") != old
    assert (kept(site), site.git("rev-parse", "HEAD")) == (before, head)
    shown = run_json(site, "backup", "list")["data"]["backups"][-1]
    archive = site.state.parent / "vault" / "backups" / shown["id"] / "config.tar.zst"
    listed = subprocess.run(["tar", "--zstd", "-tf", str(archive)], capture_output=True, text=True, check=True).stdout
    assert {".env", "docker-compose.yml", "local/settings.py", "local/.dbinit"} <= set(listed.split())
    assert not [name for name in listed.split() if name.startswith(("local/media", "database"))]


@pytest.mark.combination
def test_backup_and_restore_of_the_database(site: Uso) -> None:
    """While it runs, and with the user files and the instance's own."""
    before, old = site.fingerprint(), site.image_of("uso")
    succeed(site, "backup", "create")
    made = run_json(site, "backup", "list")["data"]["backups"][-1]["id"]
    site.sql("UPDATE usonline_person SET name = 'nobody'")
    assert site.upload(b"since then")[0] == 201
    succeed(site, "upgrade", "v2")
    succeed(site, "backup", "restore", made)
    assert (site.fingerprint(), site.image_of("uso")) == (before, old)
    assert site.get("/")[1]["version"] == "v1"


@pytest.mark.combination
def test_a_bad_release_ends_with_the_old_one(site: Uso, record_property: Callable[[str, object], None]) -> None:
    """Its script ends with 0 after a failed build, its start serves after failed migrations: both are seen."""
    succeed(site, "upgrade", "v2")
    before, files, old = site.fingerprint(), kept(site), site.image_of("uso")
    for version in _BAD:
        with Visitor(site.port) as visitor:
            done = run(site, "upgrade", version)
        assert done.returncode == 6, f"{version}: {done.stdout}{done.stderr}"
        record_property("visitors waited", f"USO, {version}: {visitor.longest_seconds:.1f} s")
        check_visitors(site, visitor, record_property, version)
        assert {json.loads(body).get("version", "v2") for body in visitor.bodies} <= {"v2"}, version
        assert site.get("/")[1]["version"] == "v2", version
        assert (site.fingerprint(), kept(site), site.image_of("uso")) == (before, files, old), version
        assert (site.image("latest"), site.image(version)) == (old, ""), version


@pytest.mark.combination
def test_the_nginx_variant(folder: Path) -> None:
    """The proxy reaches the application by a socket in a volume: the gate reaches one of the two containers."""
    site = Uso(folder, web="nginx")
    try:
        site.start()
        succeed(site, "adopt")
        before, old = site.fingerprint(), site.image_of("uso")
        for version in ("does-not-start", "answers-500", "loses-rows"):
            with Visitor(site.port) as visitor:
                assert run(site, "upgrade", version).returncode == 6, version
            assert set(visitor.statuses) <= {200, 503}, f"{version}: {dict(visitor.errors + visitor.unanswered)}"
            assert (site.fingerprint(), site.image_of("uso")) == (before, old), version
            assert site.get("/")[1]["version"] == "v1", version
        with Visitor(site.port) as visitor:
            succeed(site, "upgrade", "v2")
        assert set(visitor.statuses) <= {200, 503}, dict(visitor.errors + visitor.unanswered)
        assert (site.get("/")[1]["version"], site.image_of("uso")) == ("v2", site.image("latest"))
        assert run(site, "upgrade", "v1", "--source").returncode == 4
        made = run_json(site, "backup", "list")["data"]["backups"][-1]["id"]
        succeed(site, "backup", "restore", made)
        assert (site.fingerprint(), site.get("/")[1]["version"]) == (before, "v1")
    finally:
        site.remove()
        assert site.left_behind() == []


@pytest.mark.combination
@pytest.mark.parametrize("engine", list(COMMANDS))
def test_its_configuration_is_found_out_and_upgrades_without_an_edit(
    folder: Path, monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    site = Uso(folder, COMMANDS[engine])
    monkeypatch.setenv("ENGINE", site.engine)  # else its script takes Podman where that is installed
    try:
        site.start()
        site.config.unlink()
        done = subprocess.run(
            [sys.executable, "-m", "holdfast", "init", str(site.instance)],
            cwd=site.instance,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        text = site.config.read_text()
        assert "images = " in text and "on_start = true" in text and '"compose:database"' in text
        site.config.write_text(site.elsewhere(text))
        succeed(site, "adopt")
        succeed(site, "upgrade", "v2")
        assert site.get("/", site.web_port)[1]["version"] == "v2"
        assert "main" in run_json(site, "backup", "list")["data"]["backups"][-1]["datasets"]
    finally:
        site.remove()
