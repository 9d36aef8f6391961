"""A Compose project as the operator's own command has it, and the words for what is asked of Compose. Runs nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from holdfast.drivers.runtimes.compose.models import Model
from holdfast.errors import DamagedError

# As Compose itself looks for them (documentation of `docker compose --file`): the first one, and the one beside it.
_USUAL = ("compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml")
_USUAL_ENVIRONMENT = ".env"
# What an operator has set for commands of their own is not meant for these.
QUIET = {
    "COMPOSE_IGNORE_ORPHANS": "true",
    "COMPOSE_REMOVE_ORPHANS": "false",
    "COMPOSE_ANSI": "never",
    "COMPOSE_PROGRESS": "plain",
}


def files_in(configured: Sequence[str], sources: Path, instance: Path) -> tuple[Path, ...]:
    """The project's files: from the sources where these have them, else from the project's folder, as they are."""
    if configured:
        return tuple(sources / name if (sources / name).exists() else instance / name for name in configured)
    for folder in (sources, instance):
        for name in _USUAL:
            if (folder / name).exists():
                stem, _, ending = name.rpartition(".")
                places = (folder, instance)  # an override is often the operator's own and in no commit
                more = [place / f"{stem}.override.{other}" for place in places for other in (ending, "yml", "yaml")]
                return (folder / name, *[path for path in dict.fromkeys(more) if path.exists()][:1])
    return (instance / _USUAL[0],)


def env_files_in(configured: Sequence[str], instance: Path) -> tuple[Path, ...]:
    """What variables come from. They are the operator's, never the sources'."""
    if configured:
        return tuple(instance / name for name in configured)
    return (instance / _USUAL_ENVIRONMENT,) if (instance / _USUAL_ENVIRONMENT).exists() else ()


@dataclass(frozen=True)
class Project:
    """A Compose project as the operator's own command has it: `command` is `docker compose` as words, paths are absolute.

    `name` is empty where files and environment say it.
    """

    command: tuple[str, ...]
    folder: Path
    files: tuple[Path, ...]
    env_files: tuple[Path, ...] = ()
    profiles: tuple[str, ...] = ()
    name: str = ""

    @property
    def engine(self) -> str:
        """What the command uses, by the name of its client."""
        return "podman" if Path(self.command[0]).name.startswith("podman") else "docker"


class Compose(Protocol):
    """What an operator's Compose command is asked, as words: for the project, and for models of ours with one service."""

    def resolving(self) -> list[str]:
        """Prints the project's model."""

    def model(self, output: str) -> Model:
        """What that printed, in the form of `docker compose config --format json`. Raises ConfigurationError."""

    def building(self) -> list[str]:
        """Makes the project's images, in the folder of its files."""

    def contents(self, made: Model, file: Path) -> Mapping[Path, str]:
        """Files that the following need, each with what is to stand in it. They hold what is secret."""

    def refused(self, name: str, service: Model) -> list[str]:
        """What of a service, as it is in a model, this command cannot be given."""

    def checking(self, name: str, file: Path) -> list[str]:
        """Fails where a model cannot be read."""

    def placed(self, made: Model, service: str, names: Sequence[str]) -> Model:
        """The model for one more container of a service beside those with these names."""

    def starting(self, made: Model, file: Path, service: str, names: Sequence[str]) -> list[str]:
        """Starts that one; those that are there stay as they are."""

    def running_once(
        self, made: Model, file: Path, service: str, command: Sequence[str], *, terminal: bool = False
    ) -> list[str]:
        """Runs a command in a container of its own that is removed afterwards, and ends with its code."""


def sources_mounted(name: str, service: Mapping[str, Any], release: Path, folder: Path) -> list[str]:
    """What a service mounts of the checkout instead of having it in its image: no release would change it."""
    found = []
    for mount in service.get("volumes") or []:
        place = Path(str(mount.get("source", "")))
        if mount.get("type") != "bind" or not place.is_relative_to(folder):
            continue
        inside = place.relative_to(folder)
        if inside == Path() or ((release / inside).exists() and not (release / inside).is_symlink()):
            found.append(f"service {name} mounts {place}, which is of the checkout: no upgrade would change it")
    return found


def release_file(path: Path) -> dict[str, Any]:
    """A file of a release. Raises DamagedError."""
    try:
        found: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise DamagedError(f"{path} of the release cannot be read: {error}") from error
    return found
