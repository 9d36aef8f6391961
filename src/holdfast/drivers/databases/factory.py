"""Opens the databases that are configured; a driver is imported when its kind is first asked for."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import cast

from holdfast.config import kinds
from holdfast.config.load import ResolvedConfig
from holdfast.drivers.databases.opening import OpenDataDirectory, OpenDataset, Opening, OpenSanitizer
from holdfast.drivers.kinds import OpenedOnDemand
from holdfast.drivers.protocols.containers import Containers
from holdfast.drivers.protocols.databases import Database, OfflineDataDirectory
from holdfast.drivers.protocols.datasets import Dataset
from holdfast.drivers.protocols.sanitizing import Sanitizer
from holdfast.errors import ConfigurationError
from holdfast.system.host import Host


def open_databases(loaded: ResolvedConfig, host: Host, containers: Containers | None) -> Mapping[str, Dataset]:
    """Return a driver for each database. Raise ConfigurationError for an unknown kind."""
    sections = loaded.configuration.databases
    for name, item in sections.items():
        require_known(item.kind, f"databases.{name}.kind")
    references = loaded.configuration.backup.references
    asked = {loaded.configuration.migrations.database: "migrations.database"}
    asked |= {references.database: "backup.references.database"} if references is not None else {}

    def open_one(name: str) -> Dataset:
        """Open one of them. Raise ConfigurationError for one that is asked by SQL and answers none."""
        item = sections[name]
        found = opener(item.kind, f"databases.{name}.kind")(Opening(name, item, loaded, host, containers))
        if name in asked and not isinstance(found, Database):
            raise ConfigurationError(
                "holdfast.toml is wrong", [f"{asked[name]}: {name} is of kind {found.kind}, which answers no SQL"]
            )
        return found

    return OpenedOnDemand(sections, open_one)


def require_known(kind: str, key: str) -> None:
    """Raise ConfigurationError that names the known kinds, for another one."""
    if kind not in kinds.DATABASES:
        raise ConfigurationError(
            "holdfast.toml is wrong", [f"{key}: no driver {kind!r}; known are {', '.join(sorted(kinds.DATABASES))}"]
        )


def opener(kind: str, key: str) -> OpenDataset:
    """Return the function that opens a dataset of a kind. Raise ConfigurationError that names the known kinds."""
    require_known(kind, key)
    return cast(OpenDataset, import_module(kinds.DATABASES[kind]).open_dataset)  # the contract suite proves its type


def open_data_directories(
    loaded: ResolvedConfig, host: Host, containers: Containers | None
) -> Mapping[str, OfflineDataDirectory]:
    """Return what reads a data directory, for each database of a kind that has such a reader."""
    sections = loaded.configuration.databases

    def open_one(name: str) -> OfflineDataDirectory:
        module = import_module(kinds.DATA_DIRECTORIES[sections[name].kind])
        open_it = cast(OpenDataDirectory, module.open_data_directory)  # as above
        return open_it(Opening(name, sections[name], loaded, host, containers))

    return OpenedOnDemand([name for name, item in sections.items() if item.kind in kinds.DATA_DIRECTORIES], open_one)


def open_sanitizers(loaded: ResolvedConfig, host: Host, containers: Containers | None) -> Mapping[str, Sanitizer]:
    """Return what reads a database for a sanitized dump, for each one of a kind that has such a reader."""
    sections = loaded.configuration.databases

    def open_one(name: str) -> Sanitizer:
        module = import_module(kinds.SANITIZERS[sections[name].kind])
        open_it = cast(OpenSanitizer, module.open_sanitizer)  # as above
        return open_it(Opening(name, sections[name], loaded, host, containers))

    return OpenedOnDemand([name for name, item in sections.items() if item.kind in kinds.SANITIZERS], open_one)
