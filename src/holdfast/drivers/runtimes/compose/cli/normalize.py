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
from typing import cast

from holdfast.drivers.compose_model import Model
from holdfast.drivers.runtimes.compose.project import Project
from holdfast.errors import ConfigurationError
from holdfast.system import child_environment

Raw = Mapping[str, object]
"""A mapping as it was written: nothing in it has a certain form."""
Values = Callable[[Path], Mapping[str, str | None]]
"""Return the variables of an environment file."""

_UNFIT = re.compile(r"[^-_a-z0-9]")
_SELINUX = ("z", "Z")
_TEXTS = ("container_name", "image", "user", "working_dir", "hostname", "restart", "stop_signal", "network_mode")
_PORT = re.compile(r"(?:(?:(?P<host>.*):)?(?P<published>[\d-]*):)?(?P<target>[\d-]+)(?:/(?P<protocol>\w+))?")


def canonical(written: object, project: Project, given: Mapping[str, str], values_in: Values) -> Model:
    """Return the model in the one form. Raise ConfigurationError.

    `given` has the variables of the project's environment file.
    """
    raw = _table(written)
    name = project.name or given.get("COMPOSE_PROJECT_NAME") or str(raw.get("name") or "")
    name = _UNFIT.sub("", name or project.folder.name.lower())
    known = {**given, **child_environment.for_programs()}
    chosen = {*project.profiles, *known.get("COMPOSE_PROFILES", "").split(",")}
    services = {
        key: _service(key, name, _table(item), project, known, values_in)
        for key, item in _table(raw.get("services")).items()
        if not (profiles := _list(_table(item).get("profiles"))) or chosen & set(profiles)
    }
    used = {network for item in services.values() for network in _table(item.get("networks"))}
    networks = _table(raw.get("networks"))
    model: dict[str, object] = {
        "name": name,
        "services": services,
        "networks": {key: _named(name, key, networks.get(key)) for key in sorted({*networks, *used})},
        "volumes": {key: _named(name, key, item) for key, item in _table(raw.get("volumes")).items()},
    }
    for key in ("secrets", "configs"):
        if raw.get(key):
            model[key] = {each: _filed(item, project) for each, item in _table(raw[key]).items()}
    # Each part was brought into its form above.
    return cast(Model, with_texts(model, lambda text: text.replace("$", "$$")))


def _service(
    name: str, project_name: str, item: Raw, project: Project, known: Mapping[str, str], values_in: Values
) -> dict[str, object]:
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
        words = made.get(key)
        if isinstance(words, str):
            made[key] = shlex.split(words)
    if "ports" in made:
        made["ports"] = [port for each in _list(made["ports"]) for port in _ports(each)]
    if "expose" in made:
        made["expose"] = [str(port) for port in _list(made["expose"])]
    if "volumes" in made:
        made["volumes"] = [_mount(each, project) for each in _list(made["volumes"])]
    if "network_mode" not in made:
        networks = made.get("networks") or {"default": None}
        made["networks"] = networks if isinstance(networks, Mapping) else dict.fromkeys(_list(networks))
    for key in ("secrets", "configs"):
        if key in made:
            made[key] = [{"source": each} if isinstance(each, str) else each for each in _list(made[key])]
    return made


def _table(given: object) -> dict[str, object]:
    """Return a mapping; an empty one where nothing is written. Raise ConfigurationError."""
    if given and not isinstance(given, Mapping):
        raise ConfigurationError("the Compose files are not valid", [f"{given!r} is not a mapping"])
    return dict(given) if isinstance(given, Mapping) else {}


def _list(given: object) -> list[object]:
    """Return a list; an empty one where nothing is written. Raise ConfigurationError."""
    if given and not isinstance(given, list | tuple):
        raise ConfigurationError("the Compose files are not valid", [f"{given!r} is not a list"])
    return list(given) if isinstance(given, list | tuple) else []


def _mapping(given: object) -> dict[str, object]:
    """Return a mapping of a mapping or of `[NAME=VALUE, ...]`."""
    if isinstance(given, Mapping):
        return dict(given)
    pairs = (str(each).partition("=") for each in _list(given))
    return {name: value if sign else None for name, sign, value in pairs}


def _environment(item: Raw, project: Project, known: Mapping[str, str], values_in: Values) -> dict[str, str]:
    files = item.get("env_file") or []
    found: dict[str, object] = {}
    for each in [files] if isinstance(files, str | Mapping) else _list(files):
        path, required = (each["path"], each.get("required", True)) if isinstance(each, Mapping) else (each, True)
        place = project.folder / str(path)
        if place.exists():
            found |= values_in(place)
        elif required:
            raise ConfigurationError(f"{place} does not exist", [f"env_file: {path}"])
    for name, value in _mapping(item.get("environment")).items():
        found[name] = known.get(name) if value is None else value
    return {name: _text(value) for name, value in found.items() if value is not None}


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _build(given: object, project: Project) -> dict[str, object]:
    """Return a build section; a context below the first file's folder is moved below the project's folder."""
    made: dict[str, object] = {"context": given} if isinstance(given, str) else _table(given)
    context = Path(str(made.get("context", ".")))
    base = project.files[0].parent
    if context.is_relative_to(base):
        context = project.folder / context.relative_to(base)
    made["context"] = str(_absolute(project, context))
    if "args" in made:
        made["args"] = _mapping(made["args"])
    return made


def _absolute(project: Project, path: str | Path) -> Path:
    return Path(os.path.normpath(project.folder / os.path.expanduser(path)))


def _ports(given: object) -> Iterator[dict[str, object]]:
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
        port: dict[str, object] = {"mode": "ingress", "target": target, "protocol": found["protocol"] or "tcp"}
        if found["host"]:
            port["host_ip"] = found["host"].strip("[]")
        if published:
            same = len(published) == len(targets)
            port["published"] = str(published[number]) if same else found["published"]
        yield port


def _range(text: str) -> list[int]:
    first, _, last = text.partition("-")
    return list(range(int(first), int(last or first) + 1)) if first else []


def _mount(given: object, project: Project) -> dict[str, object]:
    if isinstance(given, Mapping):
        made: dict[str, object] = dict(given)
        made.setdefault("type", "volume")
    else:
        made = _short(str(given))
    if made["type"] == "bind":
        made["source"] = str(_absolute(project, str(made["source"])))
    return made


def _short(text: str) -> dict[str, object]:
    parts = text.split(":")
    if len(parts) == 1:
        return {"type": "volume", "target": parts[0]}
    source, target = parts[0], parts[1]
    options = [word for part in parts[2:] for word in part.split(",")]
    made: dict[str, object] = {"type": "bind" if source[:1] in "/.~" else "volume", "source": source, "target": target}
    if "ro" in options:
        made["read_only"] = True
    selinux = [word for word in options if word in _SELINUX]
    if selinux:
        made["bind"] = {"selinux": selinux[-1]}
    if "nocopy" in options:
        made["volume"] = {"nocopy": True}
    others = [word for word in options if word not in ("ro", "rw", "nocopy", *_SELINUX)]
    return {**made, "x-options": others} if others else made


def _named(project: str, key: str, item: object) -> dict[str, object]:
    given = _table(item)
    external = given.get("external")
    if isinstance(external, Mapping):
        given["name"], given["external"] = external.get("name", key), True
    given.setdefault("name", key if external else f"{project}_{key}")
    return given


def _filed(item: object, project: Project) -> dict[str, object]:
    given = _table(item)
    return {**given, "file": str(_absolute(project, str(given["file"])))} if given.get("file") else given


def with_texts(value: object, change: Callable[[str], str]) -> object:
    """Return the value with each text in it changed; keys stay."""
    if isinstance(value, Mapping):
        return {key: with_texts(item, change) for key, item in value.items()}
    if isinstance(value, list):
        return [with_texts(item, change) for item in value]
    return change(value) if isinstance(value, str) else value
