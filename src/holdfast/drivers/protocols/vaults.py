"""Where backups are kept."""

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
"""Called with what is done, the total if known, and the unit (`bytes` or `files`)."""


OpenSet = tuple[Backup, Callable[[str], Iterator[Entry]], Fetch, Path]
"""Manifest, listing of a files dataset by its name, content, and the folder of a set."""


class VaultRun(Protocol):
    """An unfinished set in the vault; invisible until published."""

    id: str
    folder: Path

    def store_tree(
        self, name: str, files: Files, *, keep_vanished: bool, check: Callable[[], None], progress: Progress
    ) -> Stored:
        """Stores a tree; called again it stores what changed since and makes that the set's listing."""

    def read_tree(
        self, name: str, files: Files, *, keep_vanished: bool, check: Callable[[], None], progress: Progress
    ) -> Callable[[], Stored]:
        """As `store_tree`, but what is left to do when the tree was read is done by the call that is returned.

        That grows with the tree; reading, after the first time, with what changed, where the changes are reported.
        """

    def listing(self, name: str) -> Iterator[Entry]:
        """The listing as stored so far."""

    def choose(self, name: str, listing: Iterator[Entry]) -> None:
        """Replaces a listing, as when an earlier reading of a file is the one that its row means."""

    def finish(self, manifest: Backup) -> None:
        """Writes sums and manifest and makes everything durable; the set is complete but not yet listed."""


class Vault(Protocol):
    """Where backups are kept. A set exists once published, and only whole."""

    def begin(self, run: str) -> VaultRun:
        """Opens an unfinished set under a run id, replacing an earlier attempt of that id."""

    def resume(self, run: str) -> tuple[VaultRun, Backup]:
        """A finished run that is not published, and its manifest: to be added to and finished again, as often as needed.

        Raises NotFoundError or DamagedError.
        """

    def run(self, run: str) -> VaultRun:
        """An unfinished set begun by this process. Raises KeyError."""

    def new_id(self) -> str:
        """A set id that no other set has, from the UTC time."""

    def folder(self, id: str) -> Path:
        """Where the files of a committed set are."""

    def damaged(self) -> list[str]:
        """Sets whose manifest does not verify: never listed, never swept."""

    def publish(self, run: str) -> str:
        """The commit: lists a finished run; returns the set's id. May be repeated."""

    def abandon(self, run: str) -> None:
        """Removes an unfinished run; a published or unknown one is left alone. May be repeated."""

    def backups(self) -> list[Backup]:
        """Committed sets by sequence number, oldest first; damaged ones are left out and reported by `verify`."""

    def verify(self, id: str | None, progress: Progress, check: Callable[[], None]) -> list[str]:
        """Every byte of one set (None: of the whole vault); a list of what is wrong, empty when whole."""

    def open_set(self, id: str) -> OpenSet:
        """Manifest, listings, content and folder of a set. Raises DamagedError before anything is given out."""

    def open_run(self, run: str) -> OpenSet:
        """As `open_set`, of a finished run that is not published."""

    def prune(self, remove: Sequence[str], run: str) -> Mapping[str, int]:
        """Removes sets and what no set references any more; pinned ones are refused. May be repeated.

        No other run may be under way: those that operations left are removed too.
        """

    def remove(self, id: str) -> None:
        """Removes a set that another one replaces; what it alone used goes with the next prune.

        May be repeated.
        """

    def pin(self, id: str, by: str, pinned: bool) -> None:
        """Sets or takes back a pin of an operation or of the operator. May be repeated."""
