"""A saved copy of a folder, put back by difference beneath what runs in it."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from pathlib import Path

_Look = tuple[int, ...]


def _is_socket_name(name: str) -> bool:
    """Servers that run on are reached by their sockets, so these are neither saved nor removed."""
    return name.endswith(".sock")


def _look(status: os.stat_result) -> _Look:
    """Return what changes whenever a file or a link is written, replaced or given other rights.

    The change time cannot be set by any program, so an equal look means an untouched file.
    """
    return (
        status.st_mode,
        status.st_uid,
        status.st_gid,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
        status.st_ino,
    )


class Snapshot:
    """Keeps a copy of `folder` in `copy`, and what the folder's files looked like when both were last equal."""

    def __init__(self, folder: Path, copy: Path) -> None:
        self.folder = folder
        self.copy = copy
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(folder, copy, symlinks=True, ignore=shutil.ignore_patterns("*.sock"))
        self.containers: object = None  # what ran in containers when it was last put back
        self._known: dict[str, _Look] = {}
        self._remember("")

    def _remember(self, inner: str) -> None:
        with os.scandir(self.folder / inner) as entries:
            for entry in entries:
                name = os.path.join(inner, entry.name)
                if entry.is_dir(follow_symlinks=False):
                    self._remember(name)
                else:
                    self._known[name] = _look(entry.stat(follow_symlinks=False))

    def put_back(self) -> None:
        """Make the folder what it was: untouched files stay as they are, all others are replaced or removed."""
        self._put_back("")

    def _put_back(self, inner: str) -> None:
        here, there = self.folder / inner, self.copy / inner
        with os.scandir(there) as entries:
            wanted = {entry.name: entry for entry in entries}
        with os.scandir(here) as entries:
            found = {entry.name: entry for entry in entries}
        for name in found.keys() - wanted.keys():
            self._remove(found[name])
        for name, entry in wanted.items():
            path = os.path.join(inner, name)
            present = found.get(name)
            if entry.is_dir(follow_symlinks=False):
                if present is None or not present.is_dir(follow_symlinks=False):
                    if present is not None:
                        os.unlink(present.path)
                    os.mkdir(self.folder / path)
                self._put_back(path)
            else:
                self._put_back_file(path, present)
        wanted_status, status = os.stat(there), os.stat(here)
        if (stat.S_IMODE(status.st_mode), status.st_mtime_ns) != (
            stat.S_IMODE(wanted_status.st_mode),
            wanted_status.st_mtime_ns,
        ):
            shutil.copystat(there, here)

    def _put_back_file(self, path: str, present: os.DirEntry[str] | None) -> None:
        target = self.folder / path
        if present is not None:
            if not present.is_dir(follow_symlinks=False) and self._known.get(path) == _look(
                present.stat(follow_symlinks=False)
            ):
                return
            self._remove(present)
        shutil.copy2(self.copy / path, target, follow_symlinks=False)
        self._known[path] = _look(os.lstat(target))

    def _remove(self, entry: os.DirEntry[str]) -> None:
        if not entry.is_dir(follow_symlinks=False):
            if not _is_socket_name(entry.name):
                os.unlink(entry.path)
            return
        os.chmod(entry.path, 0o700)
        with os.scandir(entry.path) as entries:
            for inner in list(entries):
                self._remove(inner)
        with contextlib.suppress(OSError):  # a socket stands in it
            os.rmdir(entry.path)

    @property
    def label(self) -> str:
        """Return what tells it from others of the same folder."""
        return self.copy.suffix.removeprefix(".")
