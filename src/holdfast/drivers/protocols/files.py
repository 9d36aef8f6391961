"""Protocols of trees of files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Protocol

from holdfast.drivers.entries import Selection
from holdfast.model import Changed, Entry, Problem

Fetch = Callable[[Entry, int], None]
"""Write the content of a listed file to an open descriptor. Raise DamagedError if its digest differs.

Where pickle takes it, a second process of Holdfast reads contents at the same time.
"""


def never() -> bool:
    return False


class WatchedTree(Protocol):
    """A tree whose changes are noticed from the moment at which a directory of it is read."""

    def scan(self, by_name: Callable[[], bool]) -> Iterator[Entry]:
        """Yield every entry, as `Files.scan` does."""

    def changed(self) -> Changed | None:
        """Return the changes since the tree was read, or since the last call; always None once only a scan can tell."""

    def look(self, changed: Changed) -> Iterator[Entry]:
        """Yield the present entries at the changed paths, in the order of a scan."""

    def close(self) -> None: ...


class Files(Protocol):
    """One tree of files. A restore stages only what differs, next to the tree, then moves it into place by renames."""

    root: Path

    def scan(self, by_name: Callable[[], bool] = never) -> Iterator[Entry]:
        """Yield every entry below the root in one fixed order, without content.

        While `by_name` returns true, regular files may come without having been looked at: with an empty `mode`.
        """

    def look(self, chosen: Selection) -> Iterator[Entry]:
        """Yield the entries of a selection as `scan` does, without reading the rest of the tree."""

    def watched(self) -> WatchedTree | None:
        """Return the same tree, watched from now on; None where its changes are not reported."""

    def open(self, entry: Entry) -> int:
        """Return a descriptor from which an entry's content is read. Raise FileNotFoundError if it vanished."""

    def complete(self, entry: Entry, descriptor: int) -> None:
        """Add the facts that only an open file shows: extended attributes, and the data segments of a sparse file."""

    def for_worker(self) -> Files | None:
        """Return the same tree in a form for another process of Holdfast; None where only this process can read it."""

    def stage(
        self,
        token: str,
        wanted: Iterable[Entry],
        fetch: Fetch,
        check: Callable[[], None],
        within: Selection | None = None,
    ) -> int:
        """Prepare the moves that make the tree equal to `wanted`; return their number. Nothing visible changes.

        With `within`, `wanted` has the entries of that selection. They replace those with the same path, and everything
        else stays: other entries below the chosen paths, and directories above them, with their modes and times.
        """

    def refuse_mounts(self) -> None:
        """Raise RefusedError where a mount inside the tree would prevent its moves from being undone."""

    def workspace(self, token: str) -> Path:
        """Return an empty folder next to the tree that only Holdfast can enter, whoever owns the tree.

        `discard` removes it.
        """

    def staged(self, token: str) -> bool:
        """Return whether all moves of a token are staged."""

    def apply(self, token: str) -> None:
        """Carry out the staged moves. Idempotent."""

    def revert(self, token: str) -> None:
        """Undo the moves in reverse order. Idempotent; without staged moves nothing happens."""

    def discard(self, token: str) -> None:
        """Remove what an operation left next to the tree. Idempotent."""

    def check(self) -> list[Problem]: ...
