"""A stand-in of Connect Access: its Compose files, its scripts and the commands of its pages, on Docker Compose.

Code is in the images; nothing migrates at start; services have neither a restart policy nor a health check.
"""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import Any

from holdfast.system.ports import free_loopback_port
from holdfast.system.processes import end_processes_with
from tests import containers
from tests.proof import patience
from tests.servers import docker
from tests.site import gate_port
from tests.standins import connect_access_files as files
from tests.standins import fingerprint, visitor
from tests.standins.connect_access_files import PACKAGE
from tests.standins.project import BAD, GOOD, Project

SERVICES = ("celerybeat", "celeryworker", "django", "nginx", "postgres", "redis", "traefik")
_PASSWORD = "not-for-'logs"
_SECONDS = 60
_DATABASE = """{
    "NAME": os.environ["POSTGRES_DB"], "USER": os.environ["POSTGRES_USER"],
    "PASSWORD": os.environ["POSTGRES_PASSWORD"],
    "HOST": os.environ["POSTGRES_HOST"], "PORT": os.environ["POSTGRES_PORT"],
    }"""


class ConnectAccess:
    """One environment of it. Two of them in one engine need images and volumes of their own: another `environment`.

    `upstream` is where its versions come from; the checkout stands at v1.
    """

    def __init__(
        self,
        folder: Path,
        environment: str = "production",
        *,
        project: str | None = None,
        holdfast: str | None = None,
        engine: str = "docker",
    ) -> None:
        """`holdfast`: text of holdfast.toml in place of `configuration()`'s."""
        docker.compose()
        self.environment = environment
        self.project = project or f"connect_access_{environment}"
        self.upstream = folder / "upstream"
        self.folder = folder / "connect-access"
        self.state = folder / "state"
        self.config = self.folder / "holdfast.toml"
        self.port = gate_port()
        self.web_port = free_loopback_port()
        self._engine = engine
        folder.mkdir(parents=True, exist_ok=True)
        self._write_upstream()
        containers.git(folder, "clone", "--quiet", "--branch", "master", str(self.upstream), str(self.folder))
        (self.folder / ".git" / "info" / "exclude").write_text("/holdfast.toml\n")
        (self.folder / f".env_{environment}").write_text(self._environment())
        self.config.write_text(holdfast if holdfast is not None else self.configuration())
        files.build_redis(folder / "redis", engine)

    # --- what its own people made ----------------------------------------------------------------------

    def _write_upstream(self) -> None:
        self.upstream.mkdir()
        self._upstream_git("init", "--quiet", "--initial-branch=master")
        files.write(self.upstream)
        project = Project(
            "backend",
            PACKAGE,
            secret="DJANGO_SECRET_KEY",
            database=_DATABASE,
            media='BASE_DIR / "connect_access" / "media"',
        )
        for version in (*GOOD, *BAD):
            if version in BAD:
                self._upstream_git("checkout", "--quiet", "v2")
            project.write(self.upstream, version)
            (self.upstream / "compose/production/django/Dockerfile").write_text(
                files.BROKEN_DOCKERFILE if version == "does-not-build" else files.DOCKERFILE
            )
            self._upstream_git("add", "--all")
            self._upstream_git("commit", "--quiet", "--message", f"Connect Access {version}")
            self._upstream_git("tag", version)
        self._upstream_git("checkout", "--quiet", "--detach", "v1")
        self.publish("v1")

    def publish(self, version: str) -> None:
        """From now on `git pull origin master` brings this one."""
        self._upstream_git("branch", "--force", "master", version)

    def _upstream_git(self, *arguments: str) -> str:
        return containers.git(self.upstream, *arguments)

    # --- what its operator did -------------------------------------------------------------------------

    def _environment(self) -> str:
        return f"""COMPOSE_PROJECT_NAME={self.project}
APPLICATION_PORT=127.0.0.1:{self.web_port}
POSTGRES_HOST=postgres
POSTGRES_PORT=5432
POSTGRES_DB=connect_access
POSTGRES_DB_END_TO_END=connect_access_end_to_end
POSTGRES_USER=debug
POSTGRES_PASSWORD="{_PASSWORD}"
REDIS_URL=redis://redis:6379/0
DJANGO_SECRET_KEY='not-for-$logs'
DJANGO_SETTINGS_MODULE=connect_access.settings
"""

    def configuration(self) -> str:
        """The packaged preset, with what a test on one machine needs and shorter times."""
        return f"""
extends = "preset:connect-access"

[application]
name = "connect-access"
environment = "{self.environment}"
state = "{self.state}"

[runtime]
files = ["{self.environment}.yml"]
env_files = [".env_{self.environment}"]

[services.django]
health_timeout_seconds = {patience.wait(30)}
settle_seconds = 0.3
stop_timeout_seconds = 5

[services.celeryworker]
health_timeout_seconds = {patience.wait(40)}
settle_seconds = 2
stop_timeout_seconds = 5

[services.celerybeat]
health_timeout_seconds = {patience.wait(40)}
settle_seconds = 0.3
stop_timeout_seconds = 5

[files.media]
volume = "{self.environment}_django_media"

[gate]
kind = "front"
listen = "127.0.0.1:{self.port}"

[vaults.local]
kind = "local"
path = "{self.state.parent / "vault"}"

[backup]
references = {{ database = "main", files = "media", query = "SELECT DISTINCT file, sha256 FROM {PACKAGE}_upload" }}
config_files = [".env_{self.environment}"]
"""

    def git(self, *arguments: str) -> str:
        return containers.git(self.folder, *arguments)

    def attempt(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """As its pages have it: `docker compose -f production.yml --env-file .env_production ARGUMENTS`."""
        argv = [
            self._engine,
            "compose",
            "-f",
            f"{self.environment}.yml",
            "--env-file",
            f".env_{self.environment}",
            *arguments,
        ]
        return subprocess.run(
            argv, cwd=self.folder, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
        )

    def compose(self, *arguments: str) -> str:
        done = self.attempt(*arguments)
        assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    def manage(self, *arguments: str) -> str:
        return self.compose("run", "--rm", "django", "python", "backend/manage.py", *arguments)

    def start(self) -> None:
        """First installation by the page; example data."""
        self.compose("build")
        self.manage("migrate")
        self.compose("up", "-d")
        self.wait()
        self.compose("exec", "-T", "django", "python", "backend/manage.py", "install_example_data")

    def wait(self, path: str = "/health/") -> None:
        """Until its own proxy answers with a good page."""
        deadline = patience.deadline(_SECONDS)
        while self.get(path, self.web_port)[0] != 200:
            assert time.monotonic() < deadline, self.compose("logs", "--tail=20")
            time.sleep(0.05)

    def backups(self) -> list[str]:
        """Names of what its own script made, the newest first."""
        lines = self.compose("run", "--rm", "postgres", "backups").splitlines()
        return [line.split()[-1] for line in lines if line.endswith(".sql.gz")]

    def remove(self) -> None:
        self.shut_down_front()
        containers.remove(self.project, images=self._images())
        for volume in self._volumes():
            containers.engine("volume", "rm", volume)

    def shut_down_front(self) -> None:
        instance = f"HOLDFAST_INSTANCE=connect-access.{self.environment}@{self.state}"
        end_processes_with(instance, grace_seconds=0, wait_seconds=10)

    # --- looking ---------------------------------------------------------------------------------------

    @property
    def media(self) -> Path:
        """Where the engine keeps the uploads; before the volume is there too."""
        root = containers.engine("info", "--format={{.DockerRootDir}}")
        return Path(root) / "volumes" / f"{self.project}_{self.environment}_django_media" / "_data"

    def get(self, path: str = "/", port: int | None = None) -> tuple[int, Any]:
        """On the gate's port unless one is given; its own proxy is at `web_port`."""
        return visitor.get(port or self.port, path)

    def upload(self, content: bytes, port: int | None = None) -> tuple[int, Any]:
        return visitor.get(port or self.port, "/uploads/", content)

    def sql(self, statement: str, database: str = PACKAGE) -> str:
        argv = [
            self._engine,
            "exec",
            f"{self.project}-postgres-1",
            "psql",
            "-XqAt",
            "-v",
            "ON_ERROR_STOP=1",
            "-U",
            "debug",
            "-d",
            database,
            "-c",
            statement,
        ]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def containers(self, *more: str) -> list[str]:
        return containers.of_project(self.project, *more)

    def running(self) -> list[str]:
        """Names of the services that run, with the one-off containers left out."""
        shown = [
            self._engine,
            "ps",
            f"--filter=label=com.docker.compose.project={self.project}",
            "--filter=label=com.docker.compose.oneoff=False",
            '--format={{.Label "com.docker.compose.service"}}',
        ]
        return sorted(subprocess.run(shown, capture_output=True, text=True, check=True).stdout.split())

    def image_of(self, service: str) -> str:
        (id,) = self.containers(
            f"--filter=label=com.docker.compose.service={service}", "--filter=label=com.docker.compose.oneoff=False"
        )
        return containers.engine("inspect", "--format={{.Image}}", id)

    def fingerprint(self) -> str:
        """Of all rows of the application's tables, and of all uploads with their owners and modes."""
        return fingerprint.of(self.sql, self.media)

    def left_behind(self) -> list[str]:
        """What is there of it in the engine."""
        networks = containers.engine(
            "network", "ls", "--quiet", f"--filter=label=com.docker.compose.project={self.project}"
        )
        images = containers.engine("images", "--format={{.Repository}}:{{.Tag}}").splitlines()
        found = [image for image in images if image.startswith(tuple(self._images()))]
        return [*self.containers(), *networks.split(), *self._volumes(), *found]

    def _volumes(self) -> list[str]:
        return containers.engine("volume", "ls", "--quiet", f"--filter=name={self.project}_").split()

    def _images(self) -> list[str]:
        ours = ("django", "celeryworker", "celerybeat", "postgres", "traefik", "nginx")
        names = [f"connect_access_{name}:{self.environment}" for name in ours]
        return [*names, f"holdfast/connect-access.{self.environment}."]
