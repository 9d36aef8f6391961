"""Common parts of the commands other than Docker Compose 2: YAML output, short forms, one environment file."""

from __future__ import annotations

from pathlib import Path

from holdfast.drivers.compose_model import Model, Mount
from holdfast.drivers.runtimes.compose.cli.normalize import canonical, with_texts
from holdfast.drivers.runtimes.compose.project import Project
from holdfast.errors import ConfigurationError


def one_environment_file(project: Project) -> Path | None:
    """Return the project's environment file. Raise ConfigurationError where it has several."""
    if len(project.env_files) > 1:
        names = ", ".join(path.name for path in project.env_files)
        raise ConfigurationError(
            f"{project.command[0]} accepts only one environment file", [f"runtime.env_files: there are {names}"]
        )
    return project.env_files[0] if project.env_files else None


def printed(output: str, project: Project, *, escaped: bool) -> Model:
    """Return the printed model in the one form. Raise ConfigurationError.

    `escaped` says that dollar signs are doubled in it already.
    """
    import yaml  # noqa: PLC0415 # only where a project is read: other commands need neither
    from dotenv import dotenv_values  # noqa: PLC0415 # likewise

    file = one_environment_file(project)
    given = {name: value for name, value in (dotenv_values(file) if file else {}).items() if value}
    found = yaml.safe_load(output)
    plain = with_texts(found, lambda text: text.replace("$$", "$")) if escaped else found
    return canonical(plain, project, given, dotenv_values)


def mount(given: Mount) -> str | Mount:
    """Return a mount in the short form, which accepts every option that an engine has."""
    if given.get("type") not in ("bind", "volume") or not given.get("source"):
        return given
    options = ["ro"] if given.get("read_only") else []
    selinux = (given.get("bind") or {}).get("selinux")
    options += [selinux] if selinux else []
    options += ["nocopy"] if (given.get("volume") or {}).get("nocopy") else []
    options += given.get("x-options") or []
    ending = f":{','.join(options)}" if options else ""
    return f"{given['source']}:{given['target']}{ending}"
