"""What a shell offers while somebody types: commands, options and values; never an error."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from holdfast.cli.main import main
from holdfast.engine.journal import Journal
from holdfast.model import Plan
from tests.proof import patience

_CONFIGURATION = """
application = { name = "shop", state = "state" }
services.web.command = ["web"]
services.mail.command = ["mail"]
databases.main = { kind = "sqlite", path = "shop.sqlite3" }
files.media.path = "media"
vaults.local.path = "vault"
"""


@pytest.fixture
def shop(quick_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (quick_folder / "holdfast.toml").write_text(_CONFIGURATION)
    (quick_folder / "holdfast.staging.toml").write_text("")
    for name in ("2026-11-20-082512", "2026-11-21-082512"):
        (quick_folder / "vault" / "backups" / name).mkdir(parents=True)
    (quick_folder / "state" / "packages" / "v1-0123456789ab").mkdir(parents=True)
    (quick_folder / "state" / "packages" / "v1-0123456789ab" / "manifest.json").touch()
    (quick_folder / "releases" / "20261120-082512-v1").mkdir(parents=True)
    journal = Journal(quick_folder / "state")
    journal.begin(Plan(kind="backup", title="backup", steps=()), command="", configuration={}, user="", suffix="abcd")
    journal.close()
    monkeypatch.chdir(quick_folder)
    return quick_folder


def offered(line: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> list[str]:
    monkeypatch.setenv("_HOLDFAST_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv("COMP_CWORD", str(len(line.split(" ")) - 1))
    main()
    shown = capfd.readouterr()
    assert shown.err == ""
    return [one.removeprefix("plain,") for one in shown.out.split()]


@pytest.mark.parametrize(
    ("line", "values"),
    [
        ("holdfast ba", ["backup"]),
        ("holdfast backup p", ["prune", "pin"]),
        ("holdfast upgrade --dr", ["--dry-run"]),
        ("holdfast backup show ", ["latest", "2026-11-21-082512", "2026-11-20-082512"]),
        ("holdfast backup restore latest 2026-11-20", ["2026-11-20-082512"]),
        ("holdfast backup create --only m", ["main", "media"]),
        ("holdfast backup create --consistency ", ["live", "pause", "quiesce"]),
        ("holdfast service stop m", ["mail"]),
        ("holdfast rollback --to ", ["20261120-082512-v1"]),
        ("holdfast package deploy ", ["v1-0123456789ab"]),
        ("holdfast config help gate.li", ["gate.listen"]),
        ("holdfast clone s", ["staging"]),
        ("holdfast -e stag", ["staging"]),
        ("holdfast status -e ", ["production", "staging"]),
        ("holdfast import files x --into ", ["media"]),
        ("holdfast import files x", ["file,x"]),
        ("holdfast help exit", ["exit-codes"]),
        ("holdfast nonsense x", []),
    ],
)
def test_values_are_offered(
    line: str, values: list[str], shop: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert offered(line, monkeypatch, capfd) == values


def test_operations_are_offered_from_the_journal(
    shop: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    latest, operation = offered("holdfast log show ", monkeypatch, capfd)
    assert latest == "latest" and operation.endswith("-backup-abcd")


@pytest.mark.parametrize("broken", ["[", "application = 5", None])
@pytest.mark.parametrize("line", ["holdfast backup show ", "holdfast upgrade ", "holdfast -e ", "holdfast log show "])
def test_what_cannot_be_read_offers_nothing_and_says_nothing(
    broken: str | None,
    line: str,
    quick_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(quick_folder)
    if broken is not None:
        (quick_folder / "holdfast.toml").write_text(broken)
    assert offered(line, monkeypatch, capfd) == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_is_one_of_the_shell_and_silent(
    shell: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["holdfast", "completion", shell])
    main()
    script = capsys.readouterr().out
    assert f"{shell}_complete" in script
    assert script.count("2>/dev/null") == 1


def test_bash_completes_with_it(shop: Path) -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("not installed: bash")
    program = shop / "bin" / "holdfast"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m holdfast "$@"\n')
    program.chmod(0o755)
    script = f"""
        PATH={program.parent}:$PATH
        eval "$(holdfast completion bash)"
        COMP_WORDS=(holdfast backup show 2026-11-20) COMP_CWORD=3
        _holdfast_completion holdfast
        echo "${{COMPREPLY[@]}}"
    """
    done = subprocess.run([bash, "-c", script], capture_output=True, text=True, timeout=patience.limit(10), check=True)
    assert (done.stdout, done.stderr) == ("2026-11-20-082512\n", "")
