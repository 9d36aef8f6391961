"""The reading of a backup: its own files, its listings, and its contents in packs or as objects."""

from __future__ import annotations

import hashlib
import os
import weakref
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import IO

from holdfast.drivers.entries import PathFilter
from holdfast.drivers.vaults.local import manifest as manifests
from holdfast.drivers.vaults.local.digest_table import DigestTable
from holdfast.drivers.vaults.local.listing import read_chosen, read_listing
from holdfast.drivers.vaults.local.packs import find_in_index, index_lines, read_index, wrong_contents
from holdfast.errors import DamagedError
from holdfast.model import Backup, Entry
from holdfast.system import durable

_BLOCK_BYTES = 1 << 20
_MOST_OPEN = 64  # packs; a large vault has more of them than a process may open files
# A position in a pack as one number: which pack, the offset (below 128 MiB), the length (up to 1 MiB).
_NUMBER_BYTES = 9
_FEW_LOOKUPS = 256
_OFFSET_BITS = 27
_LENGTH_BITS = 21


class Contents:
    """The contents that one backup may use. Not shared between threads. `problems` lists unusable packs.

    Packs stay open until `close`, and no longer than this object, so that they do not keep a disk busy.
    """

    def __init__(self, vault: Path, packs: Sequence[str], *, checked: bool = True) -> None:
        """Check the index of each pack, or none of them: the content that is found is compared in any case."""
        self._vault = vault
        self._packs: list[str] = []
        self._open: dict[int, int] = {}
        self.close = weakref.finalize(self, _close_all, self._open)
        self._table: DigestTable | None = None
        self._can_clone = True
        self._few = 0 if checked else _FEW_LOOKUPS  # that many are found by bisection, without a table
        self.problems: list[str] = []
        if not checked:
            self._packs += packs
            return
        for name in packs:
            try:
                read_index(vault / "packs", name)
            except DamagedError as error:
                self.problems.append(error.what)
                continue
            self._packs.append(name)

    def object_path(self, digest: str) -> Path:
        return self._vault / "objects" / digest[:2] / digest

    def _place(self, digest: str) -> int | None:
        if self._few:
            self._few -= 1
            return self._place_by_bisection(digest)
        if self._table is None:
            self._table = DigestTable(_NUMBER_BYTES)
            for number, name in enumerate(self._packs):
                for raw, offset, length in index_lines(read_index(self._vault / "packs", name)):
                    self._table.add(raw, number << _OFFSET_BITS + _LENGTH_BITS | offset << _LENGTH_BITS | length)
        return self._table.find(bytes.fromhex(digest))

    def _place_by_bisection(self, digest: str) -> int | None:
        for number, name in enumerate(self._packs):
            found = find_in_index(self._vault / "packs", name, digest)
            if found is not None:
                return number << _OFFSET_BITS + _LENGTH_BITS | found[0] << _LENGTH_BITS | found[1]
        return None

    def in_pack(self, digest: str) -> bool:
        return self._place(digest) is not None

    def pack_of(self, digest: str) -> str | None:
        place = self._place(digest)
        return self._packs[place >> _OFFSET_BITS + _LENGTH_BITS] if place is not None else None

    def wrong_in_pack(self, name: str) -> list[str]:
        """Return the problems of one pack, after reading every byte."""
        try:
            wrong = wrong_contents(self._vault / "packs", name)
        except DamagedError as error:
            return [error.what]
        return [f"packs/{name}.pack is damaged at content {digest[:12]}" for digest in wrong]

    def _descriptor(self, number: int) -> int:
        """Return a descriptor of the pack; the one opened first is closed where there are too many."""
        descriptor = self._open.get(number)
        if descriptor is None:
            if len(self._open) >= _MOST_OPEN:
                os.close(self._open.pop(next(iter(self._open))))
            path = self._vault / "packs" / f"{self._packs[number]}.pack"
            try:
                descriptor = self._open[number] = os.open(path, os.O_RDONLY)
            except OSError as error:
                raise DamagedError(f"pack {self._packs[number]} cannot be opened: {error}") from error
        return descriptor

    def fetch(self, entry: Entry, target: int) -> None:
        """Write a content to a descriptor. Raise DamagedError if the bytes read have another digest."""
        place = self._place(entry.sha256)
        if place is None:
            self._fetch_object(entry, target)
            return
        number = place >> _OFFSET_BITS + _LENGTH_BITS
        offset = place >> _LENGTH_BITS & (1 << _OFFSET_BITS) - 1
        content = os.pread(self._descriptor(number), place & (1 << _LENGTH_BITS) - 1, offset)
        if hashlib.sha256(content).hexdigest() != entry.sha256:
            raise DamagedError(f"pack {self._packs[number]} is damaged at content {entry.sha256[:12]} ({entry.path})")
        written = os.write(target, content)
        while written < len(content):
            written += os.write(target, memoryview(content)[written:])

    def _fetch_object(self, entry: Entry, target: int) -> None:
        path = self.object_path(entry.sha256)
        try:
            source = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise DamagedError(f"the content of {entry.path} ({entry.sha256[:12]}) is missing: {error}") from error
        digest = hashlib.sha256()
        try:
            cloned = self._clone(source, target)
            while block := os.read(source, _BLOCK_BYTES):
                digest.update(block)
                if not cloned:
                    self._write(target, block, sparse=bool(entry.sparse))
            if not cloned:
                os.ftruncate(target, os.lseek(source, 0, os.SEEK_CUR))
        finally:
            os.close(source)
        if digest.hexdigest() != entry.sha256:
            raise DamagedError(f"objects/{entry.sha256[:2]}/{entry.sha256} is damaged ({entry.path})")

    @staticmethod
    def _write(target: int, block: bytes, *, sparse: bool) -> None:
        if sparse and not block.strip(b"\0"):
            os.lseek(target, len(block), os.SEEK_CUR)
            return
        view = memoryview(block)
        while view:
            view = view[os.write(target, view) :]

    def _clone(self, source: int, target: int) -> bool:
        self._can_clone = self._can_clone and durable.clone(source, target)
        return self._can_clone


def _close_all(descriptors: dict[int, int]) -> None:
    for descriptor in descriptors.values():
        os.close(descriptor)
    descriptors.clear()


class LocalBackup:
    """A backup, or a finished run, in its folder."""

    def __init__(self, vault: Path, folder: Path, manifest: Backup, only: Collection[str] | None = None) -> None:
        self._vault = vault
        self._folder = folder
        self._contents = Contents(vault, manifest.packs, checked=only is None)
        self._only = only
        self.manifest = manifest

    def problems(self) -> list[str]:
        """Return what is wrong with it; where only some of its own files are opened, with these."""
        if self._only is not None:
            return manifests.wrong_files(self._folder, self.manifest, self._only)
        return manifests.problems_of(self._folder, self.manifest) + self._contents.problems

    def manifest_text(self) -> bytes:
        return (self._folder / "manifest.json").read_bytes()

    def listing(self, name: str) -> Iterator[Entry]:
        return read_listing(self._listing(name))

    def entries(self, name: str, chosen: PathFilter) -> Iterator[Entry]:
        return read_chosen(self._listing(name), chosen)

    def _listing(self, name: str) -> Path:
        """Return the path of a listing. Raise DamagedError if it was not checked yet, and is damaged."""
        file = f"files.{name}.jsonl.zst"
        if self._only is not None and file not in self._only:
            if problems := manifests.wrong_files(self._folder, self.manifest, [file]):
                raise DamagedError(
                    problems[0],
                    state="Nothing was changed.",
                    next_step="Choose another backup. `holdfast backup verify` lists all damage.",
                )
            self._only = [*self._only, file]
        return self._folder / file

    def fetch(self, entry: Entry, descriptor: int) -> None:
        self._contents.fetch(entry, descriptor)

    def __reduce__(self) -> tuple[type[LocalBackup], tuple[Path, Path, Backup, Collection[str] | None]]:
        """Pickle for another process of Holdfast, which opens its own files."""
        return LocalBackup, (self._vault, self._folder, self.manifest, self._only)

    def open(self, name: str) -> IO[bytes]:
        try:
            return open(self._folder / name, "rb")
        except OSError as error:
            raise DamagedError(f"{self._folder.name}/{name} cannot be read: {error}") from error

    def place_of(self, name: str) -> Path:
        return self._folder / name
