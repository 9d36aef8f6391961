"""Real programs that give themselves another title: installed, upgraded, killed in a migration, supervisord killed.

php-fpm, nginx and puma write over the memory that shows their environment; gunicorn and celery do where setproctitle is
installed; so does the migration here.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from holdfast.config.load import load
from holdfast.system import processes
from holdfast.system.ports import free_loopback_port
from holdfast.wiring import open_app
from tests.e2e.cli import argv, run
from tests.memory import make_folder
from tests.proof import patience


@dataclass(frozen=True)
class Stack:
    """`titles`: of the processes that run once, by how they call themselves; `needs`: programs or modules."""

    files: dict[str, str]
    services: str
    migrate: list[str]
    titles: tuple[str, ...]
    needs: tuple[str, ...] = ()


_BIN = Path(sys.executable).parent
_FPM_PROGRAM = next((path.name for path in sorted(Path("/usr/sbin").glob("php-fpm*"))), "php-fpm")
_PYTHON_MIGRATION = """
import os, sqlite3, sys, time
import setproctitle

setproctitle.setproctitle("renamed migration")
database = sqlite3.connect(os.environ["DATABASE"], isolation_level=None)
database.execute("CREATE TABLE IF NOT EXISTS entry (text TEXT)")
if os.path.exists("endless"):
    while True:
        database.execute("INSERT INTO entry VALUES ('of the migration')")
        time.sleep(0.01)
"""
_WSGI = """
import json, os, sqlite3

def application(environ, start_response):
    rows = sqlite3.connect(os.environ["DATABASE"]).execute("SELECT count(*) FROM entry").fetchone()[0]
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps({"version": open("VERSION").read(), "rows": rows}).encode()]
"""
_CELERY = """
import os
from celery import Celery

box = os.environ["BOX"]
app = Celery("jobs", broker="filesystem://", broker_connection_retry_on_startup=True)
app.conf.broker_transport_options = {"data_folder_in": box, "data_folder_out": box, "control_folder": box}
"""
GUNICORN = Stack(
    {"app.py": _WSGI, "jobs.py": _CELERY, "migrate.py": _PYTHON_MIGRATION},
    f'''[services.web]
command = ["{_BIN}/gunicorn", "app:application", "--bind", "127.0.0.1:{{port}}", "--workers", "2", "--name", "HERE"]
health = "/"
[services.jobs]
kind = "worker"
command = ["{_BIN}/celery", "--app", "jobs", "worker", "--concurrency", "1", "--hostname", "HERE@x", "--loglevel",
    "WARNING"]
stop_timeout_seconds = 5
''',
    [sys.executable, "migrate.py"],
    ("gunicorn: master [HERE]", "[celeryd: HERE@x:MainProcess]"),
    ("gunicorn", "celery"),
)
_PHP = """<?php
$database = new SQLite3(getenv("DATABASE") ?: $_SERVER["DATABASE"]);
header("Content-Type: application/json");
$rows = $database->querySingle("SELECT count(*) FROM entry");
echo json_encode(["version" => file_get_contents(__DIR__ . "/VERSION"), "rows" => $rows]);
"""
_PHP_MIGRATION = """<?php
cli_set_process_title("renamed migration");
$database = new SQLite3(getenv("DATABASE"));
$database->busyTimeout(5000);
$database->exec("CREATE TABLE IF NOT EXISTS entry (text TEXT)");
while (file_exists("endless")) {
    $database->exec("INSERT INTO entry VALUES ('of the migration')");
    usleep(10000);
}
"""
_FPM = """[global]
daemonize = no
error_log = /proc/self/fd/2
[HERE]
listen = SOCKET
pm = static
pm.max_children = 2
clear_env = no
user = nobody
group = nogroup
listen.owner = nobody
"""
_NGINX = """daemon off;
pid PLACE/nginx.pid;
user nobody nogroup;
worker_processes 1;
error_log stderr;
events { worker_connections 64; }
http {
    access_log off;
    client_body_temp_path PLACE/n1; proxy_temp_path PLACE/n2; fastcgi_temp_path PLACE/n3; uwsgi_temp_path PLACE/n4;
    scgi_temp_path PLACE/n5;
    server {
        listen 127.0.0.1:PORT;
        location / {
            fastcgi_pass unix:SOCKET;
            fastcgi_param SCRIPT_FILENAME RELEASE/index.php;
            fastcgi_param REQUEST_METHOD $request_method;
        }
    }
}
"""
PHP = Stack(
    {"index.php": _PHP, "migrate.php": _PHP_MIGRATION, "fpm.conf": _FPM, "nginx.conf": _NGINX},
    """[services.fpm]
kind = "backend"
command = ["sh", "-c", "sed 's#SOCKET#BOX/fpm.sock#' fpm.conf > BOX/fpm.conf && exec FPM --fpm-config BOX/fpm.conf"]
[services.web]
command = ["sh", "-c", "sed 's#SOCKET#BOX/fpm.sock#; s#PLACE#BOX#g; s#PORT#{port}#; s#RELEASE#{release}#' nginx.conf \
> BOX/nginx.conf && exec nginx -p BOX -c BOX/nginx.conf"]
health = "/"
""".replace("FPM", _FPM_PROGRAM),
    ["php", "migrate.php"],
    ("php-fpm: master process (BOX/fpm.conf)", "nginx: master process nginx -p BOX"),
    (_FPM_PROGRAM, "nginx", "php"),
)
_RACK = """require "json"
run lambda { |environment|
  [200, {"Content-Type" => "application/json"}, [{version: File.read("VERSION"), rows: 0}.to_json]]
}
"""
_RUBY_MIGRATION = """$0 = "renamed migration"
system("sqlite3", ENV["DATABASE"], "CREATE TABLE IF NOT EXISTS entry (text TEXT)")
while File.exist?("endless")
  system("sqlite3", ENV["DATABASE"], "INSERT INTO entry VALUES ('of the migration')")
  sleep 0.01
end
"""
PUMA = Stack(
    {"config.ru": _RACK, "migrate.rb": _RUBY_MIGRATION},
    "[services.web]\n"
    'command = ["puma", "--bind", "tcp://127.0.0.1:{port}", "--tag", "HERE", "--workers", "1", "--environment",'
    ' "production"]\n'
    'health = "/"\n',
    ["ruby", "migrate.rb"],
    ("puma 5",),
    ("puma", "ruby", "sqlite3"),
)
STACKS = {"gunicorn": GUNICORN, "php": PHP, "puma": PUMA}


class Real:
    """An application of a stack, with its own repository; what it is called stands in its processes' titles."""

    def __init__(self, stack: Stack, folder: Path) -> None:
        self.folder, self.stack = folder, stack
        self.repository, self.app, self.box = folder / "repository", folder / "app", folder / "box"
        self.here = f"here{os.getpid()}x{time.monotonic_ns() % 100000}"
        self.config = self.app / "holdfast.toml"
        self.database = self.app / "shared" / "app.sqlite3"
        self.port = free_loopback_port()
        for path in (self.repository, self.box, self.database.parent):
            path.mkdir(parents=True)
            path.chmod(0o777)
        for path in (folder, self.app):
            path.chmod(0o755)
        self._git("init", "--quiet")
        for name, text in stack.files.items():
            (self.repository / name).write_text(text)
        for version in ("v1", "v2", "v3"):
            (self.repository / "VERSION").write_text(version)
            if version == "v3":
                (self.repository / "endless").touch()
            self._git("add", "--all")
            self._git("commit", "--quiet", "--message", version)
            self._git("tag", version)
        services = stack.services.replace("HERE", self.here).replace("BOX", str(self.box))
        self.titles = [title.replace("HERE", self.here).replace("BOX", str(self.box)) for title in stack.titles]
        self.config.write_text(
            f'[application]\nname = "real"\nstate = "{folder}/state"\n'
            f'[source]\nrepository = "{self.repository}"\n'
            f'[environment]\nDATABASE = "{self.database}"\nBOX = "{self.box}"\nTMPDIR = "{self.box}"\n'
            f'PATH = "{os.environ["PATH"]}"\n'
            f'[databases.main]\nkind = "sqlite"\npath = "shared/app.sqlite3"\n'
            f'[vaults.local]\npath = "{folder}/vault"\n[gate]\nkind = "front"\nlisten = "127.0.0.1:{self.port}"\n'
            f"[tasks]\nmigrate = {json.dumps(stack.migrate)}\n"
            f"[limits]\ntask_timeout_seconds = {patience.limit(120)}\n{services}"
        )

    def _git(self, *arguments: str) -> None:
        subprocess.run(
            ["git", "-c", "user.name=R", "-c", "user.email=r@example.invalid", "-C", str(self.repository), *arguments],
            check=True,
            capture_output=True,
        )

    def get(self) -> dict[str, object]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/", timeout=patience.limit(10)) as answer:
            found: dict[str, object] = json.loads(answer.read())
            return found

    def rows(self) -> int:
        connection = sqlite3.connect(self.database, timeout=patience.limit(10))
        try:
            return int(connection.execute("SELECT count(*) FROM entry").fetchone()[0])
        finally:
            connection.close()

    def find_by_title(self, title: str) -> list[int]:
        """Return living processes of this user with such a title; for puma, which has none, those of the folder."""
        found = []
        for pid, entry in processes.table().items():
            if not entry.ended and processes.command_of(pid).startswith(title):
                try:
                    ours = os.readlink(f"/proc/{pid}/cwd").startswith(str(self.folder))
                except OSError:
                    continue
                if ours or self.here in title or str(self.box) in title:
                    found.append(pid)
        return found

    def end(self) -> None:
        app = open_app(load(str(self.config)))
        try:
            app.context.runtime.shut_down()
        finally:
            app.close()
        shutil.rmtree(self.folder, ignore_errors=True)


@pytest.fixture(params=["gunicorn", "php", pytest.param("puma", marks=pytest.mark.variant("puma"))])
def real(request: pytest.FixtureRequest) -> Iterator[Real]:
    stack = STACKS[request.param]
    for need in stack.needs:
        if shutil.which(need) is None:
            pytest.skip(f"no {need} here: `make test-setup` as root installs it")
    if request.param == "php" and os.geteuid() != 0:
        pytest.skip("php-fpm and nginx give up root's rights here: run as root")
    made = Real(stack, make_folder("hft"))
    yield made
    made.end()


def eventually(what: str, condition: object) -> None:
    deadline = patience.deadline(60)
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def test_each_runs_once_through_everything(real: Real) -> None:
    for tag, command in (("v1", "install"), ("v2", "upgrade")):
        done = run(real, command, tag)
        assert done.returncode == 0, done.stderr
    assert real.get()["version"] == "v2"
    for title in real.titles:
        assert len(real.find_by_title(title)) == 1, title

    # Holdfast is killed in a migration that gave itself another title.
    killed = subprocess.Popen(argv(real, "upgrade", "v3"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    eventually("the migration runs", lambda: real.find_by_title("renamed migration"))
    (migration,) = real.find_by_title("renamed migration")
    eventually("the migration writes", lambda: real.rows() > 5)
    assert b"HOLDFAST" not in Path(f"/proc/{migration}/environ").read_bytes() or real.stack is PUMA
    killed.send_signal(signal.SIGKILL)
    killed.wait(patience.limit(30))
    assert real.find_by_title("renamed migration") == [migration], "the test has to have one that writes on"
    recovered = run(real, "recover")
    assert recovered.returncode == 0, recovered.stderr
    assert real.find_by_title("renamed migration") == []
    assert real.get()["version"] == "v2"
    assert real.rows() == 0
    for title in real.titles:
        assert len(real.find_by_title(title)) == 1, title

    # supervisord is killed under them.
    app = open_app(load(str(real.config)))
    record = json.loads((real.folder / "state" / "supervisor" / "supervisord.pid").read_text() or "0")
    app.close()
    before = {title: real.find_by_title(title) for title in real.titles}
    os.kill(record, signal.SIGKILL)
    started = run(real, "service", "start")
    assert started.returncode == 0, started.stderr
    for title in real.titles:
        eventually(f"{title} runs", lambda title=title: real.find_by_title(title))
        (pid,) = real.find_by_title(title)
        assert [pid] != before[title], "it was started anew"
    assert real.get()["version"] == "v2"
