"""What older commands than Docker Compose 2 have in common: short forms, and one environment file. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from holdfast.drivers.runtimes.compose_project import Project
from holdfast.errors import ConfigurationError


def one_environment_file(project: Project) -> Path | None:
    """Raises ConfigurationError where the project has several."""
    if len(project.env_files) > 1:
        names = ", ".join(path.name for path in project.env_files)
        raise ConfigurationError(
            f"{project.command[0]} takes one environment file", [f"runtime.env_files: there are {names}"]
        )
    return project.env_files[0] if project.env_files else None


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
