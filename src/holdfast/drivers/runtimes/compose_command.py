"""Which Compose an operator's command is."""

from __future__ import annotations

from holdfast.drivers.runtimes.compose_docker import DockerCompose
from holdfast.drivers.runtimes.compose_engine import Engine
from holdfast.drivers.runtimes.compose_podman import PodmanCompose
from holdfast.drivers.runtimes.compose_project import Compose, Project
from holdfast.drivers.runtimes.podman_engine import PodmanEngine
from holdfast.host import Host

_COMMANDS: dict[str, type[Compose]] = {"docker": DockerCompose, "podman": PodmanCompose}
_ENGINES: dict[str, type[Engine]] = {"docker": Engine, "podman": PodmanEngine}


def compose_of(project: Project) -> Compose:
    return _COMMANDS[project.engine](project)  # type: ignore[call-arg] # a protocol has no constructor


def engine_of(project: Project, host: Host) -> Engine:
    return _ENGINES[project.engine](project.engine, host)
