"""On a filesystem with reflinks, large files in the vault share their blocks with the live ones."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from holdfast.drivers.files.local import LocalFiles
from holdfast.drivers.vaults.local.vault import LocalVault
from tests.contract import trees
from tests.contract.test_vaults import Keeper
from tests.proof import patience

LARGE_BYTES = 24 << 20

pytestmark = pytest.mark.root


def _run(*argv: str) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True, timeout=patience.limit(60)).stdout


@pytest.fixture
def xfs(folder: Path) -> Iterator[Path]:
    """A new xfs in a file, mounted by a loop device."""
    missing = [name for name in ("mkfs.xfs", "mount", "filefrag") if shutil.which(name) is None]
    if os.geteuid() != 0 or missing:
        pytest.skip(f"needs root to mount, and {', '.join(missing) or 'nothing else'}")
    image, place = folder / "image", folder / "xfs"
    with open(image, "wb") as file:
        file.truncate(320 << 20)
    place.mkdir()
    _run("mkfs.xfs", "-q", "-m", "reflink=1", str(image))
    try:
        _run("mount", "-o", "loop", str(image), str(place))
    except subprocess.CalledProcessError as error:
        pytest.skip(f"a loop mount is not possible here: {error.stderr.strip()}")
    try:
        yield place
    finally:
        _run("umount", str(place))


def shared_bytes(path: Path) -> int:
    """Bytes of the extents that FIEMAP reports as shared with another file."""
    blocks = 0
    for line in _run("filefrag", "-v", "-b4096", str(path)).splitlines():
        if re.match(r"\s*\d+:", line) and "shared" in line:
            blocks += int(line.split(":")[3])
    return blocks * 4096


def free(place: Path) -> int:
    os.sync()
    status = os.statvfs(place)
    return status.f_bfree * status.f_frsize


def test_large_files_share_extents_in_the_vault_and_back(
    xfs: Path, record_property: Callable[[str, object], None]
) -> None:
    root = xfs / "media"
    root.mkdir()
    (root / "large.bin").write_bytes(os.urandom(LARGE_BYTES))
    keeper = Keeper(LocalVault(xfs / "vault", "guestbook.production"), LocalFiles("media", root))
    before = free(xfs)
    id = keeper.make("run1")
    taken = before - free(xfs)
    (stored,) = (xfs / "vault" / "objects").glob("*/*")
    assert shared_bytes(stored) == LARGE_BYTES
    assert keeper.restored(id, "again") == trees.look(root)
    assert shared_bytes(xfs / "again" / "large.bin") == LARGE_BYTES
    both = before - free(xfs)
    assert both < LARGE_BYTES // 2, "neither backup nor restore wrote the file again"
    record_property("vault_reflink", f"{LARGE_BYTES >> 20} MiB saved with {taken >> 10} KiB of new blocks")


def test_the_saved_content_does_not_follow_the_live_file(xfs: Path) -> None:
    root = xfs / "media"
    root.mkdir()
    (root / "large.bin").write_bytes(b"a" * LARGE_BYTES)
    keeper = Keeper(LocalVault(xfs / "vault", "guestbook.production"), LocalFiles("media", root))
    id, original = keeper.make("run1"), trees.look(root)
    with open(root / "large.bin", "r+b") as file:
        file.write(b"changed in place")
    assert keeper.wrong() == []
    assert keeper.restored(id, "again") == original
