"""Databases that a row of another database names: found whenever an application is opened, so none is forgotten.

What was found last is in the state directory, for a time in which the database that names them cannot be asked. Only
names are taken from rows: an application's data must not decide where a password is sent.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import NamedTuple

import msgspec
from msgspec.structs import replace

from holdfast.config.load import ResolvedConfig
from holdfast.config.schema import Database as DatabaseSettings
from holdfast.drivers.databases.factory import opener
from holdfast.drivers.databases.opening import Opening
from holdfast.drivers.protocols.containers import Containers
from holdfast.drivers.protocols.databases import Database
from holdfast.errors import HoldfastError, RefusedError
from holdfast.system import durable
from holdfast.system.host import Host

_NAME = re.compile(r"[A-Za-z0-9_$-]{1,63}")
_SECTION = re.compile(r"[a-z][a-z0-9_-]{0,40}")
_FILE = "discovered.json"


class Discovered(NamedTuple):
    """A configuration with all databases, and why a database could not be asked for others; empty if it was."""

    loaded: ResolvedConfig
    problem: str


def discover(loaded: ResolvedConfig, host: Host, containers: Containers | None) -> Discovered:
    """Return the configuration with a section for each database that `discover` finds."""
    asking = {name: item for name, item in loaded.configuration.databases.items() if item.discover}
    if not asking:
        return Discovered(loaded, "")
    path = loaded.state / _FILE
    known = durable.read_json(path, dict[str, list[str]]) if path.exists() else {}
    found: dict[str, list[str]] = {}
    problem = ""
    for name, item in asking.items():
        try:
            found[name] = _ask(Opening(name, item, loaded, host, containers))
        except HoldfastError as error:
            found[name] = known.get(name, [])
            problem = f"databases.{name}: its other databases are not known now: {error.what}"
    if found != known and not problem:
        durable.write_file(path, msgspec.json.encode(found))
    return Discovered(with_databases(loaded, found), problem)


def _ask(opening: Opening) -> list[str]:
    """Return the names that the query finds, without that of the database itself. Raise HoldfastError."""
    item = opening.settings
    database = opener(item.kind, f"databases.{opening.name}.kind")(opening)
    if not isinstance(database, Database):
        raise RefusedError(f"the kind {item.kind} answers no SQL, which `discover` needs")
    if not database.inspect()["exists"]:
        raise RefusedError("the database does not exist")
    names = sorted({str(row[0]) for row in database.query(item.discover)} - {item.name})
    for name in names:
        if not _NAME.fullmatch(name):
            raise RefusedError(
                f"{name!r} is not the name of a database as Holdfast takes it from data",
                next_step="Names have at most 63 letters, digits, _, $ and -. Correct the row, or leave it out in"
                " `discover`.",
            )
    return names


def with_databases(loaded: ResolvedConfig, found: Mapping[str, list[str]]) -> ResolvedConfig:
    """Return the configuration with a section for each of these databases, by the section that found them.

    The result does not ask again: a recovery takes the databases with which its operation began.
    """
    configuration = loaded.configuration
    sections = dict(configuration.databases)
    for by, names in found.items():
        if by not in sections:
            continue
        sections[by] = replace(sections[by], discover="")
        for name in names:
            sections.setdefault(section_name(by, name), _section(sections[by], by, name))
    operator = with_databases(loaded.operator, found) if loaded.operator is not None else None
    return replace(loaded, configuration=replace(configuration, databases=sections), operator=operator)


def _section(by: DatabaseSettings, name: str, database: str) -> DatabaseSettings:
    return replace(by, name=database, discovered_by=name, import_from=[])


def section_name(by: str, database: str) -> str:
    """Return the name of the section of a database: that of the section which found it, and its own."""
    name = f"{by}-{database.lower()}"
    if database == database.lower() and _SECTION.fullmatch(name):
        return name
    return f"{by[:28]}-{hashlib.sha256(database.encode()).hexdigest()[:12]}"
