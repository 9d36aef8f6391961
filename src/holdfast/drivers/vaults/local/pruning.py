"""The removal of backups from a local vault, and of contents that no backup references any more."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from holdfast.drivers.vaults.local import manifest as manifests
from holdfast.drivers.vaults.local.listing import read_digests
from holdfast.errors import DamagedError, RefusedError
from holdfast.system import durable


def prune(
    vault: Path, folders: Callable[[], list[Path]], remove: Sequence[str], run: str, *, pinned: Sequence[str]
) -> Mapping[str, int]:
    """Remove backups and sweep contents, where every backup is whole and none of those removed is pinned.

    `folders` returns the folders of all backups. Raise DamagedError or RefusedError.
    """
    broken: list[str] = []
    wrong: list[str] = []
    for folder in folders():
        try:
            wrong += manifests.wrong_files(folder, manifests.read_manifest(folder))
        except DamagedError:
            broken.append(folder.name)
    if broken:
        raise _refused(", ".join(broken))
    if pinned:
        raise RefusedError(f"pinned backups are not removed: {', '.join(pinned)}")
    if wrong:
        raise _refused(wrong[0])
    work = vault / "tmp" / run
    durable.make_directory(work)
    removed = 0
    for id in remove:
        source = vault / "backups" / id
        if source.is_dir():
            durable.rename(source, work / id)
            removed += 1
    swept, size = _sweep(vault, folders())
    for left in (vault / "tmp").iterdir():  # including those of abandoned operations
        durable.remove_tree(left)
    return {"removed": removed, "swept": swept, "size_bytes": size}


def _refused(damage: str) -> DamagedError:
    return DamagedError(
        f"Pruning is refused while a backup is damaged: {damage}",
        state="Nothing was removed.",
        next_step="Run `holdfast backup verify` to see the damage, then move the damaged folder out of the vault.",
    )


def _sweep(vault: Path, folders: Sequence[Path]) -> tuple[int, int]:
    """Remove packs and objects that no published backup references; the caller has checked all backups."""
    packs: set[str] = set()
    objects: set[str] = set()
    for folder in folders:
        backup = manifests.read_manifest(folder)
        packs.update(backup.packs)
        for name in backup.datasets:
            listing = folder / f"files.{name}.jsonl.zst"
            if listing.exists():
                objects.update(read_digests(listing))
    dead = [path for path in (vault / "packs").iterdir() if path.stem not in packs]
    dead += [path for path in (vault / "objects").glob("??/*") if path.name not in objects]
    size = 0
    for path in dead:
        size += path.stat().st_size
        os.unlink(path)
    return len(dead), size
