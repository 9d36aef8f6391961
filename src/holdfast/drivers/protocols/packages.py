"""Builds of an application."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from holdfast.model import (
    Newer,
    Package,
)


class References(Protocol):
    """The repository that packages are built from."""

    def resolve(self, reference: str) -> tuple[str, str]:
        """Full commit and label of a tag, branch or commit (short ones too). Raises NotFoundError."""

    def file_of(self, commit: str, name: str) -> str | None:
        """The text of a file at a commit, None if it has none."""

    def fetch(self) -> None:
        """Brings what the repository's remote has. May be repeated. Raises StepError."""

    def newer(self, commit: str) -> Newer:
        """What is newer than a commit, as far as it is known here. Raises NotFoundError where the commit is not."""


class Packages(References, Protocol):
    """Immutable builds."""

    def build(self, commit: str, label: str, run: str) -> Package:
        """Builds and stores a package; one that is there with the same recipe is returned. May be repeated."""

    def abandon(self, run: str) -> None:
        """Removes an unfinished build. May be repeated."""

    def packages(self) -> list[Package]: ...

    def unpack(self, package: Package, target: Path, marker: Mapping[str, Any]) -> None:
        """Makes a release folder that did not exist: the tree, its dependencies, then the marker as the commit."""

    def adopt(self, archive: Path) -> Package:
        """Takes an archive out of a backup into the store. May be repeated. Raises DamagedError."""

    def remove(self, id: str) -> None:
        """Removes a package. May be repeated."""
