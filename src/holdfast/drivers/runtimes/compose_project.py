"""A Compose project as the operator's own command has it, and the words for what is asked of Compose. Runs nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# As Compose itself looks for them (documentation of `docker compose --file`): the first one, and the one beside it.
_USUAL = ("compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml")
_USUAL_ENVIRONMENT = ".env"
# What an operator has set for commands of their own is not meant for these.
QUIET = {"COMPOSE_IGNORE_ORPHANS": "true", "COMPOSE_REMOVE_ORPHANS": "false", "COMPOSE_ANSI": "never",
         "COMPOSE_PROGRESS": "plain"}  # fmt: skip


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

    def words(self, *more: str) -> list[str]:
        """The command for the project's own files."""
        named = ["--project-name", self.name] if self.name else []
        given = [word for path in self.env_files for word in ("--env-file", str(path))]
        chosen = [word for profile in self.profiles for word in ("--profile", profile)]
        files = [word for path in self.files for word in ("--file", str(path))]
        return [*self.command, "--project-directory", str(self.folder), *named, *given, *chosen, *files, *more]

    def resolving(self) -> list[str]:
        """Prints the model with everything resolved: names, variables, environment files."""
        return self.words("config", "--format", "json")

    def building(self) -> list[str]:
        return self.words("build")


def for_model(project: Project, name: str, file: Path, *more: str) -> list[str]:
    """The command for one model of ours. Its paths are absolute; the folder is what the containers' labels name."""
    return [
        *project.command,
        "--project-name",
        name,
        "--project-directory",
        str(project.folder),
        "--file",
        str(file),
        *more,
    ]


def starting(project: Project, name: str, file: Path, service: str, count: int) -> list[str]:
    """Starts one more container of a service; those that are there stay as they are."""
    return for_model(
        project, name, file, "up", "--detach", "--no-deps", "--no-build", "--no-recreate", "--quiet-pull",
        "--scale", f"{service}={count}", service,
    )  # fmt: skip


def running_once(
    project: Project, name: str, file: Path, service: str, command: Sequence[str], *, terminal: bool = False
) -> list[str]:
    given = [] if terminal else ["--no-TTY"]
    quiet = [f"{name}={value}" for name, value in QUIET.items()]
    return ["env", *quiet, *for_model(project, name, file, "run", "--rm", "--no-deps", *given, service, *command)]


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
