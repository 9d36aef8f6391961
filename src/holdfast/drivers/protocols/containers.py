"""Protocols of a runtime of containers and of a store of images, in addition to those of every runtime and store."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from holdfast.model import Running, ServiceInstance
from holdfast.model.packages import Package


class Containers(Protocol):
    """A runtime of containers: what others ask of it in addition to what they ask of every runtime."""

    @property
    def engine_name(self) -> str:
        """Return the name of the engine's client program: `docker` or `podman`."""

    def container_of(self, service: str) -> str:
        """Return the name of a service's container, whoever started it. Raise StepError where it has none."""

    def place_of(self, volume: str) -> str:
        """Return the folder of a volume, given by its name in the project's files.

        Raise StepError where there is none.
        """

    def unmanaged(self) -> dict[str, str]:
        """Return the names of running containers that Holdfast did not start, each with its service."""

    def running(self, services: Sequence[str]) -> dict[str, Running]:
        """Return per service the container that the operator's own command started.

        Raise RefusedError where a service has several.
        """

    def adopt(self, instances: Mapping[str, ServiceInstance]) -> None:
        """Treat these containers, by id, and no others, as those instances from now on. Idempotent."""


class ImageKeeping(Protocol):
    """A store of packages that are images."""

    def keep(self, commit: str, label: str, run: str, images: Mapping[str, str]) -> Package:
        """Make a package of a commit from images, by id, that exist already. Idempotent."""

    def tags(self, release: Path) -> dict[str, str]:
        """Return the project's own names of a release's images, and their ids."""

    def moved(self, release: Path) -> list[str]:
        """Return the project's own names of a release's images that refer to other images by now."""

    def tagged(self, names: Iterable[str]) -> dict[str, str]:
        """Return the image ids that the engine has under these names; an empty id where it has none."""

    def tag(self, ids: Mapping[str, str]) -> None:
        """Give names to images by their id; remove a name whose id is empty. Idempotent."""

    def refresh(self, release: Path, package: Package) -> None:
        """Write the package's images into the release's record where the release's own are missing.

        A release whose own images exist keeps them: a rollback goes back to exactly these, even if the package is
        another build of the same commit.
        """
