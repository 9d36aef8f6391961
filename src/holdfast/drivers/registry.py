"""The one table of drivers: kind -> how its class is had. An unknown kind is an error that lists the known ones.

Each is imported when it is first asked for: a command pays for the drivers that its application is configured with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from holdfast.drivers.protocols.databases import Cold, Database
from holdfast.drivers.protocols.files import Files
from holdfast.drivers.protocols.gates import Gate
from holdfast.drivers.protocols.packages import Packages
from holdfast.drivers.protocols.runtimes import Runtime
from holdfast.drivers.protocols.vaults import Vault
from holdfast.errors import ConfigurationError
from holdfast.system.host import Host

if TYPE_CHECKING:
    from holdfast.drivers.gates.proxy.driver import Product
    from holdfast.drivers.gates.proxy.location import Place

_DriverT = TypeVar("_DriverT")
_Class = Callable[[], Callable[..., _DriverT]]


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


def _supervisor() -> Callable[..., Runtime]:
    from holdfast.drivers.runtimes.supervisor.driver import SupervisorRuntime

    return SupervisorRuntime


def _compose() -> Callable[..., Runtime]:
    from holdfast.drivers.runtimes.compose.driver import ComposeRuntime

    return ComposeRuntime


def _local_files() -> Callable[..., Files]:
    from holdfast.drivers.files.local import LocalFiles

    return LocalFiles


def _local_vault() -> Callable[[Path, str, Host], Vault]:
    from holdfast.drivers.vaults.local.vault import LocalVault

    return LocalVault


def _front() -> Callable[..., Gate]:
    from holdfast.drivers.gates.front.driver import FrontGate

    return FrontGate


def _no_gate() -> Callable[..., Gate]:
    from holdfast.drivers.gates.none import NoGate

    return NoGate


def _caddy() -> Callable[[Place, str], Product]:
    from holdfast.drivers.gates.proxy.caddy import Caddy

    return Caddy


def _nginx() -> Callable[[Place, str], Product]:
    from holdfast.drivers.gates.proxy.nginx import Nginx

    return Nginx


def _archive() -> Callable[..., Packages]:
    from holdfast.drivers.packages.archive import ArchivePackages

    return ArchivePackages


def _images() -> Callable[..., Packages]:
    from holdfast.drivers.packages.images.driver import ImagePackages

    return ImagePackages


RUNTIMES: Mapping[str, _Class[Runtime]] = {"supervisor": _supervisor, "compose": _compose}
DATABASES: Mapping[str, _Class[Database]] = {
    "sqlite": _sqlite,
    "postgresql": _postgresql,
    "mariadb": _mariadb,
    "mysql": _mysql,
}
COLD: Mapping[str, _Class[Cold]] = {"postgresql": _postgresql_directory}
FILES: Mapping[str, _Class[Files]] = {"local": _local_files}
VAULTS: Mapping[str, _Class[Vault]] = {"local": _local_vault}
GATES: Mapping[str, _Class[Gate]] = {"front": _front, "none": _no_gate}
PROXIES: Mapping[str, _Class[Product]] = {"caddy": _caddy, "nginx": _nginx}
"""Gates that are the user's own proxy, by what differs among them."""
PACKAGES: Mapping[str, _Class[Packages]] = {"archive": _archive, "images": _images}


def driver(table: Mapping[str, _Class[_DriverT]], kind: str, key: str) -> Callable[..., _DriverT]:
    """Return the driver of a kind. Raise ConfigurationError naming the key and the known kinds."""
    if kind not in table:
        raise ConfigurationError(
            "holdfast.toml is wrong", [f"{key}: no driver {kind!r}; known are {', '.join(sorted(table))}"]
        )
    return table[kind]()
