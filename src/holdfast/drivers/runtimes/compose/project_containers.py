"""The containers of the application's Compose project: Holdfast's own, and those that others started."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from holdfast.containers.container import APPLICATION_LABEL, INSTANCE_LABEL, Container, label
from holdfast.containers.docker import SERVICE
from holdfast.containers.facts import Known
from holdfast.drivers.runtimes.compose.adopted import Adopted
from holdfast.drivers.runtimes.compose.cli.select import compose_of, engine_of
from holdfast.drivers.runtimes.compose.project import Project
from holdfast.drivers.runtimes.compose.unmanaged import is_own, one_of_each, refuse_others, running_of
from holdfast.errors import CommandFailedError, CommandTimeoutError, StepError
from holdfast.model import Running, ServiceInstance
from holdfast.system.host import Host

NAME_FILE = "project"


class ProjectContainers:
    """What the engine has of one project, by its labels."""

    def __init__(
        self, folder: Path, environment_id: str, host: Host, project: Project, ports: Mapping[str, int]
    ) -> None:
        """Take `ports`, the configured services, each with its port in its container, if known."""
        self._folder = folder
        self._environment_id = environment_id
        self._host = host
        self._project = project
        self._compose = compose_of(project)
        self._engine = engine_of(project, host)
        self._ports = ports
        self._adopted = Adopted(folder)

    @property
    def engine_name(self) -> str:
        return self._engine.name

    def prepare(self) -> None:
        self._engine.prepare()

    def _ours(self) -> list[Container]:
        """Return the containers that Holdfast started, and those that it adopted and that still exist.

        Raise StepError where the engine does not answer: its containers are then unknown.
        """
        try:
            return self._known()
        except (CommandFailedError, CommandTimeoutError):
            self.prepare()
            raise

    def _known(self) -> list[Container]:
        found = self._engine.containers(f"{APPLICATION_LABEL}={self._environment_id}")
        adopted = self._adopted.read()
        ours = [Container.labelled(item) for item in found if label(item, INSTANCE_LABEL) and item["Id"] not in adopted]
        return ours + [Container(item, **adopted[item["Id"]]) for item in self._engine.inspected(list(adopted))]

    def container_of(self, service: str) -> str:
        self.prepare()
        found = self._engine.of_project(self.project_name(), f"{SERVICE}={service}")
        found.sort(key=lambda item: not item["State"]["Running"])
        if not found:
            self._refuse_unknown(service)
            raise StepError(
                f"service {service} of project {self.project_name()} has no container",
                next_step=f"Run `{' '.join(self._project.command)} up --detach {service}` with the project's files.",
            )
        return str(found[0]["Name"]).lstrip("/")

    def _refuse_unknown(self, service: str) -> None:
        """Raise StepError for a service that the Compose files do not have, where these can be read."""
        if not all(path.exists() for path in self._project.files):
            return
        known = sorted(self._compose.model(self._host.capture(self._compose.config_argv())).get("services") or {})
        if service not in known:
            raise StepError(
                f"the Compose files have no service `{service}`; they have: {', '.join(known)}",
                next_step="Correct `container` in holdfast.toml.",
            )

    def place_of(self, volume: str) -> str:
        self.prepare()
        return self._engine.place_of(self.project_name(), volume)

    # --- containers that Holdfast did not start -------------------------------------------------------

    def _running(self) -> list[Known]:
        """Return the running containers. Raise RefusedError where one is of another application of Holdfast's."""
        running = self._running_of_anyone()
        refuse_others(running, self._environment_id, self._engine.name)
        return running

    def _running_of_anyone(self) -> list[Known]:
        return running_of(self._engine, self.project_name(), self._ports)

    def place(self) -> tuple[str, str] | None:
        return "the Compose project", self.project_name()

    def project_name(self) -> str:
        """Return the project's name; empty where only the sources have its files and nothing was started from them."""
        known = self._folder / NAME_FILE
        if self._project.name or known.exists():
            return self._project.name or known.read_text()
        if not all(path.exists() for path in self._project.files):
            return ""
        return str(self._compose.model(self._host.capture(self._compose.config_argv()))["name"])

    def _not_ours(self, running: Iterable[Known]) -> list[Known]:
        ours = {container.id for container in self._ours()}
        return [item for item in running if item["Id"] not in ours]

    def unmanaged(self) -> dict[str, str]:
        return {str(item["Name"]).lstrip("/"): label(item, SERVICE) for item in self._not_ours(self._running())}

    def blocked_by_dependents(self, services: Collection[str], order: Sequence[str]) -> dict[str, str]:
        return self._engine.blocked_by_dependents(self.project_name(), services, order)

    def end_unmanaged(self) -> None:
        for item in self._not_ours(self._running_of_anyone()):
            if is_own(item, self._environment_id):
                self._engine.remove(item)

    def running(self, services: Sequence[str]) -> dict[str, Running]:
        return one_of_each(self._running(), services)

    def adopt(self, instances: Mapping[str, ServiceInstance]) -> None:
        images = {item["Id"]: item["Image"] for item in self._engine.inspected(list(instances))}
        self._adopted.write(instances, images)
