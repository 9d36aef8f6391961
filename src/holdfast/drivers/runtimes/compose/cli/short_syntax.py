"""What other commands than Docker Compose 2 have in common: printed YAML, short forms, one environment file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from holdfast.drivers.runtimes.compose.cli.normalize import canonical, with_texts
from holdfast.drivers.runtimes.compose.models import Model
from holdfast.drivers.runtimes.compose.project import Project
from holdfast.errors import ConfigurationError


def one_environment_file(project: Project) -> Path | None:
    """Raises ConfigurationError where the project has several."""
    if len(project.env_files) > 1:
        names = ", ".join(path.name for path in project.env_files)
        raise ConfigurationError(
            f"{project.command[0]} takes one environment file", [f"runtime.env_files: there are {names}"]
        )
    return project.env_files[0] if project.env_files else None


def printed(output: str, project: Project, *, escaped: bool) -> Model:
    """The model that such a command printed, in the one form; `escaped`: dollar signs are written twice in it already.

    Raises ConfigurationError.
    """
    import yaml  # noqa: PLC0415 # where a project is read: other commands need neither
    from dotenv import dotenv_values  # noqa: PLC0415 # as above

    file = one_environment_file(project)
    given = {name: value for name, value in (dotenv_values(file) if file else {}).items() if value}
    found = yaml.safe_load(output)
    plain = with_texts(found, lambda text: text.replace("$$", "$")) if escaped else found
    return canonical(plain, project, given, dotenv_values)


def mount(given: Mapping[str, Any]) -> str | Mapping[str, Any]:
    """In the short form, which takes every option that an engine has."""
    if given.get("type") not in ("bind", "volume") or not given.get("source"):
        return given
    options = ["ro"] if given.get("read_only") else []
    selinux = (given.get("bind") or {}).get("selinux")
    options += [selinux] if selinux else []
    options += ["nocopy"] if (given.get("volume") or {}).get("nocopy") else []
    options += given.get("x-options") or []
    ending = f":{','.join(options)}" if options else ""
    return f"{given['source']}:{given['target']}{ending}"
