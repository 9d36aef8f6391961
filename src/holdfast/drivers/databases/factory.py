"""Opens the databases that are configured; a driver is imported when its kind is first asked for."""

from __future__ import annotations

from importlib import import_module
from typing import cast

from holdfast.config import kinds
from holdfast.config.load import ResolvedConfig
from holdfast.drivers.databases.opening import OpenDataDirectory, OpenDataset, Opening
from holdfast.drivers.protocols.containers import Containers
from holdfast.drivers.protocols.databases import Database, OfflineDataDirectory
from holdfast.drivers.protocols.datasets import Dataset
from holdfast.errors import ConfigurationError
from holdfast.system.host import Host


def open_databases(loaded: ResolvedConfig, host: Host, containers: Containers | None) -> dict[str, Dataset]:
    """Return a driver for each database. Raise ConfigurationError for an unknown kind, or one that is asked by SQL."""
    found = {
        name: opener(item.kind, f"databases.{name}.kind")(Opening(name, item, loaded, host, containers))
        for name, item in loaded.configuration.databases.items()
    }
    references = loaded.configuration.backup.references
    asked = {"migrations.database": loaded.configuration.migrations.database}
    asked |= {"backup.references.database": references.database} if references is not None else {}
    for key, name in asked.items():
        if name in found and not isinstance(found[name], Database):
            raise ConfigurationError(
                "holdfast.toml is wrong", [f"{key}: {name} is of kind {found[name].kind}, which answers no SQL"]
            )
    return found


def opener(kind: str, key: str) -> OpenDataset:
    """Return the function that opens a dataset of a kind. Raise ConfigurationError that names the known kinds."""
    if kind not in kinds.DATABASES:
        raise ConfigurationError(
            "holdfast.toml is wrong", [f"{key}: no driver {kind!r}; known are {', '.join(sorted(kinds.DATABASES))}"]
        )
    return cast(OpenDataset, import_module(kinds.DATABASES[kind]).open_dataset)  # the contract suite proves its type


def open_data_directories(
    loaded: ResolvedConfig, host: Host, containers: Containers | None
) -> dict[str, OfflineDataDirectory]:
    """Return what reads a data directory, for each database of a kind that has such a reader."""
    found = {}
    for name, item in loaded.configuration.databases.items():
        if item.kind in kinds.DATA_DIRECTORIES:
            module = import_module(kinds.DATA_DIRECTORIES[item.kind])
            open_one = cast(OpenDataDirectory, module.open_data_directory)  # as above
            found[name] = open_one(Opening(name, item, loaded, host, containers))
    return found
