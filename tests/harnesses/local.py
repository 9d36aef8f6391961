"""Files and vaults in folders of this machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from holdfast.drivers.files.local import LocalFiles
from holdfast.drivers.protocols.files import Files
from holdfast.drivers.protocols.vaults import Vault
from holdfast.drivers.vaults.local.vault import LocalVault

FILES: Mapping[str, Callable[[Path], Files]] = {"local": lambda root: LocalFiles("media", root)}
VAULTS: Mapping[str, Callable[[Path], Vault]] = {"local": lambda path: LocalVault(path, "guestbook.production")}
