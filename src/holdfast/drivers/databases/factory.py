"""Opens the databases that are configured."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from holdfast.config.load import Loaded
from holdfast.config.schema import Database as DatabaseSettings
from holdfast.drivers.kinds import DriverClass, driver
from holdfast.drivers.protocols.containers import Containers
from holdfast.drivers.protocols.databases import Cold, Database
from holdfast.model import Server
from holdfast.system.host import Host


def _sqlite() -> Callable[..., Database]:
    from holdfast.drivers.databases.sqlite.driver import SqliteDatabase

    return SqliteDatabase


def _postgresql() -> Callable[..., Database]:
    from holdfast.drivers.databases.postgresql.driver import PostgresqlDatabase

    return PostgresqlDatabase


def _mariadb() -> Callable[..., Database]:
    from holdfast.drivers.databases.mariadb.driver import MariadbDatabase

    return MariadbDatabase


def _mysql() -> Callable[..., Database]:
    from holdfast.drivers.databases.mariadb.mysql import MysqlDatabase

    return MysqlDatabase


def _postgresql_directory() -> Callable[..., Cold]:
    from holdfast.drivers.databases.postgresql.data_directory import ColdDirectory

    return ColdDirectory


KINDS: Mapping[str, DriverClass[Database]] = {
    "sqlite": _sqlite,
    "postgresql": _postgresql,
    "mariadb": _mariadb,
    "mysql": _mysql,
}
DATA_DIRECTORIES: Mapping[str, DriverClass[Cold]] = {"postgresql": _postgresql_directory}
"""Kinds of servers whose data directory can be read without them."""


def open_databases(loaded: Loaded, host: Host, containers: Containers | None) -> dict[str, Database]:
    """Return a driver for each database. Raise ConfigurationError for an unknown kind."""
    found = {}
    for name, item in loaded.configuration.databases.items():
        kind = driver(KINDS, item.kind, f"databases.{name}.kind")
        if item.kind == "sqlite":
            found[name] = kind(name, loaded.path(item.path))
        else:
            found[name] = kind(name, item.name, _server(item, containers), host)
    return found


def open_data_directories(loaded: Loaded, host: Host, containers: Containers | None) -> dict[str, Cold]:
    """Return what reads a data directory, for each database of a kind that has such a reader."""
    return {
        name: driver(DATA_DIRECTORIES, item.kind, f"databases.{name}.kind")(
            name, item.name, _server(item, containers), loaded.mark, host
        )
        for name, item in loaded.configuration.databases.items()
        if item.kind in DATA_DIRECTORIES
    }


def _server(item: DatabaseSettings, containers: Containers | None) -> Server:
    container, find = item.container, None
    if containers is not None and container.startswith("compose:"):
        find = partial(containers.container_of, container.removeprefix("compose:"))
        container = f"{containers.engine_name}:"
    return Server(
        host=item.host,
        port=item.port,
        user=item.user,
        password=item.password,
        maintenance=item.maintenance,
        end_sessions=item.end_sessions,
        jobs=item.jobs,
        container=container,
        find_container=find,
    )
