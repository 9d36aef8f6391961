"""The argv of Docker Compose, version 2, for a project and for Holdfast's own models. Runs nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from holdfast.drivers.compose_model import Model, Service
from holdfast.drivers.runtimes.compose import models
from holdfast.drivers.runtimes.compose.project import QUIET, Project


class DockerCompose:
    starts_what_it_creates = False

    def __init__(self, project: Project) -> None:
        self._project = project

    def _words(self, *more: str) -> list[str]:
        named = ["--project-name", self._project.name] if self._project.name else []
        given = [word for path in self._project.env_files for word in ("--env-file", str(path))]
        chosen = [word for profile in self._project.profiles for word in ("--profile", profile)]
        files = [word for path in self._project.files for word in ("--file", str(path))]
        return [
            *self._project.command,
            "--project-directory",
            str(self._project.folder),
            *named,
            *given,
            *chosen,
            *files,
            *more,
        ]

    def config_argv(self) -> list[str]:
        return self._words("config", "--format", "json")

    def model(self, output: str) -> Model:
        found: Model = json.loads(output)
        return found

    def build_argv(self) -> list[str]:
        return self._words("build")

    # --- for one model of Holdfast's -----------------------------------------------------------------

    def _for(self, name: str, file: Path, *more: str) -> list[str]:
        """Return the argv for a model. Its paths are absolute; the folder is for the labels of the containers."""
        folder = str(self._project.folder)
        return [
            *self._project.command,
            "--project-name",
            name,
            "--project-directory",
            folder,
            "--file",
            str(file),
            *more,
        ]

    def contents(self, made: Model, file: Path) -> dict[Path, str]:
        return {file: json.dumps(made, indent=1)}

    def refused(self, name: str, service: Service) -> list[str]:
        return []

    def check_argv(self, name: str, file: Path) -> list[str]:
        return self._for(name, file, "config", "--quiet")

    def placed(self, made: Model, service: str, names: Sequence[str]) -> Model:
        return models.beside(made, service) if names else made

    def creation_argv(self, made: Model, file: Path, present: Mapping[str, int]) -> list[str]:
        scales = [word for name, count in present.items() for word in ("--scale", f"{name}={count + 1}")]
        options = ("--no-start", "--no-deps", "--no-build", "--no-recreate", "--quiet-pull")
        return self._for(made["name"], file, "up", *options, *scales, *present)

    def run_argv(
        self, made: Model, file: Path, service: str, command: Sequence[str], *, terminal: bool = False
    ) -> list[str]:
        given = [] if terminal else ["-T"]
        quiet = [f"{key}={value}" for key, value in QUIET.items()]
        words = self._for(made["name"], file, "run", "--rm", "--no-deps", *given, service, *command)
        return ["env", *quiet, *words]
