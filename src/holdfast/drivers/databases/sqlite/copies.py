"""SQLite files next to the live one: put in place by rename, kept after a swap, handed over, removed.

Everything is decided by inode. Holdfast's own files are in one private folder, with a folder for each token.
"""

from __future__ import annotations

import os
from pathlib import Path

from holdfast.errors import RefusedError, StepError
from holdfast.system import durable
from holdfast.system.processes import open_descriptors

SIDE_FILES = ("-wal", "-shm", "-journal")


def identity(path: Path) -> str | None:
    """Return the inode as identity: a rename keeps it, a swap changes it.

    The device number is left out: it may change with a boot, and all files that are compared are on one filesystem.
    """
    try:
        return str(path.stat().st_ino)
    except FileNotFoundError:
        return None


def side_files(main: Path) -> list[str]:
    return [ending for ending in SIDE_FILES if Path(f"{main}{ending}").exists()]


class ShadowDatabases:
    def __init__(self, name: str, path: Path) -> None:
        """Take `name`, the dataset's, for messages, and `path`, that of the live file."""
        self._name = name
        self._path = path
        self.folder = path.parent / f".holdfast-{path.name}"

    def candidate(self, token: str) -> Path:
        return self.folder / token / "candidate"

    def open_handles(self) -> list[int]:
        """Return processes that hold the file open, as far as this user may look (proc(5) fd)."""
        try:
            wanted = self._path.stat()
        except FileNotFoundError:
            return []
        found = set()
        for pid, path in open_descriptors():
            try:
                status = os.stat(path)
            except OSError:  # closed meanwhile; the others of this process still count
                continue
            if (status.st_dev, status.st_ino) == (wanted.st_dev, wanted.st_ino):
                found.add(pid)
        return sorted(found)

    def refuse_open(self) -> None:
        handles = self.open_handles()
        if handles:
            named = ", ".join(f"{pid} ({_command(pid)})" for pid in handles)
            raise RefusedError(
                f"database {self._name} is still open in process {named}",
                next_step="Stop that process, or make it a service of the application, then run the command again.",
            )

    def find(self, wanted: str) -> Path:
        """Return the candidate or replaced file that has this identity. Raise StepError."""
        for folder in self._folders():
            for name in ("candidate", self._path.name):
                if identity(folder / name) == wanted:
                    return folder / name
        raise StepError(f"database {self._name}: the file {wanted} is gone")

    def swap(self, wanted: str | None, aside: str) -> None:
        present = identity(self._path)
        if present is not None and present == wanted:
            self._bring_side_files()
            return
        found = self.find(wanted) if wanted is not None else None
        self.refuse_open()
        if present is not None:
            self._move_aside(aside)
        elif side_files(self._path) and (found is None or found.name != self._path.name or side_files(found)):
            self._follow_aside(aside)
        if found is not None:
            durable.rename(found, self._path)
            self._move_side_files(found, self._path)
        durable.sync_directory(self._path.parent)

    # A `-wal` or `-journal` belongs to one file. The main file always moves first, so that after a kill between two
    # renames the owner of side files is known: side files in place without a main file belong to the file that was
    # replaced last, those in a folder without a main file belong to the file that left that folder.

    def _move_side_files(self, source: Path, target: Path) -> None:
        for ending in side_files(source):
            durable.move(f"{source}{ending}", f"{target}{ending}")

    def _bring_side_files(self) -> None:
        for folder in self._folders():
            main = folder / self._path.name
            if not main.exists() and side_files(main):
                self._move_side_files(main, self._path)
                durable.sync_directory(self._path.parent)

    def _follow_aside(self, aside: str) -> None:
        """Move side files after the main file from which a kill separated them; others are kept on their own."""
        mains = [folder / self._path.name for folder in self._folders() if (folder / self._path.name).exists()]
        alone = [main for main in mains if not side_files(main)]
        if alone:
            self._move_side_files(self._path, max(alone, key=lambda main: main.parent.stat().st_mtime_ns))
            return
        durable.make_directory(self.folder / aside)
        self._move_side_files(self._path, self.folder / aside / "stray")

    def _folders(self) -> list[Path]:
        return sorted(path for path in self.folder.iterdir() if path.is_dir()) if self.folder.is_dir() else []

    def _move_aside(self, aside: str) -> None:
        folder = self.folder / aside
        number = 1
        while (folder / self._path.name).exists():
            number += 1
            folder = self.folder / f"{aside}.{number}"
        durable.make_directory(folder)
        durable.move(self._path, folder / self._path.name)
        self._move_side_files(self._path, folder / self._path.name)
        durable.sync_directory(folder)
        durable.sync_directory(self._path.parent)

    def tokens(self) -> list[str]:
        return [folder.name for folder in self._folders()]

    def hand_over(self, token: str, name: str, rehearsal: bool) -> None:
        """Rename the candidate to the path `name`. Raise RefusedError."""
        candidate, target = self.candidate(token), Path(name)
        if not candidate.exists():
            return
        if target.exists():
            raise RefusedError(f"{target} exists already")
        if not os.access(target.parent, os.W_OK) or target.parent.stat().st_dev != candidate.stat().st_dev:
            raise RefusedError(f"{target.parent} is not a writable folder on this filesystem")
        if not rehearsal:
            durable.rename(candidate, target)

    def discard(self, token: str) -> None:
        if not self.folder.is_dir():
            return
        for folder in self.folder.iterdir():
            if folder.name == token or folder.name.startswith(f"{token}."):
                durable.remove_tree(folder)


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()[:60]
    except OSError:
        return "gone"
