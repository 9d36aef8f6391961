"""Protocols of vaults, which keep backups."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from holdfast.drivers.protocols.files import Fetch, Files
from holdfast.model import (
    Backup,
    Entry,
    Stored,
)

Progress = Callable[[int, int | None, str], None]
"""Report the amount done, the total if known, and the unit (`bytes` or `files`)."""


OpenSet = tuple[Backup, Callable[[str], Iterator[Entry]], Fetch, Path]
"""The manifest, the listing of a files dataset by its name, the content, and the folder of a backup."""


class VaultRun(Protocol):
    """An unfinished backup in the vault; invisible until published."""

    id: str
    folder: Path

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

    def finish(self, manifest: Backup) -> None:
        """Write sums and manifest and make everything durable; the backup is complete but not yet listed."""


class Vault(Protocol):
    """The folder in which backups are kept. A backup exists once published, and only complete."""

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

    def folder(self, id: str) -> Path:
        """Return the folder with the files of a published backup."""

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

    def open_set(self, id: str) -> OpenSet:
        """Return the manifest, listings, content and folder of a backup.

        Raise DamagedError before returning anything of a damaged one.
        """

    def open_run(self, run: str) -> OpenSet:
        """Do what `open_set` does, for a finished run that is not published."""

    def prune(self, remove: Sequence[str], run: str) -> Mapping[str, int]:
        """Remove backups and the content that no backup references any more; refuse pinned ones. Idempotent.

        No other run may be under way: those that operations left are removed too.
        """

    def remove(self, id: str) -> None:
        """Remove a backup that another one replaces. Idempotent.

        Content that only it used is removed by the next prune.
        """

    def pin(self, id: str, by: str, pinned: bool) -> None:
        """Set or remove a pin of an operation or of the operator. Idempotent."""
