"""The merge of files into one valid configuration: preset, holdfast.toml, the current release's files, the overlays.

All problems are reported at once, each with its key path and the file that it comes from.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
from msgspec.structs import replace

from holdfast.config import composer, environments
from holdfast.config.own_files import FILE_NAME as FILE_NAME
from holdfast.config.places import Places
from holdfast.config.schema import Configuration, Hooks
from holdfast.config.schema.hooks import OF_OPERATOR
from holdfast.config.similar import no_such
from holdfast.config.validation import MISSING, InvalidError, cross_problems, plain, validate
from holdfast.errors import ConfigurationError, NotFoundError
from holdfast.system.secret_store import SecretStore
from holdfast.system.secrets import is_secret

OF_THE_RELEASE = ("tasks", "services", "migrations", "hooks", "schedule")
"""Sections that a release's own holdfast.toml may set, because they belong to the code."""
# The release decides what the code needs of a service; the operator decides on its account and its secrets.
_OF_THE_OPERATOR = {"user", "where"}
_PRESETS = Path(__file__).parent.parent / "presets"


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

    def secret_store(self) -> SecretStore:
        """Return the file of the secrets that Holdfast keeps for this environment, next to holdfast.toml."""
        identity = self.configuration.secrets.identity
        return SecretStore(
            self.root / f"holdfast.secrets.{self.configuration.application.environment}.json",
            self.path(identity) if identity else self.state / "secrets.identity",
        )

    @property
    def environment_type(self) -> str:
        application = self.configuration.application
        return environments.type_of(application.environment, application.type)

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
    """Return holdfast.toml as named, or in the working directory or a folder above it. Raise NotFoundError.

    The environment variable HOLDFAST_CONFIG names it for scripts.
    """
    given = given or os.environ.get("HOLDFAST_CONFIG")
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


def sanitizing_presets() -> dict[str, str]:
    """Return the packaged rules of sanitized backups: name -> text."""
    return {path.stem: path.read_text() for path in (_PRESETS / "sanitize").glob("*.toml")}


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


def merge_release(
    loaded: ResolvedConfig,
    text: str,
    origin: str,
    *,
    of_type: tuple[str, str] = ("", ""),
    scripts: tuple[str, str] = ("", ""),
) -> ResolvedConfig:
    """Return the operator's configuration with what a release's own files may set.

    `text` is its holdfast.toml; `of_type` has text and origin of its overlay for the type of this environment, and
    `scripts` those of its composer.json, whose scripts may replace tasks. What another release set before is dropped:
    its tasks and services do not belong to this one. Raise ConfigurationError.
    """
    loaded = loaded.operator or loaded
    chosen = loaded.configuration.tasks.scripts
    made = composer.tasks(scripts[0], {str(task): name for task, name in chosen.items()}, scripts[1])
    merged = plain(loaded.configuration, defaults=False)
    origins = dict(loaded.origins)
    for name, commands in made.items():
        given = merged.get("tasks")
        table = isinstance(given, dict) and isinstance(given.get(name), dict)  # its environment and account stay
        _merge(merged, {"tasks": {name: {"commands": commands} if table else commands}}, scripts[1], origins)
    texts = {origin: text, of_type[1]: of_type[0]}
    refused: list[str] = []
    sets = bool(made)
    for name, content in texts.items():
        own, not_allowed = _allowed(
            {key: value for key, value in _parsed(content, name).items() if key in OF_THE_RELEASE},
            loaded.configuration.hooks,
        )
        refused += not_allowed
        sets = sets or bool(own)
        _merge(merged, own, name, origins)
    if not sets:
        return replace(loaded, refused=tuple(refused)) if refused else loaded
    application = loaded.configuration.application
    for overlay in environments.overlays(loaded.root, application.environment, loaded.environment_type):
        allowed = {key: value for key, value in _read(overlay).items() if key in OF_THE_RELEASE}
        _merge(merged, allowed, overlay.name, origins)
    configuration = _validate(merged, origins, origin, loaded.root, {**texts, scripts[1]: ""})
    return ResolvedConfig(configuration, loaded.root, origins, loaded, tuple(refused))


def _parsed(text: str, origin: str) -> dict[str, object]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{origin} is not valid TOML", [_readable(error)]) from error


def read_files(loaded: ResolvedConfig) -> list[Path]:
    """Return the files from which a configuration comes, or could: the operator's and those of the running release."""
    application = loaded.configuration.application
    names = [FILE_NAME, *environments.overlay_names(application.environment, loaded.environment_type)]
    current = loaded.path(loaded.configuration.releases.path).parent / "current"
    return [*(loaded.root / name for name in names), *(current / name for name in wanted_files(loaded))]


def wanted_files(loaded: ResolvedConfig) -> tuple[str, ...]:
    """Return the names of those files of a release that this configuration lets set anything."""
    common, of_type, scripts = release_files(loaded)
    return (common, of_type, *([scripts] if loaded.configuration.tasks.scripts else []))


def release_files(loaded: ResolvedConfig) -> tuple[str, str, str]:
    """Return the names of a release's own files: the common one, that for the type of this environment, the scripts."""
    return FILE_NAME, f"holdfast.{loaded.environment_type}.toml", composer.FILE_NAME


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
        _merge_overlays(merged, origins, path, str(chosen), is_named=bool(environment))
        application["environment"] = chosen
    configuration = _validate(merged, origins, str(path), path.parent)
    loaded = ResolvedConfig(configuration, path.parent, origins)
    folder = loaded.path(configuration.releases.path).parent / "current"
    texts = {name: (folder / name).read_text() for name in wanted_files(loaded) if (folder / name).is_file()}
    if texts:
        own, of_type, scripts = ((texts.get(name, ""), f"current/{name}") for name in release_files(loaded))
        loaded = merge_release(loaded, *own, of_type=of_type, scripts=scripts)
    problems = _folder_problems(loaded) + cross_problems(loaded.configuration)
    if problems:
        place = Places(loaded.origins, path.parent)
        raise _wrong(str(path), [f"{problem}{place.of(problem.partition(':')[0])}" for problem in problems])
    return loaded


def _merge_overlays(
    merged: dict[str, object], origins: dict[str, str], path: Path, chosen: str, *, is_named: bool
) -> None:
    """Merge the overlay of the environment's type, then its own. Raise ConfigurationError or NotFoundError."""
    base = merged["application"]
    assert isinstance(base, dict)
    own = path.with_name(f"holdfast.{chosen}.toml")
    table = _read(own) if own.is_file() else {}
    application = table.get("application")
    configured = application.get("type") if isinstance(application, dict) else None
    kind = environments.type_of(chosen, configured or base.get("type"))
    found = environments.overlays(path.parent, chosen, kind)
    unknown = not table and (not found or not environments.is_known_name(chosen))
    if is_named and unknown and chosen != base.get("environment", "production"):
        raise no_such(
            "environment",
            chosen,
            [str(base.get("environment", "production")), *environments.named(path.parent)],
            next_step=f"To make it, write {own}.",
        )
    for overlay in found:
        more = table if overlay == own else _read(overlay)
        environments.refuse_type_in(overlay, more, chosen)
        _merge(merged, more, overlay.name, origins)


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
        place = Places(origins, root, texts or {})
        raise _wrong(path, [f"{key}: {text}{place.of(key)}" for key, text in error.problems]) from None


def validate_files(files: Sequence[Path]) -> None:
    """Check the result of merging files in this order; what one file alone may lack is not missed.

    Raise ConfigurationError.
    """
    merged: dict[str, object] = {}
    origins: dict[str, str] = {}
    texts: dict[str, str] = {}
    for path in files:
        table = _read(path)
        if not merged:
            _merge_preset(merged, table.get("extends", ""), str(path), origins)
        texts[str(path)] = path.read_text()
        _merge(merged, table, str(path), origins)
    place = Places(origins, Path(), texts)
    try:
        configuration = validate(merged, Configuration)
    except InvalidError as error:
        found = [pair for pair in error.problems if len(files) > 1 or pair[1] != MISSING]
        if not found:
            return
        problems = [f"{key}: {text}{place.of(key)}" for key, text in found]
        raise _wrong(" + ".join(map(str, files)), problems) from None
    loaded = ResolvedConfig(configuration, files[0].absolute().parent, origins)
    if problems := _folder_problems(loaded) + cross_problems(configuration):
        raise _wrong(
            " + ".join(map(str, files)), [f"{problem}{place.of(problem.partition(':')[0])}" for problem in problems]
        )


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
