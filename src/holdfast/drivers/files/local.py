"""Files on a local filesystem: modes, owners, symlinks, hard links, extended attributes, holes, any name."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from holdfast import durable
from holdfast.drivers.files import moves, tree
from holdfast.drivers.protocols import Fetch, never
from holdfast.errors import RefusedError
from holdfast.host import Host
from holdfast.model import Entry, Problem

_BLOCK_BYTES = 1 << 20
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
_LEAST_HOLE_BYTES = 4096
_REPLACED = (errno.ELOOP, errno.ENOTDIR, errno.ENXIO)  # by a symlink, above it by a file, by a socket


class LocalFiles:
    def __init__(self, name: str, root: Path, excludes: Sequence[str] = (), host: Host | None = None) -> None:
        """Without a host everything happens in this process."""
        self._host = host
        self.name = name
        self.root = root
        self._bytes = os.fsencode(root)
        self._prefix = self._bytes + b"/"
        self._patterns = list(excludes)
        self._excludes = tree.Excludes(excludes)
        self._private = root / ".holdfast"

    def scan(self, by_name: Callable[[], bool] = never) -> Iterator[Entry]:
        if not self.root.is_dir():
            return iter(())
        return tree.scan(self._bytes, self._excludes, by_name)

    def open(self, entry: Entry) -> int:
        try:
            return os.open(self._prefix + entry.raw_path(), _READ)
        except OSError as error:
            if error.errno in _REPLACED:
                raise FileNotFoundError(error.errno, f"{entry.path} is no file any more") from error
            raise

    def complete(self, entry: Entry, descriptor: int) -> None:
        entry.xattrs = tree.read_xattrs(descriptor)
        if entry.size <= _LEAST_HOLE_BYTES:
            return
        status = os.fstat(descriptor)
        entry.sparse = tree.data_segments(descriptor, status.st_size) if status.st_blocks * 512 < status.st_size else []

    def for_worker(self) -> LocalFiles:
        return LocalFiles(self.name, self.root, self._patterns)

    def _digest(self, entry: Entry) -> str:
        digest = hashlib.sha256()
        descriptor = self.open(entry)
        try:
            while block := os.read(descriptor, _BLOCK_BYTES):
                digest.update(block)
        finally:
            os.close(descriptor)
        return digest.hexdigest()

    def _keeps(self, directory: bytes) -> bool:
        """Whether something below a directory is no part of the dataset, as a database: it must stay where it is."""
        for folder, directories, names in os.walk(self._bytes + b"/" + directory):
            below = folder[len(self._bytes) + 1 :]
            if any(tree.left_out(name, below + b"/" + name, self._excludes) for name in (*directories, *names)):
                return True
        return False

    def _folder(self, token: str) -> Path:
        return self._private / token

    def stage(self, token: str, wanted: Iterable[Entry], fetch: Fetch, check: Callable[[], None]) -> int:
        folder = self._folder(token)
        if (folder / "moves.jsonl").exists():
            raise RefusedError(f"{folder} holds the moves of this operation already")
        if folder.exists():  # an earlier attempt that died while it staged; nothing of it was moved
            durable.remove_tree(folder)
        durable.make_directory(self.root, 0o755)
        for part in ("stage", "aside"):
            durable.make_directory(folder / part)
        return moves.Stager(self._bytes, folder, fetch, self._digest, check, self._keeps, self._host).run(
            self.scan(), wanted
        )

    def apply(self, token: str) -> None:
        if (self._folder(token) / "moves.jsonl").exists():
            moves.apply_moves(self._bytes, self._folder(token))

    def revert(self, token: str) -> None:
        if (self._folder(token) / "moves.jsonl").exists():
            moves.revert_moves(self._bytes, self._folder(token))

    def discard(self, token: str) -> None:
        """Also of later attempts, which carry the token with a number behind it."""
        if not self._private.is_dir():
            return
        for folder in self._private.iterdir():
            if folder.name == token or folder.name.startswith(f"{token}."):
                # First: taking moves back again, with some of what they staged gone, would take originals away.
                durable.unlink(folder / "moves.jsonl")
                durable.remove_tree(folder)

    def check(self) -> list[Problem]:
        if not self.root.exists():
            return [Problem(f"files.{self.name}", "warning", f"{self.root} does not exist",
                            "It is made by `holdfast install`, or correct `path`.")]  # fmt: skip
        if not os.access(self.root, os.R_OK | os.W_OK | os.X_OK):
            return [Problem(f"files.{self.name}", "error", f"{self.root} cannot be read and written by this user",
                            f"Run Holdfast as the owner of {self.root} or as root.")]  # fmt: skip
        name = durable.network_filesystem(self.root)
        if name is not None:
            return [Problem(f"files.{self.name}", "warning", f"{self.root} lies on a network filesystem ({name})",
                            "Its fsync is the server's promise; keep the vault elsewhere.")]  # fmt: skip
        return []
