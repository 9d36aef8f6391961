"""The words of `docker-compose`, the program of its own, for a project and for models of ours. Runs nothing.

Facts measured on 1.29: `config` prints short forms without the project's name, a dollar sign written twice; there is one
environment file; a port's long form has no address of this machine, a mount's none of SELinux's labels. Version 2 under
this name takes the same words and forms.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from holdfast.drivers.runtimes import compose_model
from holdfast.drivers.runtimes.compose_canonical import canonical
from holdfast.drivers.runtimes.compose_model import Model
from holdfast.drivers.runtimes.compose_project import QUIET, Project
from holdfast.drivers.runtimes.compose_short import mount, one_environment_file


class ClassicCompose:
    def __init__(self, project: Project) -> None:
        self._project = project

    def _words(self, *more: str) -> list[str]:
        project = self._project
        given = one_environment_file(project)
        named = ["--project-name", project.name] if project.name else []
        chosen = [word for profile in project.profiles for word in ("--profile", profile)]
        files = [word for path in project.files for word in ("--file", str(path))]
        variables = ["--env-file", str(given)] if given else []
        return [
            *project.command,
            "--project-directory",
            str(project.folder),
            *named,
            *variables,
            *chosen,
            *files,
            *more,
        ]

    def resolving(self) -> list[str]:
        return self._words("config")

    def model(self, output: str) -> Model:
        """Raises ConfigurationError."""
        # Loaded where a project is read: other commands need neither.
        import yaml  # noqa: PLC0415
        from dotenv import dotenv_values  # noqa: PLC0415

        file = one_environment_file(self._project)
        given = {name: value for name, value in (dotenv_values(file) if file else {}).items() if value}
        return canonical(_as_it_is(yaml.safe_load(output)), self._project, given, dotenv_values)

    def building(self) -> list[str]:
        return self._words("build")

    # --- for one model of ours -----------------------------------------------------------------------

    def _for(self, name: str, file: Path, *more: str) -> list[str]:
        folder = str(self._project.folder)
        words = ["--project-name", name, "--project-directory", folder, "--file", str(file)]
        return [*self._project.command, *words, *more]

    def contents(self, made: Model, file: Path) -> dict[Path, str]:
        services = {name: _written(service) for name, service in made["services"].items()}
        model = {key: value for key, value in made.items() if key != "name"}
        return {file: json.dumps({**model, "services": services}, indent=1)}

    def refused(self, name: str, service: Model) -> list[str]:
        return []

    def checking(self, name: str, file: Path) -> list[str]:
        return self._for(name, file, "config", "--quiet")

    def placed(self, made: Model, service: str, names: Sequence[str]) -> Model:
        return compose_model.beside(made, service) if names else made

    def starting(self, made: Model, file: Path, service: str, names: Sequence[str]) -> list[str]:
        return self._for(
            made["name"], file, "up", "--detach", "--no-deps", "--no-build", "--no-recreate", "--quiet-pull",
            "--scale", f"{service}={len(names) + 1}", service,
        )  # fmt: skip

    def running_once(
        self, made: Model, file: Path, service: str, command: Sequence[str], *, terminal: bool = False
    ) -> list[str]:  # fmt: skip
        given = [] if terminal else ["-T"]
        quiet = [f"{key}={value}" for key, value in QUIET.items()]
        words = self._for(made["name"], file, "run", "--rm", "--no-deps", *given, service, *command)
        return ["env", *quiet, *words]


def _written(service: Mapping[str, Any]) -> dict[str, Any]:
    made = dict(service)
    if "ports" in made:
        made["ports"] = [_port(port) for port in made["ports"]]
    if "volumes" in made:
        made["volumes"] = [mount(each) for each in made["volumes"]]
    return made


def _port(given: Mapping[str, Any]) -> str:
    address = given.get("host_ip") or ""
    address = f"[{address}]:" if ":" in address else f"{address}:" if address else ""
    published = f"{address}{given['published']}:" if given.get("published") else ""
    return f"{published}{given['target']}/{given.get('protocol', 'tcp')}"


def _as_it_is(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _as_it_is(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_as_it_is(item) for item in value]
    return value.replace("$$", "$") if isinstance(value, str) else value
