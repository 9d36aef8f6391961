"""One installation of the stand-in, with the parts of the preset `phraseanet` on services of this machine."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from holdfast.config.load import load
from holdfast.system.processes import end_processes_with
from holdfast.wiring import open_app
from tests.memory import remove_folder
from tests.proof import patience
from tests.servers import rabbitmq, search
from tests.servers.mariadb import USER
from tests.site import gate_port
from tests.standins.phraseanet import repository
from tests.standins.visitor import get
from tests.stores import MariadbStore

_LIBRARIES = ("Symfony/Component/Console", "Symfony/Component/Yaml", "Doctrine/DBAL", "PhpAmqpLib")


def require_programs() -> None:
    """Skip a test where PHP or its libraries are missing."""
    found = all(os.path.isdir(f"/usr/share/php/{name}") for name in _LIBRARIES)
    if not found or "pdo_mysql" not in subprocess.run(["php", "-m"], capture_output=True, text=True).stdout:
        pytest.skip("no PHP with Symfony, Doctrine and AMQP: `make test-setup` as root installs them")


class Phraseanet:
    """Everything is below `folder`; its databases, index and queue are on servers that tests share."""

    def __init__(self, folder: Path, *, content: str = "snapshot") -> None:
        require_programs()
        self.folder, self.app, self.repository = folder, folder / "app", folder / "repository"
        self.config, self.shared = self.app / "holdfast.toml", self.app / "shared"
        self.datas, self.configuration = self.shared / "datas", self.shared / "config" / "configuration.yml"
        self.port = gate_port()
        self.broker = rabbitmq.server()
        self.search = search.shared()
        self.search.clear()
        self.store = MariadbStore.create()
        self.index = self.store.name
        self.made: list[str] = []
        self.shared.mkdir(parents=True)
        for path in (folder, self.app, self.shared):  # www-data passes through
            path.chmod(0o755)
        Path(self.store.place["HOST"]).parent.chmod(0o711)  # and to the socket of the server
        repository.write(self.repository)
        first = self.new_box("box1")
        self.config.write_text(self._configuration(first, content))

    def _configuration(self, first: str, content: str) -> str:
        socket = self.store.place["HOST"]
        installs = ["php", "bin/setup", "system:install", f"--db-socket={socket}", f"--db-user={USER}"]
        installs += [f"--ab-name={self.store.name}", f"--databox={first}", f"--es-host={self.search.url}"]
        installs += [f"--es-index={self.index}", f"--amqp-port={self.broker.port}"]
        build = ["php", "bin/console", "searchengine:index", "-c", "-p", "--index", "{index}"]
        folder = self.search.folder / "snapshots" / "dam"
        snapshots = f'repository_type = "fs"\nrepository_settings = {{ location = "{folder}" }}'
        limit = patience.limit(6)
        return f"""extends = "preset:php"
[application]
name = "dam"
state = "{self.folder}/state"
[source]
repository = "{self.repository}"
writable = ["var"]
[source.shared]
config = "shared/config"
datas = "shared/datas"
[services.web]
health = "/login/"
settle_seconds = 0.1
health_timeout_seconds = {limit}
[services.fpm]
settle_seconds = 0.1
[services.worker]
kind = "worker"
command = ["php", "bin/console", "worker:execute"]
user = "www-data"
settle_seconds = 0.5
health_timeout_seconds = {limit}
stop_timeout_seconds = 20
drain = ["php", "bin/console", "worker:is-idle"]
drain_timeout_seconds = {patience.limit(20)}
[tasks]
migrate = ["php", "bin/setup", "system:upgrade", "-y"]
console = ["php", "bin/console"]
after_restore = ["php", "bin/console", "records:build-missing-subdefs"]
[tasks.install]
commands = [{_toml(installs)}]
[databases.main]
kind = "mariadb"
name = "{self.store.name}"
host = "{socket}"
user = "{USER}"
discover = "SELECT dbname FROM sbas"
[indices.search]
kind = "elasticsearch"
name = "{self.index}"
url = "{self.search.url}"
content = "{content}"
rebuild = {_toml(build)}
{snapshots if content == "snapshot" else ""}
[files.datas]
path = "shared/datas"
exclude = ["nginx", "backup"]
[gate]
listen = "127.0.0.1:{self.port}"
[gate.switches.banner]
kind = "yaml"
path = "shared/config/configuration.yml"
announce = {{ "registry.maintenance.enabled" = "true", "registry.maintenance.message" = "{{text}}" }}
after = ["php", "bin/console", "compile:configuration"]
[backup]
config_files = ["shared/config/configuration.yml"]
[vaults.local]
kind = "local"
path = "{self.folder}/vault"
[limits]
task_timeout_seconds = {patience.limit(60)}
"""

    # --- what the application does -------------------------------------------------------------------------

    def console(self, *arguments: str, program: str = "console") -> None:
        """Run a command of the application in the current release, as its account does."""
        argv = ["runuser", "-u", "www-data", "--"] if os.geteuid() == 0 else []
        argv += ["php", f"bin/{program}", *arguments, "--no-interaction"]
        done = subprocess.run(argv, cwd=self.app / "current", capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    def new_box(self, label: str) -> str:
        """Create an empty database for a DataBox."""
        name = f"{self.store.name}{label}"
        with self.store.shared() as server:
            server.create_if_missing(name)
        self.made.append(name)
        return name

    def add_box(self, label: str) -> str:
        name = self.new_box(label)
        self.console("databox:create", name, program="setup")
        return name

    def get(self, path: str = "/login/") -> tuple[int, Any]:
        return get(self.port, path)

    def post(self, title: str) -> str | None:
        """Add a record as a visitor; return what identifies it once it is acknowledged."""
        status, content = get(self.port, "/record", title.encode())
        return f"{content['databox']}-{content['record']}" if status == 201 else None

    # --- what its stores have ------------------------------------------------------------------------------

    def run(self, name: str, sql: str) -> str:
        with self.store.shared() as server:
            return str(server.run(name, sql, user=USER))

    def boxes(self) -> list[str]:
        return self.store.execute("SELECT dbname FROM sbas ORDER BY 1").splitlines()

    def records(self) -> set[str]:
        return {f"{box}-{id}" for box in self.boxes() for id in self.run(box, "SELECT record_id FROM record").split()}

    def documents(self) -> set[str]:
        return {f"{path.parts[-3]}-{path.stem}" for path in self.datas.glob("*/documents/*.bin")}

    def thumbnails(self) -> set[str]:
        return {f"{path.parts[-3]}-{path.stem}" for path in self.datas.glob("*/subdefs/*.jpg")}

    def indexed(self) -> set[str]:
        self.search.ask("POST", f"/{self.index}/_refresh")
        found: Any = self.search.ask("GET", f"/{self.index}/_search?size=10000")
        return {hit["_id"] for hit in found["hits"]["hits"]}

    def digest(self) -> dict[str, str]:
        """Of each database of the set, but for the jobs of workers."""
        found = {}
        for name in (self.store.name, *self.boxes()):
            tables = self.run(name, "SHOW TABLES").split()
            for table in tables:
                if table != "WorkerRunningJob":
                    found[f"{name}.{table}"] = self.run(name, f"SELECT * FROM `{table}` ORDER BY 1")
        return found

    def wait_for_workers(self) -> None:
        patience.until(lambda: self.thumbnails() >= self.records())

    # --- its end -------------------------------------------------------------------------------------------

    def shut_down(self) -> None:
        """End everything that runs for this site, and nothing else."""
        app = open_app(load(str(self.config)))
        try:
            app.context.runtime.shut_down()
        finally:
            app.close()
        instance = f"HOLDFAST_INSTANCE=dam.production@{self.folder}/state"
        end_processes_with(instance, grace_seconds=0, wait_seconds=10)

    def end(self) -> None:
        self.shut_down()
        with self.store.shared() as server:
            for name in self.made:
                server.run("mysql", f"DROP DATABASE IF EXISTS `{name}`")
        self.store.remove()
        self.search.clear()
        remove_folder(self.folder)


def _toml(words: list[str]) -> str:
    return "[" + ", ".join(f'"{word}"' for word in words) + "]"
