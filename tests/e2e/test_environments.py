"""Environments of four types: what their overlays say, what production refuses, and what nobody may share."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import kept
from tests.e2e.cli import run, run_json, succeed
from tests.memory import make_folder
from tests.site import Site, gate_port

_CLOSED = """                if path == "/app_dev.php":
                    return self.answer(404, {})
"""


@pytest.fixture
def production() -> Iterator[Site]:
    with kept.site() as site:
        yield site


@pytest.fixture
def staging() -> Iterator[Site]:
    """An installed environment that is no production."""
    folder = make_folder()
    site = Site(folder / "s", rows=30, files=3)
    try:
        site.become("staging")
        yield site
    finally:
        site.remove()
        shutil.rmtree(folder, ignore_errors=True)


def overlay(site: Site, name: str, text: str) -> Path:
    path = site.config.with_name(f"holdfast.{name}.toml")
    path.write_text(text)
    return path


def commit(site: Site, files: dict[str, str], tag: str, base: str = "v1") -> None:
    """Tag a commit upon another one that has more files."""
    git = ["git", "-C", str(site.repository), "-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run([*git, "checkout", "-q", base], check=True)
    for name, text in files.items():
        path = site.repository / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    subprocess.run([*git, "add", "-A"], check=True)
    subprocess.run([*git, "commit", "-q", "-m", tag], check=True)
    subprocess.run([*git, "tag", tag], check=True)


def test_how_can_i_remove_existing_data_and_install_from_scratch_in_the_staging_environment(staging: Site) -> None:
    assert run(staging, "deploy", "v1").returncode == 0
    entries = staging.get("/")[1]["entries"]
    staging.post(b"of a tester")
    assert staging.get("/")[1]["entries"] == entries + 1
    refused = run(staging, "install", "v2")
    assert (refused.returncode, staging.get("/")[1]["entries"]) == (4, entries + 1), refused.stderr
    assert run(staging, "deploy", "v2").returncode == 0
    assert staging.get("/")[1] == {"version": "v2", "entries": entries}
    backups = run_json(staging, "backup", "list")["data"]["backups"]
    assert backups[-1]["reason"] == "before the installation of v2", "what was there is in a backup"


def test_production_is_never_wiped(production: Site) -> None:
    before = production.fingerprint()
    for arguments in (("install", "v2", "--wipe"), ("install", "v2", "--again"), ("deploy", "v2")):
        done = run(production, *arguments)
        assert (done.returncode, "cannot be wiped" in done.stderr) == (4, True), done.stderr
    assert production.fingerprint() == before


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("[environment]", '[environment]\nAPP_ENV = "dev"'),
        ("[services.web]", '[services.web]\nenvironment = { DEBUG = "1" }'),
    ],
)
def test_can_i_test_the_customized_application_in_a_development_mode(production: Site, old: str, new: str) -> None:
    text = production.config.read_text()
    production.config.write_text(text.replace(old, new, 1))
    done = run(production, "check")
    assert (done.returncode, "is a development mode" in done.stdout) == (4, True), done.stdout
    done = run(production, "upgrade", "v2")
    assert (done.returncode, "is a development mode" in done.stderr) == (4, True), done.stderr
    assert production.release_label() == "v1"
    production.config.write_text(text.replace(old, new.replace('"dev"', '"prod"').replace('"1"', '"0"'), 1))
    assert "is a development mode" not in run(production, "check").stdout


def test_an_entry_point_of_a_development_mode_that_answers_is_refused(production: Site) -> None:
    commit(production, {"web/app_dev.php": "<?php"}, "v1.1")
    before = production.fingerprint()
    done = run(production, "upgrade", "v1.1")
    assert (done.returncode, "/app_dev.php of service web answers" in done.stderr) == (6, True), done.stderr
    assert (production.release_label(), production.fingerprint()) == ("v1", before)
    known = (production.repository / "app.py").read_text()
    closed = known.replace('                if path == "/entry":', _CLOSED + '                if path == "/entry":')
    commit(production, {"app.py": closed}, "v1.1.1", "v1.1")
    assert run(production, "upgrade", "v1.1.1").returncode == 0
    assert "/app_dev.php" not in run(production, "check").stdout
    (production.app_folder / "current" / "web" / "index_dev.php").write_text("<?php")
    assert "/index_dev.php answers visitors" in run(production, "check").stdout


def test_a_release_has_settings_for_each_type_of_environment(staging: Site) -> None:
    commit(
        staging,
        {
            "holdfast.toml": '[tasks]\nwarm_cache = ["touch", "common"]\n',
            "holdfast.stag.toml": '[tasks]\nwarm_cache = ["touch", "of-stag"]\nprepare = ["touch", "prepared"]\n',
            "holdfast.prod.toml": '[tasks]\nwarm_cache = ["touch", "of-prod"]\n',
        },
        "v1.2",
    )
    shown = run(staging, "install", "v1.2", "--dry-run")
    assert "Set by v1.2:holdfast.stag.toml: tasks.prepare, tasks.warm_cache" in shown.stdout + shown.stderr
    assert run(staging, "install", "v1.2").returncode == 0
    current = staging.app_folder / "current"
    assert (current / "of-stag").exists() and (current / "prepared").exists() and not (current / "of-prod").exists()
    lines = run(staging, "config", "show").stdout.splitlines()
    assert 'tasks.warm_cache = ["touch", "of-stag"]  # current/holdfast.stag.toml:2' in lines


def test_two_environments_never_share_a_state_directory_a_folder_or_a_database(production: Site) -> None:
    before = production.fingerprint()
    overlay(production, "staging", "")
    done = run(production, "install", "v1", "-e", "staging")
    assert (done.returncode, "belongs to guestbook.production" in done.stderr) == (4, True), done.stderr
    other = f'[application]\nstate = "{production.folder / "other"}"\n[vaults.local]\npath = "{production.folder}/v2"\n'
    overlay(production, "staging", other)
    done = run(production, "install", "v1", "-e", "staging")
    assert (done.returncode, "belongs to guestbook.production" in done.stderr) == (4, True), done.stderr
    apart = (
        f'{other}[gate]\nlisten = "127.0.0.1:{gate_port()}"\n'
        + '[releases]\npath = "two/releases"\n[files.media]\npath = "two/media"\n'
    )
    overlay(production, "staging", apart)
    done = run(production, "install", "v1", "-e", "staging")
    assert (done.returncode, "guestbook.sqlite3 belongs to guestbook.production" in done.stderr) == (4, True), (
        done.stderr
    )
    assert production.fingerprint() == before and production.get("/")[0] == 200


def test_unsanitized_data_does_not_leave_production_unasked(production: Site, folder: Path) -> None:
    assert run(production, "backup", "create").returncode == 0
    done = run(production, "backup", "export", str(folder / "away"))
    assert (done.returncode, "--unsanitized" in done.stderr) == (4, True), done.stderr
    assert not (folder / "away").exists()
    assert run(production, "backup", "export", str(folder / "code"), "--only", "code").returncode == 0
    succeed(production, "backup", "export", str(folder / "away"), "--unsanitized", "--reason", "for the auditors")
    assert "for the auditors" in succeed(production, "log", "show", "latest")
