"""Protocols of the builds of an application."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from holdfast.model import (
    Newer,
    Package,
)


class References(Protocol):
    """The repository from which packages are built."""

    def resolve(self, reference: str) -> tuple[str, str]:
        """Return the full commit and the label of a tag, branch or (short) commit. Raise NotFoundError."""

    def file_of(self, commit: str, name: str) -> str | None:
        """Return the text of a file at a commit; None if the commit has no such file."""

    def fetch(self) -> None:
        """Fetch new commits and tags from the repository's remote. Idempotent. Raise StepError."""

    def precedes(self, commit: str, later: str) -> bool:
        """Return whether a commit is an ancestor of another one; False where one of them is unknown here."""

    def newer(self, commit: str) -> Newer:
        """Return what is newer than a commit, as far as it is known here.

        Raise NotFoundError where the commit is unknown.
        """


class Packages(References, Protocol):
    """A store of immutable builds."""

    def build(self, commit: str, label: str, run: str) -> Package:
        """Build and store a package, or return an existing one with the same recipe. Idempotent."""

    def abandon(self, run: str) -> None:
        """Remove an unfinished build. Idempotent."""

    def packages(self) -> list[Package]: ...

    def unpack(self, package: Package, target: Path, marker: Mapping[str, Any]) -> None:
        """Make a new release folder: the tree, its dependencies, and last the marker, which makes the folder valid."""

    def adopt(self, archive: Path) -> Package:
        """Copy an archive from a backup into the store. Idempotent. Raise DamagedError."""

    def remove(self, id: str) -> None:
        """Remove a package. Idempotent."""
