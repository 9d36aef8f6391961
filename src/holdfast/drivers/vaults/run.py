"""An unfinished set in a local vault, under tmp/<run>/."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from holdfast import durable
from holdfast.drivers.protocols import Files, Progress
from holdfast.drivers.vaults import manifest as manifests
from holdfast.drivers.vaults.contents import Contents
from holdfast.drivers.vaults.damage import forget, read_damage
from holdfast.drivers.vaults.listing import ListingWriter, read_digests, read_listing
from holdfast.drivers.vaults.store import TreeStore
from holdfast.host import Host
from holdfast.model import Backup, Entry, Stored

_CHOSEN_ENTRIES = 256


class LocalRun:
    """`work` is tmp/<run>; `parent` the latest committed set; `packs` those of what its folder has already."""

    def __init__(
        self, vault: Path, run: str, work: Path, parent: Backup | None, host: Host | None, packs: Sequence[str] = ()
    ) -> None:
        self._packs = packs
        self.id = run
        self.folder = work / "set"
        self._vault = vault
        self._work = work
        self._parent = parent
        if parent is not None and (Contents(vault, parent.packs).problems or self._is_damaged(parent)):
            self._parent = None  # one that is not whole vouches for nothing: everything is read anew
        self._store = TreeStore(work, vault / "objects", list(self._parent_listings().values()), host)
        self._passes: dict[str, Path] = {}

    def _is_damaged(self, parent: Backup) -> bool:
        """Tell whether the set uses contents that a verification found damaged."""
        damage = read_damage(self._vault)
        if damage.packs.intersection(parent.packs):
            return True
        listings = self._parent_listings().values() if damage.objects else ()
        return any(digest in damage.objects for listing in listings for digest in read_digests(listing))

    def _parent_listings(self) -> dict[str, Path]:
        """The listings of the parent's files datasets."""
        if self._parent is None:
            return {}
        folder = self._vault / "backups" / self._parent.id
        paths = {name: folder / f"files.{name}.jsonl.zst" for name in self._parent.datasets}
        return {name: path for name, path in paths.items() if path.exists()}

    def _earlier(self, name: str) -> Iterator[Entry]:
        path = self._passes.get(name) or self._parent_listings().get(name)
        return read_listing(path) if path is not None else iter(())

    def store_tree(
        self, name: str, files: Files, *, keep_vanished: bool, check: Callable[[], None], progress: Progress
    ) -> Stored:
        first = name not in self._passes
        path = self._work / f"{name}.{'1' if first else secrets.token_hex(2)}.jsonl.zst"
        with ListingWriter(path) as writer:
            totals = self._store.store(
                files,
                self._earlier(name),
                writer,
                keep_vanished=keep_vanished and not first,
                check=check,
                progress=progress,
            )
        self._passes[name] = path
        return totals

    def listing(self, name: str) -> Iterator[Entry]:
        return read_listing(self._passes[name])

    def choose(self, name: str, listing: Iterator[Entry]) -> None:
        """Replaces a listing, as when an earlier reading of a file is the one that its row means."""
        path = self._work / f"{name}.{secrets.token_hex(2)}.jsonl.zst"
        with ListingWriter(path) as writer:
            while entries := list(islice(listing, _CHOSEN_ENTRIES)):
                writer.write(entries)
        self._store.kept_all = False
        self._passes[name] = path

    def finish(self, manifest: Backup) -> None:
        new_packs = self._store.close()
        for name, path in self._passes.items():
            os.rename(path, self.folder / f"files.{name}.jsonl.zst")
        durable.sync_filesystem(self._work)
        written = self._move_contents(new_packs)
        manifest.packs = sorted({*new_packs, *self._packs, *(self._parent_packs() if self._passes else [])})
        text, manifest.files = manifests.sums(self.folder)
        durable.write_file(self.folder / "SHA256SUMS", text, 0o400)
        durable.write_file(self.folder / "manifest.json", manifests.write_manifest(manifest), 0o400)
        for path in (*self.folder.glob("*"), *self.folder.glob("*/*")):
            os.chmod(path, 0o700 if path.is_dir() else 0o400)
        durable.sync_filesystem(self._work)
        forget(self._vault, packs=set(new_packs), objects=written)

    def _move_contents(self, packs: list[str]) -> set[str]:
        """Move contents to their places in the vault; return the digests of the objects."""
        for name in packs:
            for ending in (".idx", ".pack"):
                os.rename(self._work / "packs" / f"{name}{ending}", self._vault / "packs" / f"{name}{ending}")
        written: set[str] = set()
        for path in (self._work / "objects").iterdir():
            folder = self._vault / "objects" / path.name[:2]
            folder.mkdir(mode=0o700, exist_ok=True)
            os.rename(path, folder / path.name)
            written.add(path.name)
        return written

    def _parent_packs(self) -> list[str]:
        """Packs of the parent that this set still uses."""
        if self._parent is None or not self._parent.packs:
            return []
        if self._store.kept_all and self._parent_listings().keys() <= self._passes.keys():
            return self._parent.packs  # each was in use, and nothing that uses one has gone
        contents = Contents(self._vault, self._parent.packs)
        if contents.problems:
            return self._parent.packs  # a damaged one stays named, so that `verify` finds it in this set too
        used: set[str] = set()
        for name in self._passes:
            for digest in read_digests(self.folder / f"files.{name}.jsonl.zst"):
                if len(used) == len(self._parent.packs):
                    break
                pack = contents.pack_of(digest)
                if pack is not None:
                    used.add(pack)
        contents.close()
        return sorted(used)
