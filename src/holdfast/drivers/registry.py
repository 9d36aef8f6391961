"""The one table of drivers: kind -> how it is opened. An unknown kind is an error that lists the known ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from holdfast.drivers.databases.mariadb import MariadbDatabase
from holdfast.drivers.databases.mysql import MysqlDatabase
from holdfast.drivers.databases.pgcold import ColdDirectory
from holdfast.drivers.databases.postgresql import PostgresqlDatabase
from holdfast.drivers.databases.sqlite import SqliteDatabase
from holdfast.drivers.files.local import LocalFiles
from holdfast.drivers.gates.caddy import Caddy
from holdfast.drivers.gates.front import FrontGate
from holdfast.drivers.gates.nginx import Nginx
from holdfast.drivers.gates.none import NoGate
from holdfast.drivers.gates.place import Place
from holdfast.drivers.gates.proxy import Product
from holdfast.drivers.packages.archive import ArchivePackages
from holdfast.drivers.packages.images import ImagePackages
from holdfast.drivers.protocols import Cold, Database, Files, Gate, Packages, Runtime, Vault
from holdfast.drivers.runtimes.compose import ComposeRuntime
from holdfast.drivers.runtimes.supervisor import SupervisorRuntime
from holdfast.drivers.vaults.local import LocalVault
from holdfast.errors import ConfigurationError
from holdfast.host import Host

RUNTIMES: Mapping[str, Callable[..., Runtime]] = {"supervisor": SupervisorRuntime, "compose": ComposeRuntime}
DATABASES: Mapping[str, Callable[..., Database]] = {
    "sqlite": SqliteDatabase, "postgresql": PostgresqlDatabase, "mariadb": MariadbDatabase, "mysql": MysqlDatabase,
}  # fmt: skip
COLD: Mapping[str, Callable[..., Cold]] = {"postgresql": ColdDirectory}
FILES: Mapping[str, Callable[..., Files]] = {"local": LocalFiles}
VAULTS: Mapping[str, Callable[[Path, str, Host], Vault]] = {"local": LocalVault}
GATES: Mapping[str, Callable[..., Gate]] = {"front": FrontGate, "none": NoGate}
PROXIES: Mapping[str, Callable[[Place, str], Product]] = {"caddy": Caddy, "nginx": Nginx}
"""Gates that are the user's own proxy, by what differs among them."""
PACKAGES: Mapping[str, Callable[..., Packages]] = {"archive": ArchivePackages, "images": ImagePackages}


def driver(table: Mapping[str, Callable[..., Any]], kind: str, key: str) -> Callable[..., Any]:
    """The driver of a kind. Raises ConfigurationError naming the key and the known kinds."""
    if kind not in table:
        raise ConfigurationError(
            "holdfast.toml is wrong", [f"{key}: no driver {kind!r}; known are {', '.join(sorted(table))}"]
        )
    return table[kind]
