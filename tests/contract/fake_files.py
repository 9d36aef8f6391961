"""The fake of Files: a tree exchanged as a whole."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from holdfast.drivers.entries import Selection
from holdfast.drivers.protocols.files import Fetch, never
from holdfast.errors import RefusedError
from holdfast.model import Entry, Problem


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

    def look(self, chosen: Selection) -> Iterator[Entry]:
        return chosen.select(self.scan())

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

    def _with_the_rest(self, wanted: Iterable[Entry], within: Selection, fetch: Fetch) -> tuple[list[Entry], Fetch]:
        """The whole tree in which the chosen entries take the place of those that are there."""
        present = {entry.raw_path(): entry for entry in self.scan()}
        found = dict(present)
        for entry in wanted:
            path = entry.raw_path()
            if within.is_above(path) and path in present:
                if present[path].kind != "directory":
                    raise RefusedError(f"{entry.path} is a {present[path].kind} now")
                continue
            found[path] = entry
            if entry.kind != "directory":
                found = {other: one for other, one in found.items() if not other.startswith(path + b"/")}

        def fetch_any(entry: Entry, descriptor: int) -> None:
            if present.get(entry.raw_path()) is not entry:
                fetch(entry, descriptor)
                return
            os.write(descriptor, (self.root / entry.path).read_bytes())

        return sorted(found.values(), key=Entry.order), fetch_any

    def stage(
        self,
        token: str,
        wanted: Iterable[Entry],
        fetch: Fetch,
        check: Callable[[], None],
        within: Selection | None = None,
    ) -> int:
        if within is not None:
            wanted, fetch = self._with_the_rest(wanted, within, fetch)
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
