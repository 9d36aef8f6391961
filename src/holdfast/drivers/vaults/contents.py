"""Finding and reading contents of a set: in its packs, or as an object of their own."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from holdfast.drivers.vaults.packs import PackReader
from holdfast.errors import DamagedError
from holdfast.model import Entry

_BLOCK_BYTES = 1 << 20
_FICLONE = 0x40049409
_ALL_IN_MEMORY = 4  # up to so many packs are searched one by one; above, a table of all digests is faster


class Contents:
    """The contents that one set may use. Not shared between threads. `problems` lists packs that cannot be used."""

    def __init__(self, vault: Path, packs: Sequence[str]) -> None:
        self._vault = vault
        self._readers: list[PackReader] = []
        self._table: dict[bytes, int] | None = None
        self._can_clone = True
        self.problems: list[str] = []
        for name in packs:
            try:
                reader = PackReader(vault / "packs", name)
                reader.check_index()
            except DamagedError as error:
                self.problems.append(error.what)
                continue
            self._readers.append(reader)

    def object_path(self, digest: str) -> Path:
        return self._vault / "objects" / digest[:2] / digest

    def _place(self, digest: str) -> tuple[PackReader, int, int] | None:
        readers: Sequence[PackReader] = self._readers
        if len(self._readers) > _ALL_IN_MEMORY:
            if self._table is None:
                self._table = {
                    bytes.fromhex(line[0][:16]): number
                    for number, reader in enumerate(self._readers) for line in reader.lines()
                }  # fmt: skip
            number = self._table.get(bytes.fromhex(digest[:16]))
            if number is None:
                return None
            readers = [self._readers[number]]
        for reader in readers:
            found = reader.find(digest)
            if found is not None:
                return reader, *found
        return None

    def in_pack(self, digest: str) -> bool:
        return self._place(digest) is not None

    def pack_of(self, digest: str) -> str | None:
        place = self._place(digest)
        return place[0].name if place is not None else None

    def wrong_in_pack(self, name: str) -> list[str]:
        """What is wrong with one pack, every byte read."""
        try:
            reader = PackReader(self._vault / "packs", name)
            reader.check_index()
            wrong = reader.wrong_contents()
            reader.close()
        except DamagedError as error:
            return [error.what]
        return [f"packs/{name}.pack is damaged at content {digest[:12]}" for digest in wrong]

    def fetch(self, entry: Entry, target: int) -> None:
        """Writes a content to a descriptor. Raises DamagedError if what was read has another digest."""
        place = self._place(entry.sha256)
        if place is not None:
            reader, offset, length = place
            content = reader.read(offset, length)
            if hashlib.sha256(content).hexdigest() != entry.sha256:
                raise DamagedError(f"pack {reader.name} is damaged at content {entry.sha256[:12]} ({entry.path})")
            view = memoryview(content)
            while view:
                view = view[os.write(target, view) :]
            return
        self._fetch_object(entry, target)

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
        if not self._can_clone:
            return False
        try:
            fcntl.ioctl(target, _FICLONE, source)
            return True
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise
            self._can_clone = False
            return False

    def close(self) -> None:
        for reader in self._readers:
            reader.close()
        self._readers.clear()
