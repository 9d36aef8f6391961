"""Kinds of datasets that a configuration may name, each with the module of its driver; no driver is imported here."""

from __future__ import annotations

from collections.abc import Mapping

DATABASES: Mapping[str, str] = {
    "sqlite": "holdfast.drivers.databases.sqlite.driver",
    "postgresql": "holdfast.drivers.databases.postgresql.driver",
    "mariadb": "holdfast.drivers.databases.mariadb.driver",
    "mysql": "holdfast.drivers.databases.mariadb.mysql",
}
"""The module has a function `open_dataset` of the type `holdfast.drivers.databases.opening.OpenDataset`."""

DATA_DIRECTORIES: Mapping[str, str] = {"postgresql": "holdfast.drivers.databases.postgresql.data_directory"}
"""Kinds of servers whose data directory is read without them; the module has a function `open_data_directory`."""

INDICES: Mapping[str, str] = {
    "elasticsearch": "holdfast.drivers.indices.search.driver",
    "opensearch": "holdfast.drivers.indices.search.driver",
}
"""The module has a function `open_index` of the type `holdfast.drivers.indices.factory.OpenIndex`."""

SANITIZERS: Mapping[str, str] = {
    "sqlite": "holdfast.drivers.databases.sqlite.sanitizing",
    "postgresql": "holdfast.drivers.databases.postgresql.sanitizing",
    "mariadb": "holdfast.drivers.databases.mariadb.sanitizing",
    "mysql": "holdfast.drivers.databases.mariadb.sanitizing",
}
"""Kinds of which sanitized dumps are made; the module has a function `open_sanitizer`."""
