"""The output of podman-compose and docker-compose 1.29, normalized into the one form of a Compose model. Pure.

That form is what `docker compose config --format json` prints, by the Compose specification: long forms, absolute
paths, names of volumes and networks, a dollar sign written twice.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from holdfast.drivers.runtimes.compose.project import Project
from holdfast.errors import ConfigurationError
from holdfast.system import child_environment

Raw = Mapping[str, Any]
Values = Callable[[Path], Mapping[str, str | None]]
"""Return the variables of an environment file."""

_UNFIT = re.compile(r"[^-_a-z0-9]")
_SELINUX = ("z", "Z")
_TEXTS = ("container_name", "image", "user", "working_dir", "hostname", "restart", "stop_signal", "network_mode")
_PORT = re.compile(r"(?:(?:(?P<host>.*):)?(?P<published>[\d-]*):)?(?P<target>[\d-]+)(?:/(?P<protocol>\w+))?")


def canonical(raw: Raw, project: Project, given: Mapping[str, str], values_in: Values) -> dict[str, Any]:
    """Return the model in the one form. Raise ConfigurationError.

    `given` has the variables of the project's environment file.
    """
    name = project.name or given.get("COMPOSE_PROJECT_NAME") or str(raw.get("name") or "")
    name = _UNFIT.sub("", name or project.folder.name.lower())
    known = {**given, **child_environment.for_programs()}
    chosen = {*project.profiles, *known.get("COMPOSE_PROFILES", "").split(",")}
    services = {
        key: _service(key, name, item or {}, project, known, values_in)
        for key, item in (raw.get("services") or {}).items()
        if not (item or {}).get("profiles") or chosen & set(item["profiles"])
    }
    used = {network for item in services.values() for network in item.get("networks") or {}}
    networks = raw.get("networks") or {}
    model = {
        "name": name,
        "services": services,
        "networks": {key: _named(name, key, networks.get(key)) for key in sorted({*networks, *used})},
        "volumes": {key: _named(name, key, item) for key, item in (raw.get("volumes") or {}).items()},
    }
    for key in ("secrets", "configs"):
        model |= {key: {each: _filed(item, project) for each, item in raw[key].items()}} if raw.get(key) else {}
    return dict(with_texts(model, lambda text: text.replace("$", "$$")))


def _service(
    name: str, project_name: str, item: Raw, project: Project, known: Mapping[str, str], values_in: Values
) -> dict[str, Any]:
    if "extends" in item:
        raise ConfigurationError(
            f"{project.command[0]} does not resolve `extends`",
            [f"services.{name}.extends: replace it by the settings that it refers to"],
        )
    made = {key: value for key, value in item.items() if value is not None and key != "env_file"}
    made |= {key: str(value) for key, value in made.items() if key in _TEXTS}
    made["environment"] = _environment(item, project, known, values_in)
    if "labels" in made:
        made["labels"] = {key: str(value or "") for key, value in _mapping(made["labels"]).items()}
    if "build" in made:
        made["build"] = _build(made["build"], project)
        made.setdefault("image", f"{project_name}_{name}")  # the name that podman-compose gives
    for key in ("command", "entrypoint"):
        if isinstance(made.get(key), str):
            made[key] = shlex.split(made[key])
    if "ports" in made:
        made["ports"] = [port for each in made["ports"] for port in _ports(each)]
    if "expose" in made:
        made["expose"] = [str(port) for port in made["expose"]]
    if "volumes" in made:
        made["volumes"] = [_mount(each, project) for each in made["volumes"]]
    if "network_mode" not in made:
        networks = made.get("networks") or {"default": None}
        made["networks"] = networks if isinstance(networks, Mapping) else dict.fromkeys(networks)
    for key in ("secrets", "configs"):
        if key in made:
            made[key] = [{"source": each} if isinstance(each, str) else each for each in made[key]]
    return made


def _mapping(given: Any) -> dict[str, Any]:
    """Return a mapping of a mapping or of `[NAME=VALUE, ...]`."""
    if isinstance(given, Mapping):
        return dict(given)
    return {name: value if sign else None for name, sign, value in (str(each).partition("=") for each in given or [])}


def _environment(item: Raw, project: Project, known: Mapping[str, str], values_in: Values) -> dict[str, str]:
    files = item.get("env_file") or []
    found: dict[str, Any] = {}
    for each in [files] if isinstance(files, str | Mapping) else files:
        path, required = (each["path"], each.get("required", True)) if isinstance(each, Mapping) else (each, True)
        place = project.folder / path
        if place.exists():
            found |= values_in(place)
        elif required:
            raise ConfigurationError(f"{place} does not exist", [f"env_file: {path}"])
    for name, value in _mapping(item.get("environment")).items():
        found[name] = known.get(name) if value is None else value
    return {name: _text(value) for name, value in found.items() if value is not None}


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _build(given: Any, project: Project) -> dict[str, Any]:
    """Return a build section; a context below the first file's folder is moved below the project's folder."""
    made = {"context": given} if isinstance(given, str) else dict(given)
    context = Path(made.get("context", "."))
    base = project.files[0].parent
    if context.is_relative_to(base):
        context = project.folder / context.relative_to(base)
    made["context"] = str(_absolute(project, context))
    if "args" in made:
        made["args"] = _mapping(made["args"])
    return made


def _absolute(project: Project, path: str | Path) -> Path:
    return Path(os.path.normpath(project.folder / os.path.expanduser(path)))


def _ports(given: Any) -> Iterator[dict[str, Any]]:
    if isinstance(given, Mapping):
        yield {
            "mode": "ingress",
            "protocol": "tcp",
            **given,
            "target": int(given["target"]),
            **({"published": str(given["published"])} if given.get("published") else {}),
        }
        return
    found = _PORT.fullmatch(str(given))
    if found is None:
        raise ConfigurationError(f"{given!r} is not a valid port", ["ports: write it like `127.0.0.1:8080:80`"])
    targets = _range(found["target"])
    published = _range(found["published"] or "")
    for number, target in enumerate(targets):
        port = {"mode": "ingress", "target": target, "protocol": found["protocol"] or "tcp"}
        if found["host"]:
            port["host_ip"] = found["host"].strip("[]")
        if published:
            same = len(published) == len(targets)
            port["published"] = str(published[number]) if same else found["published"]
        yield port


def _range(text: str) -> list[int]:
    first, _, last = text.partition("-")
    return list(range(int(first), int(last or first) + 1)) if first else []


def _mount(given: Any, project: Project) -> dict[str, Any]:
    if isinstance(given, Mapping):
        made = dict(given)
        made.setdefault("type", "volume")
    else:
        made = _short(str(given))
    if made["type"] == "bind":
        made["source"] = str(_absolute(project, made["source"]))
    return made


def _short(text: str) -> dict[str, Any]:
    parts = text.split(":")
    if len(parts) == 1:
        return {"type": "volume", "target": parts[0]}
    source, target = parts[0], parts[1]
    options = [word for part in parts[2:] for word in part.split(",")]
    made: dict[str, Any] = {"type": "bind" if source[:1] in "/.~" else "volume", "source": source, "target": target}
    if "ro" in options:
        made["read_only"] = True
    selinux = [word for word in options if word in _SELINUX]
    if selinux:
        made["bind"] = {"selinux": selinux[-1]}
    if "nocopy" in options:
        made["volume"] = {"nocopy": True}
    others = [word for word in options if word not in ("ro", "rw", "nocopy", *_SELINUX)]
    return {**made, "x-options": others} if others else made


def _named(project: str, key: str, item: Any) -> dict[str, Any]:
    given = dict(item or {})
    external = given.get("external")
    if isinstance(external, Mapping):
        given["name"], given["external"] = external.get("name", key), True
    given.setdefault("name", key if external else f"{project}_{key}")
    return given


def _filed(item: Any, project: Project) -> dict[str, Any]:
    given = dict(item or {})
    return {**given, "file": str(_absolute(project, given["file"]))} if given.get("file") else given


def with_texts(value: Any, change: Callable[[str], str]) -> Any:
    """Return the value with each text in it changed; keys stay."""
    if isinstance(value, Mapping):
        return {key: with_texts(item, change) for key, item in value.items()}
    if isinstance(value, list):
        return [with_texts(item, change) for item in value]
    return change(value) if isinstance(value, str) else value
