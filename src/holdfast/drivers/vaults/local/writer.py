"""An unfinished backup in a local vault, under tmp/<run>/."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO

from holdfast.drivers.protocols.files import Files
from holdfast.drivers.protocols.vaults import Progress
from holdfast.drivers.vaults.local import manifest as manifests
from holdfast.drivers.vaults.local.content_store import TreeStore
from holdfast.drivers.vaults.local.damage import forget, read_damage
from holdfast.drivers.vaults.local.diff import Merge
from holdfast.drivers.vaults.local.listing import ListingWriter, read_digests, read_listing
from holdfast.drivers.vaults.local.reader import Contents
from holdfast.drivers.vaults.local.watched import Watched
from holdfast.model import Backup, Changed, Entry, Stored
from holdfast.system import durable
from holdfast.system.host import Host

_CHOSEN_ENTRIES = 256


class LocalRun:
    """A run that writes a backup.

    `work` is tmp/<run>, `parent` the latest published backup, `packs` those of contents that its folder has already.
    """

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
            self._parent = None  # a damaged backup proves nothing, so everything is read again
        self._store = TreeStore(work, vault / "objects", list(self._parent_listings().values()), host)
        self._passes: dict[str, Path] = {}
        self.watched: dict[str, Watched] = {}

    def _is_damaged(self, parent: Backup) -> bool:
        """Return whether the backup uses contents that a verification found damaged."""
        damage = read_damage(self._vault)
        if damage.packs.intersection(parent.packs):
            return True
        listings = self._parent_listings().values() if damage.objects else ()
        return any(digest in damage.objects for listing in listings for digest in read_digests(listing))

    def _parent_listings(self) -> dict[str, Path]:
        """Return the listings of the parent's files datasets."""
        if self._parent is None:
            return {}
        folder = self._vault / "backups" / self._parent.id
        paths = {name: folder / f"files.{name}.jsonl.zst" for name in self._parent.datasets}
        return {name: path for name, path in paths.items() if path.exists()}

    def go_on_from(self, watched: dict[str, Watched]) -> None:
        """Take over the trees that the parent's run watches, which has ended."""
        listings = self._parent_listings()
        for name, one in watched.items():
            if name in listings:
                one.listing = listings[name]
                self.watched[name] = one

    def _earlier(self, name: str) -> Iterator[Entry]:
        path = self._passes.get(name) or self._parent_listings().get(name)
        return read_listing(path) if path is not None else iter(())

    def store_tree(
        self, name: str, files: Files, *, keep_vanished: bool, check: Callable[[], None], progress: Progress
    ) -> Stored:
        return self.read_tree(name, files, keep_vanished=keep_vanished, check=check, progress=progress)()

    def read_tree(
        self, name: str, files: Files, *, keep_vanished: bool, check: Callable[[], None], progress: Progress
    ) -> Callable[[], Stored]:
        keep_vanished = keep_vanished and name in self._passes
        watched = self.watched.get(name)
        changed = watched.changed() if watched is not None else None
        if watched is not None and changed is not None:
            finish = self._read_changed(name, files, watched, changed, keep_vanished, check, progress)
            if finish is not None:
                return finish
        totals = self._read_all(name, files, keep_vanished, check, progress)
        return lambda: totals

    def _read_all(
        self, name: str, files: Files, keep_vanished: bool, check: Callable[[], None], progress: Progress
    ) -> Stored:
        """Store a tree by a scan of all of it."""
        watched = self._watch(name, files)
        path = self._new_listing(name)
        scan = watched.tree.scan if watched is not None else files.scan
        with ListingWriter(path) as writer:
            totals, linked = self._store.store(
                files, scan, self._earlier(name), writer, keep_vanished=keep_vanished, check=check, progress=progress
            )
        self._passes[name] = path
        if watched is not None:
            watched.listed(path, linked)
        return totals

    def _watch(self, name: str, files: Files) -> Watched | None:
        """Watch a tree, or continue if a scan is needed for another reason than changes that were missed."""
        watched = self.watched.get(name)
        if watched is None or watched.tree.changed() is None:
            self.watched.pop(name, None)
            tree = files.watched()
            if tree is not None:
                self.watched[name] = Watched(tree)
        return self.watched.get(name)

    def _read_changed(
        self,
        name: str,
        files: Files,
        watched: Watched,
        changed: Changed,
        keep_vanished: bool,
        check: Callable[[], None],
        progress: Progress,
    ) -> Callable[[], Stored] | None:
        """Store the changes of a tree. Return None where files have several names and that was not known."""
        fresh = self._new_listing(name)
        with ListingWriter(fresh) as writer:
            totals, linked = self._store.store(
                files,
                lambda _: watched.tree.look(changed),
                iter(watched.known()),
                writer,
                keep_vanished=False,
                check=check,
                progress=progress,
            )
        if not linked.keys() <= watched.linked.keys():
            return None
        assert watched.listing is not None
        earlier = watched.listing

        def finish() -> Stored:
            merged = Merge(read_listing(fresh), read_listing(earlier), keep_vanished, lambda _: True, changed)
            path = self._new_listing(name)
            totals.files, totals.size_bytes = self._write(path, (entry for entry, _ in merged))
            self._store.parent_fully_reused = self._store.parent_fully_reused and not merged.lost
            self._passes[name] = path
            watched.listed(path, linked)
            return totals

        return finish

    def _new_listing(self, name: str) -> Path:
        return self._work / f"{name}.{secrets.token_hex(4)}.jsonl.zst"

    @staticmethod
    def _write(path: Path, listing: Iterator[Entry]) -> tuple[int, int]:
        """Write a listing; return the number of its entries and the bytes of its files."""
        number = size_bytes = 0
        with ListingWriter(path) as writer:
            while entries := list(islice(listing, _CHOSEN_ENTRIES)):
                writer.write(entries)
                number += len(entries)
                size_bytes += sum(entry.size for entry in entries)
        return number, size_bytes

    def listing(self, name: str) -> Iterator[Entry]:
        return read_listing(self._passes[name])

    def choose(self, name: str, listing: Iterator[Entry]) -> None:
        """Replace a listing, for example where a row means an earlier version of a file."""
        path = self._new_listing(name)
        self._write(path, listing)
        self._store.parent_fully_reused = False
        self._passes[name] = path
        self.watched.pop(name, None)  # its changes refer to the other listing

    # --- the backup's own files --------------------------------------------------------------------

    @contextmanager
    def write(self, name: str) -> Iterator[IO[bytes]]:
        target = self.folder / name
        target.parent.mkdir(mode=0o700, exist_ok=True)
        unfinished = target.with_name(f"{target.name}.unfinished")
        with open(unfinished, "wb", opener=_private) as file:
            yield file
        durable.sync_file(unfinished)
        durable.rename(unfinished, target)

    def remove(self, name: str) -> None:
        target = self.folder / name
        if target.is_dir():
            durable.remove_tree(target)
        target.unlink(missing_ok=True)

    def size_of(self, name: str) -> int:
        target = self.folder / name
        return sum(path.stat().st_size for path in (target.iterdir() if target.is_dir() else [target]))

    def place_of(self, name: str) -> Path:
        return self.folder / name

    def link(self, name: str, id: str) -> None:
        self.remove(name)
        os.link(self._vault / "backups" / id / name, self.folder / name)

    # --- the end -----------------------------------------------------------------------------------

    def finish(self, manifest: Backup) -> None:
        for left in self.folder.rglob("*.unfinished"):  # of an attempt that died
            left.unlink()
        new_packs = self._store.close()
        for name, path in self._passes.items():
            durable.move(path, self.folder / f"files.{name}.jsonl.zst")
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
                durable.move(self._work / "packs" / f"{name}{ending}", self._vault / "packs" / f"{name}{ending}")
        written: set[str] = set()
        for path in (self._work / "objects").iterdir():
            folder = self._vault / "objects" / path.name[:2]
            folder.mkdir(mode=0o700, exist_ok=True)
            durable.move(path, folder / path.name)
            written.add(path.name)
        return written

    def _parent_packs(self) -> list[str]:
        """Return the parent's packs that this backup still uses."""
        if self._parent is None or not self._parent.packs:
            return []
        if self._store.parent_fully_reused and self._parent_listings().keys() <= self._passes.keys():
            return self._parent.packs  # each was in use, and no file that uses one is gone
        contents = Contents(self._vault, self._parent.packs)
        if contents.problems:
            return self._parent.packs  # a damaged one stays named, so that `verify` finds it in this backup too
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


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
