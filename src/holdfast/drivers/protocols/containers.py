"""Protocols of a runtime of containers and of a store of images, in addition to those of every runtime and store."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from holdfast.model import Package, Running, ServiceInstance


class OneOffs(Protocol):
    """The application's one-off commands, and the requirements of a release's services."""

    def one_off(
        self,
        service: str,
        directory: str,
        command: Sequence[str],
        variables: Iterable[str],
        operation: str,
        *,
        terminal: bool = False,
    ) -> list[str]:
        """Return the argv that runs a command in the way the release's service runs; its exit code is the command's.

        The command receives those of `variables` that are set in the environment in which the argv is run.
        """

    def end_one_offs(self, operation: str) -> None:
        """End the processes that an operation's commands left. Idempotent. Raise StepError if something still runs."""

    def services_of(self, directory: str) -> list[str]:
        """Return the services that a release has."""

    def refused(self, directory: str) -> list[str]:
        """Return the reasons why a release cannot run, before anything is stopped for it."""

    def beside(self, directory: str, services: Sequence[str]) -> tuple[list[str], list[str]]:
        """Return what prevents second containers of these services while the first run, and what they would lack."""

    def reached_at(self, instance: ServiceInstance) -> str:
        """Return the name that only this instance's container has on its networks, and its port there."""

    def missing_images(self, directory: str, services: Collection[str] | None = None) -> list[str]:
        """Return images of a release, or of some of its services, that are missing in the engine or differ there."""

    def storage(self) -> str | None:
        """Return the folder on this machine in which the engine keeps images."""

    def project_name(self) -> str:
        """Return the name of the project to which its containers, networks and volumes belong."""

    def container_of(self, service: str) -> str:
        """Return the name of a service's container, whoever started it. Raise StepError where it has none."""

    def place_of(self, volume: str) -> str:
        """Return the folder of a volume, given by its name in the project's files.

        Raise StepError where there is none.
        """


class Foreigners(Protocol):
    """Containers of configured services that Holdfast did not start."""

    def unmanaged(self) -> dict[str, str]:
        """Return the names of running containers that Holdfast did not start, each with its service."""

    def tied(self, services: Collection[str], order: Sequence[str]) -> dict[str, str]:
        """Return those of these services' containers that the engine cannot remove while another one exists.

        The result has their names, each with the name of the other container. Containers of services that come earlier
        in `order` count as removed already.
        """

    def end_unmanaged(self) -> None:
        """Stop and remove the containers that Holdfast did not start. Idempotent."""

    def running(self, services: Sequence[str]) -> dict[str, Running]:
        """Return per service the container that the operator's own command started.

        Raise RefusedError where a service has several.
        """

    def adopt(self, instances: Mapping[str, ServiceInstance]) -> None:
        """Treat these containers, by id, and no others, as those instances from now on. Idempotent."""


class Containers(OneOffs, Foreigners, Protocol):
    """A runtime of containers: its methods in addition to those of every runtime."""

    @property
    def engine_name(self) -> str:
        """Return the name of the engine's client program: `docker` or `podman`."""


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
