"""One pass over a tree: batches are read in several places, and their lines written in the order of the scan."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

from holdfast.drivers.protocols.files import Files
from holdfast.drivers.protocols.vaults import Progress
from holdfast.drivers.vaults.local.diff import Merge
from holdfast.drivers.vaults.local.listing import ListingWriter
from holdfast.drivers.vaults.local.small_files import TINY_BYTES, TinyWorker, order_of
from holdfast.model import Entry, Stored

_THREADS = 2
_BATCH_FILES = 256
_BATCH_BYTES = 4 << 20
_MOST_BATCHES = 64
_WORKER_FILES = 512  # starting a second process costs about as much as reading this many very small files
_WORKER_BATCHES = 16
_LEFT_SHARE = 16


class Reader(Protocol):
    """A reader of contents into the run. Methods return the bytes written; a vanished file becomes `gone`."""

    def read_all(self, files: Files, entries: list[Entry]) -> int: ...

    def read_tiny(self, files: Files, entries: list[Entry]) -> int: ...

    def read(self, files: Files, entry: Entry) -> int: ...

    def start_worker(self, files: Files) -> TinyWorker | None: ...

    def close_packs(self) -> None: ...


@dataclass
class _Batch:
    entries: list[Entry] = field(default_factory=list)
    to_read: list[Entry] = field(default_factory=list)
    size_bytes: int = 0
    is_tiny: bool = True  # no file has a second name, and none is larger than TINY_BYTES as far as is known
    written: Future[int] | None = None
    given: bool = False  # to the second process


class TreePass:
    """The batches in progress. `by_name` tells the scan that it need not look at files, because readers do."""

    def __init__(
        self,
        reader: Reader,
        files: Files,
        writer: ListingWriter,
        totals: Stored,
        check: Callable[[], None],
        progress: Progress,
    ) -> None:
        self._reader = reader
        self._files = files
        self._writer = writer
        self._totals = totals
        self._check = check
        self._progress = progress
        self._pending: deque[_Batch] = deque()
        self._links: dict[str, Entry] = {}
        self._pool = ThreadPoolExecutor(_THREADS)
        self._worker: TinyWorker | None = None
        self._alone = False
        self._tiny = 0
        self._by_name: bool | None = None  # None: not decided yet
        self.packs: list[str] = []
        self.linked: dict[str, list[Entry]] = {}

    def __enter__(self) -> TreePass:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)
        if self._worker is not None:
            self._worker.end()

    def by_name(self) -> bool:
        return self._by_name is True

    def run(self, merged: Merge) -> None:
        batch = _Batch()
        linked: set[str] = set()
        for entry, needs_reading in merged:
            batch.entries.append(entry)
            if needs_reading and not (entry.hardlink and entry.hardlink in linked):
                batch.to_read.append(entry)
                batch.size_bytes += entry.size
                if entry.size > TINY_BYTES:
                    batch.is_tiny = False
            if entry.hardlink:
                linked.add(entry.hardlink)
                batch.is_tiny = False
            if len(batch.entries) >= _BATCH_FILES or batch.size_bytes >= _BATCH_BYTES:
                self._send(batch, merged.is_first)
                batch = _Batch()
        self._send(batch, merged.is_first)
        while self._pending:
            self._finish_one()
        if self._worker is not None:
            self.packs = self._worker.finish(self._reader.close_packs)

    def _send(self, batch: _Batch, is_first: bool) -> None:
        if batch.to_read:
            self._totals.read_files += len(batch.to_read)
            if batch.size_bytes >= len(batch.to_read) * TINY_BYTES:
                batch.written = self._pool.submit(self._reader.read_all, self._files, batch.to_read)
            elif not self._give(batch, is_first):
                self._totals.new_bytes += self._reader.read_tiny(self._files, batch.to_read)
        self._pending.append(batch)
        while len(self._pending) > _MOST_BATCHES or (self._pending and self._is_done(self._pending[0])):
            self._finish_one()

    def _is_done(self, batch: _Batch) -> bool:
        if batch.given:
            return self._worker is not None and self._worker.has_answer()
        return batch.written is None

    def _give(self, batch: _Batch, is_first: bool) -> bool:
        """Give a batch to the second process; return False if it is busy, or if there is none."""
        self._tiny += len(batch.to_read)
        if self._worker is None:
            if self._tiny < _WORKER_FILES or self._alone:
                return False
            self._worker = self._reader.start_worker(self._files)
            self._alone = self._worker is None
        if self._worker is None or self._worker.waiting >= _WORKER_BATCHES:
            return False
        if not batch.is_tiny or 2 * len(batch.to_read) < len(batch.entries):
            return False
        if is_first and self._by_name is None:
            self._by_name = True
        self._worker.give(order_of(batch.entries))
        batch.given = True
        batch.entries = batch.to_read = []  # the second process returns them as lines
        return True

    def _finish_one(self) -> None:
        self._finish(self._pending.popleft())
        self._check()
        self._progress(self._totals.size_bytes, None, "bytes")

    def _finish(self, batch: _Batch) -> None:
        """Write the entries of a batch once its contents are in the run."""
        if batch.written is not None:
            self._totals.new_bytes += batch.written.result()
        if batch.given:
            assert self._worker is not None
            answer = self._worker.take()
            self._totals.new_bytes += answer.written_bytes
            if not answer.left:
                self._count(answer.files, answer.size_bytes)
                self._writer.write_lines(answer.lines)
                return
            batch.entries = answer.entries()
            left = [entry for entry in batch.entries if entry.kind == "file" and not entry.sha256]
            if _LEFT_SHARE * len(left) > len(batch.entries):
                self._by_name = False  # looking once was not enough for too many of them
            self._totals.new_bytes += self._reader.read_all(self._files, left)
        for entry in batch.entries:
            if entry.hardlink and entry.kind == "file":
                self._link(entry)
        entries = [entry for entry in batch.entries if entry.kind != "gone"]
        self._count(len(entries), sum(entry.size for entry in entries))
        self._writer.write(entries)

    def _count(self, files: int, size_bytes: int) -> None:
        self._totals.files += files
        self._totals.size_bytes += size_bytes

    def _link(self, entry: Entry) -> None:
        """Give one name of a file the facts that were read under its first name."""
        if not entry.sha256 and entry.hardlink not in self._links:  # the name read first has vanished
            self._totals.new_bytes += self._reader.read(self._files, entry)
            if entry.kind == "gone":
                return
        first = self._links.setdefault(entry.hardlink, entry)
        entry.sha256, entry.size = first.sha256, first.size
        entry.sparse, entry.xattrs = first.sparse, first.xattrs
        entry.recent = entry.recent or first.recent
        self.linked.setdefault(entry.hardlink, []).append(entry)
