"""What is switched with the gate: keys of a YAML file, a file among the data, a command; and announcements."""

from __future__ import annotations

import io
import os
import signal
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
import zstandard

from tests import kept
from tests.e2e.cli import run, run_json, start
from tests.proof import patience
from tests.site import Site

CONFIGURATION = b"""# Installed by hand.
main:
    maintenance: false   # 503 for everyone
    key: 0123  # never change this
registry:
    maintenance:
        enabled: false
        message: 'none'
"""


class SwitchedSite:
    def __init__(self, site: Site, after: str = "true") -> None:
        self.site = site
        self.file = site.app_folder / "shared" / "configuration.yml"
        self.file.write_bytes(CONFIGURATION)
        self.file.chmod(0o640)
        self.flag = site.media / "maintenance.html"
        self.said = site.folder / "said"
        self.refreshed = site.folder / "refreshed"
        text = site.config.read_text().replace("[backup]\n", '[backup]\nconfig_files = ["shared/configuration.yml"]\n')
        script = f"cat {self.file} > {self.refreshed}; {after}"
        site.config.write_text(f"""{text}
[gate.switches.application]
kind = "yaml"
path = "shared/configuration.yml"
set = {{ "main.maintenance" = "true", "main.logs" = "debug" }}
announce = {{ "registry.maintenance.enabled" = "true", "registry.maintenance.message" = "{{text}}" }}
after = ["sh", "-c", "{script}"]

[gate.switches.flag]
kind = "file"
path = "shared/media/maintenance.html"
content = "<p>back soon</p>"

[gate.switches.pager]
kind = "command"
on = ["sh", "-c", "echo on >> {self.said}"]
off = ["sh", "-c", "echo off >> {self.said}"]
""")

    def values(self) -> dict[str, dict[str, object]]:
        found: dict[str, dict[str, object]] = yaml.safe_load(self.file.read_bytes())
        return found

    def require_untouched(self) -> None:
        assert self.file.read_bytes() == CONFIGURATION
        assert self.file.stat().st_mode & 0o777 == 0o640
        assert not self.flag.exists()
        assert list((self.site.state / "switches").glob("*")) == []


@pytest.fixture
def site() -> Iterator[Site]:
    with kept.site() as lent:
        yield lent


def test_maintenance_on_and_off(site: Site) -> None:
    switched = SwitchedSite(site)
    for _ in range(2):
        assert run(site, "maintenance", "on").returncode == 0
        assert switched.values()["main"] == {"maintenance": True, "logs": "debug", "key": 0o123}
        assert switched.refreshed.read_bytes() == switched.file.read_bytes()
        assert switched.flag.read_text() == "<p>back soon</p>"
    assert switched.said.read_text() == "on\n"
    assert run(site, "maintenance", "off").returncode == 0
    switched.require_untouched()
    assert switched.refreshed.read_bytes() == CONFIGURATION
    assert switched.said.read_text() == "on\noff\n"


def test_a_quiesced_backup_has_neither_flag_nor_changed_keys(site: Site, folder: Path) -> None:
    switched = SwitchedSite(site)
    done = run(site, "backup", "create", "--quiesce")
    assert done.returncode == 0, done.stderr
    switched.require_untouched()
    (archive,) = [
        path
        for path in site.vault.rglob("config.tar.zst")
        if path.stat().st_mtime == max(one.stat().st_mtime for one in site.vault.rglob("config.tar.zst"))
    ]
    with open(archive, "rb") as file, zstandard.ZstdDecompressor().stream_reader(file) as stream:
        content = stream.read()
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        stored = tar.extractfile("shared/configuration.yml")
        assert stored is not None and stored.read() == CONFIGURATION
    files = run_json(site, "backup", "files", "latest", "media")
    assert "maintenance.html" not in str(files["data"])


def test_an_announcement_holds_nobody_and_outlives_maintenance(site: Site) -> None:
    switched = SwitchedSite(site)
    assert run(site, "maintenance", "announce", 'Tonight: "new" disks').returncode == 0
    shown = {"enabled": True, "message": 'Tonight: "new" disks'}
    assert switched.values()["registry"]["maintenance"] == shown
    assert switched.values()["main"]["maintenance"] is False
    assert site.get("/")[0] == 200
    assert run(site, "maintenance", "on").returncode == 0
    assert switched.values()["main"]["maintenance"] is True
    assert run(site, "maintenance", "off").returncode == 0
    assert switched.values()["registry"]["maintenance"] == shown
    assert run(site, "maintenance", "announce", "--clear").returncode == 0
    switched.require_untouched()


def test_what_somebody_else_changes_in_the_file_meanwhile_stays(site: Site) -> None:
    switched = SwitchedSite(site)
    assert run(site, "maintenance", "on").returncode == 0
    switched.file.write_bytes(switched.file.read_bytes().replace(b"key: 0123", b"key: 0777") + b"more: 1\n")
    done = run(site, "maintenance", "off")
    assert done.returncode == 0, done.stderr
    assert switched.file.read_bytes() == CONFIGURATION.replace(b"key: 0123", b"key: 0777") + b"more: 1\n"


def test_a_link_in_the_place_of_the_file_is_not_followed(site: Site) -> None:
    switched = SwitchedSite(site)
    other = site.folder / "other.yml"
    other.write_bytes(CONFIGURATION)
    switched.file.unlink()
    switched.file.symlink_to(other)
    assert run(site, "maintenance", "on").returncode != 0
    assert other.read_bytes() == CONFIGURATION
    assert switched.file.is_symlink()


def test_killed_in_between_recover_brings_the_file_back(site: Site) -> None:
    waiting = site.folder / "waiting"
    switched = SwitchedSite(site, after=f"touch {waiting}; test -e {waiting}.not || sleep 600")
    command = start(site, "maintenance", "on")
    try:
        patience.until(waiting.exists)
        assert switched.values()["main"]["maintenance"] is True
        os.kill(command.pid, signal.SIGKILL)
    finally:
        command.wait(patience.limit(30))
    Path(f"{waiting}.not").touch()
    done = run(site, "recover")
    assert done.returncode == 0, done.stderr
    switched.require_untouched()
    assert switched.refreshed.read_bytes() == CONFIGURATION
