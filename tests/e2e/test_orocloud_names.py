"""Scripts of orocloud-cli on a real site: its names, and what its manual says of every command."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import kept
from tests.e2e.cli import run, run_json, script, start, succeed
from tests.proof import patience
from tests.site import Site

ECHO = [sys.executable, "-c", "import json, sys; print(json.dumps(sys.argv[1:])); sys.exit(7)"]


@pytest.fixture
def site() -> Iterator[Site]:
    with kept.site(backup=True) as lent:
        yield lent


def overlay(site: Site, text: str) -> None:
    site.config.with_name("holdfast.prod.toml").write_text(text)


def test_old_scripts_run_as_they_are(site: Site) -> None:
    done = script(site, "orocloud-cli backup:create:db --label='before the fair' --no-interaction")
    assert done.returncode == 0, done.stderr
    made = run_json(site, "backup", "list")["data"]["backups"][-1]
    assert (list(made["datasets"]), made["reason"]) == (["main"], "before the fair")
    assert made["id"] in script(site, "orocloud-cli backup:list --page=1 --per-page=1").stdout
    for line in ("app:package:list", "log:list", "service:status", "config:validate", "config:help gate.listen"):
        done = script(site, f"orocloud-cli {line}")
        assert done.returncode == 0, (line, done.stderr)
    identifier = run_json(site, "log", "list")["data"]["operations"][0]["id"]
    assert identifier in script(site, f"orocloud-cli log:view {identifier}").stdout
    assert script(site, "orocloud-cli maintenance:on").returncode == 0
    assert site.get("/")[0] == 503
    assert script(site, "orocloud-cli maintenance:off").returncode == 0
    assert site.get("/")[0] == 200
    done = script(site, "orocloud-cli app:package:upgrade v2 --no-ansi")
    assert (done.returncode, site.release_label()) == (0, "v2"), done.stderr
    refused = script(site, "orocloud-cli backup:restore latest -n")
    assert (refused.returncode, "--yes" in refused.stderr) == (2, True), "without a terminal nothing is assumed"


def test_pages_of_a_list_add_up(site: Site) -> None:
    for number in range(4):
        succeed(site, "backup", "create", "--only", "main", "--comment", f"number {number}")
    every = [item["id"] for item in run_json(site, "backup", "list")["data"]["backups"]]
    assert len(set(every)) == len(every) >= 5, "ids are unique even within a minute"
    pages = [run_json(site, "backup", "list", "--per-page", "2", "--page", str(page))["data"] for page in (1, 2, 3, 9)]
    assert [item["id"] for page in reversed(pages) for item in page["backups"]] == every[-6:]
    assert pages[0]["total"] == len(every) and pages[0]["pages"] == -(-len(every) // 2) and not pages[3]["backups"]


def test_what_is_the_difference_between_the_deploy_and_upgrade_commands(site: Site) -> None:
    upgrade = succeed(site, "upgrade", "v2", "--dry-run")
    assert "run migrate" in upgrade and "run install" not in upgrade
    text = site.config.read_text()
    site.config.write_text(text.replace('environment = "production"', 'environment = "production"\ntype = "stag"'))
    site.config.with_name("holdfast.stag.toml").write_text('[tasks]\ninstall = ["true"]\n')
    (site.state / "environment.json").unlink()
    shown = script(site, "orocloud-cli deploy v2 --dry-run").stdout
    assert "run install" in shown and "remove the data" in shown and "run migrate" not in shown


def test_what_is_in_the_application_backup(site: Site) -> None:
    found = run_json(site, "backup", "show", "latest")["data"]
    assert {"main", "media"} <= {*found["datasets"]}
    assert {"code.tar.zst", "config.tar.zst"} <= {*found["files"]}
    text = site.config.read_text()
    site.config.write_text(text.replace("[backup]\n", '[backup]\ncode = "commit"\n'))
    succeed(site, "backup", "create")
    found = run_json(site, "backup", "show", "latest")["data"]
    assert "code.json" in found["files"] and "code.tar.zst" not in found["files"]


def test_how_do_i_know_what_the_operation_does(site: Site, folder: Path) -> None:
    secret = folder / "secret"
    secret.write_text("S3cr3t-of-the-test")
    says = json.dumps([["sh", "-c", "echo it is $TOKEN"], ["true", "S3cr3t-of-the-test"]])
    overlay(site, f'[environment]\nTOKEN = "file:{secret}"\n[tasks]\nwarm_cache = {says}\n')
    done = run(site, "upgrade", "v2", "-vvv")
    assert done.returncode == 0, done.stderr
    shown = done.stdout + done.stderr
    assert "$ sh -c echo it is $TOKEN" in shown and "$ true [redacted]" in shown and "manage.py migrate" in shown
    assert "S3cr3t" not in shown


def test_how_can_i_find_the_supported_options_for_each_command(site: Site) -> None:
    for line in ("app:package:deploy", "backup:restore:db", "backup:create", "maintenance:on", "service:stop"):
        done = script(site, f"orocloud-cli {line} --help")
        assert (done.returncode, "Options:" in done.stdout) == (0, True), line
        assert script(site, f"orocloud-cli {line} -h").stdout == done.stdout


def test_can_we_skip_backing_up_gigabytes_of_media_files_before_the_upgrade(site: Site) -> None:
    succeed(site, "backup:create:db")
    database = run_json(site, "backup", "list")["data"]["backups"][-1]["id"]
    succeed(site, "backup:create:media")
    media = run_json(site, "backup", "list")["data"]["backups"][-1]["id"]
    rows, files = site.store.digest(), sorted(path.name for path in site.media.rglob("*.bin"))
    site.post(b"since both")
    newer = site.store.digest()
    succeed(site, "backup:restore:media", media)
    assert (site.store.digest(), sorted(path.name for path in site.media.rglob("*.bin"))) == (newer, files)
    site.post(b"since the files")
    later = sorted(path.name for path in site.media.rglob("*.bin"))
    succeed(site, "backup:restore:db", database)
    assert (site.store.digest(), sorted(path.name for path in site.media.rglob("*.bin"))) == (rows, later)


def test_backup_restore_brings_database_and_code_and_media_only_on_request(site: Site) -> None:
    succeed(site, "backup:create")
    made = run_json(site, "backup", "list")["data"]["backups"][-1]["id"]
    before = site.fingerprint(times=False)
    rows = site.store.digest()
    site.post(b"since the backup")
    succeed(site, "upgrade", "v2")
    files = sorted(path.name for path in site.media.rglob("*.bin"))
    succeed(site, "backup:restore", made)
    assert (site.release_label(), site.store.digest()) == ("v1", rows)
    assert sorted(path.name for path in site.media.rglob("*.bin")) == files, "media stay"
    succeed(site, "backup:restore", made, "--with-media")
    assert site.fingerprint(times=False) == before


def test_a_bare_run_answers_while_an_operation_runs_and_a_second_one_names_the_holder(site: Site) -> None:
    flag, begun_flag = site.folder / "go-on", site.folder / "begun"
    waits = (
        f"import os, time\nopen({str(begun_flag)!r}, 'w')\nwhile not os.path.exists({str(flag)!r}): time.sleep(0.05)"
    )
    overlay(site, f"[tasks]\nprepare = {json.dumps([sys.executable, '-c', waits])}\n")
    begun = start(site, "upgrade", "v2")
    try:
        patience.until(begun_flag.exists)
        bare = script(site, "orocloud-cli")
        assert (bare.returncode, "app:package:" in bare.stdout) == (0, True)
        second = run(site, "upgrade", "v2")
        assert second.returncode == 5, second.stderr
        for part in (f"process {begun.pid}", os.uname().nodename, "by root" if os.geteuid() == 0 else "by "):
            assert part in second.stderr, second.stderr
        assert "holdfast upgrade v2" in second.stderr and "since 20" in second.stderr
    finally:
        flag.touch()
        assert begun.wait(patience.limit(60)) == 0


def test_the_console_gets_its_arguments_unchanged_and_passes_its_exit_code_on(site: Site) -> None:
    overlay(site, f"[tasks]\nconsole = {json.dumps(ECHO)}\n")
    words = ["cache:clear", "two words", 'a "quote"', "it's", "back\\slash", "$HOME `id`", "", "--config", "naïve *"]
    done = run(site, "console", "--", *words)
    assert (done.returncode, json.loads(done.stdout)) == (7, words), done.stderr
    done = script(site, f"orocloud-cli app:console {shlex.quote(shlex.join(words))}")
    assert (done.returncode, json.loads(done.stdout)) == (7, words), done.stderr


def test_a_console_that_takes_too_long_is_ended_with_what_it_started(site: Site) -> None:
    pids = site.folder / "pids"
    begins = f"sleep 600 & echo $! > {pids}; echo $$ >> {pids}; setsid sleep 600 & echo $! >> {pids}; wait"
    overlay(site, f"[tasks]\nconsole = {json.dumps(['sh', '-c', begins])}\n[limits]\nconsole_timeout_seconds = 2\n")
    done = run(site, "console", "--", "x")
    assert done.returncode == 1 and "was ended after 2 seconds" in done.stderr, done.stderr
    for pid in pids.read_text().split():
        state = Path(f"/proc/{pid}/stat")
        assert not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z"
