"""Protocols of vaults, which keep backups. Streams, names and facts pass between a vault and steps, never its paths.

A backup consists of listings and contents of trees, and of files of its own: dumps, code, configuration. The name of
such a file has one part, or two where a dump is a folder.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, Protocol

import msgspec

from holdfast.drivers.entries import PathFilter
from holdfast.drivers.protocols.files import Files
from holdfast.model import Backup, Entry, Stored

Progress = Callable[[int, int | None, str], None]
"""Report the amount done, the total if known, and the unit (`bytes` or `files`)."""


class Capabilities(msgspec.Struct, frozen=True):
    """What a vault can do beyond streams, and what it needs of this machine. A remote vault has the defaults."""

    folder: Path | None = None
    """The folder of this machine in which it keeps everything: it takes room there, and nothing else may be in it."""
    in_place: bool = False
    """Whether programs can read and write a backup's files where the vault keeps them, by `place_of`."""
    links: bool = False
    """Whether a file of an earlier backup can be used in a new one without being stored again, by `link`."""


class VaultRun(Protocol):
    """An unfinished backup in the vault; invisible until published."""

    id: str

    # --- trees of files

    def store_tree(
        self, name: str, files: Files, *, keep_vanished: bool, check: Callable[[], None], progress: Progress
    ) -> Stored:
        """Store a tree; a second call stores what changed since and replaces the backup's listing."""

    def read_tree(
        self, name: str, files: Files, *, keep_vanished: bool, check: Callable[[], None], progress: Progress
    ) -> Callable[[], Stored]:
        """Read a tree as `store_tree` does; the returned function does the work that remains after reading.

        That work grows with the tree. Reading again takes time in proportion to what changed, where changes are
        reported.
        """

    def listing(self, name: str) -> Iterator[Entry]:
        """Return the listing as stored so far."""

    def choose(self, name: str, listing: Iterator[Entry]) -> None:
        """Replace a listing, for example where a row means an earlier version of a file."""

    # --- the backup's own files

    def write(self, name: str) -> AbstractContextManager[IO[bytes]]:
        """Open a new file of the backup for writing.

        It exists once the block has ended without an error, and replaces an earlier one of that name.
        """

    def remove(self, name: str) -> None:
        """Remove a file, or a folder of files. Idempotent."""

    def size_of(self, name: str) -> int:
        """Return the bytes of a file, or of the files of a folder. Raise FileNotFoundError."""

    def place_of(self, name: str) -> Path | None:
        """Return where programs write a file, or a folder of files; None for a vault that is not `in_place`."""

    def link(self, name: str, id: str) -> None:
        """Use the file of that name of a published backup in this one, too, in a vault with `links`."""

    def finish(self, manifest: Backup) -> None:
        """Write sums and manifest and make everything durable; the backup is complete but not yet listed."""


class StoredBackup(Protocol):
    """A backup, or a run that is finished but not published, opened for reading."""

    @property
    def manifest(self) -> Backup: ...

    def manifest_text(self) -> bytes:
        """Return the manifest as the vault keeps it."""

    def listing(self, name: str) -> Iterator[Entry]:
        """Return the listing of a files dataset. Raise DamagedError."""

    def entries(self, name: str, chosen: PathFilter) -> Iterator[Entry]:
        """Return the chosen entries of a listing; a vault reads no more of it than it must. Raise DamagedError."""

    def fetch(self, entry: Entry, descriptor: int) -> None:
        """Write the content of a listed file to an open descriptor. Raise DamagedError if its digest differs.

        Where pickle takes this method, a second process of Holdfast reads contents at the same time.
        """

    def open(self, name: str) -> IO[bytes]:
        """Open one of the backup's own files for reading. Raise DamagedError where it is gone."""

    def place_of(self, name: str) -> Path | None:
        """Return where programs read a file, or a folder of files; None for a vault that is not `in_place`."""


class Vault(Protocol):
    """The place in which backups are kept. A backup exists once published, and only complete."""

    @property
    def kind(self) -> str: ...

    @property
    def location(self) -> str:
        """Return what opens it again together with its kind and its owner."""

    @property
    def capabilities(self) -> Capabilities: ...

    def exists(self) -> bool:
        """Return whether the vault is there; it is made with the first backup."""

    def create_or_open(self) -> None:
        """Make the vault if it is not there yet. Raise OwnerMismatchError, DamagedError, RefusedError."""

    def free_bytes(self) -> int | None:
        """Return the room that is left in it; None where it is not known."""

    def begin(self, run: str) -> VaultRun:
        """Open an unfinished backup under a run id, replacing an earlier attempt of that id."""

    def resume(self, run: str) -> tuple[VaultRun, Backup]:
        """Return a finished run that is not published, and its manifest.

        It can be added to and finished again any number of times. Raise NotFoundError or DamagedError.
        """

    def run(self, run: str) -> VaultRun:
        """Return an unfinished backup begun by this process. Raise KeyError."""

    def new_id(self) -> str:
        """Return a new backup id, made from the UTC time, that no other backup has."""

    def damaged(self) -> list[str]:
        """Return the ids of backups whose manifest does not verify: they are never listed and never pruned."""

    def publish(self, run: str) -> str:
        """Commit: list a finished run and return the backup's id. Idempotent."""

    def abandon(self, run: str) -> None:
        """Remove an unfinished run; a published or unknown one is left alone. Idempotent."""

    def backups(self) -> list[Backup]:
        """Return published backups by sequence number, oldest first, without damaged ones, which `verify` reports."""

    def verify(self, id: str | None, progress: Progress, check: Callable[[], None]) -> list[str]:
        """Read every byte of one backup (None: of the whole vault); return a list of the problems found."""

    def open_set(self, id: str, only: Collection[str] | None = None) -> StoredBackup:
        """Open a backup. Raise NotFoundError, or DamagedError before returning anything of a damaged one.

        With `only`, only these of its own files are checked, and may be opened. Listings are then checked when they
        are read, and where contents are is only looked up when one is fetched.
        """

    def open_run(self, run: str) -> StoredBackup:
        """Do what `open_set` does, for a finished run that is not published."""

    def check_prune(self, remove: Sequence[str]) -> None:
        """Read what a prune relies on. Raise DamagedError while a backup is damaged, RefusedError for a pinned one."""

    def prune(self, remove: Sequence[str], run: str) -> Mapping[str, int]:
        """Remove backups and the content that no backup references any more; refuse pinned ones. Idempotent.

        `check_prune` comes first. Here only what names the content of backups is read once more. No other run may be
        under way: those that operations left are removed too.
        """

    def remove(self, id: str) -> None:
        """Remove a backup that another one replaces. Idempotent.

        Content that only it used is removed by the next prune.
        """

    def pin(self, id: str, by: str, pinned: bool) -> None:
        """Set or remove a pin of an operation or of the operator. Idempotent."""
