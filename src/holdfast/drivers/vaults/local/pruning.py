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
    """Remove backups and sweep contents, where all listings are as written and no backup to be removed is pinned.

    `folders` returns the folders of all backups. Raise DamagedError or RefusedError.
    """
    check(folders(), pinned, dumps=False)
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


def check(folders: Sequence[Path], pinned: Sequence[str], *, dumps: bool = True) -> None:
    """Read the backups' own files, without `dumps` only their listings. Raise DamagedError or RefusedError."""
    wrong: dict[Path, str] = {}
    for folder in folders:
        try:
            backup = manifests.read_manifest(folder)
            only = None if dumps else [_listing(folder, name).name for name in backup.datasets]
            problems = manifests.wrong_files(folder, backup, only)
        except DamagedError:
            problems = [f"{folder.name}/manifest.json is damaged"]
        if problems:
            wrong[folder] = problems[0]
    if wrong:
        raise DamagedError(
            f"pruning is refused while a backup is damaged: {', '.join(wrong.values())}",
            state="Nothing was removed.",
            next_step="`holdfast backup verify` lists all damage. Move each damaged folder out of the vault, then run"
            f" the command again:\n{chr(10).join(f'  {folder}' for folder in wrong)}",
        )
    if pinned:
        raise RefusedError(f"pinned backups are not removed: {', '.join(pinned)}")


def _listing(folder: Path, name: str) -> Path:
    return folder / f"files.{name}.jsonl.zst"


def _sweep(vault: Path, folders: Sequence[Path]) -> tuple[int, int]:
    """Remove packs and objects that no published backup references; the caller has checked all backups."""
    packs: set[str] = set()
    objects: set[str] = set()
    for folder in folders:
        backup = manifests.read_manifest(folder)
        packs.update(backup.packs)
        for name in backup.datasets:
            listing = _listing(folder, name)
            if listing.exists():
                objects.update(read_digests(listing))
    dead = [path for path in (vault / "packs").iterdir() if path.stem not in packs]
    dead += [path for path in (vault / "objects").glob("??/*") if path.name not in objects]
    size = 0
    for path in dead:
        size += path.stat().st_size
        os.unlink(path)
    return len(dead), size
