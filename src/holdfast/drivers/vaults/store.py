"""Storing one tree: what is unchanged is not read, small files go into packs, large ones become objects.

Very small files are read one after the other, for a switch of threads costs more than such a file, and where there
are many by a second process beside this one. Reading, hashing and writing of larger ones happens in threads (they
release the interpreter lock); entries are written in the order of the scan. Memory is bounded by the batches under way, and by some bytes for each digest that was written.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import stat
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from holdfast import durable
from holdfast.drivers.protocols import Files, Progress
from holdfast.drivers.vaults.digests import DigestTable
from holdfast.drivers.vaults.listing import ListingWriter
from holdfast.drivers.vaults.merge import Merge
from holdfast.drivers.vaults.packs import SMALL_BYTES, PackWriter, write_out
from holdfast.drivers.vaults.tiny import TINY_BYTES, Answer, TinyReader, is_recent, known_digests, order_of, read_tiny
from holdfast.errors import StepError
from holdfast.host import Host
from holdfast.model import Entry, Stored
from holdfast.worker import Worker

_THREADS = 2
_BATCH_FILES = 256
_BATCH_BYTES = 4 << 20
_MOST_BATCHES = 16
_WORKER_FILES = 512  # a second process costs about as much as reading so many very small files
_WORKER_BATCHES = 8
_BLOCK_BYTES = 1 << 20
_ATTEMPTS = 3


@dataclass
class _Batch:
    entries: list[Entry] = field(default_factory=list)
    to_read: list[Entry] = field(default_factory=list)
    size_bytes: int = 0
    written: Future[int] | None = None
    given: bool = False  # to the second process


class TreeStore:
    """Stores trees into one run's folder. `known` are the listings that committed sets vouch for, read when needed.

    With a host it may start a second process. `kept_all` turns false once something of an earlier listing is not in
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
        self._there: DigestTable | None = None
        self._packs_of_workers: list[str] = []
        self._local = threading.local()
        self._writers: list[PackWriter] = []
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._can_clone = True
        self.kept_all = True

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
        merged = Merge(files.scan(), earlier, keep_vanished, self._stored)
        with _Pass(self, files, writer, totals, check, progress) as one:
            one.run(merged)
        self._packs_of_workers += one.packs
        self.kept_all = self.kept_all and not merged.lost
        return totals

    def close_packs(self) -> None:
        """Ends the packs at hand; what comes later begins new ones."""
        for writer in self._writers:
            writer.close()

    def close(self) -> list[str]:
        """Ends the packs at hand; the names of all packs of the run."""
        self.close_packs()
        return [*self._packs_of_workers, *(name for writer in self._writers for name in writer.finished)]

    def start_worker(self, files: Files) -> Worker | None:
        """A second process that reads very small files of a tree, where there can be one."""
        elsewhere = files.for_worker()
        if self._host is None or elsewhere is None:
            return None
        return Worker(self._host, TinyReader(elsewhere, self._packs, self._known))

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
        """Reads very small files one after the other; the bytes written."""
        written = 0
        append = self._pack_writer().append
        began = time.time_ns()
        for entry in entries:
            content = read_tiny(files, entry) if entry.size <= TINY_BYTES else None
            if content is None:
                written += self.read(files, entry)
                continue
            digest = hashlib.sha256(content).digest()
            entry.sha256 = digest.hex()
            entry.recent = is_recent(entry, began)
            if self._is_new(digest):
                append(entry.sha256, content)
                written += entry.size
        return written

    def read(self, files: Files, entry: Entry) -> int:
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
                if not stat.S_ISREG(before.st_mode):
                    entry.kind = "gone"  # the file; what took its place is for the next pass
                    return written
                entry.mtime_ns, entry.ctime_ns, entry.inode = before.st_mtime_ns, before.st_ctime_ns, before.st_ino
                entry.recent = is_recent(entry, time.time_ns())
                entry.mode, entry.uid, entry.gid = f"{stat.S_IMODE(before.st_mode):o}", before.st_uid, before.st_gid
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
        # Not a byte more than there is: a large buffer for a small file costs more than reading it.
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
        """True for the first content of a digest, which is counted on from then on."""
        if self._there is None:
            with self._lock:
                if self._there is None:
                    self._there = known_digests(self._known)
        return self._there.add_new(digest)

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
            write_out(target)
        finally:
            os.close(target)
        entry.sha256, entry.size = digest.hexdigest(), size
        if not self._is_new(digest.digest()) and self._stored(entry):
            os.unlink(part)
            return 0
        os.rename(part, self._objects / entry.sha256)
        return sum(length for _, length in entry.sparse) if entry.sparse else size

    def _stored(self, entry: Entry) -> bool:
        """Whether an object that a listing names is there; packs are looked at once, as a whole."""
        if entry.size <= SMALL_BYTES:
            return True
        return (self._objects / entry.sha256).exists() or (
            self._vault_objects / entry.sha256[:2] / entry.sha256
        ).exists()

    def _clone(self, source: int, target: int) -> bool:
        self._can_clone = self._can_clone and durable.clone(source, target)
        return self._can_clone


class _Pass:
    """One pass over a tree: batches under way, written to the listing in the order of the scan."""

    def __init__(
        self, store: TreeStore, files: Files, writer: ListingWriter, totals: Stored, check: Callable[[], None],
        progress: Progress,
    ) -> None:  # fmt: skip
        self._store = store
        self._files = files
        self._writer = writer
        self._totals = totals
        self._check = check
        self._progress = progress
        self._pending: deque[_Batch] = deque()
        self._links: dict[str, Entry] = {}
        self._pool = ThreadPoolExecutor(_THREADS)
        self._worker: Worker | None = None
        self._alone = False
        self._tiny = 0
        self.packs: list[str] = []

    def __enter__(self) -> _Pass:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)
        if self._worker is not None:
            self._worker.end()

    def run(self, merged: Merge) -> None:
        batch = _Batch()
        linked: set[str] = set()
        for entry, needs_reading in merged:
            batch.entries.append(entry)
            if needs_reading and not (entry.hardlink and entry.hardlink in linked):
                batch.to_read.append(entry)
                batch.size_bytes += entry.size
            if entry.hardlink:
                linked.add(entry.hardlink)
            if len(batch.entries) >= _BATCH_FILES or batch.size_bytes >= _BATCH_BYTES:
                self._send(batch)
                batch = _Batch()
        self._send(batch)
        while self._pending:
            self._finish_one()
        if self._worker is not None:
            self.packs = self._worker.finish(self._store.close_packs)

    def _send(self, batch: _Batch) -> None:
        if batch.to_read:
            self._totals.read_files += len(batch.to_read)
            if batch.size_bytes >= len(batch.to_read) * TINY_BYTES:
                batch.written = self._pool.submit(self._store.read_all, self._files, batch.to_read)
            elif not self._give(batch):
                self._totals.new_bytes += self._store.read_tiny(self._files, batch.to_read)
        self._pending.append(batch)
        while len(self._pending) > _MOST_BATCHES or (self._pending and self._is_done(self._pending[0])):
            self._finish_one()

    def _is_done(self, batch: _Batch) -> bool:
        if batch.given:
            return self._worker is not None and self._worker.has_answer()
        return batch.written is None

    def _give(self, batch: _Batch) -> bool:
        """Gives a batch to the second process; False if it has enough to do, or if there is none."""
        self._tiny += len(batch.to_read)
        if self._worker is None:
            if self._tiny < _WORKER_FILES or self._alone:
                return False
            self._worker = self._store.start_worker(self._files)
            self._alone = self._worker is None
        if self._worker is None or self._worker.waiting >= _WORKER_BATCHES:
            return False
        if any(entry.size > TINY_BYTES for entry in batch.to_read):
            return False
        self._worker.give(order_of(batch.to_read))
        batch.given = True
        return True

    def _finish_one(self) -> None:
        self._finish(self._pending.popleft())
        self._check()
        self._progress(self._totals.size_bytes, None, "bytes")

    def _finish(self, batch: _Batch) -> None:
        """Writes the entries of a batch once its contents are in the run."""
        if batch.written is not None:
            self._totals.new_bytes += batch.written.result()
        if batch.given:
            assert self._worker is not None
            answer: Answer = self._worker.take()
            self._totals.new_bytes += answer.apply(
                batch.to_read, lambda entry: self._store.read_tiny(self._files, [entry])
            )
        size_bytes, gone = 0, False
        for entry in batch.entries:
            if entry.hardlink and entry.kind == "file":
                self._link(entry)
            if entry.kind == "gone":
                gone = True
                continue
            size_bytes += entry.size
        entries = [entry for entry in batch.entries if entry.kind != "gone"] if gone else batch.entries
        self._totals.size_bytes += size_bytes
        self._totals.files += len(entries)
        self._writer.write(entries)

    def _link(self, entry: Entry) -> None:
        """Gives one name of a file what was read under the first of its names."""
        if not entry.sha256 and entry.hardlink not in self._links:  # the name read first has vanished
            self._totals.new_bytes += self._store.read(self._files, entry)
            if entry.kind == "gone":
                return
        first = self._links.setdefault(entry.hardlink, entry)
        entry.sha256, entry.sparse, entry.xattrs = first.sha256, first.sparse, first.xattrs
        entry.recent = entry.recent or first.recent


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
