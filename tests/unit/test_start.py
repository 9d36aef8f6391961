"""What a command imports before it does anything: most of the time that `status` and `--help` take."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

_PROGRAM = """
import json, sys
from holdfast.cli.main import main
sys.argv = ["holdfast", *sys.argv[1:]]
try:
    main()
finally:
    sys.stderr.write(json.dumps(sorted(sys.modules)))
"""
_CONFIGURATION = """
[application]
name = "guestbook"
state = "state"

[source]
repository = "source"

[services.web]
command = ["web"]

[databases.main]
kind = "sqlite"
path = "guestbook.sqlite3"

[files.media]
path = "media"

[gate]
kind = "front"
listen = "127.0.0.1:8000"

[vaults.local]
kind = "local"
path = "vault"
"""
_HEAVY = {
    "asyncio",
    "concurrent.futures",
    "email",
    "http.client",
    "httptools",
    "importlib.metadata",
    "importlib.resources",
    "logging",
    "multiprocessing",
    "pickle",
    "rich",
    "ssl",
    "supervisor",
    "tarfile",
    "xmlrpc",
    "zipfile",
    "zstandard",
    # What only plans and running operations need.
    "holdfast.application.health",
    "holdfast.drivers.databases.sqlite",
    "holdfast.drivers.files.local",
    "holdfast.drivers.interchange",
    "holdfast.drivers.vaults.local.reader",
    "holdfast.drivers.vaults.local.writer",
    "holdfast.operations",
    "holdfast.steps.table",
}


def _imported(folder: Path, *arguments: str) -> set[str]:
    command = [sys.executable, "-c", _PROGRAM, *arguments]
    done = subprocess.run(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=True)
    found: list[str] = json.loads(done.stderr)
    return set(found)


@pytest.mark.parametrize(
    ("arguments", "more"),
    [(["status"], set()), (["--help"], {"msgspec", "sqlite3", "tomllib", "holdfast.config", "holdfast.model"})],
)
def test_a_light_command_imports_nothing_heavy(quick_folder: Path, arguments: list[str], more: set[str]) -> None:
    (quick_folder / "holdfast.toml").write_text(_CONFIGURATION)
    imported = _imported(quick_folder, *arguments)
    assert "holdfast.cli.main" in imported
    assert (imported & (_HEAVY | more)) == set()
