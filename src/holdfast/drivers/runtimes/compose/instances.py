"""Instances as containers: created ahead, started and stopped side by side, kept while stopped, or removed.

Each instance is one container, identified by Holdfast's labels, made from a model of its own (`models`) with the image
of its release. It is created by Compose and found, started, stopped and removed by its id. As long as an instance is on
trial it has no restart policy; made permanent, it gets the one of the project's files (decision 0013). What is created
ahead and what is kept is the subject of decision 0029.
"""

from __future__ import annotations

import contextlib
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from msgspec.structs import replace

from holdfast.containers.container import DEFINITION_LABEL, Container, label
from holdfast.containers.docker import PROJECT, SERVICE
from holdfast.containers.facts import Known
from holdfast.drivers.compose_model import KeptImage, Model
from holdfast.drivers.runtimes.compose import models
from holdfast.drivers.runtimes.compose.project import QUIET, Project, images_of, model_of
from holdfast.drivers.runtimes.compose.project_containers import NAME_FILE, ProjectContainers
from holdfast.errors import CommandFailedError, PortTakenError, StepError
from holdfast.model import ServiceInstance, ServiceStatus
from holdfast.system import durable
from holdfast.system.host import Host
from holdfast.system.ports import listeners_on

_TAIL_LINES = 40
_CREATION_SECONDS = 600
_LIKE_SECRETS = re.compile(r"PASS|SECRET|TOKEN|KEY|CREDENTIAL|DSN|_URL$|^URL$", re.IGNORECASE)


@dataclass(frozen=True)
class _Wanted:
    """An instance with the model of its container and the policy that the container is to have."""

    instance: ServiceInstance
    model: Model
    definition: str
    image: str
    policy: str

    @property
    def name(self) -> str:
        return self.instance.name

    def is_container(self, container: Container) -> bool:
        """Return whether a container is the wanted one; an adopted one is compared by its image."""
        return container.runs == self.image and container.definition in (self.definition, "")


class InstanceContainers(ProjectContainers):
    keeps_stopped = True

    def __init__(
        self,
        folder: Path,
        environment_id: str,
        host: Host,
        project: Project,
        *,
        ports: Mapping[str, int],
        web: str = "",
        keep_ports: bool = False,
        reached_inside: bool = False,
    ) -> None:
        """Take `ports`, the configured services, each with its port in its container, if known.

        `web` is the one that answers visitors; empty if none does. With `keep_ports` it keeps the published ports of
        its files, for visitors, in addition to the port of this machine that only Holdfast uses. With `reached_inside`
        it has a name of its own on its networks, for a proxy there.
        """
        super().__init__(folder, environment_id, host, project, ports)
        self._web = web
        self._keep_ports = keep_ports
        self._reached_inside = reached_inside

    def _read(self, release: Path) -> Model:
        """Read a release's model; values in it that look like secrets are redacted from now on."""
        found = model_of(release)
        for service in found["services"].values():
            for name, value in (service.get("environment") or {}).items():
                if value and _LIKE_SECRETS.search(name):
                    self._host.redactor.add(str(value))
        return found

    def _image_of(self, service: str, directory: str) -> KeptImage:
        """Return the image of a service. Raise StepError where the engine no longer has it."""
        images = images_of(Path(directory))
        if service not in images:
            raise StepError(f"this release has no image of service {service}")
        image = images[service]
        if self._engine.image(image["tag"]) != image["id"]:
            raise StepError(
                f"the image {image['tag']} of this release does not exist",
                next_step="Run `holdfast package build REF` to build it again. If an operation is stuck, first run"
                " `holdfast recover --abandon REASON`.",
            )
        return image

    def address_of(self, instance: ServiceInstance, *, inside: bool) -> str:
        if not inside:
            return f"127.0.0.1:{instance.port}"
        model = self._read(Path(instance.directory))
        return f"{models.own_name(instance)}:{self._port_inside(model, instance)}"

    def _port_inside(self, model: Model, instance: ServiceInstance) -> int:
        """Return the port by the instance's own release, because the configuration may be a later one."""
        port = instance.port_inside or self._ports.get(instance.service, 0)
        return models.port_inside(model, instance.service, port)

    # --- what runs ---------------------------------------------------------------------------------

    def _by_name(self) -> dict[str, list[Container]]:
        """Return the containers of each instance."""
        found: dict[str, list[Container]] = {}
        for container in self._ours():
            found.setdefault(container.name, []).append(container)
        return found

    def statuses(self) -> dict[str, ServiceStatus]:
        return {container.name: self._status(container) for container in self._ours()}

    def _status(self, container: Container) -> ServiceStatus:
        """Return the status; a container that is being ended counts as stopped, because the engine completes that."""
        if self._ending(container.name).exists():
            return replace(container.status(), running=False, detail="stopping")
        return replace(container.status(), detail="stopped") if self._waits(container) else container.status()

    def release_of(self, name: str) -> str | None:
        """Return the release; None also where the container runs another image than the release's."""
        for container in self._by_name().get(name, []):
            if container.running and container.runs == container.image:
                return container.release
        return None

    def output_tail(self, name: str) -> str:
        with contextlib.suppress(StepError):
            # `run` keeps the order in which the two streams were written.
            return "".join(
                self._host.run(
                    [self._engine.name, "logs", f"--tail={_TAIL_LINES}", container.id], check=False
                ).output_tail
                for container in self._by_name().get(name, [])
            )
        return ""

    def outputs(self) -> list[str]:
        found = sorted(self._ours(), key=lambda one: str(one.known["State"].get("StartedAt", "")), reverse=True)
        return list(dict.fromkeys(container.name for container in found))

    def output(
        self, name: str, *, lines: int, since_seconds: float | None = None, follow: bool = False
    ) -> Iterator[bytes]:
        containers = self._by_name().get(name, [])
        since = [f"--since={since_seconds:.0f}s"] if since_seconds is not None else []
        for container in containers[:1] if follow else containers:
            more = ["--follow"] if follow else []
            yield from self._host.stream([self._engine.name, "logs", f"--tail={lines}", *since, *more, container.id])

    # --- starting ----------------------------------------------------------------------------------

    def _wanted(self, instance: ServiceInstance) -> _Wanted:
        model = self._read(Path(instance.directory))
        image = self._image_of(instance.service, instance.directory)
        policy = models.restart_policy(model, instance.service)
        fixed = not self._engine.changes_policies  # then the container is created with its final policy
        policy = policy if instance.comes_back or fixed else "no"
        inside = self._port_inside(model, instance) if instance.port else 0
        made = models.instance_model(
            model,
            instance,
            image,
            self._environment_id,
            inside,
            keep_ports=self._keep_ports,
            restart=policy if fixed else "no",
        )
        if self._reached_inside and instance.kind == "web":
            made = models.named(made, instance)
        definition = (made["services"][instance.service].get("labels") or {})[DEFINITION_LABEL]
        return _Wanted(instance, made, definition, image["id"], policy)

    @property
    def creates_ahead(self) -> bool:
        return not self._compose.starts_what_it_creates

    def create(self, *instances: ServiceInstance) -> None:
        if not self.creates_ahead:
            return
        found = self._by_name()
        wanted = [item for item in map(self._wanted, instances) if not self._is_usable(item, found)]
        taken = {str(item["Name"]).lstrip("/") for item in self._engine.of_project(self._name_of(wanted))}
        # A fixed name is free only once the container that has it is removed.
        self._make([item for item in wanted if self._fixed_name(item) not in taken], found)

    @staticmethod
    def _name_of(wanted: Sequence[_Wanted]) -> str:
        return wanted[0].model["name"] if wanted else ""

    @staticmethod
    def _fixed_name(wanted: _Wanted) -> str | None:
        return wanted.model["services"][wanted.instance.service].get("container_name")

    def start(self, *instances: ServiceInstance) -> None:
        found = self._by_name()
        wanted = [self._wanted(instance) for instance in instances]
        if new := [item for item in wanted if not self._is_usable(item, found)]:
            self._make(new, found)
            found = self._by_name()
        usable = {item.name: found[item.name][0] for item in wanted if found.get(item.name)}
        self._start(wanted, {name: container.id for name, container in usable.items() if not container.running})
        if self._engine.changes_policies:
            given = [(usable[item.name], item.policy) for item in wanted if item.name in usable]
            self._engine.set_policies({item.id: policy for item, policy in given if item.restart_policy != policy})

    def _is_usable(self, wanted: _Wanted, found: Mapping[str, Sequence[Container]]) -> bool:
        """Return whether an instance's container is the wanted one, and runs or may be started as it is.

        One that is being ended may still run for a while, and must not be taken for one that stays. One that ended by
        itself, or had to be killed, may have left in its own files what prevents its next start: it is created again.
        """
        containers = found.get(wanted.name, [])
        if len(containers) != 1 or self._ending(wanted.name).exists() or not wanted.is_container(containers[0]):
            return False
        return containers[0].running or self._waits(containers[0])

    def _start(self, wanted: Sequence[_Wanted], ids: Mapping[str, str]) -> None:
        """Start containers that were created or kept. Raise PortTakenError, StepError."""
        for name in ids:
            durable.unlink(self._kept(name))
        failed = self._engine.start(list(ids.values()))
        for item in wanted:
            text = failed.get(ids.get(item.name, ""))
            if text is not None:
                raise self._does_not_start(item.instance, text)

    @staticmethod
    def _does_not_start(instance: ServiceInstance, text: str) -> StepError:
        if instance.port is not None and listeners_on(instance.port):
            return PortTakenError(f"port {instance.port} of service {instance.service} is taken")
        return StepError(f"service {instance.service} does not start", state=text)

    # --- creating ----------------------------------------------------------------------------------

    def _make(self, wanted: Sequence[_Wanted], found: Mapping[str, Sequence[Container]]) -> None:
        """Create containers, in place of those that their instances have."""
        if not wanted:
            return
        self._remove({item.name: found.get(item.name, []) for item in wanted})
        others = self._others(self._name_of(wanted), {item.instance.service for item in wanted})
        durable.make_directory(self._folder)
        durable.write_file(self._folder / NAME_FILE, self._name_of(wanted))
        for group in self._groups(wanted):
            placed = [
                self._compose.placed(item.model, item.instance.service, others.get(item.instance.service, []))
                for item in group
            ]
            counts = {item.instance.service: len(others.get(item.instance.service, [])) for item in group}
            self._create(group, models.merged(placed), counts)

    def _groups(self, wanted: Sequence[_Wanted]) -> list[list[_Wanted]]:
        """Return instances in groups that one command can create: their secrets are in one environment."""
        groups: list[list[_Wanted]] = []
        if self._compose.starts_what_it_creates:
            return [[item] for item in wanted]
        for item in wanted:
            fits = (
                group for group in groups if all(models.fit_together(item.instance, other.instance) for other in group)
            )
            group = next(fits, None)
            if group is None:
                groups.append([item])
            else:
                group.append(item)
        return groups

    def _create(self, group: Sequence[_Wanted], made: Model, counts: Mapping[str, int]) -> None:
        file = self._folder / f"create-{secrets.token_hex(4)}.json"
        self._write(made, file)
        values = {name: value for item in group for name, value in item.instance.environment.items()}
        try:
            environment = {**self._host.resolved(models.secret_values(values)), **QUIET}
            argv = self._compose.creation_argv(made, file, counts)
            self._host.run(argv, environment=environment, timeout_seconds=_CREATION_SECONDS)
        except CommandFailedError as error:
            raise self._not_created(group, error) from error
        finally:
            for path in self._compose.contents(made, file):
                durable.unlink(path)

    def _not_created(self, group: Sequence[_Wanted], error: CommandFailedError) -> StepError:
        for item in group:
            failure = self._does_not_start(item.instance, error.output_tail.strip())
            if isinstance(failure, PortTakenError):
                return failure
        services = ", ".join(item.instance.service for item in group)
        return StepError(f"service {services} does not start", state=error.output_tail.strip())

    def _write(self, made: Model, file: Path) -> None:
        durable.make_directory(self._folder)
        for path, text in self._compose.contents(made, file).items():
            durable.write_file(path, text)

    def _others(self, project: str, services: set[str]) -> dict[str, list[str]]:
        """Return the containers of services by name, after removing ended ones that are no instance's.

        Such a one could have the name that the new container is to have.
        """
        ours = {container.id for container in self._ours()}
        ended: list[Known] = []
        found: dict[str, list[str]] = {}
        for item in self._engine.of_project(project):
            service = label(item, SERVICE)
            if service not in services:
                continue
            if item["State"]["Running"] or item["Id"] in ours:
                found.setdefault(service, []).append(str(item["Name"]).lstrip("/"))
            else:
                ended.append(item)
        self._engine.end(ended)
        return found

    # --- stopping ----------------------------------------------------------------------------------

    def _ending(self, name: str) -> Path:
        """Return the mark of an instance whose containers are being ended."""
        return self._folder / f"{name}.ending"

    def _kept(self, name: str) -> Path:
        """Return the mark of an instance whose container was stopped and is kept; it contains the container's id."""
        return self._folder / f"{name}.kept"

    def _waits(self, container: Container) -> bool:
        """Return whether a container was created ahead, or stopped and kept, and may be started as it is."""
        if container.running:
            return False
        if container.known["State"]["Status"] == "created":
            return True
        try:
            return self._kept(container.name).read_text() == container.id
        except FileNotFoundError:
            return False

    def stop(self, *names: str, keep: bool = False, at_most_seconds: float | None = None) -> dict[str, float]:
        found = self._by_name()
        return self._remove({name: found.get(name, []) for name in names}, keep=keep, at_most_seconds=at_most_seconds)

    def _remove(
        self, found: Mapping[str, Sequence[Container]], *, keep: bool = False, at_most_seconds: float | None = None
    ) -> dict[str, float]:
        """End the containers of instances; return the seconds after which each had to be killed, by instance."""
        containers = [container for each in found.values() for container in each]
        if containers:
            durable.make_directory(self._folder)
        for name in found:
            if found[name]:
                durable.write_file(self._ending(name), "")
        kept = {name: each[0].id for name, each in found.items() if keep and len(each) == 1 and self._may_stay(each[0])}
        killed = self._engine.end(
            [container.known for container in containers], keep=kept.values(), at_most_seconds=at_most_seconds
        )
        late = {container.name: killed[container.id] for container in containers if container.id in killed}
        for name in found:
            if name in kept and name not in late:
                durable.write_file(self._kept(name), kept[name])
            else:
                self._adopted.forget(name)
                durable.unlink(self._kept(name))
            durable.unlink(self._ending(name))
        return late

    def _may_stay(self, container: Container) -> bool:
        """Return whether a stopped container keeps nothing that its successor needs, and nothing starts it.

        Where a policy cannot be changed, the machine's start may start a container by it. A name that the project's
        files give has to be free.
        """
        given = [re.escape(label(container.known, name)) for name in (PROJECT, SERVICE)]
        usual = re.fullmatch("[-_]".join([*given, r"\d+"]), str(container.known["Name"]).lstrip("/")) is not None
        ended_well = container.running or self._waits(container)
        return usual and ended_well and (self._engine.changes_policies or container.restart_policy == "no")

    def shut_down(self) -> None:
        self.stop(*self.statuses())
