"""Opens vaults."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from holdfast.config.load import ResolvedConfig
from holdfast.drivers.kinds import DriverClass, driver
from holdfast.drivers.protocols.vaults import Vault
from holdfast.system.host import Host


def _local() -> Callable[[str, str, Host], Vault]:
    from holdfast.drivers.vaults.local.vault import LocalVault

    return lambda location, owner, host: LocalVault(Path(location), owner, host)


KINDS: Mapping[str, DriverClass[Vault]] = {"local": _local}


def open_vault(loaded: ResolvedConfig, host: Host) -> Vault | None:
    """Return the vault that is configured, if one is. Raise ConfigurationError for an unknown kind."""
    for name, item in loaded.configuration.vaults.items():
        return driver(KINDS, item.kind, f"vaults.{name}.kind")(str(loaded.path(item.path)), loaded.owner, host)
    return None


def open_vault_of(kind: str, location: str, owner: str, host: Host) -> Vault:
    """Return the vault of another environment, by its `location`."""
    return driver(KINDS, kind, "vaults")(location, owner, host)
