"""Opens vaults."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from holdfast.config.load import ResolvedConfig
from holdfast.drivers.kinds import DriverClass, driver
from holdfast.drivers.protocols.vaults import Vault
from holdfast.system.host import Host


def _local() -> Callable[[Path, str, Host], Vault]:
    from holdfast.drivers.vaults.local.vault import LocalVault

    return LocalVault


KINDS: Mapping[str, DriverClass[Vault]] = {"local": _local}


def open_vault(loaded: ResolvedConfig, host: Host) -> Vault | None:
    """Return the vault that is configured, if one is. Raise ConfigurationError for an unknown kind."""
    for name, item in loaded.configuration.vaults.items():
        return driver(KINDS, item.kind, f"vaults.{name}.kind")(loaded.path(item.path), loaded.owner, host)
    return None


def open_vault_of(kind: str, path: Path, owner: str, host: Host) -> Vault:
    """Return the vault of another environment."""
    return driver(KINDS, kind, "vaults")(path, owner, host)
