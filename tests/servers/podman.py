"""Podman for the tests: images, containers and networks in a separate folder, with this machine's programs."""

from __future__ import annotations

import contextlib
import functools
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.proof.endings import at_end
from tests.servers import docker

_CONF = """
[containers]
default_ulimits = []
log_driver = "k8s-file"
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
lock_type = "file"
tmp_dir = "{folder}/tmp"
# Where the client that ends a container looks for it: that one is told of the storage's place alone.
static_dir = "{folder}/graph/libpod"
volume_path = "{folder}/volumes"
[network]
network_backend = "netavark"
network_config_dir = "{folder}/networks"
default_subnet = "{first}.255.0/24"
default_subnet_pools = [{{"base" = "{first}.0.0/16", "size" = 24}}]
"""
_STORAGE = """
[storage]
driver = "overlay"
graphroot = "{folder}/graph"
runroot = "{folder}/run"
"""

_NAMES = Path("/run/containers/networks/aardvark-dns")


def _lines_of(*arguments: str) -> list[str]:
    return subprocess.run(["podman", *arguments], capture_output=True, text=True, check=True).stdout.split()


def _of_each(form: str, ids: list[str]) -> list[str]:
    return _lines_of("inspect", f"--format={form}", *ids) if ids else []


def _kill(pids: list[str]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)


def network() -> str:
    """Beside that of this worker's Docker engine."""
    first, second = docker.network().split(".")
    return f"{first}.{int(second) + 10 if int(second) < 100 else int(second) + 60}"


class PodmanEngine:
    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="hfp"))
        self._ran: list[str] = []
        self._places: list[str] = []
        settings = {"folder": self._folder, "first": network()}
        for name, text in (("containers.conf", _CONF), ("storage.conf", _STORAGE)):
            (self._folder / name).write_text(text.format(**settings))
        os.environ["CONTAINERS_CONF"] = str(self._folder / "containers.conf")
        os.environ["CONTAINERS_STORAGE_CONF"] = str(self._folder / "storage.conf")
        done = subprocess.run(
            ["podman", "import", "-", docker.IMAGE], input=docker.empty_image(), capture_output=True, check=False
        )
        if done.returncode != 0:
            shutil.rmtree(self._folder, ignore_errors=True)
            pytest.skip(f"no Podman can run here: {done.stderr.decode()[-300:]}")

    def halt(self) -> None:
        """As when the machine does: all that runs in containers and what watches it, at one moment."""
        self._ran = _lines_of("ps", "--quiet", "--no-trunc")
        self._places = _of_each("{{.NetworkSettings.SandboxKey}}", self._ran)
        # The watchers first: nobody is to note how the others ended.
        _kill(_of_each("{{.State.ConmonPid}} {{.State.Pid}}", self._ran))

    def kill(self) -> None:
        """What runs in containers. No server of Podman's could die: what watches each of them starts it again."""
        _kill(_of_each("{{.State.Pid}}", _lines_of("ps", "--quiet", "--no-trunc")))

    def start(self) -> None:
        """Do what the machine's start does with `podman-restart.service`, without traces of the run before."""
        if not self._ran:
            return
        self._forget_ports()
        self._forget_names()
        self._unmount()
        for place in self._places:
            subprocess.run(["umount", "--lazy", place], check=True)
            Path(place).unlink()
        for id in self._ran:
            subprocess.run(["runc", "delete", "--force", id], capture_output=True, check=False)
        shutil.rmtree(self._folder / "tmp", ignore_errors=True)
        shutil.rmtree(self._folder / "run", ignore_errors=True)
        arguments = ["podman", "start", "--all", "--filter=restart-policy=always"]
        done = subprocess.run(arguments, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        self._ran = []

    def _forget_names(self) -> None:
        """Its name server's list of a network is a file, which an end of the machine empties."""
        for network in (self._folder / "networks").glob("*.json"):
            (_NAMES / network.stem).unlink(missing_ok=True)

    def _forget_ports(self) -> None:
        """Remove the rules for these containers' old addresses, which a kernel that has just started lacks."""
        saved = subprocess.run(["iptables-save", "-t", "nat"], capture_output=True, text=True, check=True).stdout
        for arguments in map(shlex.split, saved.splitlines()):
            if arguments[:2] == ["-A", "NETAVARK-HOSTPORT-DNAT"] and any(id in " ".join(arguments) for id in self._ran):
                subprocess.run(["iptables", "-t", "nat", "-D", *arguments[1:]], check=True)
                subprocess.run(["iptables", "-t", "nat", "-F", arguments[-1]], check=True)

    def _unmount(self) -> None:
        mounts = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
        for place in reversed([place for place in mounts if place.startswith(f"{self._folder}/")]):
            subprocess.run(["umount", "--lazy", place], check=True)

    def remove(self) -> None:
        subprocess.run(["podman", "rm", "--all", "--force", "--time=0"], capture_output=True, check=False)
        subprocess.run(["podman", "network", "prune", "--force"], capture_output=True, check=False)
        self._unmount()
        shutil.rmtree(self._folder)


@functools.cache
def _started() -> PodmanEngine:
    made = PodmanEngine()
    at_end(made.remove)
    return made


def compose() -> PodmanEngine:
    """That of this process, for tests that need podman-compose too."""
    if os.geteuid() != 0:
        pytest.skip("Podman of the tests' own needs root")
    for program in ("podman", "runc", "conmon"):
        if shutil.which(program) is None:
            pytest.skip(f"no {program} here: `make test-setup` as root installs it")
    return _started()


@contextlib.contextmanager
def shared() -> Iterator[PodmanEngine]:
    yield compose()


def running() -> list[str]:
    """Its client's name, where this process has started one."""
    return ["podman"] if _started.cache_info().currsize else []


def command() -> tuple[str, ...]:
    """podman-compose, which is installed with the tests."""
    return (str(Path(sys.executable).parent / "podman-compose"),)
