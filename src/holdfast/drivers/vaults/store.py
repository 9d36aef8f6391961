"""Storing one tree: what is unchanged is not read, small files go into packs, large ones become objects.

Reading, hashing and writing of larger files happens in threads (they release the interpreter lock); entries are
written in the order of the scan. Memory is bounded by the batches under way.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import itertools
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from holdfast.drivers.protocols import Files, Progress
from holdfast.drivers.vaults.listing import ListingWriter
from holdfast.drivers.vaults.packs import SMALL_BYTES, PackWriter
from holdfast.errors import StepError
from holdfast.model import Entry, Stored

_THREADS = 2
_BATCH_FILES = 256
_BATCH_BYTES = 4 << 20
_MOST_BATCHES = 6
_TINY_BYTES = 16 << 10
_BLOCK_BYTES = 1 << 20
_ATTEMPTS = 3
_RECENT_NS = 2_000_000_000
_FICLONE = 0x40049409


class TreeStore:
    """Stores trees into one run's folder. `known` holds the digests that committed sets vouch for."""

    def __init__(self, folder: Path, known: Callable[[], set[bytes]]) -> None:
        self._packs = folder / "packs"
        self._objects = folder / "objects"
        for part in (self._packs, self._objects):
            part.mkdir(mode=0o700, exist_ok=True)
        self._known = known
        self._written: set[bytes] = set()
        self._local = threading.local()
        self._writers: list[PackWriter] = []
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._can_clone = True

    def store(
        self,
        files: Files,
        earlier: Iterator[Entry],
        writer: ListingWriter,
        *,
        keep_vanished: bool,
        check: Callable[[], None],
        progress: Progress,
    ) -> Stored:
        """Writes the listing of a tree as it is now, reading what is not in `earlier` with equal inode and ctime."""
        totals = Stored()
        links: dict[str, tuple[str, list[tuple[int, int]]]] = {}
        pending: deque[tuple[list[Entry], Future[int] | None]] = deque()
        batch: list[Entry] = []
        to_read: list[Entry] = []
        batch_bytes = 0

        def finish_one() -> None:
            entries, future = pending.popleft()
            if future is not None:
                totals.new_bytes += future.result()
            for entry in entries:
                if entry.kind == "gone":
                    continue
                if entry.hardlink and entry.kind == "file":
                    if not entry.sha256 and entry.hardlink not in links:  # the name read first has vanished
                        totals.new_bytes += self._read(files, entry)
                    entry.sha256, entry.sparse = links.setdefault(entry.hardlink, (entry.sha256, entry.sparse))
                writer.write(entry)
                totals.files += 1
                totals.size_bytes += entry.size
            check()
            progress(totals.size_bytes, None, "bytes")

        def send() -> None:
            nonlocal batch, to_read, batch_bytes
            if not batch:
                return
            future: Future[int] | None = None
            if to_read:
                totals.read_files += len(to_read)
                if batch_bytes < len(to_read) * _TINY_BYTES:
                    totals.new_bytes += self._read_all(files, to_read)
                else:
                    future = pool.submit(self._read_all, files, to_read)
            pending.append((batch, future))
            batch, to_read, batch_bytes = [], [], 0
            while len(pending) > _MOST_BATCHES or (pending and pending[0][1] is None):
                finish_one()

        with ThreadPoolExecutor(_THREADS) as pool:
            linked: set[str] = set()
            for entry, needs_reading in merge(files.scan(), earlier, keep_vanished):
                batch.append(entry)
                if needs_reading and not (entry.hardlink and entry.hardlink in linked):
                    to_read.append(entry)
                    batch_bytes += entry.size
                if entry.hardlink:
                    linked.add(entry.hardlink)
                if len(batch) >= _BATCH_FILES or batch_bytes >= _BATCH_BYTES:
                    send()
            send()
            while pending:
                finish_one()
        return totals

    def close(self) -> list[str]:
        """Ends the packs at hand; the names of all packs of the run."""
        for writer in self._writers:
            writer.close()
        return [name for writer in self._writers for name in writer.finished]

    def _pack_writer(self) -> PackWriter:
        writer: PackWriter | None = getattr(self._local, "writer", None)
        if writer is None:
            with self._lock:
                writer = PackWriter(self._packs, str(len(self._writers)))
                self._writers.append(writer)
            self._local.writer = writer
        return writer

    def _read_all(self, files: Files, entries: list[Entry]) -> int:
        return sum(self._read(files, entry) for entry in entries)

    def _read(self, files: Files, entry: Entry) -> int:
        """Reads one file into the run and completes its entry; the bytes written. A vanished file becomes `gone`."""
        written = 0
        for _ in range(_ATTEMPTS):
            try:
                descriptor = files.open(entry)
            except FileNotFoundError:
                entry.kind = "gone"
                return written
            try:
                before = os.fstat(descriptor)
                entry.recent = time.time_ns() - before.st_ctime_ns < _RECENT_NS
                entry.mtime_ns, entry.ctime_ns, entry.inode = (
                    before.st_mtime_ns,
                    before.st_ctime_ns,
                    before.st_ino,
                )
                files.complete(entry, descriptor)
                written += self._content(entry, descriptor, before.st_size)
                after = os.fstat(descriptor)
            finally:
                os.close(descriptor)
            if (before.st_size, before.st_mtime_ns, before.st_ctime_ns) == (
                after.st_size, after.st_mtime_ns, after.st_ctime_ns,
            ):  # fmt: skip
                return written
        entry.recent = True  # still being written: what was read last stands, to be read again in the next pass
        return written

    def _content(self, entry: Entry, descriptor: int, size: int) -> int:
        """Stores the content behind a descriptor; returns the bytes written to the vault."""
        if size > SMALL_BYTES:
            return self._object(entry, descriptor, size)
        content = os.read(descriptor, SMALL_BYTES + 1)
        entry.size = len(content)
        digest = hashlib.sha256(content)
        entry.sha256 = digest.hexdigest()
        if not self._is_new(digest.digest()):
            return 0
        self._pack_writer().append(entry.sha256, content)
        return len(content)

    def _is_new(self, digest: bytes) -> bool:
        key = digest[:16]  # half a SHA-256 is enough to tell contents apart and takes half the memory
        if key in self._written or key in self._known():
            return False
        self._written.add(key)
        return True

    def _object(self, entry: Entry, source: int, size: int) -> int:
        """Copies a large file into the run, as a reflink where possible, hashing what was copied."""
        part = self._objects / f"{next(self._numbers)}.part"
        target = os.open(part, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o400)
        try:
            if self._clone(source, target):
                digest, size = _copy(target, None)
            elif entry.sparse:
                digest = _copy_sparse(source, target, entry.sparse, size)
            else:
                digest, size = _copy(source, target)
        finally:
            os.close(target)
        entry.sha256, entry.size = digest.hexdigest(), size
        if not self._is_new(digest.digest()):
            os.unlink(part)
            return 0
        os.rename(part, self._objects / entry.sha256)
        return sum(length for _, length in entry.sparse) if entry.sparse else size

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


def _copy(source: int, target: int | None) -> tuple[hashlib._Hash, int]:
    """Hashes a file from its start, copying it if there is a target; the digest and the bytes read."""
    digest = hashlib.sha256()
    os.lseek(source, 0, os.SEEK_SET)
    total = 0
    while block := os.read(source, _BLOCK_BYTES):
        digest.update(block)
        total += len(block)
        if target is not None:
            view = memoryview(block)
            while view:
                view = view[os.write(target, view) :]
    return digest, total


def _copy_sparse(source: int, target: int, segments: list[tuple[int, int]], size: int) -> hashlib._Hash:
    """Copies the data, leaves the holes, and hashes the file as a reader sees it."""
    digest = hashlib.sha256()
    position = 0
    zeros = bytes(_BLOCK_BYTES)

    def hash_hole(end: int) -> None:
        nonlocal position
        while position < end:
            digest.update(zeros[: min(_BLOCK_BYTES, end - position)])
            position += min(_BLOCK_BYTES, end - position)

    for start, length in segments:
        hash_hole(start)
        while position < start + length:
            block = os.pread(source, min(_BLOCK_BYTES, start + length - position), position)
            if not block:
                raise StepError("a sparse file was cut short while it was read")
            digest.update(block)
            os.pwrite(target, block, position)
            position += len(block)
    hash_hole(size)
    os.ftruncate(target, size)
    return digest


def merge(now: Iterator[Entry], earlier: Iterator[Entry], keep_vanished: bool) -> Iterator[tuple[Entry, bool]]:
    """Joins a scan with an earlier listing in the same order: each entry, and whether its content must be read."""
    before = next(earlier, None)
    before_key = before.order() if before is not None else b""
    for entry in now:
        key = entry.order()
        while before is not None and before_key < key:
            if keep_vanished:
                yield before, False
            before = next(earlier, None)
            before_key = before.order() if before is not None else b""
        if before is not None and before_key == key:
            known, before = before, next(earlier, None)
            before_key = before.order() if before is not None else b""
            if entry.kind != "file":
                yield entry, False
                continue
            if (
                known.kind == "file" and known.inode == entry.inode and known.ctime_ns == entry.ctime_ns
                and known.size == entry.size and known.mtime_ns == entry.mtime_ns and not known.recent
                and known.device == entry.device
            ):  # fmt: skip
                entry.sha256, entry.sparse, entry.xattrs = known.sha256, known.sparse, known.xattrs
                yield entry, False
                continue
        yield entry, entry.kind == "file"
    while before is not None:
        if keep_vanished:
            yield before, False
        before = next(earlier, None)
