"""A Compose project with the operator's own command, and the interface to a Compose program. Runs nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

from holdfast.drivers.compose_model import KeptImage, Model, Service
from holdfast.errors import DamagedError

MODEL = "compose.json"
IMAGES = "images.json"
# The order in which Compose looks for them (documentation of `docker compose --file`): the first one and its override.
_USUAL = ("compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml")
_USUAL_ENVIRONMENT = ".env"
# The operator's own settings of these are not meant for Holdfast's commands.
QUIET = {
    "COMPOSE_IGNORE_ORPHANS": "true",
    "COMPOSE_REMOVE_ORPHANS": "false",
    "COMPOSE_ANSI": "never",
    "COMPOSE_PROGRESS": "plain",
}


def files_in(configured: Sequence[str], sources: Path, instance: Path) -> tuple[Path, ...]:
    """Return the project's files, from the sources where these have them, else from the project's folder."""
    if configured:
        return tuple(sources / name if (sources / name).exists() else instance / name for name in configured)
    for folder in (sources, instance):
        for name in _USUAL:
            if (folder / name).exists():
                stem, _, ending = name.rpartition(".")
                places = (folder, instance)  # an override often belongs to the operator and is in no commit
                more = [place / f"{stem}.override.{other}" for place in places for other in (ending, "yml", "yaml")]
                return (folder / name, *[path for path in dict.fromkeys(more) if path.exists()][:1])
    return (instance / _USUAL[0],)


def env_files_in(configured: Sequence[str], instance: Path) -> tuple[Path, ...]:
    """Return the files from which variables come. They are the operator's, never the sources'."""
    if configured:
        return tuple(instance / name for name in configured)
    return (instance / _USUAL_ENVIRONMENT,) if (instance / _USUAL_ENVIRONMENT).exists() else ()


@dataclass(frozen=True)
class Project:
    """A Compose project: `command` is the operator's own, such as `docker compose`, as argv; paths are absolute.

    `name` is empty where files and environment define it.
    """

    command: tuple[str, ...]
    folder: Path
    files: tuple[Path, ...]
    env_files: tuple[Path, ...] = ()
    profiles: tuple[str, ...] = ()
    name: str = ""

    @property
    def engine(self) -> str:
        """Return the name of the engine's client that the command uses."""
        return "podman" if Path(self.command[0]).name.startswith("podman") else "docker"


class Compose(Protocol):
    """The argv of a Compose program: for the project, and for Holdfast's models."""

    starts_what_it_creates: bool
    """Whether it cannot create a container without starting it, nor several by one command."""

    def config_argv(self) -> list[str]:
        """Return the argv that prints the project's model."""

    def model(self, output: str) -> Model:
        """Return the printed model in the form of `docker compose config --format json`. Raise ConfigurationError."""

    def build_argv(self) -> list[str]:
        """Return the argv that builds the project's images, in the folder of its files."""

    def contents(self, made: Model, file: Path) -> Mapping[Path, str]:
        """Return the files that the following commands need, with their contents, which include secrets."""

    def refused(self, name: str, service: Service) -> list[str]:
        """Return settings of a service in a model that this command does not support."""

    def check_argv(self, name: str, file: Path) -> list[str]:
        """Return the argv of a command that fails where a model cannot be read."""

    def placed(self, made: Model, service: str, names: Sequence[str]) -> Model:
        """Return the model for one more container of a service that already has containers with these names."""

    def creation_argv(self, made: Model, file: Path, present: Mapping[str, int]) -> list[str]:
        """Return the argv that creates one more container of each service; existing containers stay as they are.

        `present` counts those that each service has.
        """

    def run_argv(
        self, made: Model, file: Path, service: str, command: Sequence[str], *, terminal: bool = False
    ) -> list[str]:
        """Return the argv that runs a command in a new container, which is removed; its exit code is the command's."""


def sources_mounted(name: str, service: Service, release: Path, folder: Path) -> list[str]:
    """Return mounts of the checkout, which a release cannot change because the image lacks their content."""
    found = []
    for mount in service.get("volumes") or []:
        place = Path(str(mount.get("source", "")))
        if mount.get("type") != "bind" or not place.is_relative_to(folder):
            continue
        inside = place.relative_to(folder)
        if inside == Path() or ((release / inside).exists() and not (release / inside).is_symlink()):
            found.append(f"service {name} mounts {place} from the checkout: no upgrade would change it")
    return found


def model_of(release: Path) -> Model:
    """Return the model of a release's project. Raise DamagedError."""
    return cast(Model, _release_file(release / MODEL))  # Holdfast wrote it as Compose printed it


def images_of(release: Path) -> dict[str, KeptImage]:
    """Return the kept images of a release's services. Raise DamagedError."""
    return cast(dict[str, KeptImage], _release_file(release / IMAGES))  # Holdfast wrote it


def _release_file(path: Path) -> object:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise DamagedError(f"{path} of the release cannot be read: {error}") from error
