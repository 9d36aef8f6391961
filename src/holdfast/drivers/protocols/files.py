"""Trees of files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Protocol

from holdfast.model import (
    Changed,
    Entry,
    Problem,
)

Fetch = Callable[[Entry, int], None]
"""Writes the content of a listed file to an open descriptor. Raises DamagedError if its digest differs."""


def never() -> bool:
    return False


class WatchedTree(Protocol):
    """A tree whose changes are noticed from the moment at which a directory of it is read."""

    def scan(self, by_name: Callable[[], bool]) -> Iterator[Entry]:
        """As that of `Files`."""

    def changed(self) -> Changed | None:
        """What changed since it was read, or since this was asked; None, for ever, where only a scan can tell."""

    def look(self, changed: Changed) -> Iterator[Entry]:
        """What is now at the paths that changed, in the order of a scan."""

    def close(self) -> None: ...


class Files(Protocol):
    """One tree of files. Restored by difference: staged beside, then moved by rename."""

    root: Path

    def scan(self, by_name: Callable[[], bool] = never) -> Iterator[Entry]:
        """Every entry below the root in one fixed order, without content.

        While `by_name` answers true, regular files may come without having been looked at: with an empty `mode`.
        """

    def watched(self) -> WatchedTree | None:
        """The same tree, watched from now on; None where its changes are not reported."""

    def open(self, entry: Entry) -> int:
        """A descriptor to read an entry's content. Raises FileNotFoundError if it vanished."""

    def complete(self, entry: Entry, descriptor: int) -> None:
        """Fills in what only an open file tells: extended attributes, and the data segments of one with holes."""

    def for_worker(self) -> Files | None:
        """The same tree in a form that another process of ours can be given; None where only this one can read it."""

    def stage(self, token: str, wanted: Iterable[Entry], fetch: Fetch, check: Callable[[], None]) -> int:
        """Prepares the moves that make the tree equal to `wanted`; changes nothing visible. Returns their number."""

    def refuse_mounts(self) -> None:
        """Raises RefusedError where a mount inside of the tree would keep its moves from being taken back."""

    def workspace(self, token: str) -> Path:
        """An empty folder beside the tree that only Holdfast can enter, whoever owns the tree; gone by `discard`."""

    def staged(self, token: str) -> bool:
        """Whether all moves of a token are staged."""

    def apply(self, token: str) -> None:
        """Carries out the staged moves. May be repeated."""

    def revert(self, token: str) -> None:
        """Takes the moves back, in reverse. May be repeated; without staged moves nothing happens."""

    def discard(self, token: str) -> None:
        """Removes what an operation left beside the tree. May be repeated."""

    def check(self) -> list[Problem]: ...
