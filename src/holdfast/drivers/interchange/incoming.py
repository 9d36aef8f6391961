"""Files from elsewhere on their way into a dataset: the listing that the dataset is to have."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from holdfast.drivers.files.tree import Excludes, readable, scan
from holdfast.errors import RefusedError
from holdfast.model import Entry

_BLOCK_BYTES = 1 << 20


class Incoming:
    """Files that were unpacked into a folder, to be placed `below` a path of the dataset, with its owner."""

    def __init__(self, folder: Path, below: str, root: Path) -> None:
        self._folder = os.fsencode(folder)
        self._below = os.fsencode(below.strip("/"))
        if (
            any(part in (b"", b".", b"..") or part.startswith(b".holdfast") for part in self._below.split(b"/"))
            and below
        ):
            raise RefusedError(f"{below!r} is not a valid path below the dataset")
        status = root.stat()
        self._uid, self._gid = status.st_uid, status.st_gid

    def _parents(self) -> Iterator[Entry]:
        parts = self._below.split(b"/") if self._below else []
        for number in range(1, len(parts) + 1):
            yield self._owned(
                Entry("", "directory", "755", 0, 0, os.stat(self._folder).st_mtime_ns), b"/".join(parts[:number])
            )

    def _owned(self, entry: Entry, path: bytes) -> Entry:
        entry.path, entry.path_base64 = readable(path)
        entry.uid, entry.gid, entry.xattrs = self._uid, self._gid, {}
        return entry

    def entries(self) -> Iterator[Entry]:
        """Yield the entries in the order of a scan, each file with its digest."""
        yield from self._parents()
        prefix = self._below + b"/" if self._below else b""
        for entry in scan(self._folder, Excludes(())):
            inside = entry.raw_path()
            if entry.kind == "file":
                entry.sha256 = self._digest(inside)
            yield self._owned(entry, prefix + inside)

    def _digest(self, inside: bytes) -> str:
        with open(self._folder + b"/" + inside, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def fetch(self, entry: Entry, target: int) -> None:
        """Write the content of an incoming file."""
        inside = entry.raw_path()[len(self._below) + 1 :] if self._below else entry.raw_path()
        with open(self._folder + b"/" + inside, "rb") as file:
            while block := file.read(_BLOCK_BYTES):
                view = memoryview(block)
                while view:
                    view = view[os.write(target, view) :]

    def merged(self, live: Iterator[Entry], *, replace: bool) -> Iterator[Entry]:
        """Yield present and incoming entries in one order; where both have a path, the incoming one wins.

        A directory of both keeps its own mode and time. With `replace`, nothing that was below the path stays.
        """
        coming = self.entries()
        new = next(coming, None)
        root = self._below + b"/" if self._below else b""
        gone: bytes | None = None  # a present directory whose place an incoming file or link takes
        for old in live:
            path = old.raw_path()
            while new is not None and new.order() < old.order():
                gone = new.raw_path() + b"/" if new.kind != "directory" else gone
                yield new
                new = next(coming, None)
            if new is not None and new.raw_path() == path:
                keeps = new.kind == old.kind == "directory"
                gone = path + b"/" if new.kind != "directory" else gone
                yield old if keeps else new
                new = next(coming, None)
                continue
            if (gone is not None and path.startswith(gone)) or (replace and path.startswith(root)):
                continue
            yield old
        while new is not None:
            yield new
            new = next(coming, None)
