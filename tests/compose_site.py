"""The guestbook as a Compose project that its operator runs: web, worker and PostgreSQL in containers.

The folder is a checkout of the repository with `.env`, the data and holdfast.toml in it, a usual recommendation.
Images are made of the sources alone; containers run this machine's programs.
"""

from __future__ import annotations

import hashlib
import json
import os
import pwd
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from holdfast.application.application import App
from holdfast.config.load import load
from holdfast.system.ports import free_loopback_port
from holdfast.system.processes import end_processes_with
from holdfast.wiring import open_app
from tests import containers
from tests.proof import patience
from tests.servers import docker, podman, postgresql
from tests.site import gate_port, get
from tests.sources import write_repository
from tests.stores import APPLICATIONS, DIGEST_OF_POSTGRESQL

_ROLE = postgresql.ROLE
_SECONDS = 60
_POSTGRES = "postgres:holdfast-test"


class ComposeSite:
    def __init__(
        self,
        folder: Path,
        *,
        rows: int = 120,
        files: int = 12,
        slow: float = 2.0,
        gate: str = "front",
        worker: str = containers.WORKER,
        client: str = "docker",
    ) -> None:
        """`client` is that of the engine, docker or podman."""
        podman.compose() if client == "podman" else docker.compose()
        postgresql.needed_programs()
        self.client = client
        self._command = podman.command() if client == "podman" else ("docker", "compose")
        self._engine("tag", docker.IMAGE, _POSTGRES)
        self.folder = folder / "guestbook"
        self.state = folder / "state"
        self.config = self.folder / "holdfast.toml"
        self.name = f"guestbook-{hashlib.sha256(str(folder).encode()).hexdigest()[:8]}"
        self.port = gate_port()
        self.web_port = free_loopback_port()
        self._digest = ""
        self._gate = gate
        folder.mkdir(parents=True, exist_ok=True)
        write_repository(self.folder, APPLICATIONS / "postgresql.py")
        self._containerize(worker)
        (self.folder / ".env").write_text(
            f"COMPOSE_PROJECT_NAME={self.name}\nAPPLICATION_PORT={self.web_port}\nSECRET_KEY='not-for-$logs'\n"
            f"PORT=8000\nADDRESS=0.0.0.0\nDATABASE_URL='host=/server dbname=guestbook user={_ROLE}'\n"
            f"GUESTBOOK_ROWS={rows}\nGUESTBOOK_FILES={files}\nGUESTBOOK_SLOW_SECONDS={slow}\n"
        )
        (self.folder / ".git" / "info" / "exclude").write_text(
            "/media/\n/database/\n/.env\n/holdfast.toml\n/proxy/\n/releases/\n/current\n"
        )
        account = pwd.getpwnam("postgres")
        for name in ("media", "database"):
            (self.folder / name).mkdir()
            os.chown(self.folder / name, account.pw_uid, account.pw_gid)
        if gate in _PROXIES:
            configuration, seed, _ = _PROXIES[gate]
            (self.folder / "proxy" / "holdfast").mkdir(parents=True)
            (self.folder / "proxy" / "configuration").write_text(configuration)
            (self.folder / "proxy" / "holdfast" / "gate.conf").write_text(seed)
        self.config.write_text(self._configuration(gate))

    # --- what the application's own people made --------------------------------------------------------

    def _proxy(self) -> dict[str, Any]:
        return {
            "image": _POSTGRES,
            "volumes": [*docker.machine_mounts(), "./proxy:/proxy"],
            "restart": "always",
            "command": list(_PROXIES[self._gate][2]),
            "environment": {"HOME": "/tmp"},
            "ports": [f"127.0.0.1:{self.port}:8080"],
        }

    def _containerize(self, worker: str) -> None:
        account = f"{pwd.getpwnam('postgres').pw_uid}:{pwd.getpwnam('postgres').pw_gid}"
        database = {
            "image": _POSTGRES,
            "user": account,
            "volumes": [*docker.machine_mounts(), "./database:/server"],
            "environment": {"POSTGRES_DB": "guestbook", "POSTGRES_USER": _ROLE, "PGHOST": "/server"},
            "command": [
                str(postgresql.needed_programs() / "postgres"),
                "-D",
                "/server/data",
                "-k",
                "/server",
                "-c",
                "listen_addresses=",
            ],
            "restart": "always",
            "stop_signal": "SIGINT",
        }
        mounts = ["./media:/app/media", "./database:/server"]
        more = {"database": database, **({"proxy": self._proxy()} if self._gate in _PROXIES else {})}
        containers.containerize(self.folder, f"{self.name}:production", mounts, user=account, worker=worker, **more)

    def add(self, tag: str, base: str, change: Callable[[Path], None]) -> None:
        """One more version."""
        self.git("checkout", "--quiet", base)
        change(self.folder)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", f"Guestbook {tag}")
        self.git("tag", tag)
        self.git("checkout", "--quiet", "v1")

    def add_bad_ones(self) -> None:
        self.add("dying-worker", "v2", lambda folder: _write(folder / "worker.py", containers.DYING_WORKER))
        self.add(
            "no-build", "v2", lambda folder: _write(folder / "Dockerfile", f"FROM {docker.IMAGE}\nCOPY nothing /app\n")
        )
        self.add("no-start", "v2", lambda folder: _write(folder / "app.py", "raise SystemExit('no')\n"))
        self.add("loses", "v2", lambda folder: _write(folder / "migrations" / "0009_loses.py", _LOSES))

    def _engine(self, *arguments: str) -> str:
        return containers.engine(*arguments, client=self.client)

    def git(self, *arguments: str) -> str:
        return containers.git(self.folder, *arguments)

    # --- what its operator did -------------------------------------------------------------------------

    def _configuration(self, gate: str) -> str:
        return f"""
[application]
name = "guestbook"
environment = "production"
state = "{self.state}"

[runtime]
kind = "compose"
command = {json.dumps(self._command)}

[source]
repository = "."

[services.web]
health = "/health"
settle_seconds = 0.3
health_timeout_seconds = {patience.limit(2)}
stop_timeout_seconds = 2

[services.worker]
settle_seconds = 0.3
health_timeout_seconds = {patience.wait(5)}
stop_timeout_seconds = 1

[tasks]
install = ["{sys.executable}", "/app/manage.py", "install"]
migrate = ["{sys.executable}", "/app/manage.py", "migrate"]
console = ["{sys.executable}", "/app/manage.py"]

[databases.main]
kind = "postgresql"
name = "guestbook"
host = "/server"
user = "{_ROLE}"
container = "compose:database"

[files.media]
path = "media"

[migrations]
kind = "files"
applied = "SELECT name FROM schema_migrations"
shipped = "migrations/*.py"

[gate]
kind = "{gate}"
{_OF_PROXY.format(port=self.port) if gate in _PROXIES else f'listen = "127.0.0.1:{self.port}"'}
drain_seconds = {10 if gate in _PROXIES else 2}

[vaults.local]
kind = "local"
path = "{self.state.parent / "vault"}"

[backup]
references = {{ database = "main", files = "media", query = "SELECT DISTINCT file, sha256 FROM entries" }}
config_files = [".env"]
"""

    def compose(self, *arguments: str) -> str:
        """The operator's own command."""
        argv = [*self._command, *arguments]
        done = subprocess.run(argv, cwd=self.folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def start(self) -> None:
        """First installation by hand: the database, its role, the application's own installation, all services."""
        mounts = [f"--volume={mount}" for mount in docker.machine_mounts()]
        account = pwd.getpwnam("postgres")
        subprocess.run(
            [
                self.client,
                "run",
                "--rm",
                "--network=none",
                f"--user={account.pw_uid}:{account.pw_gid}",
                f"--volume={self.folder}/database:/server",
                *mounts,
                docker.IMAGE,
                str(postgresql.needed_programs() / "initdb"),
                "-D",
                "/server/data",
                "-A",
                "trust",
                "-U",
                "postgres",
                "-E",
                "UTF8",
                "--locale=C",
                "--no-sync",
            ],
            capture_output=True,
            check=True,
        )
        self.compose("build")
        self.compose("up", "--detach", "database")
        patience.until(lambda: self.sql("SELECT 1", "postgres", check=False) == "1")
        self.sql(f"CREATE ROLE {_ROLE} LOGIN CREATEDB", "postgres")
        self.sql(f"CREATE DATABASE guestbook OWNER {_ROLE}", "postgres")
        self.compose("run", "--rm", "--no-deps", "web", sys.executable, "/app/manage.py", "install")
        self.compose("up", "--detach")
        patience.until(lambda: self.get("/", self.web_port)[0] == 200)

    def remove(self) -> None:
        self.shut_down_front()
        containers.remove(self.name, images=[self.name, "holdfast/guestbook.production."], client=self.client)

    def shut_down_front(self) -> None:
        end_processes_with(f"HOLDFAST_INSTANCE=guestbook.production@{self.state}", grace_seconds=0, wait_seconds=10)

    # --- looking -----------------------------------------------------------------------------------

    def open(self) -> App:
        return open_app(load(str(self.config)), command="test")

    def containers(self, *more: str) -> list[str]:
        return containers.of_project(self.name, *more, client=self.client)

    def image_of(self, service: str) -> str:
        (id,) = self.containers(f"--filter=label=com.docker.compose.service={service}")
        return self._engine("inspect", "--format={{.Image}}", id)

    def sql(self, statement: str, database: str = "guestbook", *, check: bool = True) -> str:
        label = "--filter=label=com.docker.compose.service=database"
        arguments = [
            "psql",
            "-XqAt",
            "-v",
            "ON_ERROR_STOP=1",
            "-h",
            "/server",
            "-U",
            "postgres",
            "-d",
            database,
            "-c",
            statement,
        ]
        argv = [self.client, "exec", *self.containers(label)[:1], *arguments]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        assert done.returncode == 0 or not check, done.stderr
        return done.stdout.strip()

    def get(self, path: str = "/", port: int | None = None) -> tuple[int, Any]:
        return get(port or self.port, path)

    def fingerprint(self) -> str:
        """Of all rows and columns, and of all files with their owners and modes."""
        digest = hashlib.sha256(self.sql(DIGEST_OF_POSTGRESQL).encode())
        for path in sorted((self.folder / "media").rglob("*")):
            if ".holdfast" in path.parts:
                continue
            status = path.stat()
            digest.update(f"{path} {status.st_mode:o} {status.st_uid}".encode())
            digest.update(path.read_bytes() if path.is_file() else b"")
        return digest.hexdigest()


_OF_PROXY = """
include = "proxy/holdfast/gate.conf"
container = "compose:proxy"
config = "/proxy/configuration"
check_url = "http://127.0.0.1:{port}/"
"""
_NGINX = """
daemon off; pid /tmp/nginx.pid; error_log /tmp/error.log; worker_processes 2;
events { worker_connections 256; }
http {
    access_log off;
    client_body_temp_path /tmp/body; proxy_temp_path /tmp/proxy; fastcgi_temp_path /tmp/fastcgi;
    uwsgi_temp_path /tmp/uwsgi; scgi_temp_path /tmp/scgi;
    server {
        listen 8080;
        include /proxy/holdfast/gate.conf;
        location / {
            if ($holdfast_closed) { rewrite ^ $holdfast_page last; }
            proxy_pass http://$holdfast_web;
            proxy_set_header Host $http_host;
        }
    }
}
"""
_NGINX_SEED = """
resolver 127.0.0.11 valid=1s;
set $holdfast_closed ""; set $holdfast_page /; set $holdfast_web "web:8000";
"""
_CADDY = """
{
    admin localhost:2019
    auto_https off
}
:8080 {
    handle {
        import /proxy/holdfast/gate.conf
    }
}
"""
_CADDY_SEED = "reverse_proxy web:8000\n"
# Configuration, first file of the gate, command.
_PROXIES = {
    "nginx": (_NGINX, _NGINX_SEED, ("nginx", "-c", "/proxy/configuration")),
    "caddy": (_CADDY, _CADDY_SEED, ("caddy", "run", "--config", "/proxy/configuration", "--adapter", "caddyfile")),
}
_LOSES = """
def apply(database, media):
    database.execute("CREATE TABLE notes (id SERIAL PRIMARY KEY, text TEXT)")
    database.execute("DELETE FROM entries")
"""


def _write(path: Path, text: str) -> None:
    path.write_text(text)
