"""The storage of one tree: unchanged files are not read, small ones go into packs, large ones become objects.

Very small files are read one after the other, because a switch of threads costs more than such a file, and many of them
are read by a second process at the same time. Reading, hashing and writing of larger ones happens in threads (they
release the interpreter lock); entries are written in the order of the scan. Memory is bounded by the batches in
progress, and by some bytes for each digest that was written.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from holdfast.drivers.protocols.files import Files
from holdfast.drivers.protocols.vaults import Progress
from holdfast.drivers.vaults.local.diff import Merge
from holdfast.drivers.vaults.local.digest_table import DigestTable
from holdfast.drivers.vaults.local.listing import ListingWriter
from holdfast.drivers.vaults.local.packs import SMALL_BYTES, PackWriter, write_out
from holdfast.drivers.vaults.local.small_files import TinyReader, TinyWorker, is_recent, known_digests, read_tiny
from holdfast.drivers.vaults.local.tree_pass import TreePass
from holdfast.errors import StepError
from holdfast.model import Entry, Stored
from holdfast.system import durable
from holdfast.system.host import Host

_BLOCK_BYTES = 1 << 20
_ATTEMPTS = 3

Scan = Callable[[Callable[[], bool]], Iterator[Entry]]


class TreeStore:
    """A store of trees in one run's folder. `known` are listings of published backups, read when needed.

    With a host it may start a second process. `kept_all` turns false once a content of an earlier listing is missing in
    the later one.
    """

    def __init__(self, folder: Path, vault_objects: Path, known: Sequence[Path], host: Host | None) -> None:
        self._vault_objects = vault_objects
        self._packs = folder / "packs"
        self._objects = folder / "objects"
        for part in (self._packs, self._objects):
            part.mkdir(mode=0o700, exist_ok=True)
        self._known = known
        self._host = host if (os.cpu_count() or 1) > 1 else None
        self._known_digests: DigestTable | None = None
        self._packs_of_workers: list[str] = []
        self._local = threading.local()
        self._writers: list[PackWriter] = []
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._can_clone = True
        self._check: Callable[[], None] = _nothing
        self._ahead: dict[int, int] = {}  # by thread, the bytes of the large file that it is copying
        self._report: Callable[[], None] = _nothing
        self.parent_fully_reused = True

    def store(
        self,
        files: Files,
        scan: Scan,
        earlier: Iterator[Entry],
        writer: ListingWriter,
        *,
        keep_vanished: bool,
        check: Callable[[], None],
        progress: Progress,
    ) -> tuple[Stored, dict[str, list[Entry]]]:
        """Write the listing of a scan, reading files that `earlier` lacks or has with another inode or ctime.

        Return the totals, and the names of each file that has several.
        """
        totals = Stored()
        self._check = check
        self._report = lambda: progress(totals.size_bytes + sum([*self._ahead.values()]), None, "bytes")
        try:
            with TreePass(self, files, writer, totals, check, progress) as one:
                merged = Merge(scan(one.by_name), earlier, keep_vanished, self._stored)
                one.run(merged)
        finally:  # they belong to the operation, whose trees are open as long as anything refers to it
            self._check, self._report = _nothing, _nothing
        self._packs_of_workers += one.packs
        self.parent_fully_reused = self.parent_fully_reused and not merged.lost
        return totals, one.linked

    def close_packs(self) -> None:
        """End the present packs; later contents begin new ones."""
        for writer in self._writers:
            writer.close()

    def close(self) -> list[str]:
        """End the present packs; return the names of all packs of the run."""
        self.close_packs()
        own = (name for writer in self._writers for name in writer.finished)
        return list(dict.fromkeys([*self._packs_of_workers, *own]))  # packs with equal contents have equal names

    def start_worker(self, files: Files) -> TinyWorker | None:
        """Start a second process that reads very small files of a tree; return None where that is impossible."""
        elsewhere = files.for_worker()
        if self._host is None or elsewhere is None:
            return None
        return TinyWorker(self._host, TinyReader(elsewhere, self._packs, self._known))

    def _pack_writer(self) -> PackWriter:
        writer: PackWriter | None = getattr(self._local, "writer", None)
        if writer is None:
            with self._lock:
                writer = PackWriter(self._packs, str(len(self._writers)))
                self._writers.append(writer)
            self._local.writer = writer
        return writer

    def read_all(self, files: Files, entries: list[Entry]) -> int:
        return sum(self.read(files, entry) for entry in entries)

    def read_tiny(self, files: Files, entries: list[Entry]) -> int:
        """Read files, mostly very small ones, one after the other; return the bytes written."""
        written = read_tiny(files, entries, self._is_new, self._pack_writer().append)
        return written + sum(self.read(files, entry) for entry in entries if not entry.sha256)

    def read(self, files: Files, entry: Entry) -> int:
        """Read one file into the run and complete its entry; return the bytes written.

        A vanished file becomes `gone`.
        """
        written = 0
        for _ in range(_ATTEMPTS):
            try:
                descriptor = files.open(entry)
            except FileNotFoundError:
                entry.kind = "gone"
                return written
            try:
                before = os.fstat(descriptor)
                if not stat.S_ISREG(before.st_mode):
                    entry.kind = "gone"  # the file is; the next pass finds what took its place
                    return written
                entry.mtime_ns, entry.ctime_ns, entry.inode = before.st_mtime_ns, before.st_ctime_ns, before.st_ino
                entry.recent = is_recent(before.st_ctime_ns, time.time_ns())
                entry.mode, entry.uid, entry.gid = f"{stat.S_IMODE(before.st_mode):o}", before.st_uid, before.st_gid
                if before.st_nlink > 1:
                    entry.hardlink = f"{before.st_dev}:{before.st_ino}"
                entry.size = before.st_size
                files.complete(entry, descriptor)
                written += self._content(entry, descriptor, before.st_size)
                after = os.fstat(descriptor)
            finally:
                os.close(descriptor)
            if (before.st_size, before.st_mtime_ns, before.st_ctime_ns) == (
                after.st_size,
                after.st_mtime_ns,
                after.st_ctime_ns,
            ):
                return written
        entry.recent = (
            True  # the file is still being written: its last content is kept, and read again in the next pass
        )
        return written

    def _content(self, entry: Entry, descriptor: int, size: int) -> int:
        """Store the content behind a descriptor; return the bytes written to the vault."""
        if size > SMALL_BYTES:
            return self._object(entry, descriptor, size)
        # The buffer is one byte larger than the file: a large one costs more than reading a small file.
        content = os.read(descriptor, size + 1)
        while len(content) != size and len(content) <= SMALL_BYTES and (more := os.read(descriptor, _BLOCK_BYTES)):
            content += more
        content = content[: SMALL_BYTES + 1]
        entry.size = len(content)
        digest = hashlib.sha256(content).digest()
        entry.sha256 = digest.hex()
        if not self._is_new(digest):
            return 0
        self._pack_writer().append(entry.sha256, content)
        return len(content)

    def _is_new(self, digest: bytes) -> bool:
        """Return whether this is the first content of a digest, and remember the digest."""
        if self._known_digests is None:
            with self._lock:
                if self._known_digests is None:
                    self._known_digests = known_digests(self._known)
        return self._known_digests.add_new(digest)

    def _object(self, entry: Entry, source: int, size: int) -> int:
        """Copy a large file into the run, as a reflink where possible, and hash the copy."""
        part = self._objects / f"{next(self._numbers)}.part"
        target = os.open(part, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o400)
        try:
            if self._clone(source, target):
                digest, size = _copy(target, None, self._moved)
            elif entry.sparse:
                digest = _copy_sparse(source, target, entry.sparse, size, self._moved)
            else:
                digest, size = _copy(source, target, self._moved)
            write_out(target)
        finally:
            self._ahead.pop(threading.get_ident(), None)
            os.close(target)
        entry.sha256, entry.size = digest.hexdigest(), size
        is_known = not self._is_new(digest.digest()) and self._stored(entry)
        if is_known and (self._objects / entry.sha256).exists():
            os.unlink(part)
            return 0
        # The content in the run is known to be right, so it replaces an object of that name, whatever its state.
        durable.move(part, self._objects / entry.sha256)
        if is_known:
            return 0
        return sum(length for _, length in entry.sparse) if entry.sparse else size

    def _moved(self, position: int) -> None:
        """Report how far a large file is copied. Raise an error where the operation is to stop."""
        self._check()
        self._ahead[threading.get_ident()] = position
        self._report()

    def _stored(self, entry: Entry) -> bool:
        """Return whether the object that a listing names exists with its size; packs are checked elsewhere."""
        if entry.size <= SMALL_BYTES:
            return True
        places = (self._objects / entry.sha256, self._vault_objects / entry.sha256[:2] / entry.sha256)
        return any(_has_size(place, entry.size) for place in places)

    def _clone(self, source: int, target: int) -> bool:
        self._can_clone = self._can_clone and durable.clone(source, target)
        return self._can_clone


def _has_size(path: Path, size: int) -> bool:
    try:
        return path.stat().st_size == size
    except FileNotFoundError:
        return False


def _nothing() -> None:
    """Do nothing between two trees."""


def _copy(source: int, target: int | None, moved: Callable[[int], None]) -> tuple[hashlib._Hash, int]:
    """Hash a file from its start, copying it if there is a target; return the digest and the bytes read.

    `moved` gets the bytes so far, and raises an error where the operation is to stop: one file may take an hour.
    """
    digest = hashlib.sha256()
    os.lseek(source, 0, os.SEEK_SET)
    total = 0
    while block := os.read(source, _BLOCK_BYTES):
        moved(total)
        digest.update(block)
        total += len(block)
        if target is not None:
            view = memoryview(block)
            while view:
                view = view[os.write(target, view) :]
    return digest, total


def _copy_sparse(
    source: int, target: int, segments: list[tuple[int, int]], size: int, moved: Callable[[int], None]
) -> hashlib._Hash:
    """Copy the data, leave the holes, and hash the file as a reader sees it."""
    digest = hashlib.sha256()
    position = 0
    zeros = bytes(_BLOCK_BYTES)

    def hash_hole(end: int) -> None:
        nonlocal position
        while position < end:
            moved(position)
            digest.update(zeros[: min(_BLOCK_BYTES, end - position)])
            position += min(_BLOCK_BYTES, end - position)

    for start, length in segments:
        hash_hole(start)
        while position < start + length:
            moved(position)
            block = os.pread(source, min(_BLOCK_BYTES, start + length - position), position)
            if not block:
                raise StepError("a sparse file was truncated while it was read")
            digest.update(block)
            os.pwrite(target, block, position)
            position += len(block)
    hash_hole(size)
    os.ftruncate(target, size)
    return digest
