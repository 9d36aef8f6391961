"""The merge of files into one valid configuration: preset, holdfast.toml, the current release's file, the overlay.

All problems are reported at once, each with its key path and the file that it comes from.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path

import msgspec
from msgspec.structs import replace

from holdfast.config import composer
from holdfast.config.schema import Configuration, Hooks
from holdfast.config.schema.hooks import OF_OPERATOR
from holdfast.config.similar import no_such
from holdfast.config.validation import InvalidError, cross_problems, plain, validate
from holdfast.errors import ConfigurationError, NotFoundError
from holdfast.system.secrets import is_secret

FILE_NAME = "holdfast.toml"
OF_THE_RELEASE = ("tasks", "services", "migrations", "hooks", "schedule")
"""Sections that a release's own holdfast.toml may set, because they belong to the code."""
# The release decides what the code needs of a service; the operator decides on its account and its secrets.
_OF_THE_OPERATOR = {"user", "where"}
_PRESETS = Path(__file__).parent.parent / "presets"
_TYPES = {"production": "prod", "staging": "stag", "uat": "uat"}


class ResolvedConfig(msgspec.Struct, frozen=True):
    """A valid configuration, the folder its paths are relative to, and the origin of each key.

    `operator` is the configuration without the release's own file; `refused` are keys of that file that a release may
    not set.
    """

    configuration: Configuration
    root: Path
    origins: Mapping[str, str] = msgspec.field(default_factory=dict)
    operator: ResolvedConfig | None = None
    refused: tuple[str, ...] = ()

    def path(self, text: str) -> Path:
        """Return a configured path as an absolute one."""
        return Path(os.path.normpath(self.root / text))

    @property
    def state(self) -> Path:
        application = self.configuration.application
        configured = application.state
        return (
            self.path(configured)
            if configured
            else Path(f"/var/lib/holdfast/{application.name}.{application.environment}")
        )

    @property
    def environment_type(self) -> str:
        application = self.configuration.application
        return application.type or _TYPES.get(application.environment, "dev")

    @property
    def owner(self) -> str:
        """Return the owner of datasets, releases and vault: application, environment and state directory."""
        application = self.configuration.application
        return f"{application.name}.{application.environment} ({self.state})"

    @property
    def environment_id(self) -> str:
        """Return what tells the processes of this environment from those of every other one on the machine."""
        application = self.configuration.application
        return f"{application.name}.{application.environment}@{self.state}"

    def dump(self) -> dict[str, object]:
        """Return everything that a recovery needs as JSON for the journal; secrets are references."""
        return {"root": str(self.root), "configuration": plain(self.configuration)}


class _Dumped(msgspec.Struct):
    root: str
    configuration: dict[str, object]


def undump(value: Mapping[str, object]) -> ResolvedConfig:
    """Return the configuration with which an operation began."""
    found = msgspec.convert(value, _Dumped)
    return ResolvedConfig(validate(found.configuration, Configuration), Path(found.root))


def find_file(given: str | None) -> Path:
    """Return holdfast.toml as named, or in the working directory or a folder above it. Raise NotFoundError."""
    if given:
        path = Path(given)
        path = path / FILE_NAME if path.is_dir() else path
        if not path.is_file():
            raise NotFoundError(f"there is no {path}", next_step="Run `holdfast init` to write one.")
        return path.resolve()
    for folder in (Path.cwd(), *Path.cwd().parents):
        if (folder / FILE_NAME).is_file():
            return folder / FILE_NAME
    raise NotFoundError(
        f"no {FILE_NAME} here or in a folder above",
        next_step="Change to the application's folder, name the file with `--config`, or write one with `holdfast"
        " init`.",
    )


def environments(path: Path) -> list[str]:
    """Return the environments that have an overlay next to holdfast.toml."""
    return sorted(one.name.split(".")[1] for one in path.parent.glob("holdfast.*.toml"))


def _read(path: Path) -> dict[str, object]:
    try:
        return tomllib.loads(path.read_text())
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(
            f"{path} is not valid TOML",
            [_readable(error)],
            next_step=f"Fix {path}, then run `holdfast config validate`.",
        ) from error
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read", [str(error.strerror)]) from error


def _readable(error: tomllib.TOMLDecodeError) -> str:
    """Return what is wrong with a TOML text, with the place first."""
    found = re.fullmatch(r"(.*) \(at (line \d+, column \d+|end of document)\)", str(error), re.DOTALL)
    return f"{found[2]}: {found[1]}" if found is not None else str(error)


def presets() -> dict[str, str]:
    """Return the packaged presets: name -> text."""
    return {path.stem: path.read_text() for path in _PRESETS.glob("*.toml")}


def _merge(
    target: dict[str, object], more: Mapping[str, object], origin: str, origins: dict[str, str], prefix: str = ""
) -> None:
    """Merge two tables: tables merge, lists and scalars replace."""
    for key, value in more.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping):
            table = target.get(key)
            if not isinstance(table, dict):
                table = target[key] = {}
                origins[path] = origin
            _merge(table, value, origin, origins, f"{path}.")
        else:
            target[key] = value
            origins[path] = origin


def _merge_preset(target: dict[str, object], extends: object, origin: str, origins: dict[str, str]) -> None:
    """Return the preset of that name, merged over the one that it extends. Raise ConfigurationError."""
    if not isinstance(extends, str) or not extends.startswith("preset:"):
        return
    known = presets()
    name = extends.removeprefix("preset:")
    if name not in known:
        raise ConfigurationError(
            f"{origin} is wrong", [f"extends: no preset {name!r}; known: {', '.join(sorted(known))}"]
        )
    found = tomllib.loads(known[name])
    _merge_preset(target, found.get("extends"), extends, origins)
    _merge(target, found, extends, origins)


def merge_release(loaded: ResolvedConfig, text: str, origin: str, scripts: str = "") -> ResolvedConfig:
    """Return the operator's configuration with what a release's own holdfast.toml may set.

    `scripts` is the text of its composer.json, whose scripts may replace tasks. What another release set before is
    dropped: its tasks and services do not belong to this one. Raise ConfigurationError.
    """
    loaded = loaded.operator or loaded
    of_composer = f"{origin.removesuffix(FILE_NAME)}{composer.FILE_NAME}"
    chosen = loaded.configuration.tasks.scripts
    made = composer.tasks(scripts, {str(task): name for task, name in chosen.items()}, of_composer)
    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{origin} is not valid TOML", [_readable(error)]) from error
    own, refused = _allowed(
        {key: value for key, value in found.items() if key in OF_THE_RELEASE}, loaded.configuration.hooks
    )
    if not own and not made:
        return replace(loaded, refused=refused) if refused else loaded
    merged = plain(loaded.configuration, defaults=False)
    origins = dict(loaded.origins)
    for name, commands in made.items():
        given = merged.get("tasks")
        table = isinstance(given, dict) and isinstance(given.get(name), dict)  # its environment and account stay
        _merge(merged, {"tasks": {name: {"commands": commands} if table else commands}}, of_composer, origins)
    _merge(merged, own, origin, origins)
    overlay = _overlay_of(loaded)
    if overlay is not None:
        _merge(
            merged,
            {key: value for key, value in _read(overlay).items() if key in OF_THE_RELEASE},
            overlay.name,
            origins,
        )
    configuration = _validate(merged, origins, origin, loaded.root, {origin: text, of_composer: ""})
    return ResolvedConfig(configuration, loaded.root, origins, loaded, refused)


def _allowed(own: Mapping[str, object], operators: Hooks) -> tuple[dict[str, object], tuple[str, ...]]:
    """Return what a release may set in these sections, and the keys that it may not.

    A hook that the operator has set is not mixed with one of the release.
    """
    taken, refused = dict(own), []
    for section in ("services", "tasks", "hooks", "schedule"):
        tables = own.get(section)
        if not isinstance(tables, Mapping):
            continue  # the schema refuses this, and what is no table below, with a message
        kept: dict[str, object] = {}
        for name, table in tables.items():
            of_operator = section == "hooks" and (name in OF_OPERATOR or getattr(operators, name, None))
            if of_operator or (section == "tasks" and name in _OF_THE_OPERATOR):
                refused.append(f"{section}.{name}")
            elif isinstance(table, Mapping):
                kept[name], without = _without_rights(table)
                refused += [f"{section}.{name}.{key}" for key in without]
            else:
                kept[name] = table
        taken[section] = kept
    return taken, tuple(refused)


def _without_rights(table: Mapping[str, object]) -> tuple[dict[str, object], list[str]]:
    """Return a table without accounts, secrets and the right to run on the machine, and the keys that were left out."""
    refused = sorted(table.keys() & _OF_THE_OPERATOR)
    allowed = {key: value for key, value in table.items() if key not in refused}
    environment = allowed.get("environment")
    if isinstance(environment, Mapping):
        secrets = [key for key, value in environment.items() if is_secret(str(value))]
        refused += [f"environment.{key}" for key in secrets]
        if secrets:
            allowed["environment"] = {key: value for key, value in environment.items() if key not in secrets}
    return allowed, refused


def _overlay_of(loaded: ResolvedConfig) -> Path | None:
    path = loaded.root / f"holdfast.{loaded.configuration.application.environment}.toml"
    return path if path.is_file() else None


def load(given: str | None = None, environment: str | None = None) -> ResolvedConfig:
    """Read, merge and check the files. Raise NotFoundError, or ConfigurationError with every problem."""
    path = find_file(given)
    base = _read(path)
    merged: dict[str, object] = {}
    origins: dict[str, str] = {}
    _merge_preset(merged, base.get("extends", ""), str(path), origins)
    _merge(merged, base, path.name, origins)
    application = merged.get("application")
    chosen = environment or os.environ.get("HOLDFAST_ENVIRONMENT")
    if isinstance(application, dict):
        chosen = chosen or application.get("environment") or "production"
        overlay = path.with_name(f"holdfast.{chosen}.toml")
        if overlay.is_file():
            _merge(merged, _read(overlay), overlay.name, origins)
        elif environment and environment != application.get("environment", "production"):
            raise no_such(
                "environment",
                environment,
                [str(application.get("environment", "production")), *environments(path)],
                next_step=f"To make it, write {overlay}.",
            )
        application["environment"] = chosen
    configuration = _validate(merged, origins, str(path), path.parent)
    loaded = ResolvedConfig(configuration, path.parent, origins)
    current = loaded.path(configuration.releases.path).parent / "current"
    own, scripts = current / FILE_NAME, current / composer.FILE_NAME
    scripted = bool(configuration.tasks.scripts) and scripts.is_file()
    if own.is_file() or scripted:
        text = own.read_text() if own.is_file() else ""
        loaded = merge_release(loaded, text, f"current/{FILE_NAME}", scripts.read_text() if scripted else "")
    problems = _folder_problems(loaded) + cross_problems(loaded.configuration)
    if problems:
        place = _Places(loaded.origins, path.parent)
        raise _wrong(str(path), [f"{problem}{place.of(problem.partition(':')[0])}" for problem in problems])
    return loaded


def _wrong(path: str, problems: list[str]) -> ConfigurationError:
    count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
    return ConfigurationError(
        f"{path} has {count}:",
        problems,
        next_step="Run `holdfast config help KEY` to read about a key, and `holdfast config validate` to check again.",
    )


def _validate(
    merged: Mapping[str, object],
    origins: Mapping[str, str],
    path: str,
    root: Path,
    texts: Mapping[str, str] | None = None,
) -> Configuration:
    """Return a valid configuration. `texts` are those of origins that are not files below `root`."""
    try:
        return validate(merged, Configuration)
    except InvalidError as error:
        place = _Places(origins, root, texts or {})
        raise _wrong(path, [f"{key}: {text}{place.of(key)}" for key, text in error.problems]) from None


class _Places:
    """Where the keys of a refused configuration stand: the file, and the line in it."""

    def __init__(self, origins: Mapping[str, str], root: Path, texts: Mapping[str, str] | None = None) -> None:
        self._origins = origins
        self._root = root
        self._texts = texts or {}
        self._lines: dict[str, dict[str, int]] = {}

    def of(self, key: str) -> str:
        """Return the place of a key, to go on after a message; empty if no file has it."""
        origin = _origin(self._origins, key)
        if not origin:
            return ""
        if origin not in self._lines:
            self._lines[origin] = self._read(origin)
        parts = key.split(".")
        names = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
        line = next((self._lines[origin][name] for name in names if name in self._lines[origin]), 0)
        return f" ({origin}, line {line})" if line else f" ({origin})"

    def _read(self, origin: str) -> dict[str, int]:
        from holdfast.config.lines import lines_of  # noqa: PLC0415 # only after an error

        try:
            text = self._texts[origin] if origin in self._texts else (self._root / origin).read_text()
        except (OSError, ValueError):  # a preset
            return {}
        return lines_of(text)


def _origin(origins: Mapping[str, str], key: str) -> str:
    """Return the file that a key comes from, or else that of the table around it or of a key below it."""
    parts = key.split(".")
    for length in range(len(parts), 0, -1):
        prefix = ".".join(parts[:length])
        if prefix in origins:
            return origins[prefix]
    return next((origin for known, origin in origins.items() if known.startswith(f"{key}.")), "")


def _inside(inner: Path, outer: Path) -> bool:
    return inner == outer or outer in inner.parents


def _folder_problems(loaded: ResolvedConfig) -> list[str]:
    """Return the problems of folders that lie in one another."""
    configuration = loaded.configuration
    problems = []
    places = {f"files.{name}.path": loaded.path(item.path) for name, item in configuration.files.items() if item.path}
    places |= {f"vaults.{name}.path": loaded.path(item.path) for name, item in configuration.vaults.items()}
    places["application.state"] = loaded.state
    keys = list(places)
    for number, first in enumerate(keys):
        for second in keys[number + 1 :]:
            if _inside(places[first], places[second]) or _inside(places[second], places[first]):
                problems.append(f"{second}: {places[second]} and {first} ({places[first]}) are inside one another")
    for name, database in configuration.databases.items():
        for key in keys if database.path else ():
            if _inside(loaded.path(database.path), places[key]) and not key.startswith("files."):
                problems.append(f"databases.{name}.path: is inside {key} ({places[key]})")
    return problems
