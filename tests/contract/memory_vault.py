"""A vault in memory: no path of this machine leads to it, as to one on another machine."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import io
import itertools
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO

import msgspec

from holdfast.drivers.entries import PathFilter
from holdfast.drivers.protocols.files import Files
from holdfast.drivers.protocols.vaults import Capabilities, Progress
from holdfast.errors import DamagedError, NotFoundError, RefusedError
from holdfast.model import Backup, Entry, Stored


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@dataclass
class MemoryRun:
    """An unfinished backup."""

    vault: MemoryVault
    id: str
    listings: dict[str, list[Entry]] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    manifest: Backup | None = None

    def store_tree(
        self, name: str, files: Files, *, keep_vanished: bool, check: Callable[[], None], progress: Progress
    ) -> Stored:
        totals, entries = Stored(), {}
        for entry in files.scan():
            check()
            if entry.kind == "file":
                try:
                    descriptor = files.open(entry)
                except FileNotFoundError:
                    continue  # it vanished after its folder was read
                with os.fdopen(descriptor, "rb", closefd=True) as file:
                    files.complete(entry, descriptor)
                    content = file.read()
                entry.size, entry.sha256 = len(content), sha256(content)
                totals.new_bytes += 0 if entry.sha256 in self.vault.contents else len(content)
                self.vault.contents[entry.sha256] = content
            entries[entry.raw_path()] = entry
        if keep_vanished:
            entries = {**{entry.raw_path(): entry for entry in self.listings.get(name, [])}, **entries}
        self.listings[name] = sorted(entries.values(), key=Entry.order)
        totals.files, totals.size_bytes = len(entries), sum(entry.size for entry in entries.values())
        totals.read_files = sum(entry.kind == "file" for entry in entries.values())
        progress(totals.size_bytes, None, "bytes")
        return totals

    def read_tree(
        self, name: str, files: Files, *, keep_vanished: bool, check: Callable[[], None], progress: Progress
    ) -> Callable[[], Stored]:
        totals = self.store_tree(name, files, keep_vanished=keep_vanished, check=check, progress=progress)
        return lambda: totals

    def listing(self, name: str) -> Iterator[Entry]:
        return iter(copy.deepcopy(self.listings[name]))

    def choose(self, name: str, listing: Iterator[Entry]) -> None:
        self.listings[name] = list(listing)

    @contextmanager
    def write(self, name: str) -> Iterator[IO[bytes]]:
        file = io.BytesIO()
        yield file
        self.files[name] = file.getvalue()

    def remove(self, name: str) -> None:
        for file in [file for file in self.files if name in (file, file.partition("/")[0])]:
            del self.files[file]

    def size_of(self, name: str) -> int:
        found = [len(content) for file, content in self.files.items() if name in (file, file.partition("/")[0])]
        if not found:
            raise FileNotFoundError(name)
        return sum(found)

    def place_of(self, name: str) -> None:
        return None

    def link(self, name: str, id: str) -> None:
        raise AssertionError("the vault says that it has no links")

    def finish(self, manifest: Backup) -> None:
        manifest.files = {
            name: {"size_bytes": len(content), "sha256": sha256(content)}
            for name, content in sorted(self.files.items())
        }
        self.manifest = copy.deepcopy(manifest)


class MemoryBackup:
    def __init__(self, run: MemoryRun, manifest: Backup, only: Collection[str] | None = None) -> None:
        self._run = run
        self._only = only
        self.manifest = manifest

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("only this process can read it")

    def manifest_text(self) -> bytes:
        return msgspec.json.encode(self.manifest)

    def listing(self, name: str) -> Iterator[Entry]:
        return self._run.listing(name)

    def entries(self, name: str, chosen: PathFilter) -> Iterator[Entry]:
        return chosen.select(self.listing(name))

    def fetch(self, entry: Entry, descriptor: int) -> None:
        content = self._run.vault.contents.get(entry.sha256, b"")
        if sha256(content) != entry.sha256:
            raise DamagedError(f"the content of {entry.path} is damaged")
        view = memoryview(content)
        while view:
            view = view[os.write(descriptor, view) :]

    def open(self, name: str) -> IO[bytes]:
        assert self._only is None or name in self._only
        if name not in self._run.files:
            raise DamagedError(f"{name} is gone")
        return io.BytesIO(self._run.files[name])

    def place_of(self, name: str) -> None:
        return None


class MemoryVault:
    """Backups in memory; `contents` is by digest, as in the real ones."""

    kind = "memory"
    location = "this process"
    capabilities = Capabilities()

    def __init__(self) -> None:
        self.contents: dict[str, bytes] = {}
        self.runs: dict[str, MemoryRun] = {}
        self.sets: dict[str, MemoryRun] = {}
        self.broken: set[str] = set()
        self.pins: set[tuple[str, str]] = set()
        self._numbers = itertools.count(1)

    def exists(self) -> bool:
        return True

    def create_or_open(self) -> None:
        """It is there as long as this object is."""

    def free_bytes(self) -> None:
        return None

    def begin(self, run: str) -> MemoryRun:
        self.runs[run] = MemoryRun(self, run)
        return self.runs[run]

    def resume(self, run: str) -> tuple[MemoryRun, Backup]:
        manifest = self.open_run(run).manifest
        return self.runs[run], manifest

    def open_run(self, run: str) -> MemoryBackup:
        found = self.runs.get(run)
        if found is None or found.manifest is None:
            raise NotFoundError(f"the unfinished backup {run} is not in the vault")
        return MemoryBackup(found, copy.deepcopy(found.manifest))

    def run(self, run: str) -> MemoryRun:
        return self.runs[run]

    def new_id(self) -> str:
        return f"2026-01-01-{next(self._numbers):06d}"

    def damaged(self) -> list[str]:
        return sorted(self.broken)

    def publish(self, run: str) -> str:
        for id, published in self.sets.items():
            if published.id == run:
                return id
        found = self.runs.get(run)
        if found is None or found.manifest is None:
            raise NotFoundError(f"the unfinished backup {run} is not in the vault")
        self.sets[found.manifest.id] = self.runs.pop(run)
        return found.manifest.id

    def abandon(self, run: str) -> None:
        with contextlib.suppress(KeyError):
            del self.runs[run]

    def _manifest(self, id: str) -> Backup:
        if id not in self.sets:
            raise NotFoundError(f"there is no backup {id}")
        manifest = copy.deepcopy(self.sets[id].manifest)
        assert manifest is not None
        manifest.pinned = any(pinned == id for pinned, _ in self.pins)
        return manifest

    def backups(self) -> list[Backup]:
        return sorted(map(self._manifest, self.sets), key=lambda backup: backup.sequence)

    def _wrong(self, id: str, only: Collection[str] | None = None) -> list[str]:
        stored = self.sets[id]
        wrong = [
            f"{id}/{name} is damaged"
            for name, facts in self._manifest(id).files.items()
            if (only is None or name in only) and sha256(stored.files.get(name, b"")) != facts["sha256"]
        ]
        entries = itertools.chain.from_iterable(stored.listings.values()) if only is None else ()
        wrong += [
            f"{id}: {entry.path}"
            for entry in entries
            if entry.kind == "file" and sha256(self.contents.get(entry.sha256, b"")) != entry.sha256
        ]
        return wrong

    def verify(self, id: str | None, progress: Progress, check: Callable[[], None]) -> list[str]:
        return [problem for known in self.sets if id in (None, known) for problem in self._wrong(known)]

    def open_set(self, id: str, only: Collection[str] | None = None) -> MemoryBackup:
        manifest = self._manifest(id)
        wrong = self._wrong(id, only)
        if wrong:
            raise DamagedError("; ".join(wrong))
        return MemoryBackup(self.sets[id], manifest, only)

    def check_prune(self, remove: Sequence[str]) -> None:
        if any(self._wrong(id) for id in self.sets):
            raise DamagedError("pruning is refused while a backup is damaged")
        self._refuse_pinned(remove)

    def _refuse_pinned(self, remove: Sequence[str]) -> None:
        pinned = [id for id in remove if any(known == id for known, _ in self.pins)]
        if pinned:
            raise RefusedError(f"pinned backups are not removed: {', '.join(pinned)}")

    def prune(self, remove: Sequence[str], run: str) -> Mapping[str, int]:
        self._refuse_pinned(remove)
        gone = [id for id in remove if self.sets.pop(id, None) is not None]
        used = {entry.sha256 for kept in self.sets.values() for part in kept.listings.values() for entry in part}
        dead = [digest for digest in self.contents if digest not in used]
        size = sum(len(self.contents.pop(digest)) for digest in dead)
        return {"removed": len(gone), "swept": len(dead), "size_bytes": size}

    def remove(self, id: str) -> None:
        self.sets.pop(id, None)

    def pin(self, id: str, by: str, pinned: bool) -> None:
        if pinned:
            self._manifest(id)
            self.pins.add((id, by))
        else:
            self.pins.discard((id, by))
