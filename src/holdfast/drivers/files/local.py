"""Files on a local filesystem: modes, owners, symlinks, hard links, extended attributes, holes, any name."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from holdfast.drivers.entries import Selection
from holdfast.drivers.files import moves, tree
from holdfast.drivers.files.watch import TreeWatch
from holdfast.drivers.protocols.files import Fetch, never
from holdfast.errors import RefusedError, StepError
from holdfast.model import Entry, Problem
from holdfast.system import durable
from holdfast.system.confined import Beneath, open_private, place_of
from holdfast.system.host import Host

_BLOCK_BYTES = 1 << 20
_ESCAPED = re.compile(rb"\\([0-7]{3})")  # the form of blanks in proc(5) mountinfo
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
_LEAST_HOLE_BYTES = 4096
_REPLACED = (errno.ELOOP, errno.ENOTDIR, errno.ENXIO)  # by a symlink, by a file above it, by a socket


class LocalFiles:
    def __init__(
        self, name: str, root: Path, excludes: Sequence[str] = (), host: Host | None = None, records: Path | None = None
    ) -> None:
        """Do everything in this process where there is no host.

        `records` is a folder where no other account can write, for the lists by which an undo works; without one they
        are kept with the staged files.
        """
        self._host = host
        self.name = name
        self.root = root
        self._tree: Beneath | None = None
        self._own: int | None = None
        self._records = records
        self._patterns = list(excludes)
        self._excludes = tree.Excludes(excludes)
        self._private = root / ".holdfast"

    def close(self) -> None:
        """Close the tree's directories; they are opened again when they are needed."""
        self._forget()
        if self._own is not None:
            os.close(self._own)
            self._own = None

    def __del__(self) -> None:
        self.close()

    def __reduce__(self) -> tuple[type[LocalFiles], tuple[object, ...]]:
        return LocalFiles, (self.name, self.root, self._patterns)

    def _forget(self) -> None:
        if self._tree is not None:
            self._tree.close()
            self._tree = None

    def scan(self, by_name: Callable[[], bool] = never) -> Iterator[Entry]:
        if not self.root.is_dir():
            return iter(())
        return tree.scan(os.fsencode(self.root), self._excludes, by_name)

    def look(self, chosen: Selection) -> Iterator[Entry]:
        if not self.root.is_dir():
            return
        with Beneath(self.root) as own:
            for path, below in chosen.lookups():
                if path:
                    yield from tree.look(own, path, self._excludes, below=below)
                else:
                    yield from tree.scan_below(own, path, self._excludes)

    def watched(self) -> TreeWatch | None:
        try:
            return TreeWatch(self.root, self._excludes, self.mounts)
        except OSError:
            return None

    def open(self, entry: Entry) -> int:
        path = entry.raw_path()
        try:
            if self._tree is not None:
                # Its open directories may be outdated, so an error or another inode leads to a second attempt.
                with contextlib.suppress(OSError):
                    descriptor = self._tree.open(path, _READ)
                    if entry.inode in (0, os.fstat(descriptor).st_ino):
                        return descriptor
                    os.close(descriptor)
                self._forget()
            self._tree = Beneath(self.root)
            if self._host is not None and self._host.operation is not None:
                self._host.at_leave(self._forget)
            return self._tree.open(path, _READ)
        except OSError as error:
            if error.errno in _REPLACED:
                raise FileNotFoundError(error.errno, f"{entry.path} is not a file any more") from error
            error.filename = os.fspath(self.root / os.fsdecode(path))
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
        """Return whether a directory contains entries outside of the dataset, for example a database: it must stay."""
        with Beneath(self.root) as own:
            return tree.holds_left_out(own, directory, self._excludes)

    def _staging(self, *, create: bool = False) -> Path | None:
        """Return a path to the private folder that others cannot redirect; None where there is none.

        Raise RefusedError.
        """
        if self._own is None or not _is_at(self._own, self._private):
            if self._own is not None:
                os.close(self._own)
                self._own = None
            try:
                self._own = open_private(self._private, create=create)
            except FileNotFoundError as error:
                if create:
                    raise StepError(f"{self._private} was removed while it was created") from error
                return None
        return Path(place_of(self._own))

    def workspace(self, token: str) -> Path:
        durable.make_directory(self.root, 0o755)
        place = self._staging(create=True)
        assert place is not None
        folder = place / token
        durable.remove_tree(folder)
        durable.make_directory(folder)
        return folder

    def _record(self, token: str) -> Path | None:
        """Return the folder of the list of moves; None where it would be in a private folder that does not exist."""
        place = self._records or self._staging()
        return place / token if place is not None else None

    def staged(self, token: str) -> bool:
        record = self._record(token)
        return record is not None and (record / moves.LIST).exists()

    def stage(
        self,
        token: str,
        wanted: Iterable[Entry],
        fetch: Fetch,
        check: Callable[[], None],
        within: Selection | None = None,
    ) -> int:
        if self.staged(token):
            raise RefusedError(f"{self.root} already has staged moves of this operation")
        folder = self.workspace(token)  # this removes what an interrupted attempt had staged
        for part in ("stage", "aside"):
            durable.make_directory(folder / part)
        record = self._records / token if self._records is not None else folder
        durable.make_directory(record)
        with Beneath(self.root) as own:
            stager = moves.Stager(own, folder, record, fetch, self._digest, check, self._keeps, self._host, within)
            return stager.run(self.scan() if within is None else self.look(within), wanted)

    def apply(self, token: str) -> None:
        if self.staged(token):
            self._carry_out(token, moves.apply_moves)

    def revert(self, token: str) -> None:
        if self.staged(token):
            self._carry_out(token, moves.revert_moves)

    def _carry_out(self, token: str, moving: Callable[[Beneath, Path, Path], None]) -> None:
        """Carry out or undo moves. Raise StepError where the staged files have been replaced."""
        record, place = self._record(token), self._staging()
        assert record is not None
        if place is None or moves.place_recorded(record) != moves.identity(place / token):
            raise StepError(
                f"{self._private / token} is gone or was replaced,"
                f" so the replaced files of {self.root} cannot be found",
                next_step=f"Look for a folder {token} below {self.root.parent} and put it back,"
                " then run: holdfast recover",
            )
        with Beneath(self.root) as own:
            moving(own, place / token, record)

    def discard(self, token: str) -> None:
        """Remove staged and replaced files, also those of later attempts, whose token has a number appended."""
        # The lists go first: undoing moves again, after some of the staged files are gone, would remove originals.
        for place in dict.fromkeys((self._records, self._staging())):
            if place is None or not place.is_dir():
                continue
            for folder in place.iterdir():
                if folder.name == token or folder.name.startswith(f"{token}."):
                    durable.unlink(folder / moves.LIST)
                    durable.remove_tree(folder)

    def mounts(self) -> list[Path]:
        """Return the mount points inside of the tree that belong to the dataset."""
        root = os.fsencode(os.path.realpath(self.root))
        found = []
        for line in Path("/proc/self/mountinfo").read_bytes().splitlines():
            place = _ESCAPED.sub(lambda match: bytes([int(match[1], 8)]), line.split(b" ")[4])
            inside = place.removeprefix(root + b"/")
            parts = inside.split(b"/")
            paths = [b"/".join(parts[: number + 1]) for number in range(len(parts))]
            if inside != place and not any(
                tree.left_out(os.path.basename(path), path, self._excludes) for path in paths
            ):
                found.append(Path(os.fsdecode(place)))
        return found

    def refuse_mounts(self) -> None:
        """Raise RefusedError for a mount in the tree, because renames cannot cross filesystems."""
        for place in self.mounts():
            raise RefusedError(
                f"{place} is a mount inside {self.root}; changes there could not be undone",
                next_step=_advice_on_mounts(self.name, place),
            )

    def check(self) -> list[Problem]:
        if not self.root.exists():
            return [
                Problem(
                    f"files.{self.name}",
                    "warning",
                    f"{self.root} does not exist",
                    "Run `holdfast install`, which creates it, or correct `path`.",
                )
            ]
        if not os.access(self.root, os.R_OK | os.W_OK | os.X_OK):
            return [
                Problem(
                    f"files.{self.name}",
                    "error",
                    f"{self.root} cannot be read and written by this user",
                    f"Run Holdfast as the owner of {self.root} or as root.",
                )
            ]
        if mounts := self.mounts():
            return [
                Problem(
                    f"files.{self.name}",
                    "warning",
                    f"{mounts[0]} is a mount inside {self.root}",
                    _advice_on_mounts(self.name, mounts[0]),
                )
            ]
        name = durable.network_filesystem(self.root)
        if name is not None:
            return [
                Problem(
                    f"files.{self.name}",
                    "warning",
                    f"{self.root} is on a network filesystem ({name})",
                    "Keep the vault elsewhere: only the file server decides when written data is durable.",
                )
            ]
        return []


def _advice_on_mounts(name: str, place: Path) -> str:
    return (
        f'Make it a dataset of its own: [files.{place.name}] with path = "{place}", and exclude it from [files.{name}];'
        " or only exclude it, if it can be rebuilt."
    )


def _is_at(descriptor: int, path: Path) -> bool:
    """Return whether a path still leads to an open directory."""
    try:
        there = path.stat()
    except OSError:
        return False
    status = os.fstat(descriptor)
    return (status.st_dev, status.st_ino) == (there.st_dev, there.st_ino)
