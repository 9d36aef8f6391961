"""Holdfast as root, and services and tasks as two other accounts, from a shell with a strict umask."""

from __future__ import annotations

import os
import pwd
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.cli import run, run_json, succeed
from tests.memory import make_folder
from tests.proof import patience
from tests.small_application import SmallApplication

WEB, WORKER = "www-data", "daemon"
PYTHON = "/usr/bin/python3"  # that of the tests may be in a folder that is closed to other accounts
_MANAGE = """
import json, os, pathlib, sqlite3, sys
assert os.environ["PWD"] == os.getcwd()
version = open("VERSION").read()
open("/dev/stderr", "w").write("of a task")
if sys.argv[1] == "collect":
    pathlib.Path("var/collected").write_text(f"{sys.argv[2]} for {version}")
    print("collected", sys.argv[2])
if sys.argv[1] == "install":
    assert os.environ["ADMIN"] == "geheim"
    pathlib.Path("settings.ini").write_text("installed")
    os.close(os.open("data/secret", os.O_CREAT | os.O_WRONLY, 0o600))
    pathlib.Path("data/secret").write_text("of the installation")
if sys.argv[1] in ("install", "migrate"):
    database = sqlite3.connect("app.sqlite3")
    database.execute("CREATE TABLE IF NOT EXISTS entry (text TEXT)")
    database.execute("INSERT INTO entry VALUES (?)", (version,))
    database.commit()
    if os.path.exists("broken"):
        sys.exit("the migration does not know what to do")
"""
_WEB = """
import http.server, json, os, pathlib, sqlite3, sys

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        database = sqlite3.connect("app.sqlite3")
        if self.path == "/write":
            database.execute("INSERT INTO entry VALUES ('of a visitor')")
            database.commit()
            pathlib.Path("media/of-a-visitor").write_text("here")
            pathlib.Path("var/cached").write_text("x")
        rows = database.execute("SELECT count(*) FROM entry").fetchone()[0]
        found = {"version": open("VERSION").read(), "rows": rows, "uid": os.getuid(), "gid": os.getgid(),
            "secret": open("data/secret").read(), "settings": open("settings.ini").read(),
            "collected": open("var/collected").read(), "theme": open("themes/default/style.css").read(),
            "groups": os.getgroups(), "cwd": os.environ["PWD"]}
        body = json.dumps(found).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass

port = int(open("var/port").read())
http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""
_WORKER = """
import os, time
open("/dev/stderr", "w").close()
open("/dev/stdout", "w").close()
if os.path.exists("media/readable"):
    open("media/readable", "rb").close()
open("VERSION").read()
time.sleep(86400)
"""


class Owned(SmallApplication):
    """A site of two accounts, in a folder through which everybody may pass."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        code = {"manage.py": _MANAGE, "web.py": _WEB, "worker.py": _WORKER, "themes/default/style.css": "shipped"}
        code["port.in"] = "{port}"
        self.release("v1", code)
        self.release("v2")
        self.release("v3", {"broken": ""})
        self.shared.mkdir()
        self.shared.chmod(0o755)
        shutil.chown(self.shared, WEB, WEB)
        (self.shared / "users").write_text("of the operator")
        password = folder / "password"
        password.write_text("geheim\n")
        password.chmod(0o600)
        self.config.write_text(f"""
[application]
name = "owned"
state = "{folder}/state"
[source]
repository = "{self.repository}"
writable = ["var"]
[source.shared]
"settings.ini" = "shared/settings.ini"
"app.sqlite3" = "shared/app.sqlite3"
"media" = "shared/media"
"data" = "shared/data"
"themes" = "shared/themes"
"users" = "shared/users"
[services.web]
user = "{WEB}"
command = ["{PYTHON}", "web.py"]
files = {{ "var/port" = "port.in" }}
health = "/"
health_contains = '"secret": "of the'
settle_seconds = 0.1
[services.jobs]
user = "{WORKER}"
command = ["{PYTHON}", "worker.py"]
health_command = ["{PYTHON}", "-c", "import os; assert os.getuid() == {pwd.getpwnam(WORKER).pw_uid}"]
settle_seconds = 0.1
[tasks]
prepare = [["{PYTHON}", "manage.py", "collect", "styles"], ["{PYTHON}", "manage.py", "collect", "scripts"]]
migrate = ["{PYTHON}", "{{release}}/manage.py", "migrate"]
console = ["id"]
[tasks.install]
commands = ["{PYTHON}", "manage.py", "install"]
environment = {{ ADMIN = "file:{password}" }}
timeout_seconds = {patience.limit(60)}
[limits]
task_timeout_seconds = {patience.limit(60)}
[databases.main]
kind = "sqlite"
path = "shared/app.sqlite3"
[files.media]
path = "shared/media"
[vaults.local]
path = "{folder}/vault"
[gate]
kind = "front"
listen = "127.0.0.1:{self.port}"
""")


@pytest.fixture
def site() -> Iterator[Owned]:
    if os.geteuid() != 0:
        pytest.skip("only root can start services as other accounts: run as root")
    if not os.access(PYTHON, os.X_OK):
        pytest.skip(f"no {PYTHON} here: install python3")
    before = os.umask(0o077)
    made = Owned(make_folder("hfo"))
    yield made
    os.umask(before)
    made.end()


def owner(path: Path) -> str:
    return pwd.getpwuid(path.lstat().st_uid).pw_name


def test_services_and_tasks_of_two_accounts(site: Owned) -> None:
    done = run(site, "install", "v1", afresh=True)
    assert done.returncode == 0, done.stderr
    said = site.get()
    account = pwd.getpwnam(WEB)
    assert (said["uid"], said["gid"], said["groups"]) == (account.pw_uid, account.pw_gid, [account.pw_gid])
    assert (said["settings"], said["secret"], said["theme"]) == ("installed", "of the installation", "shipped")
    assert said["collected"] == "scripts for v1", "both commands ran, in turn, before the start"
    release = (site.app / "current").resolve()
    assert said["cwd"] == str(release)
    assert (release / "users").read_text() == "of the operator", "an existing file is no folder, whatever its name"
    for path in ("data", "data/secret", "settings.ini", "media", "themes", "themes/default/style.css", "app.sqlite3"):
        assert owner(site.shared / path) == WEB, path
    assert (owner(release), owner(release / "manage.py"), owner(release / "var")) == ("root", "root", WEB)
    shown = succeed(site, "log", "show", run_json(site, "log", "list")["data"]["operations"][-1]["id"])
    assert "manage.py install" in shown and "geheim" not in shown

    site.get("/write")
    (site.shared / "themes" / "default" / "style.css").write_text("of the operator")
    done = run(site, "upgrade", "v2", afresh=True)
    assert done.returncode == 0, done.stderr
    said = site.get("/write")
    assert (said["version"], said["theme"], said["rows"]) == ("v2", "of the operator", 4)
    assert owner(site.shared / "media" / "of-a-visitor") == WEB
    assert f"uid={account.pw_uid}({WEB})" in succeed(site, "console")

    # What a backup has comes back with its owners, and so does the configuration that the installation wrote.
    succeed(site, "backup", "create")
    (site.shared / "settings.ini").unlink()
    found = run_json(site, "check")["data"]["problems"]
    assert any("settings.ini of the current release leads to" in problem["message"] for problem in found)
    (site.shared / "media" / "of-a-visitor").unlink()
    site.shared.joinpath("app.sqlite3").write_bytes(b"")
    succeed(site, "backup", "restore", "latest")
    assert site.get("/write")["settings"] == "installed"
    for path in ("settings.ini", "media/of-a-visitor", "app.sqlite3"):
        assert owner(site.shared / path) == WEB, path


def test_an_undone_installation_leaves_no_configuration_and_its_files_to_look_at(site: Owned) -> None:
    """Nor what a release ships in folders that existed, else the next one would not be copied."""
    (site.shared / "media").mkdir(0o755)
    shutil.chown(site.shared / "media", WEB, WEB)
    (site.repository / "media").mkdir()
    (site.repository / "media" / "shipped").write_text("once")
    site.release("v4", {"broken": ""})
    done = run(site, "install", "v4", "--verbose")
    assert done.returncode == 6 and "the migration does not know what to do" in done.stderr, done.stderr
    assert "/media/." in done.stderr, "it was copied"
    assert not (site.shared / "media" / "shipped").exists()
    done = run(site, "install", "v3")
    assert done.returncode == 6, done.stderr
    assert "the migration does not know what to do" in done.stderr
    for name in ("settings.ini", "data", "themes"):
        assert not (site.shared / name).exists(), name
    (kept,) = (site.app / "releases" / ".failed").iterdir()
    assert str(kept) in done.stderr + done.stdout
    assert (kept / "var" / "collected").read_text() == "scripts for v3"
    succeed(site, "install", "v1")
    assert not kept.exists()
    assert sqlite3.connect(site.shared / "app.sqlite3").execute("SELECT text FROM entry").fetchall() == [("v1",)]


def test_what_an_account_cannot_reach_is_refused_before_anything_changes(site: Owned) -> None:
    site.app.chmod(0o700)
    done = run(site, "install", "v1")
    assert done.returncode == 4, done.stderr
    assert f"{WEB} cannot enter {site.app}" in done.stderr
    assert f"chmod o+x {site.app}" in done.stderr
    assert not (site.shared / "data").exists()
    site.app.chmod(0o755)
    site.shared.chmod(0o700)
    os.chown(site.shared, 0, 0)
    done = run(site, "install", "v1")
    assert done.returncode == 4, done.stderr
    assert f"{WEB} cannot enter {site.shared}, which leads to what releases share" in done.stderr
    site.shared.chmod(0o755)
    closed = site.folder / "closed"
    closed.mkdir(mode=0o700)
    shutil.copy(os.path.realpath(PYTHON), closed / "python")
    before = site.config.read_text()
    site.config.write_text(before + f'[source.python]\ninterpreter = "{closed}/python"\n')
    done = run(site, "install", "v1")
    assert done.returncode == 4, done.stderr
    assert f"{WEB} cannot enter {closed}, which contains the Python interpreter {closed}/python" in done.stderr
    site.config.write_text(before.replace(f'"{WORKER}"', '"nobody-of-this-name"'))
    found = run_json(site, "check")["data"]["problems"]
    assert any("there is no account 'nobody-of-this-name'" in problem["message"] for problem in found)


def test_a_folder_in_which_nobody_can_create_the_database_is_refused(site: Owned) -> None:
    shutil.chown(site.shared, "root", "root")
    done = run(site, "install", "v1")
    assert done.returncode != 0
    assert f"{WEB} cannot write {site.shared}" in done.stderr and f"chown {WEB}: {site.shared}" in done.stderr
    assert not (site.app / "releases").exists() or not list((site.app / "releases").iterdir())
