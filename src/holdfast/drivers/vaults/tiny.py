"""Very small files: read with as few calls as can tell that none changed since the scan looked at it."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from holdfast.drivers.protocols import Files
from holdfast.drivers.vaults.digests import DigestTable
from holdfast.drivers.vaults.listing import read_digests
from holdfast.drivers.vaults.packs import PackWriter
from holdfast.model import Entry

TINY_BYTES = 16 << 10
_RECENT_NS = 2_000_000_000
_DIGEST_BYTES = 32
_NONE = bytes(_DIGEST_BYTES)


def known_digests(listings: Sequence[Path]) -> DigestTable:
    """What committed listings reference."""
    known = DigestTable()
    for path in listings:
        for digest in read_digests(path):
            known.add(bytes.fromhex(digest))
    return known


def read_tiny(files: Files, entry: Entry) -> bytes | None:
    """The content of a file that is as the scan saw it, its entry completed; None for any other.

    `recent` and the digest are left to the caller.
    """
    try:
        descriptor = files.open(entry)
    except FileNotFoundError:
        return None
    try:
        files.complete(entry, descriptor)
        content = os.read(descriptor, entry.size + 1)
        after = os.fstat(descriptor)
    except (IsADirectoryError, BlockingIOError):  # a directory or a pipe took its place
        return None
    finally:
        os.close(descriptor)
    if (
        len(content) != entry.size or after.st_ctime_ns != entry.ctime_ns
        or after.st_mtime_ns != entry.mtime_ns or after.st_ino != entry.inode
    ):  # fmt: skip
        return None
    return content


def is_recent(entry: Entry, began_ns: int) -> bool:
    return began_ns - entry.ctime_ns < _RECENT_NS


Order = list[tuple[str, str, int, int, int, int]]


def order_of(entries: Sequence[Entry]) -> Order:
    """What another process must know of entries to read them."""
    return [
        (entry.path, entry.path_base64, entry.size, entry.mtime_ns, entry.ctime_ns, entry.inode) for entry in entries
    ]


@dataclass
class Answer:
    """`digests` of all entries one after the other, zeros for one that must be looked at again; `details` of the few
    that have attributes or holes."""

    digests: bytes
    began_ns: int
    written_bytes: int
    details: Mapping[int, tuple[dict[str, str], list[tuple[int, int]]]] = field(default_factory=dict)

    def apply(self, entries: Sequence[Entry], again: Callable[[Entry], int]) -> int:
        """Completes the entries; returns the bytes written to the run, `again`'s included."""
        written = self.written_bytes
        digits = self.digests.hex()
        width = 2 * _DIGEST_BYTES
        for number, entry in enumerate(entries):
            digest = digits[number * width : (number + 1) * width]
            if digest == _NONE.hex():
                written += again(entry)
                continue
            entry.sha256 = digest
            entry.recent = is_recent(entry, self.began_ns)
            if number in self.details:
                entry.xattrs, entry.sparse = self.details[number]
        return written


class TinyReader:
    """The job of a second process: reads into packs of its own."""

    def __init__(self, files: Files, folder: Path, listings: Sequence[Path]) -> None:
        self._files = files
        self._folder = folder
        self._listings = listings
        self._writer: PackWriter | None = None
        self._known = DigestTable()

    def handle(self, order: Order) -> Answer:
        if self._writer is None:
            self._writer = PackWriter(self._folder, f"worker{os.getpid()}")
            self._known = known_digests(self._listings)
        digests = []
        details = {}
        written = 0
        began = time.time_ns()
        for number, (path, path_base64, size, mtime_ns, ctime_ns, inode) in enumerate(order):
            entry = Entry(path, "file", "", 0, 0, mtime_ns, size, ctime_ns, inode)
            if path_base64:
                entry.path_base64 = path_base64
            content = read_tiny(self._files, entry)
            if content is None:
                digests.append(_NONE)
                continue
            digest = hashlib.sha256(content).digest()
            digests.append(digest)
            if entry.xattrs or entry.sparse:
                details[number] = (entry.xattrs, entry.sparse)
            if self._known.add_new(digest):
                self._writer.append(digest.hex(), content)
                written += size
        return Answer(b"".join(digests), began, written, details)

    def finish(self) -> list[str]:
        """The names of the packs."""
        if self._writer is None:
            return []
        self._writer.close()
        return self._writer.finished
