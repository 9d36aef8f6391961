"""The values that a shell offers for options and arguments: read only, quickly, and without any error."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

if TYPE_CHECKING:
    from holdfast.config.load import ResolvedConfig

_MOST = 200
_GIT_SECONDS = 2.0
_OF_THE_SHELL = {"FILE": "file", "ARCHIVE-OR-FOLDER": "file", "FOLDER": "dir"}


def offer(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the values that begin with what was typed; none if they cannot be read."""
    if parameter.metavar in _OF_THE_SHELL:
        return [CompletionItem(incomplete, type=_OF_THE_SHELL[parameter.metavar])]
    try:
        known = _values(context, str(parameter.name))
        return [CompletionItem(one) for one in known if one.startswith(incomplete)][:_MOST]
    except Exception:  # a completion never disturbs the line that somebody types
        return []


def _values(context: click.Context, name: str) -> Iterable[str]:
    words = tuple(context.command_path.split()[1:])
    source = _SOURCES.get((*words, name)) or _SOURCES.get((name,))
    return source(context) if source is not None else ()


def _loaded(context: click.Context) -> ResolvedConfig:
    from holdfast.cli.command import given_before
    from holdfast.config.load import load

    def given(name: str) -> str | None:
        return context.params.get(name) or given_before(context).get(name)

    return load(given("config"), given("environment"))


def _backups(context: click.Context) -> list[str]:
    loaded = _loaded(context)
    found = [
        folder.name
        for vault in loaded.configuration.vaults.values()
        for folder in (loaded.path(vault.path) / "backups").glob("[0-9]*")
    ]
    return ["latest", *sorted(found, reverse=True)]


def _references(context: click.Context) -> list[str]:
    from holdfast.system.host import Host

    loaded = _loaded(context)
    repository = str(loaded.path(loaded.configuration.source.repository))
    argv = ["git", "-C", repository, "for-each-ref", "--sort=-creatordate", "--format=%(refname:short)", "refs"]
    return [*Host().capture(argv, timeout_seconds=_GIT_SECONDS).split(), *_packages(context)]


def _packages(context: click.Context) -> list[str]:
    return sorted(path.parent.name for path in (_loaded(context).state / "packages").glob("*/manifest.json"))


def _patches(context: click.Context) -> list[str]:
    import json

    loaded = _loaded(context)
    current = loaded.path(loaded.configuration.releases.path).parent / "current"
    record = json.loads((current / ".holdfast-patches" / "record.json").read_text())
    return [name for one in record["patches"] for name in (one["id"][:12], one["name"])]


def _operations(context: click.Context) -> list[str]:
    return ["latest", *(row[0] for row in _read(context, "SELECT id FROM operation ORDER BY sequence DESC LIMIT 50"))]


def _releases(context: click.Context) -> list[str]:
    loaded = _loaded(context)
    folder = loaded.path(loaded.configuration.releases.path)
    return sorted((path.name for path in folder.iterdir() if not path.name.startswith(".")), reverse=True)


def _read(context: click.Context, query: str) -> list[tuple[str]]:
    import sqlite3
    from contextlib import closing

    path = _loaded(context).state / "journal.sqlite3"
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
        return connection.execute(query).fetchall()


def _services(context: click.Context) -> list[str]:
    return list(_loaded(context).configuration.running_services())


def _databases(context: click.Context) -> list[str]:
    return list(_loaded(context).configuration.databases)


def _files(context: click.Context) -> list[str]:
    return list(_loaded(context).configuration.files)


def _datasets(context: click.Context) -> list[str]:
    return [*_databases(context), *_files(context), "code"]


def _environments(context: click.Context) -> list[str]:
    from holdfast.cli.command import given_before
    from holdfast.config.environments import named
    from holdfast.config.load import find_file, load

    given = context.params.get("config") or given_before(context).get("config")
    first = load(given).configuration.application.environment
    return list(dict.fromkeys([first, *named(find_file(given).parent)]))


def _keys(context: click.Context) -> list[str]:
    from holdfast.config.reference import all_keys

    return [key.path for key in all_keys()]


def _presets(context: click.Context) -> list[str]:
    from holdfast.config.load import presets

    return sorted(presets())


def _commands(context: click.Context) -> list[str]:
    from holdfast.cli.catalogue import COMMANDS, TOPICS

    return [*COMMANDS, *TOPICS]


# By the words of a command and the name of a parameter, or by the name alone.
_SOURCES: dict[tuple[str, ...], Callable[[click.Context], Iterable[str]]] = {
    ("environment",): _environments,
    ("only",): _datasets,
    ("except_",): _datasets,
    ("backup_except",): _datasets,
    ("references",): _backups,
    ("other",): _backups,
    ("names",): _services,
    ("name",): _services,
    ("operation",): _operations,
    ("to",): _releases,
    ("key",): _keys,
    ("preset",): _presets,
    ("database",): _databases,
    ("reference",): _backups,
    ("adopt", "reference"): _references,
    ("install", "reference"): _references,
    ("upgrade", "reference"): _references,
    ("package", "build", "reference"): _references,
    ("package", "deploy", "reference"): _packages,
    ("package", "show", "reference"): _packages,
    ("patch", "view", "id"): _patches,
    ("patch", "revert", "id"): _patches,
    ("package", "verify", "references"): _packages,
    ("backup", "export", "arguments"): _backups,
    ("clone", "source"): _environments,
    ("clone", "target"): _environments,
    ("import", "files", "into"): _files,
    ("help", "words"): _commands,
}
