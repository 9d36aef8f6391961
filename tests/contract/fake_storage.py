"""The fakes of Files and Vault: a tree exchanged as a whole, sets in memory."""

from __future__ import annotations

import copy
import hashlib
import itertools
import os
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from holdfast.drivers.protocols.files import Fetch, Files, never
from holdfast.drivers.protocols.vaults import OpenSet, Progress
from holdfast.errors import DamagedError, NotFoundError, RefusedError
from holdfast.model import (
    Backup,
    Entry,
    Problem,
    Stored,
)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class FakeFiles:
    """A tree restored by building the wanted one whole and exchanging the content of the root."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def scan(self, by_name: Callable[[], bool] = never) -> Iterator[Entry]:
        return self._below(self.root) if self.root.is_dir() else iter(())

    def _below(self, folder: Path) -> Iterator[Entry]:
        for path in sorted(folder.iterdir(), key=lambda path: os.fsencode(path.name)):
            if path.name == ".holdfast":
                continue
            status = path.lstat()
            entry = Entry(
                path=str(path.relative_to(self.root)),
                kind="file",
                mode=f"{stat.S_IMODE(status.st_mode):o}",
                uid=status.st_uid,
                gid=status.st_gid,
                mtime_ns=status.st_mtime_ns,
                ctime_ns=status.st_ctime_ns,
                inode=status.st_ino,
            )
            if path.is_symlink():
                entry.kind, entry.target = "symlink", os.readlink(path)
            elif path.is_dir():
                entry.kind = "directory"
            else:
                entry.size = status.st_size
            yield entry
            if entry.kind == "directory":
                yield from self._below(path)

    def open(self, entry: Entry) -> int:
        return os.open(self.root / entry.path, os.O_RDONLY | os.O_NOFOLLOW)

    def complete(self, entry: Entry, descriptor: int) -> None:
        pass

    def watched(self) -> None:
        return None

    def for_worker(self) -> None:
        return None

    def refuse_mounts(self) -> None:
        pass

    def workspace(self, token: str) -> Path:
        folder = self._folder(token)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder

    def staged(self, token: str) -> bool:
        return (self._folder(token) / "new").is_dir()

    def _folder(self, token: str) -> Path:
        return self.root / ".holdfast" / token

    def stage(self, token: str, wanted: Iterable[Entry], fetch: Fetch, check: Callable[[], None]) -> int:
        new = self._folder(token) / "new"
        new.mkdir(parents=True)
        entries = list(wanted)
        for entry in entries:
            check()
            path = new / entry.path
            if entry.kind == "directory":
                path.mkdir()
            elif entry.kind == "symlink":
                path.symlink_to(entry.target)
            else:
                descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                try:
                    fetch(entry, descriptor)
                finally:
                    os.close(descriptor)
        for entry in reversed(entries):
            if entry.kind != "symlink":
                os.chmod(new / entry.path, int(entry.mode, 8))
            os.utime(new / entry.path, ns=(entry.mtime_ns, entry.mtime_ns), follow_symlinks=False)
        return len(entries)

    def _move(self, source: Path, target: Path) -> None:
        target.mkdir(exist_ok=True)
        for path in source.iterdir() if source.is_dir() else ():
            if path.name != ".holdfast":
                path.rename(target / path.name)

    def apply(self, token: str) -> None:
        folder = self._folder(token)
        if (folder / "new").is_dir() and not (folder / "placed").exists():
            self._move(self.root, folder / "old")
            (folder / "placed").touch()
            self._move(folder / "new", self.root)

    def revert(self, token: str) -> None:
        folder = self._folder(token)
        if (folder / "placed").exists():
            self._move(self.root, folder / "new")
            self._move(folder / "old", self.root)
            (folder / "placed").unlink()

    def discard(self, token: str) -> None:
        shutil.rmtree(self._folder(token), ignore_errors=True)

    def check(self) -> list[Problem]:
        return [] if self.root.is_dir() else [Problem("files", "warning", f"{self.root} does not exist")]


@dataclass
class FakeRun:
    """An unfinished set: listings and contents in memory, the folder of other files on disk."""

    vault: FakeVault
    id: str
    folder: Path
    listings: dict[str, list[Entry]] = field(default_factory=dict)
    manifest: Backup | None = None

    def store_tree(
        self, name: str, files: Files, *, keep_vanished: bool, check: Callable[[], None], progress: Progress
    ) -> Stored:
        totals, entries = Stored(), {}
        for entry in files.scan():
            check()
            if entry.kind == "file":
                descriptor = files.open(entry)
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

    def finish(self, manifest: Backup) -> None:
        manifest.files = {
            str(path.relative_to(self.folder)): {"size_bytes": path.stat().st_size, "sha256": sha256(path.read_bytes())}
            for path in sorted(self.folder.rglob("*"))
            if path.is_file()
        }
        self.manifest = manifest


class FakeVault:
    """Sets in memory; `contents` is by digest, as in the real ones."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.contents: dict[str, bytes] = {}
        self.runs: dict[str, FakeRun] = {}
        self.sets: dict[str, FakeRun] = {}
        self.broken: set[str] = set()
        self.pins: set[tuple[str, str]] = set()
        self._numbers = itertools.count(1)

    def begin(self, run: str) -> FakeRun:
        self.abandon(run)
        folder = self.path / "tmp" / run
        folder.mkdir(parents=True)
        self.runs[run] = FakeRun(self, run, folder)
        return self.runs[run]

    def resume(self, run: str) -> tuple[FakeRun, Backup]:
        manifest = self.open_run(run)[0]
        return self.runs[run], manifest

    def open_run(self, run: str) -> OpenSet:
        found = self.runs.get(run)
        if found is None or found.manifest is None:
            raise NotFoundError(f"the unfinished backup {run} is not in the vault")
        return copy.deepcopy(found.manifest), found.listing, self._fetch, found.folder

    def _fetch(self, entry: Entry, target: int) -> None:
        os.write(target, self.contents[entry.sha256])

    def run(self, run: str) -> FakeRun:
        return self.runs[run]

    def new_id(self) -> str:
        return f"2026-01-01-{next(self._numbers):06d}"

    def folder(self, id: str) -> Path:
        return self.path / "backups" / id

    def damaged(self) -> list[str]:
        return sorted(self.broken)

    def publish(self, run: str) -> str:
        for id, published in self.sets.items():
            if published.id == run:
                return id
        found = self.runs.get(run)
        if found is None or found.manifest is None:
            raise NotFoundError(f"the unfinished backup {run} is not in the vault")
        folder = self.folder(found.manifest.id)
        folder.parent.mkdir(exist_ok=True)
        self.sets[found.manifest.id] = replace(found, folder=found.folder.rename(folder))
        del self.runs[run]
        return found.manifest.id

    def abandon(self, run: str) -> None:
        if self.runs.pop(run, None) is not None:
            shutil.rmtree(self.path / "tmp" / run)

    def _manifest(self, id: str) -> Backup:
        if id not in self.sets:
            raise NotFoundError(f"there is no backup {id}")
        manifest = copy.deepcopy(self.sets[id].manifest)
        assert manifest is not None
        manifest.pinned = any(pinned == id for pinned, _ in self.pins)
        return manifest

    def backups(self) -> list[Backup]:
        found = [self._manifest(id) for id in self.sets if id not in self.broken]
        return sorted(found, key=lambda backup: backup.sequence)

    def _wrong(self, id: str) -> list[str]:
        wrong = [f"{id} is damaged"] if id in self.broken else []
        for name, facts in self._manifest(id).files.items():
            path = self.folder(id) / name
            if not path.is_file() or sha256(path.read_bytes()) != facts["sha256"]:
                wrong.append(f"{id}/{name} is damaged")
        entries = itertools.chain.from_iterable(self.sets[id].listings.values())
        wrong += [
            f"{id}: {entry.path}"
            for entry in entries
            if entry.kind == "file" and sha256(self.contents.get(entry.sha256, b"")) != entry.sha256
        ]
        return wrong

    def verify(self, id: str | None, progress: Progress, check: Callable[[], None]) -> list[str]:
        return [problem for known in self.sets if id in (None, known) for problem in self._wrong(known)]

    def open_set(self, id: str) -> OpenSet:
        manifest = self._manifest(id)
        wrong = self._wrong(id)
        if wrong:
            raise DamagedError("; ".join(wrong))
        return manifest, self.sets[id].listing, self._fetch, self.folder(id)

    def prune(self, remove: Sequence[str], run: str) -> Mapping[str, int]:
        if any(self._wrong(id) for id in self.sets):
            raise DamagedError("Pruning is refused while a backup is damaged")
        pinned = [id for id in remove if any(known == id for known, _ in self.pins)]
        if pinned:
            raise RefusedError(f"pinned backups are not removed: {', '.join(pinned)}")
        gone = [id for id in remove if self.sets.pop(id, None) is not None]
        for id in gone:
            shutil.rmtree(self.folder(id))
        used = {entry.sha256 for kept in self.sets.values() for part in kept.listings.values() for entry in part}
        dead = [digest for digest in self.contents if digest not in used]
        size = sum(len(self.contents.pop(digest)) for digest in dead)
        return {"removed": len(gone), "swept": len(dead), "size_bytes": size}

    def remove(self, id: str) -> None:
        if self.sets.pop(id, None) is not None:
            shutil.rmtree(self.folder(id))

    def pin(self, id: str, by: str, pinned: bool) -> None:
        if pinned:
            self._manifest(id)
            self.pins.add((id, by))
        else:
            self.pins.discard((id, by))
