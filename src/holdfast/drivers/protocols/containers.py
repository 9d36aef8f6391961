"""What a runtime of containers, and a store of images, must do beside what every runtime and store does."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from holdfast.model import Package, Running, ServiceInstance


class OneOffs(Protocol):
    """The application's one-off commands, and what a release must have for its services."""

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
        """The words that run a command as a release's service would; they end with the command's exit code.

        It is given those variables of the environment that the words are run with.
        """

    def end_one_offs(self, operation: str) -> None:
        """Ends what an operation's commands still do. May be repeated. Raises StepError if something goes on."""

    def services_of(self, directory: str) -> list[str]:
        """Services that a release has."""

    def refused(self, directory: str) -> list[str]:
        """What stands against running a release, found out before anything is stopped for it."""

    def beside(self, directory: str, services: Sequence[str]) -> tuple[list[str], list[str]]:
        """What stands against a second container of these services while the first one runs; and what it will not have."""

    def reached_at(self, instance: ServiceInstance) -> str:
        """The name that an instance's container alone has on its networks, and the port it listens on there."""

    def missing_images(self, directory: str, services: Collection[str] | None = None) -> list[str]:
        """Images of a release, or of some of its services, that the engine has not, or not as they were."""

    def storage(self) -> str | None:
        """Where the engine keeps images on this machine."""

    def project_name(self) -> str:
        """Of what its containers, networks and volumes are parts."""

    def container_of(self, service: str) -> str:
        """The name of a service's container, whoever started it. Raises StepError where it has none."""

    def place_of(self, volume: str) -> str:
        """Where the engine keeps a volume, by its name in the project's files. Raises StepError where there is none."""


class Foreigners(Protocol):
    """Containers of configured services that somebody else started."""

    def strangers(self) -> dict[str, str]:
        """Those that run and that Holdfast has nothing to do with: their names, each with its service."""

    def tied(self, services: Collection[str], order: Sequence[str]) -> dict[str, str]:
        """Those of these services that the engine will not remove as long as another one is there.

        Their names, each with the other's. What runs of services that are earlier in `order` is removed before.
        """

    def end_strangers(self) -> None:
        """Stops and removes them. May be repeated."""

    def running(self, services: Sequence[str]) -> dict[str, Running]:
        """Per service the container that the operator's own command started. Raises RefusedError where one has several."""

    def adopt(self, instances: Mapping[str, ServiceInstance]) -> None:
        """Takes containers, by id, for those instances from now on, and no others. May be repeated."""


class Containers(OneOffs, Foreigners, Protocol):
    """What a runtime of containers has beside services."""

    @property
    def engine_name(self) -> str:
        """Of the client that leads to its containers: `docker` or `podman`."""


class ImageKeeping(Protocol):
    """A store of packages that are images."""

    def keep(self, commit: str, label: str, run: str, images: Mapping[str, str]) -> Package:
        """A package of a commit with images, by id, that are there already. May be repeated."""

    def tags(self, release: Path) -> dict[str, str]:
        """The project's own names of a release's images, and their ids."""

    def moved(self, release: Path) -> list[str]:
        """The project's own names of a release's images that mean other images by now."""

    def tagged(self, names: Iterable[str]) -> dict[str, str]:
        """What the engine has under names; an empty id where it has nothing."""

    def tag(self, ids: Mapping[str, str]) -> None:
        """Gives names to images by their id, and takes a name away where that is empty. May be repeated."""

    def refresh(self, release: Path, package: Package) -> None:
        """Tells a release of its package's images where its own are gone. One that has its own keeps them: it is what is gone
        back to, also from another build of the same commit.
        """
