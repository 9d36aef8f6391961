"""A guestbook site for tests: repository, application folder, state and vault under one short path."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import random
import re
import secrets
import shutil
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from holdfast.application import health_request
from holdfast.application.application import App
from holdfast.config.load import load
from holdfast.containers.container import DEFINITION_LABEL
from holdfast.demo import repository
from holdfast.engine.observer import Observer
from holdfast.errors import HoldfastError
from holdfast.operations import (
    backup,
    export,
    import_,
    install,
    maintenance,
    media,
    package,
    patches,
    provision,
    prune,
    restore,
    restore_paths,
    rollback,
    sanitized,
    secret,
    service,
    upgrade,
)
from holdfast.steps import services
from holdfast.system.ports import can_be_reached, free_loopback_port
from holdfast.system.processes import end_processes_with
from holdfast.wiring import open_app
from tests import containers, stores
from tests.proof import patience
from tests.search_store import SearchStore
from tests.servers import docker, podman
from tests.snapshot import Snapshot
from tests.sources import write_repository

IN_CONTAINERS = ("compose", "compose-backend", "podman")
IN_INDEX = "# The rows are in a search index too."
IN_AN_INDEX = {"search": "sqlite", "mariadb-search": "mariadb"}  # the engines whose rows are in an index too
ALONE = ("postgresql-log-inside", "mariadb-search")
_GATE_PORTS = range(30300, 32700)  # outside the ranges of services and of the kernel
_RUNS = 4


def gate_port() -> int:
    """One that keeps its meaning while its site is shut down: each process that runs tests has ports of its own.

    Two runs on one machine mostly have them, too.
    """
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    of_run = len(_GATE_PORTS) // _RUNS
    width = of_run // workers
    first = of_run * (int(os.environ.get("HOLDFAST_TESTS_RUN", "0")) % _RUNS)
    first += width * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])
    for port in random.sample(_GATE_PORTS[first : first + width], width):
        if can_be_reached(port):
            return port
    raise AssertionError("no port is free")


def get(port: int, path: str = "/", timeout: float = 5) -> tuple[int, Any]:
    """Status and JSON of a page on a loopback port; 0 where nothing answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request("GET", path, headers={"Accept": "application/json"})
        response = connection.getresponse()
        body = response.read()
        return response.status, json.loads(body) if body else None
    except (OSError, http.client.HTTPException):
        return 0, None
    finally:
        connection.close()


def deploy(app: App, reference: str) -> Any:
    """Return the plan of `package deploy`."""
    return upgrade.plan(app, reference, provided=provision.deploying(app, reference))


class Site:
    """One application. Every path is below `folder`, so a copy of it put back at the same place is the same site."""

    def __init__(
        self,
        folder: Path,
        *,
        rows: int = 120,
        files: int = 12,
        slow: float = 0.4,
        settle: float = 0.05,
        engine: str = "sqlite",
        **paths: Path,
    ) -> None:
        self.folder = folder
        self.app_folder = paths.get("application", folder / "app")
        self.state = paths.get("state", folder / "state")
        self.vault = paths.get("vault", folder / "vault")
        self.repository = folder / "repo"
        self.config = self.app_folder / "holdfast.toml"
        self.environment = "production"
        if self.config.exists():
            configuration = load(str(self.config)).configuration
            self.environment = configuration.application.environment
            self.port = int(configuration.gate.listen.rpartition(":")[2])
            self.project = configuration.runtime.project
            self.client = "podman" if "podman" in configuration.runtime.command[0] else "docker"
            self.store = stores.existing(configuration.databases["main"], configuration.environment, self.database)
            if configuration.indices and IN_INDEX in self.config.read_text():
                index = configuration.indices["search"]
                self.store = SearchStore(self.store, index.url, Path(index.rebuild[1]).parent)
            return
        self.port = gate_port()
        in_containers = engine in IN_CONTAINERS
        self.client = "podman" if engine == "podman" else "docker"
        self.project = f"guestbook{secrets.token_hex(4)}" if in_containers else ""  # of the containers that it runs in
        self.store = stores.create("postgresql" if in_containers else IN_AN_INDEX.get(engine, engine), self.database)
        if engine in IN_AN_INDEX:
            self.store = SearchStore.create(self.store)
        folder.mkdir(parents=True, exist_ok=True)
        write_repository(self.repository, self.store.module)
        repository.write_configuration(
            self.app_folder,
            self.repository,
            self.state,
            self.vault,
            self.port,
            rows=rows,
            files=files,
            slow=slow,
            settle=settle,
            health_timeout=patience.limit(2.0),
            task_timeout=patience.limit(30),
            database=self.store.lines,
            # Its client libraries are those of the tests.
            environment=self.store.environment + ("" if in_containers else f'\nPATH = "{os.environ["PATH"]}"'),
        )
        # What a first backup is proven by has tests of its own.
        self.config.write_text(self.config.read_text().replace("[backup]\n", "[backup]\nprove = false\n"))
        if in_containers:
            self._put_into_containers(backend=engine == "compose-backend")

    def _put_into_containers(self, *, backend: bool) -> None:
        """Web and worker, and what is behind the web; the database's server stays outside, and its socket goes in."""
        podman.compose() if self.client == "podman" else docker.compose()
        command = list(podman.command()) if self.client == "podman" else ["docker", "compose"]
        place = Path(self.store.place["HOST"])  # type: ignore[attr-defined]  # of a PostgreSQL store
        mounts = [f"{place}:{place}", f"{self.media}:/app/media"]
        containers.containerize(self.repository, f"{self.project}:production", mounts, backend=backend)
        (self.app_folder / ".env").write_text(f"PORT=8000\nADDRESS=0.0.0.0\nAPPLICATION_PORT={free_loopback_port()}\n")
        text = self.config.read_text()
        text = text.replace('["python3", "manage.py"', f'["{sys.executable}", "/app/manage.py"')
        text = re.sub(r"^command = .*$", "port = 8000\nstop_timeout_seconds = 1", text, flags=re.MULTILINE)
        text = re.sub(r"^shared = .*$", 'shared = { ".env" = ".env" }', text, flags=re.MULTILINE)
        worker = "settle_seconds = 0.05\nstop_timeout_seconds = 1"
        text += (
            "\n"
            "[runtime]\n"
            'kind = "compose"\n'
            f"command = {json.dumps(command)}\n"
            f'project = "{self.project}"\n'
            "\n"
            "[services.worker]\n"
            f"{worker}\n"
        )
        text += '\n[services.app]\nkind = "backend"\nstop_timeout_seconds = 1\n' if backend else ""
        self.config.write_text(text)

    def become(self, environment: str) -> None:
        """Give the site another environment than production, before it is installed."""
        text = self.config.read_text()
        self.config.write_text(text.replace('environment = "production"', f'environment = "{environment}"'))
        self.environment = environment

    @property
    def services(self) -> list[str]:
        return sorted(load(str(self.config)).configuration.services)

    # --- running -----------------------------------------------------------------------------------

    def open(self, observer: Observer | None = None) -> App:
        return open_app(load(str(self.config)), command="test", observer=observer)

    def operate(self, name: str, *arguments: Any, **options: Any) -> Any:
        """Runs one operation to its end in this process."""
        app = self.open()
        try:
            return app.run(self.plan(app, name, *arguments, **options), wait_seconds=5)
        finally:
            app.close()

    @staticmethod
    def plan(app: App, name: str, *arguments: Any, **options: Any) -> Any:
        plans = {
            "install": install.plan,
            "upgrade": upgrade.plan,
            "rollback": rollback.plan,
            "backup": backup.plan,
            "restore": restore.plan,
            "restore_paths": restore_paths.plan,
            "prune": prune.plan,
            "build": package.plan,
            "deploy": deploy,
            "patch_apply": patches.plan_apply,
            "patch_revert": patches.plan_revert,
            "maintenance": maintenance.plan,
            "service": service.plan,
            "import_database": import_.plan_database,
            "import_files": import_.plan_files,
            "export": export.plan,
            "media_upload": lambda *given, **more: media.plan_upload(*given, **more)[0],
            "media_delete": media.plan_delete,
            "secret_apply": secret.plan_apply,
            "sanitized": sanitized.plan,
        }
        return plans[name](app, *arguments, **options)

    def start(self) -> None:
        app = self.open()
        try:
            services.start_wanted(app.context)
            if services.wanted(app.context):
                app.context.gate.hold(app.context.gate.state().hold)  # one that ran on reads its file again
            for instance in services.wanted(app.context):
                if instance.port is not None:
                    patience.until(lambda port=instance.port: health_request.answers(port, "/health")[0])
            if services.wanted(app.context):
                patience.until(lambda: self.get("/")[0] in (200, 503))
        finally:
            app.close()

    def shut_down(self) -> None:
        """Ends everything that runs for this site, and nothing else."""
        end_processes_with(
            f"HOLDFAST_INSTANCE=guestbook.{self.environment}@{self.state}", grace_seconds=0, wait_seconds=10
        )
        if self.project:
            containers.remove(self.project, client=self.client)

    # --- looking -----------------------------------------------------------------------------------

    def get(self, path: str = "/", timeout: float = 5) -> tuple[int, Any]:
        return get(self.port, path, timeout)

    def post(self, content: bytes, timeout: float = 10) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request("POST", "/entries", body=content)
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        except (OSError, ValueError, http.client.HTTPException):
            return 0, None
        finally:
            connection.close()

    @property
    def database(self) -> Path:
        return self.app_folder / "shared" / "guestbook.sqlite3"

    @property
    def media(self) -> Path:
        return self.app_folder / "shared" / "media"

    def fingerprint(self, *, times: bool = True) -> str:
        """Every row of every table and every file with its content, mode and time."""
        digest = hashlib.sha256()
        digest.update(self.store.digest().encode())
        for path in sorted(self.media.rglob("*")) if self.media.exists() else []:
            if ".holdfast" in path.parts:
                continue
            status = path.lstat()
            stamp = status.st_mtime_ns if times and path.is_file() else 0
            digest.update(f"{path.relative_to(self.media)} {status.st_mode} {stamp}".encode())
            if path.is_file():
                digest.update(path.read_bytes())
        return digest.hexdigest()

    def release_label(self) -> str | None:
        link = self.app_folder / "current"
        if not link.is_symlink():
            return None
        return str(json.loads((link / "settings.json").read_text())["version"])

    # --- copies ------------------------------------------------------------------------------------

    def save(self, label: str = "saved") -> Snapshot:
        """Save a copy of the site at rest; a site may have several, each with its label."""
        self.shut_down()
        if self.project:
            (self.folder / "image").write_text(containers.id_of(f"{self.project}:production", client=self.client))
        self.store.save(label)
        return Snapshot(self.folder, self.folder.with_name(f"{self.folder.name}.{label}"))

    def put_back(self, saved: Snapshot, *, start: bool = True) -> None:
        """Put the site back as it was saved. What runs as it did then goes on: starts are most of the time."""
        if not (start and self._end_what_differs(saved)):
            self.shut_down()
        saved.put_back()
        self.store.put_back(saved.label)
        if self.project:
            image = (self.folder / "image").read_text()
            containers.name_image(f"{self.project}:production", image, client=self.client)
        if start:
            self.start()
            saved.containers = self._containers() if self.project else None

    def _containers(self) -> Counter[tuple[object, ...]]:
        """Return what the project's containers are, and the folder that they share with the site."""
        listed = containers.of_project(self.project, client=self.client)
        inspected = json.loads(containers.engine("container", "inspect", *listed, client=self.client)) if listed else []
        found: Counter[tuple[object, ...]] = Counter(
            (
                container["Config"]["Labels"].get(DEFINITION_LABEL),
                container["Image"],
                container["State"]["Running"],
                container["State"].get("Paused"),
                container["HostConfig"]["RestartPolicy"]["Name"],
            )
            for container in inspected
        )
        found["media", self.media.stat().st_ino if self.media.exists() else None] += 1
        return found

    def _end_what_differs(self, saved: Snapshot) -> bool:
        """Stop each service but those that the saved site has too. Return False where nothing could be kept."""
        try:
            app = self.open()
        except HoldfastError:  # a test left a configuration that is refused
            return False
        try:
            gate = app.context.gate.instance()
            if gate is None or not app.context.gate.answers():
                return False
            if self.project:
                if saved.containers is None or saved.containers != self._containers():
                    containers.remove(self.project, client=self.client)
                return True
            statuses = app.context.runtime.statuses()
            for name in set(statuses) - {gate.name}:
                if not self._runs_as_saved(name, statuses[name].pid, saved):
                    app.context.runtime.stop(name)
            return True
        except (HoldfastError, OSError):
            return False
        finally:
            app.close()

    def _runs_as_saved(self, name: str, pid: int | None, saved: Snapshot) -> bool:
        """Tell whether a service runs by the definition that was saved, in a folder that is still the same one."""
        definition = (self.state / "supervisor" / "programs" / f"{name}.json").relative_to(self.folder)
        kept = saved.copy / definition
        if pid is None or not kept.exists():
            return False
        text = kept.read_text()
        if "secrets" in json.loads(text):  # its definition is the same with every value of a secret
            return False
        directory = json.loads(text)["directory"]
        return (self.folder / definition).read_text() == text and os.path.samefile(f"/proc/{pid}/cwd", directory)

    def remove(self) -> None:
        self.shut_down()
        if self.project:
            images = [f"{self.project}:", "holdfast/guestbook.production."]
            containers.remove(self.project, images=images, client=self.client)
        self.store.remove()
        for folder in (self.folder, *self.folder.parent.glob(f"{self.folder.name}.*")):
            if folder.is_dir():
                for path in folder.rglob("*"):
                    if path.is_dir() and not path.is_symlink():
                        os.chmod(path, 0o700)
                shutil.rmtree(folder, ignore_errors=True)
