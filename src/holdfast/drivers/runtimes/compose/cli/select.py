"""The choice of the Compose program that an operator's command names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from holdfast.containers.docker import Engine
from holdfast.containers.engines import engine_named
from holdfast.drivers.runtimes.compose.cli.docker_v1 import ClassicCompose
from holdfast.drivers.runtimes.compose.cli.docker_v2 import DockerCompose
from holdfast.drivers.runtimes.compose.cli.podman import PodmanCompose
from holdfast.drivers.runtimes.compose.project import Compose, Project
from holdfast.errors import ConfigurationError
from holdfast.system.host import Host

_COMMANDS: dict[str, Callable[[Project], Compose]] = {
    "docker": DockerCompose,
    "docker-compose": ClassicCompose,
    "podman-compose": PodmanCompose,
}


def compose_of(project: Project) -> Compose:
    """Return the Compose program of a project's command. Raise ConfigurationError."""
    name = Path(project.command[0]).name
    if name not in _COMMANDS or (name == "docker") != (tuple(project.command[1:]) == ("compose",)):
        known = "`docker compose`, `docker-compose` and `podman-compose`"
        raise ConfigurationError(
            f"`{' '.join(project.command)}` is not a known Compose command", [f"runtime.command: use one of {known}"]
        )
    return _COMMANDS[name](project)


def engine_of(project: Project, host: Host) -> Engine:
    return engine_named(project.engine, host)
