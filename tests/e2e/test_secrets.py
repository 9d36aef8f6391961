"""A sentinel secret appears in no log, journal, message or file of Holdfast, in none of its forms."""

from __future__ import annotations

import base64
import json
import sqlite3
import urllib.parse
from contextlib import closing
from pathlib import Path

from tests.e2e.cli import run
from tests.site import Site

SECRET = 'S3cr3t/with"quotes+and=more'
PRINTS = (
    "import base64, json, os, sys, urllib.parse; s = os.environ['TOKEN'];print(s); print(json.dumps(s));"
    " print(urllib.parse.quote(s, safe='')); print(base64.b64encode(b'user:' + s.encode()).decode());print('x' * 65530"
    " + s); sys.exit('the token ' + s + ' was refused')"
)


def forms() -> list[bytes]:
    found = [SECRET, json.dumps(SECRET)[1:-1], urllib.parse.quote(SECRET, safe="")]
    encoded = base64.b64encode(b"user:" + SECRET.encode()).decode()
    return [text.encode() for text in found] + [encoded[8:-4].encode()]


def test_a_secret_is_redacted_everywhere(site: Site, folder: Path) -> None:
    secret = folder / "secret"
    secret.write_text(SECRET + "\n")
    secret.chmod(0o600)
    text = site.config.read_text()
    text = text.replace("[environment]", f'[environment]\nTOKEN = "file:{secret}"')
    site.config.write_text(text)
    assert run(site, "install", "v1").returncode == 0
    escaped = json.dumps(["python3", "-c", PRINTS])
    site.config.write_text(text.replace('migrate = ["python3", "manage.py", "migrate"]', f"migrate = {escaped}"))
    done = run(site, "upgrade", "v2", "-vvv")
    assert done.returncode == 6
    assert "was refused" in done.stdout + done.stderr, "the task did not say anything: the test shows nothing"
    shown = run(site, "log", "show", "latest")
    assert "[redacted]" in shown.stdout
    as_json = run(site, "log", "show", "latest", "--json")
    texts = {
        "output": (done.stdout + done.stderr).encode(),
        "log show": shown.stdout.encode(),
        "json": as_json.stdout.encode(),
    }
    for path in site.state.rglob("*"):
        if path.is_file():
            texts[str(path)] = path.read_bytes()
    with closing(sqlite3.connect(site.state / "journal.sqlite3")) as journal:
        texts["journal"] = "\n".join(journal.iterdump()).encode()
    for path in site.vault.rglob("manifest.json"):
        texts[str(path)] = path.read_bytes()
    for name, content in texts.items():
        for form in forms():
            assert form not in content, f"{form!r} stands in {name}"


def test_a_secret_that_cannot_be_read_is_named_by_its_reference(site: Site) -> None:
    text = site.config.read_text().replace("[environment]", '[environment]\nTOKEN = "file:/nonexistent/token"')
    site.config.write_text(text)
    done = run(site, "install", "v1")
    assert done.returncode != 0
    assert "file:/nonexistent/token" in done.stderr
    assert not (site.app_folder / "current").exists()
