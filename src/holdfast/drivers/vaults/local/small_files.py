"""Very small files, read with the fewest calls that show whether a file changed meanwhile."""

from __future__ import annotations

import functools
import hashlib
import os
import stat
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from holdfast.drivers.protocols.files import Files
from holdfast.drivers.vaults.local.digest_table import DigestTable
from holdfast.drivers.vaults.local.listing import entries_of, lines_of, read_digests
from holdfast.drivers.vaults.local.packs import PackWriter
from holdfast.model import Entry
from holdfast.system.worker import Worker

TINY_BYTES = 16 << 10
_RECENT_NS = 2_000_000_000
_LEAST_HOLE_BYTES = 4096

_octal = functools.cache("{:o}".format)  # a tree has few different modes
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Entry]).decode


def known_digests(listings: Sequence[Path]) -> DigestTable:
    """Return the digests that published listings reference."""
    known = DigestTable()
    for path in listings:
        for digest in read_digests(path):
            known.add(bytes.fromhex(digest))
    return known


def is_recent(changed_ns: int, began_ns: int) -> bool:
    """Return whether a file changed so shortly before it was read that a later change may have the same time."""
    return began_ns - changed_ns < _RECENT_NS


def read_tiny(
    files: Files, entries: Sequence[Entry], is_new: Callable[[bytes], bool], append: Callable[[str, bytes], None]
) -> int:
    """Read the files among entries that have no digest yet; return the bytes given to `append`.

    One that is not very small, or that may have changed meanwhile, is left without a digest and is read again later.
    """
    written = 0
    began = time.time_ns()
    for entry in entries:
        if entry.sha256 or entry.kind != "file" or entry.size > TINY_BYTES:
            continue
        content = _read_seen(files, entry, began) if entry.mode else _read_named(files, entry, began)
        if content is None:
            continue
        digest = hashlib.sha256(content).digest()
        entry.sha256 = digest.hex()
        if is_new(digest):
            append(entry.sha256, content)
            written += len(content)
    return written


def _read(files: Files, entry: Entry, most_bytes: int) -> tuple[bytes, os.stat_result] | None:
    """Return the bytes of one read, and the file's status after it; None where the file is gone."""
    try:
        descriptor = files.open(entry)
    except FileNotFoundError:
        return None
    try:
        files.complete(entry, descriptor)
        return os.read(descriptor, most_bytes), os.fstat(descriptor)
    except (IsADirectoryError, BlockingIOError):  # a directory or a pipe took its place
        return None
    finally:
        os.close(descriptor)


def _read_seen(files: Files, entry: Entry, began_ns: int) -> bytes | None:
    """Return the content of a file that is still as the scan saw it, and complete its entry; else None."""
    found = _read(files, entry, entry.size + 1)
    if found is None:
        return None
    content, after = found
    if (
        len(content) != entry.size
        or after.st_ctime_ns != entry.ctime_ns
        or after.st_mtime_ns != entry.mtime_ns
        or after.st_ino != entry.inode
    ):
        return None
    entry.recent = is_recent(entry.ctime_ns, began_ns)
    return content


def _read_named(files: Files, entry: Entry, began_ns: int) -> bytes | None:
    """Return the content of a file that the scan did not look at, and fill in its entry; else None.

    Looking once, after reading, is enough for a file that had not changed for a while when reading began.
    """
    found = _read(files, entry, TINY_BYTES + 1)
    if found is None:
        return None
    content, after = found
    size, changed = after.st_size, after.st_ctime_ns
    if (
        len(content) != size
        or is_recent(changed, began_ns)
        or after.st_nlink != 1
        or not stat.S_ISREG(after.st_mode)
        or (size > _LEAST_HOLE_BYTES and after.st_blocks * 512 < size)
    ):
        return None
    entry.size, entry.ctime_ns, entry.mtime_ns, entry.inode = size, changed, after.st_mtime_ns, after.st_ino
    entry.mode, entry.uid, entry.gid = _octal(after.st_mode & 0o7777), after.st_uid, after.st_gid
    return content


def order_of(entries: Sequence[Entry]) -> bytes:
    """Return entries encoded for another process."""
    return _encode(entries)


@dataclass
class Answer:
    """Lines of a listing; `left` of their files have no digest yet, the others are in the run's packs."""

    lines: bytes
    left: int
    files: int
    size_bytes: int
    written_bytes: int

    def entries(self) -> list[Entry]:
        return entries_of(self.lines)


TinyWorker = Worker[bytes, Answer, list[str]]
"""The parent's side of a second process that reads very small files."""


class TinyReader:
    """The task of a second process, which reads files into packs of its own."""

    def __init__(self, files: Files, folder: Path, listings: Sequence[Path]) -> None:
        self._files = files
        self._folder = folder
        self._listings = listings
        self._writer: PackWriter | None = None
        self._known = DigestTable()

    def handle(self, order: bytes) -> Answer:
        if self._writer is None:
            self._writer = PackWriter(self._folder, f"worker{os.getpid()}")
            self._known = known_digests(self._listings)
        entries = _decode(order)
        written = read_tiny(self._files, entries, self._known.add_new, self._writer.append)
        left = sum(1 for entry in entries if entry.kind == "file" and not entry.sha256)
        return Answer(lines_of(entries), left, len(entries), sum(entry.size for entry in entries), written)

    def finish(self) -> list[str]:
        """End the pack; return the names of the packs."""
        if self._writer is None:
            return []
        self._writer.close()
        return self._writer.finished
