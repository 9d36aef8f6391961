"""A stand-in of USO: a checkout whose script builds images, and an instance folder of its own that runs them.

It migrates when it starts, and then serves, whatever the result. Its cron is a container that runs commands in others.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from holdfast.system.ports import free_loopback_port
from holdfast.system.processes import end_processes_with
from tests import containers
from tests.proof import patience
from tests.servers import docker, podman
from tests.site import gate_port
from tests.standins import fingerprint, postgres, uso_files, visitor
from tests.standins.project import BAD, GOOD, Project

PACKAGE = "usonline"
_SECONDS = 60
_DATABASE = """{
    "NAME": os.environ.get("DATABASE_NAME", "usonline"), "USER": os.environ.get("DATABASE_USER", "usonline"),
    "PASSWORD": os.environ["DATABASE_PASSWORD"], "HOST": os.environ.get("DATABASE_HOST", "database"), "PORT": 5432,
    }"""
_QUICK = f"health_timeout_seconds = {patience.wait(30)}\nsettle_seconds = 0.3\nstop_timeout_seconds = 5\n"
_PRESETS = {"apache": ("uso", ("uso", "cron")), "nginx": ("uso-nginx", ("proxy", "uso", "cron"))}
_LOCAL_SETTINGS = """
try:
    from local.settings import *
except ImportError:
    pass
"""


def elsewhere(text: str, state: Path) -> str:
    """A configuration whose state and vault lie in the test's own folder; nothing else of it is changed."""
    text = text.replace('environment = "production"\n', f'environment = "production"\nstate = "{state}"\n', 1)
    return re.sub(r'(?m)^path = "/var/backups/.*$', f'path = "{state.parent}/vault"', text)


class Uso:
    """One instance. `web` is the server that its pages set up, `instance` its folder, `checkout` the one next to it."""

    def __init__(
        self,
        folder: Path,
        command: Sequence[str] = ("docker", "compose"),
        *,
        web: Literal["apache", "nginx"] = "apache",
        socket: str | None = None,
        holdfast: str | None = None,
    ) -> None:
        """`socket` is the engine's, for the cron; without it Podman has no cron. `holdfast`: as for ConnectAccess."""
        self.web = web
        self.engine = "podman" if Path(command[0]).name == "podman-compose" else command[0]
        podman.compose() if self.engine == "podman" else docker.compose()
        self.upstream = folder / "upstream"
        self.checkout = folder / "uso"
        self.instance = folder / f"uso-{web}"
        self.project = self.instance.name
        self.media = self.instance / "local" / "media"
        self.state = folder / "state"
        self.config = self.instance / "holdfast.toml"
        self.port = gate_port()
        self.web_port = free_loopback_port()
        self._command = list(command)
        if socket is None and self.engine == "docker":
            socket = os.environ["DOCKER_HOST"].removeprefix("unix://")
        self._cron = socket is not None
        folder.mkdir(parents=True, exist_ok=True)
        self._write_upstream()
        containers.git(folder, "clone", "--quiet", "--branch", "main", str(self.upstream), str(self.checkout))
        uso_files.write_instance(self.instance, self.web, self.web_port, socket)
        self.config.write_text(holdfast if holdfast is not None else self.configuration())
        postgres.build(folder / "postgres", "postgres:17-alpine", self.engine)
        uso_files.build_cron(folder / "cron", self.engine)
        if web == "nginx":
            uso_files.build_nginx(folder / "nginx", self.engine)

    # --- what its own people made ----------------------------------------------------------------------

    def _write_upstream(self) -> None:
        self.upstream.mkdir()
        self._upstream_git("init", "--quiet", "--initial-branch=main")
        uso_files.write_checkout(self.upstream)
        media = 'BASE_DIR / "local" / "media"'
        project = Project(
            ".", PACKAGE, secret="SECRET_KEY", database=_DATABASE, media=media, more_settings=_LOCAL_SETTINGS
        )
        for version in (*GOOD, *BAD):
            if version in BAD:
                self._upstream_git("checkout", "--quiet", "v2")
            project.write(self.upstream, version)
            uso_files.write_dockerfiles(self.upstream, broken=version == "does-not-build")
            self._upstream_git("add", "--all")
            self._upstream_git("commit", "--quiet", "--message", f"USO {version}")
            self._upstream_git("tag", "--annotate", "--message", version, version)
        self._upstream_git("checkout", "--quiet", "--detach", "v1")
        self.publish("v1")

    def publish(self, version: str) -> None:
        """From now on `git pull origin main` brings this one."""
        self._upstream_git("branch", "--force", "main", f"{version}^{{commit}}")

    def _upstream_git(self, *arguments: str) -> str:
        return containers.git(self.upstream, *arguments)

    # --- what its operator did -------------------------------------------------------------------------

    def configuration(self) -> str:
        """The packaged preset, with what a test on one machine needs and shorter times."""
        preset, services = _PRESETS[self.web]
        quick = "\n".join(f"[services.{name}]\n{_QUICK}" for name in services)
        return f"""
extends = "preset:{preset}"

[application]
name = "uso"
environment = "production"
state = "{self.state}"

[runtime]
command = {json.dumps(self._command)}

[source]
images = [["env", "ENGINE={self.engine}", "./deploy/build-image.sh", "{self.web}"]]

{quick}
[gate]
kind = "front"
listen = "127.0.0.1:{self.port}"

[vaults.local]
kind = "local"
path = "{self.state.parent / "vault"}"

[backup]
references = {{ database = "main", files = "media", query = "SELECT DISTINCT file, sha256 FROM {PACKAGE}_upload" }}
"""

    def elsewhere(self, text: str) -> str:
        """A configuration whose state and vault lie in the test's own folder; nothing else of it is changed."""
        return elsewhere(text, self.state)

    def git(self, *arguments: str) -> str:
        return containers.git(self.checkout, *arguments)

    def build(self) -> subprocess.CompletedProcess[str]:
        """By the project's own script, whose exit code is that of its last clean-up."""
        return subprocess.run(
            ["./deploy/build-image.sh", self.web],
            cwd=self.checkout,
            env={**os.environ, "ENGINE": self.engine},
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            check=False,
        )

    def attempt(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self._command, *arguments],
            cwd=self.instance,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            check=False,
        )

    def compose(self, *arguments: str) -> str:
        done = self.attempt(*arguments)
        assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    def manage(self, *arguments: str) -> str:
        return self.compose("exec", "-T", "uso", "python", "manage.py", *arguments)

    def start(self) -> None:
        """First installation by the page; example data."""
        built = self.build()
        assert built.returncode == 0 and self.image("latest"), built.stderr
        self.compose("up", "-d")
        self.wait()
        self.manage("install_example_data")
        self.compose("exec", "-T", "uso", "chown", "-R", "www-data:", "local/media")

    def wait(self, path: str = "/health/") -> None:
        """Until the instance answers with a good page where its files publish it."""
        deadline = patience.deadline(_SECONDS)
        while self.get(path, self.web_port)[0] != 200:
            assert time.monotonic() < deadline, self.attempt("logs").stdout[-3000:]
            time.sleep(0.05)

    def backup(self) -> Path:
        """The page's own archive of the database's folder; it says to stop everything first."""
        target = self.instance / f"backup-{time.strftime('%Y-%m-%d')}.tar.gz"
        subprocess.run(["tar", "-czf", str(target), "./database"], cwd=self.instance, check=True)
        return target

    def restore(self, archive: Path) -> None:
        """Into an emptied folder, which the page forgets to say."""
        shutil.rmtree(self.instance / "database")
        subprocess.run(["tar", "-xzf", str(archive)], cwd=self.instance, check=True)

    def remove(self) -> None:
        self.shut_down_front()
        for id in self.containers():
            depend = ["--depend"] if self.engine == "podman" else []  # podman-compose makes one need the other
            self._engine("rm", "--force", "--volumes", *depend, id)
        for kind in ("network", "volume"):
            for id in self._labelled(kind):
                self._engine(kind, "rm", id)
        for image in self._images():
            self._engine("rmi", image)

    def shut_down_front(self) -> None:
        end_processes_with(f"HOLDFAST_INSTANCE=uso.production@{self.state}", grace_seconds=0, wait_seconds=10)

    # --- looking ---------------------------------------------------------------------------------------

    def get(self, path: str = "/", port: int | None = None) -> tuple[int, Any]:
        """On the gate's port unless one is given; the instance's own is `web_port`."""
        return visitor.get(port or self.port, path)

    def upload(self, content: bytes, port: int | None = None) -> tuple[int, Any]:
        return visitor.get(port or self.port, "/uploads/", content)

    def sql(self, statement: str, database: str = PACKAGE) -> str:
        arguments = ["psql", "-XqAt", "-v", "ON_ERROR_STOP=1", "-U", "usonline", "-d", database, "-c", statement]
        (id,) = self.containers("--filter=label=com.docker.compose.service=database")
        return self._engine("exec", id, *arguments)

    def containers(self, *more: str) -> list[str]:
        return self._engine(
            "ps", "--all", "--quiet", f"--filter=label=com.docker.compose.project={self.project}", *more
        ).split()

    def image(self, tag: str) -> str:
        """Id of an image that the script built; empty where there is none."""
        listed = self._engine("images", "--quiet", "--no-trunc", f"usonline:{tag}").splitlines()
        return listed[0] if listed else ""

    def image_of(self, service: str) -> str:
        (id,) = self.containers(f"--filter=label=com.docker.compose.service={service}")
        return f"sha256:{self._engine('inspect', '--format={{.Image}}', id).removeprefix('sha256:')}"

    def fingerprint(self) -> str:
        return fingerprint.of(self.sql, self.media)

    def left_behind(self) -> list[str]:
        """What is there of it in the engine."""
        return [*self.containers(), *self._labelled("network"), *self._labelled("volume"), *self._images()]

    def _labelled(self, kind: str) -> list[str]:
        label = f"--filter=label=com.docker.compose.project={self.project}"
        return self._engine(kind, "ls", "--quiet", label).split()

    def _images(self) -> list[str]:
        listed = self._engine("images", "--format={{.Repository}}:{{.Tag}}").splitlines()
        return [image for image in listed if image.removeprefix("localhost/").startswith(("usonline:", "holdfast/uso"))]

    def _engine(self, *arguments: str) -> str:
        done = subprocess.run([self.engine, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{arguments}: {done.stderr}"
        return done.stdout.strip()
