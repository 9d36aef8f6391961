"""A Docker engine of the tests' own, and containers with this machine's programs: no pulls, no listeners.

The image has empty folders; `/usr` and the files that name accounts are mounted from the machine, read-only.
"""

from __future__ import annotations

import contextlib
import functools
import io
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.proof import patience
from tests.proof.endings import at_end
from tests.servers.machine import OnMachine

PLACE = "/server"  # where a container sees the folder that it is given
_START_SECONDS = 60
# Engines of several workers, and of two runs at the same time, share this machine's bridges, so each needs a network
# of its own.
_FIRST_NETWORK = os.environ.get("HOLDFAST_TESTS_FIRST_NETWORK", "172.20")
IMAGE = "holdfast-test"
COMPOSE = Path("/var/cache/holdfast-tests/cli-plugins/docker-compose")
_READ_ONLY = (
    "/usr",
    "/etc/passwd",
    "/etc/group",
    "/etc/alternatives",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/var/cache/holdfast-tests",
)


def machine_mounts() -> list[str]:
    """Return values of `--volume` that show a container this machine's programs and the Python of these tests."""
    places = [*_READ_ONLY, *{path for path in (sys.prefix, sys.base_prefix) if not path.startswith("/usr")}]
    return [f"{path}:{path}:ro" for path in places if os.path.exists(path)]


def network() -> str:
    """The first two bytes of the addresses that this worker's engine may give away."""
    first, second = _FIRST_NETWORK.split(".")
    return f"{first}.{int(second) + int(os.environ.get('PYTEST_XDIST_WORKER', 'gw0')[2:]) % 10}"


def add_links(tar: tarfile.TarFile) -> None:
    """Those of this machine's root to what is in /usr."""
    for name in ("bin", "sbin", "lib", "lib64"):
        if os.path.islink(f"/{name}"):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, os.readlink(f"/{name}")
            tar.addfile(member)


def empty_image() -> bytes:
    """An archive of a root with nothing but folders, where the machine's own are mounted."""
    tree = io.BytesIO()
    with tarfile.open(fileobj=tree, mode="w") as tar:
        for name in ("usr", "etc", "run", "var", "proc", "sys", "dev", "tmp", PLACE[1:]):
            member = tarfile.TarInfo(name)
            member.type, member.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
            tar.addfile(member)
        add_links(tar)
    return tree.getvalue()


def _control_group() -> list[str]:
    """Return the option by which containers belong to the control group of these tests, where there is one."""
    group = os.environ.get("TESTS_CONTROL_GROUP")
    return [f"--cgroup-parent={group}"] if group else []


class DockerEngine:
    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="hfk"))
        self._numbers = itertools.count(1)
        os.environ["DOCKER_HOST"] = f"unix://{self._folder / 'socket'}"
        if COMPOSE.exists():
            plugins = self._folder / "client" / "cli-plugins"
            plugins.mkdir(parents=True)
            (plugins / COMPOSE.name).symlink_to(COMPOSE)
            (plugins.parent / "config.json").write_text("{}")  # Podman looks there too, and wants the file
            os.environ["DOCKER_CONFIG"] = str(plugins.parent)
        self.start()
        self._import()

    def start(self) -> None:
        with open(self._folder / "log", "ab") as log:
            self._process = subprocess.Popen(
                [
                    "dockerd",
                    f"--data-root={self._folder / 'data'}",
                    f"--exec-root={self._folder / 'exec'}",
                    f"--pidfile={self._folder / 'pid'}",
                    f"--host={os.environ['DOCKER_HOST']}",
                    "--bridge=none",
                    f"--default-address-pool=base={network()}.0.0/16,size=24",
                    "--iptables=false",
                    "--ip-forward=false",
                    "--ip-masq=false",
                    *_control_group(),
                ],
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = patience.deadline(_START_SECONDS)
        while subprocess.run(["docker", "version"], capture_output=True, check=False).returncode != 0:
            if self._process.poll() is not None or time.monotonic() > deadline:
                pytest.skip(f"no Docker engine can run here: {(self._folder / 'log').read_text()[-300:]}")
            time.sleep(0.05)

    def _import(self) -> None:
        subprocess.run(["docker", "import", "-", IMAGE], input=empty_image(), stdout=subprocess.DEVNULL, check=True)

    def new_name(self) -> str:
        return f"box{next(self._numbers)}"

    def run_arguments(self, folder: Path, account: str) -> list[str]:
        """What is put before a command to run it in a container of its own, until it ends, without a network."""
        mounts = [f"--volume={path}:{path}:ro" for path in _READ_ONLY if os.path.exists(path)]
        return [
            "docker",
            "run",
            "--rm",
            "--network=none",
            f"--user={account}",
            "--tmpfs=/tmp",
            f"--volume={folder}:{PLACE}",
            *mounts,
            IMAGE,
        ]

    def kill(self) -> None:
        """The engine, and with it its containerd; the containers run on until it is back."""
        os.kill(self._process.pid, signal.SIGKILL)
        self._process.wait()
        # Where nobody takes leave of orphans, a number that was ended seems to be there still.
        (self._folder / "exec" / "containerd" / "containerd.pid").unlink()
        (self._folder / "pid").unlink(missing_ok=True)

    def halt(self) -> None:
        """As when the machine does: the engine and all that runs in its containers, at one moment."""
        running = subprocess.run(["docker", "ps", "--quiet"], capture_output=True, text=True, check=True).stdout.split()
        arguments = ["docker", "inspect", "--format={{.State.Pid}}", *running]
        first = subprocess.run(arguments, capture_output=True, text=True, check=True).stdout.split() if running else []
        self.kill()
        for pid in first:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)

    def remove(self) -> None:
        listed = subprocess.run(["docker", "ps", "-aq"], capture_output=True, text=True, check=False).stdout.split()
        if listed:
            subprocess.run(["docker", "rm", "-f", *listed], capture_output=True, check=False)
        subprocess.run(
            ["docker", "network", "prune", "--force"], capture_output=True, check=False
        )  # bridges of this machine
        self._process.terminate()
        self._process.wait(patience.limit(30))
        mounts = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
        left = [place for place in mounts if place.startswith(f"{self._folder}/")]
        for place in reversed(left):  # its own folder is one
            subprocess.run(["umount", "--lazy", place], check=True)
        shutil.rmtree(self._folder)


class Enclosed(OnMachine):
    """Of a server in a container of its own, where its folder is another one; so whoever reaches it there is inside."""

    _prefix: list[str]
    _process: subprocess.Popen[bytes]

    @property
    def place(self) -> Path:
        return Path(PLACE)

    @property
    def container(self) -> str:
        return f"docker:{self._name}"

    def _as_account(self, group: int) -> list[str]:
        self._name = engine().new_name()
        return engine().run_arguments(self.folder, f"{pwd.getpwnam(self.account).pw_uid}:{group}")

    @contextmanager
    def _named(self) -> Iterator[None]:
        """What is started meanwhile is the server itself."""
        unnamed, self._prefix = self._prefix, [*self._prefix[:-1], f"--name={self._name}", self._prefix[-1]]
        try:
            yield
        finally:
            self._prefix = unnamed

    def kill(self) -> None:
        subprocess.run(["docker", "kill", self._name], capture_output=True, check=False)
        self._process.wait()

    def stop(self) -> None:
        if self._process.poll() is None:
            subprocess.run(["docker", "stop", "--time=30", self._name], capture_output=True, check=True)
            self._process.wait(patience.limit(30))


@functools.cache
def _started() -> DockerEngine:
    made = DockerEngine()
    at_end(made.remove)
    return made


@contextmanager
def shared() -> Iterator[DockerEngine]:
    yield compose()


def compose() -> DockerEngine:
    """The same, for tests that need Compose too."""
    made = engine()
    if subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode != 0:
        pytest.skip("no Docker Compose here: `make test-setup` as root installs it")
    return made


def running() -> list[str]:
    """Its client's name, where this process has started one."""
    return ["docker"] if _started.cache_info().currsize else []


def engine() -> DockerEngine:
    """The one of this process."""
    if os.geteuid() != 0:
        pytest.skip("a Docker engine of the tests' own needs root")
    if shutil.which("dockerd") is None or shutil.which("docker") is None:
        pytest.skip("no Docker engine here: `make test-setup` as root installs one")
    return _started()
