"""A Compose project of the tests' own whose containers have this machine's programs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from holdfast.drivers.packages.archive import ArchivePackages
from holdfast.drivers.packages.images.build_script import BuildScript
from holdfast.drivers.packages.images.driver import ImagePackages
from holdfast.drivers.runtimes.compose.cli.select import compose_of
from holdfast.drivers.runtimes.compose.driver import ComposeRuntime
from holdfast.drivers.runtimes.compose.project import Compose, Project, files_in
from holdfast.system.host import Host
from tests import containers
from tests.servers import docker, podman

CLIENTS = [
    "docker",
    *(
        pytest.param(name, marks=pytest.mark.variant(product))
        for name, product in (("docker-compose", "compose"), ("podman", "podman"))
    ),
]
"""Parameters of a fixture that makes a project for each Compose program."""


@dataclass
class Containers:
    """`folder` is the release's; its model is in `compose.json`."""

    runtime: ComposeRuntime
    folder: Path
    name: str
    command: Sequence[str]

    @property
    def client(self) -> str:
        return self.runtime.engine_name

    def engine(self, *arguments: str) -> str:
        return containers.engine(*arguments, client=self.client)

    def write(self, services: Mapping[str, Mapping[str, Any]], tag: str = docker.IMAGE, **more: Any) -> None:
        """Makes the release's model and images anew."""
        usual = {"image": docker.IMAGE, "volumes": mounts(), "network_mode": "none"}
        made = {name: {**usual, **item} for name, item in services.items()}
        made = {name: {key: value for key, value in item.items() if value is not None} for name, item in made.items()}
        model = {"name": self.name, "services": made, **more}
        (self.folder / "compose.json").write_text(json.dumps(model))
        id = f"sha256:{self.engine('image', 'inspect', '--format={{.Id}}', tag).removeprefix('sha256:')}"
        (self.folder / "images.json").write_text(
            json.dumps({name: {"name": docker.IMAGE, "tag": tag, "id": id, "built": False} for name in services})
        )

    def another(self, environment_id: str) -> ComposeRuntime:
        """Of another application, with the same project."""
        return runtime(self.folder, self.name, tuple(self.command), environment_id, state="another")


def mounts() -> list[dict[str, Any]]:
    """This machine's programs, as Compose itself writes them in a resolved model."""
    places = [mount.split(":")[0] for mount in docker.machine_mounts()]
    return [{"type": "bind", "source": place, "target": place, "read_only": True} for place in places]


def started(client: str) -> tuple[str, ...]:
    """An engine of the tests' own runs; returns the Compose command for it."""
    if client == "podman":
        podman.compose()
        return podman.command()
    docker.compose()
    if client == "docker-compose" and shutil.which(client) is None:
        pytest.skip("no docker-compose here: `make test-setup` as root installs it")
    return (client,) if client == "docker-compose" else ("docker", "compose")


def runtime(
    folder: Path, name: str, arguments: tuple[str, ...], environment_id: str, state: str = "s"
) -> ComposeRuntime:
    command = Project(arguments, folder, (folder / "compose.json",), name=name)
    return ComposeRuntime(folder / state, environment_id, Host(), command, ports={"web": 0, "worker": 0})


@contextmanager
def project(folder: Path, client: str = "docker") -> Iterator[Containers]:
    arguments = started(client)
    name = f"contract-{folder.name.lower().replace('_', '0')}"
    made = Containers(runtime(folder, name, arguments, f"contract@{folder}"), folder, name, arguments)
    made.write({"web": {}, "worker": {}})
    try:
        yield made
    finally:
        containers.remove(name, client=made.client)


@contextmanager
def images(
    folder: Path, sources: ArchivePackages, script: BuildScript | None = None, client: str = "docker"
) -> Iterator[ImagePackages]:
    """Yield a store of images of a project whose Compose file is in its sources, or else outside of them."""
    arguments = started(client)
    instance = folder / "instance"
    instance.mkdir()
    (instance / "compose.yml").write_text(json.dumps({"services": {"web": {"image": docker.IMAGE}}}))
    packages = folder / "packages"
    own_name = f"contract-{folder.name.lower().replace('_', '0')}"
    prefix = f"holdfast/{own_name}"

    def project(sources: Path, folder: Path, name: str = "") -> Compose:
        return compose_of(Project(arguments, folder, files_in([], sources, instance), name=name or own_name))

    yield ImagePackages(
        packages,
        sources,
        project,
        Host(),
        engine="podman" if client == "podman" else "docker",
        instance=instance,
        prefix=prefix,
        links={},
        services=["web", "cache"],
        script=script,
    )
    containers.remove(own_name, images=[prefix, own_name], client="podman" if client == "podman" else "docker")
