"""Secrets that Holdfast keeps: never in the clear but in the process that uses them, and back after a bad change."""

from __future__ import annotations

import json
import os
import pty
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import zstandard

from holdfast.drivers.vaults.local import reader  # noqa: F401  # the vault's format is read by hand below
from tests import kept
from tests.e2e.cli import argv, run, run_json, succeed
from tests.proof import patience
from tests.site import Site

FIRST, SECOND = "S3cr3t-number-one", "S3cr3t-number-two"
USES = '[environment]\nTOKEN = "secret:TOKEN"\n'


@pytest.fixture
def site() -> Iterator[Site]:
    with kept.site() as lent:
        yield lent


def given(site: Site, name: str, value: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    path = site.folder / "value"
    path.write_text(f"{value}\n")
    with open(path, "rb") as stdin:
        done = run(site, "secret", "set", name, *arguments, stdin=stdin)
    path.unlink()
    return done


def uses(site: Site, text: str = USES) -> None:
    site.config.with_name("holdfast.prod.toml").write_text(text)


def in_use(site: Site) -> tuple[int, str]:
    """Return the process of the web, and the value that it has."""
    (web,) = (one for one in run_json(site, "service", "status")["data"]["services"] if one["name"].startswith("web-"))
    variables = Path(f"/proc/{web['pid']}/environ").read_text().split("\0")
    return web["pid"], next((one.partition("=")[2] for one in variables if one.startswith("TOKEN=")), "")


def with_first(site: Site) -> None:
    assert given(site, "TOKEN", FIRST).returncode == 0
    succeed(site, "secret", "apply")
    uses(site)
    again(site)


def again(site: Site) -> None:
    """Let the services run as they are configured now."""
    succeed(site, "service", "stop")
    succeed(site, "service", "start")


def store(site: Site) -> Path:
    return site.config.with_name("holdfast.secrets.production.json")


def test_a_value_is_pending_until_it_is_applied_and_masked_everywhere(site: Site) -> None:
    with_first(site)
    pid, value = in_use(site)
    assert value == FIRST
    done = given(site, "TOKEN", SECOND, "-vvv")
    assert done.returncode == 0 and in_use(site) == (pid, FIRST), "nothing changes before it is applied"
    shown = succeed(site, "secret", "list", "--json")
    (listed,) = json.loads(shown)["data"]["secrets"]
    assert (listed["name"], listed["value"]) == ("TOKEN", "********") and listed["status"].startswith("pending")
    assert listed["used_by"] == ["environment.TOKEN"]
    assert (site.state / "secrets.identity").stat().st_mode & 0o777 == 0o600
    applied = run(site, "secret", "apply", "-vvv")
    assert applied.returncode == 0, applied.stderr
    assert in_use(site)[1] == SECOND and in_use(site)[0] != pid
    succeed(site, "backup", "create")
    texts = {"set": (done.stdout + done.stderr).encode(), "apply": (applied.stdout + applied.stderr).encode()}
    texts["list"] = shown.encode()
    for folder in (site.state, site.vault, site.app_folder):
        for path in (one for one in folder.rglob("*") if one.is_file() and not one.is_symlink()):
            content = path.read_bytes()
            if path.name.endswith(".zst"):
                content += zstandard.ZstdDecompressor().decompressobj().decompress(content)
            texts[str(path)] = content
    with closing(sqlite3.connect(site.state / "journal.sqlite3")) as journal:
        texts["journal"] = "\n".join(journal.iterdump()).encode()
    assert any(path.endswith("config.tar.zst") and b"holdfast.secrets." in text for path, text in texts.items())
    for name, content in texts.items():
        for secret in (FIRST, SECOND):
            assert secret.encode() not in content, f"a value stands in {name}"


def test_a_value_that_the_service_refuses_goes_back_and_one_that_nothing_uses_restarts_nothing(site: Site) -> None:
    with_first(site)
    check = f"import os, sys; sys.exit(os.environ['TOKEN'] != '{FIRST}')"
    command = ["sh", "-c", f'{sys.executable} -c "{check}" && exec python3 app.py {{port}}']
    uses(site, f"{USES}[services.web]\ncommand = {json.dumps(command)}\n")
    again(site)
    assert given(site, "TOKEN", SECOND).returncode == 0
    done = run(site, "secret", "apply")
    assert done.returncode == 6, done.stderr
    pid, value = in_use(site)
    assert (value, site.get("/")[0]) == (FIRST, 200)
    assert "pending" in succeed(site, "secret", "list")
    assert given(site, "OTHER", "of nobody").returncode == 0
    succeed(site, "secret", "apply", "OTHER")
    assert in_use(site)[0] == pid, "only services that use a changed one are restarted"
    assert given(site, "TOKEN", FIRST).returncode == 0
    succeed(site, "secret", "apply")
    assert in_use(site)[0] == pid, "an equal value is no change"


def test_what_services_printed_is_masked_whoever_resolved_the_secret(site: Site) -> None:
    with_first(site)
    says = ["sh", "-c", "echo mine is $TOKEN and $OTHER; exec python3 app.py {port}"]
    secret = site.folder / "secret"
    secret.write_text("of-another-file")
    uses(site, f'{USES}OTHER = "file:{secret}"\n[services.web]\ncommand = {json.dumps(says)}\n')
    again(site)
    shown = succeed(site, "service", "logs", "web")
    assert "mine is [redacted] and [redacted]" in shown
    assert "mine is [redacted]" in run(site, "service", "logs", "web", "--json").stdout
    assert given(site, "TOKEN", SECOND).returncode == 0
    succeed(site, "secret", "apply")
    for output in (succeed(site, "service", "logs", "web"), run(site, "service", "logs", "web", "--json").stdout):
        assert FIRST not in output and SECOND not in output and "of-another-file" not in output, "nor an earlier value"


def test_a_value_is_asked_for_and_never_an_argument(site: Site) -> None:
    done = run(site, "secret", "set", "TOKEN", FIRST)
    assert (done.returncode, "never an argument" in done.stderr, FIRST in done.stderr) == (2, True, False)
    assert run(site, "secret", "set", "9", stdin=subprocess.DEVNULL).returncode == 2
    assert given(site, "TOKEN", "").returncode == 2
    ours, theirs = pty.openpty()
    process = subprocess.Popen(argv(site, "secret", "set", "TOKEN"), stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown = b""
    for prompts in (1, 2):
        while shown.count(b": ") < prompts:  # what is typed before a prompt is thrown away
            shown += os.read(ours, 4096)
        os.write(ours, f"{FIRST}\n".encode())
    assert process.wait(patience.limit(60)) == 0
    os.close(ours)
    assert FIRST.encode() not in shown
    succeed(site, "secret", "apply")
    uses(site, '[tasks]\nprepare = ["echo", "secret:TOKEN"]\n')
    done = run(site, "check")
    assert (done.returncode, "never an argument" in done.stderr) == (3, True), done.stderr


def test_a_secret_that_does_not_decrypt_is_a_clear_error_before_any_change(site: Site) -> None:
    with_first(site)
    assert given(site, "TOKEN", SECOND).returncode == 0
    before, pid = store(site).read_bytes(), in_use(site)[0]
    identity = site.state / "secrets.identity"
    kept_identity = identity.read_bytes()
    other = site.folder / "other"
    other.mkdir()
    from holdfast.system.secret_store import SecretStore

    SecretStore(other / "file", other / "identity").set("X", "y", "test")
    for damage in (identity.unlink, lambda: shutil.copy(other / "identity", identity)):
        damage()
        for words in (("secret", "apply"), ("upgrade", "v2"), ("service", "restart")):
            done = run(site, *words)
            assert (done.returncode, str(identity) in done.stderr) == (4, True), done.stderr
        assert (store(site).read_bytes(), in_use(site)[0], site.release_label()) == (before, pid, "v1")
        assert str(identity) in run(site, "check").stdout
    identity.write_bytes(kept_identity)
    identity.chmod(0o644)
    assert "chmod 600" in run(site, "secret", "apply").stderr
    identity.chmod(0o600)
    succeed(site, "secret", "apply")
    assert in_use(site)[1] == SECOND


def test_secrets_come_back_with_the_configuration_and_need_their_identity(site: Site) -> None:
    with_first(site)
    succeed(site, "backup", "create")
    store(site).unlink()
    identity = site.state / "secrets.identity"
    identity.rename(identity.with_name("elsewhere"))
    done = run(site, "backup", "restore", "latest")
    assert (done.returncode, "there is no identity" in done.stderr) == (4, True), done.stderr
    identity.with_name("elsewhere").rename(identity)
    done = run(site, "backup", "restore", "latest")
    assert done.returncode == 0 and "secrets only encrypted" in done.stderr, done.stderr
    assert in_use(site)[1] == FIRST and site.get("/")[0] == 200


def test_one_that_is_used_is_not_removed(site: Site) -> None:
    with_first(site)
    done = run(site, "secret", "remove", "TOKEN")
    assert (done.returncode, "environment.TOKEN" in done.stderr) == (4, True), done.stderr
    assert given(site, "OLD", "of nobody").returncode == 0
    succeed(site, "secret", "remove", "OLD")
    assert "OLD" not in succeed(site, "secret", "list")
    assert run(site, "secret", "remove", "OLD").returncode == 4


def test_a_file_of_a_service_takes_a_variable_that_is_a_secret(site: Site) -> None:
    with_first(site)
    release = site.app_folder / "current"
    (release / "conf.in").write_text("token={env:TOKEN} port={port} {env:NONE}\n")
    uses(site, f'{USES}[services.web]\nfiles = {{ "var/conf" = "conf.in" }}\n')
    again(site)
    written = release / "var" / "conf"
    instance = run_json(site, "service", "status")["data"]["services"]
    assert instance and FIRST in written.read_text() and "{env:NONE}" in written.read_text()
    assert written.stat().st_mode & 0o777 == 0o600


def test_credentials_are_shown_where_it_is_no_production(site: Site) -> None:
    with_first(site)
    done = run(site, "credentials", "show")
    assert (done.returncode, FIRST in done.stdout + done.stderr) == (4, False)
    text = site.config.read_text()
    site.config.write_text(text.replace('environment = "production"', 'environment = "production"\ntype = "stag"'))
    site.config.with_name("holdfast.stag.toml").write_text(USES)
    (site.state / "environment.json").unlink()
    assert f"TOKEN: {FIRST}" in succeed(site, "credentials", "show")
    assert json.loads(succeed(site, "credentials", "show", "--format", "json"))["environment"]["TOKEN"] == FIRST
    for selector in ("environment.TOKEN", "[environment][TOKEN]"):
        assert succeed(site, "credentials", "show", selector).strip() == FIRST
    assert run(site, "credentials", "show", "environment.NO").returncode == 4
