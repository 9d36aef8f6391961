"""The argv of podman-compose for a project and for Holdfast's own models. Runs nothing.

Facts from its source and measured on 1.6 with Podman 4.3. Paths are relative to the folder of the first file, and there
is one environment file. `config` prints only the merged files with variables replaced. A network must be declared where
any is. `up` leaves a container alone that has the wanted name, and adds one to a container of another name. Values of
variables go into podman's argv, which every user of the machine can read; podman itself takes them from a file, one
`NAME=VALUE` per line, unchanged. `up` and `run` ignore a stop's grace period.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from holdfast.drivers.compose_model import Model, Service
from holdfast.drivers.runtimes.compose.cli.short_syntax import mount, one_environment_file, printed
from holdfast.drivers.runtimes.compose.project import QUIET, Project
from holdfast.errors import ConfigurationError

_DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+(?:\.\d+)?)s?)?")
_NO_FILE = "/dev/null"  # without a file it would read the `.env` of its working directory
_OUT_OF_MODEL = ("environment", "stop_grace_period")


class PodmanCompose:
    starts_what_it_creates = True  # only `podman run` is given the file with values

    def __init__(self, project: Project) -> None:
        self._project = project

    def _words(self, *more: str) -> list[str]:
        given = f"--env-file={one_environment_file(self._project) or _NO_FILE}"
        named = ["--project-name", self._project.name] if self._project.name else []
        chosen = [word for profile in self._project.profiles for word in ("--profile", profile)]
        files = [word for path in self._project.files for word in ("--file", str(path))]
        return [*self._project.command, "--in-pod=false", given, *named, *chosen, *files, *more]

    def config_argv(self) -> list[str]:
        return self._words("config")

    def model(self, output: str) -> Model:
        """Return the printed model in the one form. Raise ConfigurationError."""
        return printed(output, self._project, escaped=False)

    def build_argv(self) -> list[str]:
        return self._words("build")

    # --- for one model of Holdfast's -----------------------------------------------------------------

    def contents(self, made: Model, file: Path) -> dict[Path, str]:
        """Return the model's file, and a file with the values of its one service's variables."""
        (name, service), *_ = made["services"].items()
        written = {key: value for key, value in service.items() if key not in _OUT_OF_MODEL}
        written["volumes"] = [mount(each) for each in service.get("volumes") or []]
        lines = [f"{key}={_as_it_is(value)}\n" for key, value in _values(service).items()]
        model = {**made, "services": {name: written}}
        return {file: json.dumps(model, indent=1), file.with_suffix(".env"): "".join(lines)}

    def refused(self, name: str, service: Service) -> list[str]:
        return [
            f"service {name} has several lines in the variable {key}, which Podman cannot read from a file"
            for key, value in _values(service).items()
            if "\n" in value
        ]

    def check_argv(self, name: str, file: Path) -> list[str]:
        return self._for(name, file, [], "config", "--quiet")

    def placed(self, made: Model, service: str, names: Sequence[str]) -> Model:
        """Return the model with a container name that no other one has, because `up` goes by that name."""
        wanted = made["services"][service].get("container_name")
        if not wanted or names:
            number = next(n for n in range(1, len(names) + 2) if f"{made['name']}_{service}_{n}" not in names)
            wanted = f"{made['name']}_{service}_{number}"
        placed: Service = {**made["services"][service], "container_name": wanted}
        return {**made, "services": {service: placed}}

    def _for(self, name: str, file: Path, given: Sequence[str], *more: str) -> list[str]:
        return [
            *self._project.command,
            "--in-pod=false",
            f"--env-file={_NO_FILE}",
            f"--podman-run-args={shlex.join(given)}",
            "--project-name",
            name,
            "--file",
            str(file),
            *more,
        ]

    def _given(self, made: Model, file: Path, service: str) -> list[str]:
        """Return arguments for `podman run`: the file with values, and variables from the command's own environment."""
        variables = made["services"][service].get("environment") or {}
        grace = made["services"][service].get("stop_grace_period")
        stop = [f"--stop-timeout={_seconds(grace)}"] if grace else []
        inherited = [f"--env={name}" for name, value in variables.items() if value is None]
        return [f"--env-file={file.with_suffix('.env')}", *inherited, *stop]

    def creation_argv(self, made: Model, file: Path, present: Mapping[str, int]) -> list[str]:
        (service,) = present
        words = ["up", "--detach", "--no-deps", "--no-build", "--no-recreate", service]
        return self._for(made["name"], file, self._given(made, file, service), *words)

    def run_argv(
        self, made: Model, file: Path, service: str, command: Sequence[str], *, terminal: bool = False
    ) -> list[str]:
        given = [] if terminal else ["-T"]
        quiet = [f"{key}={value}" for key, value in QUIET.items()]
        words = ["run", "--rm", "--no-deps", *given, service, *command]
        return ["env", *quiet, *self._for(made["name"], file, self._given(made, file, service), *words)]


def _values(service: Service) -> dict[str, str]:
    given = service.get("environment") or {}
    return {name: str(value) for name, value in given.items() if value is not None}


def _as_it_is(text: str) -> str:
    """Undo the doubling of `$` in a model, where Compose takes a single one for a variable."""
    return text.replace("$$", "$")


def _seconds(duration: str) -> int:
    """Return the seconds of a duration such as `1m30s`, rounded up. Raise ConfigurationError."""
    found = _DURATION.fullmatch(str(duration).strip())
    if found is None or not any(found.groups()):
        raise ConfigurationError(f"{duration!r} is not a valid duration", ["stop_grace_period: write it like `1m30s`"])
    hours, minutes, seconds = (float(part or 0) for part in found.groups())
    return -int(-(hours * 3600 + minutes * 60 + seconds) // 1)
