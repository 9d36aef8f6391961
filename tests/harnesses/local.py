"""Files and vaults in folders of this machine."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from holdfast.drivers.files.local import LocalFiles
from holdfast.drivers.protocols.files import Files
from holdfast.drivers.vaults.local.vault import LocalVault
from tests.harnesses.harness import OpenVault, VaultHarness


def vault(folder: Path) -> VaultHarness:
    found = LocalVault(folder, "guestbook.production")

    def damage(id: str, name: str) -> None:
        path = found.folder(id) / name
        os.chmod(path, 0o600)
        content = path.read_bytes()
        path.write_bytes(bytes([content[0] ^ 1]) + content[1:])

    return VaultHarness(found, damage)


FILES: Mapping[str, Callable[[Path], Files]] = {"local": lambda root: LocalFiles("media", root)}
VAULTS: Mapping[str, OpenVault] = {"local": vault}
