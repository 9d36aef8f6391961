"""Services as containers of a Compose project, and the application's commands in one-off containers of the same image.

Each instance is one container, identified by Holdfast's labels, made from a model of its own (`models`) with the image
of its release. It is started by Compose and found, stopped and removed by its id. As long as an instance is on trial it
has no restart policy; made permanent, it gets the one of the project's files (decision 0013). Facts from the
documentation of Docker and measured on 20.10 with Compose 2.26: a container with `always` that was stopped by hand is
started again with the engine, so one that is to stay stopped is removed; `docker update --restart` takes effect at
once; a `docker stop` whose client was killed goes on in the engine; the client of a killed `docker compose run` leaves
its container running.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import IO

from msgspec.structs import replace

from holdfast.containers.container import (
    APPLICATION_LABEL,
    DEFINITION_LABEL,
    OPERATION_LABEL,
    Container,
)
from holdfast.containers.docker import SERVICE
from holdfast.drivers.compose_model import KeptImage, Model
from holdfast.drivers.runtimes.compose import models
from holdfast.drivers.runtimes.compose.project import QUIET, Project, images_of, model_of, sources_mounted
from holdfast.drivers.runtimes.compose.project_containers import NAME_FILE, ProjectContainers
from holdfast.errors import (
    CommandFailedError,
    PortTakenError,
    RefusedError,
    StepError,
)
from holdfast.model import Problem, ReleaseCommand, ServiceInstance, ServiceStatus
from holdfast.system import durable
from holdfast.system.host import CommandResult, Host
from holdfast.system.ports import listeners_on

_TAIL_LINES = 40
_START_SECONDS = 600
_LIKE_SECRETS = re.compile(r"PASS|SECRET|TOKEN|KEY|CREDENTIAL|DSN|_URL$|^URL$", re.IGNORECASE)


class ComposeRuntime(ProjectContainers):
    takes_over = True
    tells_port = False  # the image decides on the port

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

        With `keep_ports` a web service keeps the published ports of its files, for visitors, in addition to the port of
        this machine that only Holdfast uses. With `reached_inside` it has a name of its own on its networks, for a
        proxy there.
        """
        super().__init__(folder, environment_id, host, project, ports)
        self._web = web
        self._keep_ports = keep_ports
        self._reached_inside = reached_inside

    def _of(self, name: str) -> list[Container]:
        return [container for container in self._ours() if container.name == name]

    def _read(self, release: Path) -> Model:
        """Read a release's model; values in it that look like secrets are redacted from now on."""
        found = model_of(release)
        for service in found["services"].values():
            for name, value in (service.get("environment") or {}).items():
                if value and _LIKE_SECRETS.search(name):
                    self._host.redactor.add(str(value))
        return found

    # --- instances ---------------------------------------------------------------------------------

    def statuses(self) -> dict[str, ServiceStatus]:
        return {container.name: self._status(container) for container in self._ours()}

    def _status(self, container: Container) -> ServiceStatus:
        """Return the status; a container that is being ended counts as stopped, because the engine completes that."""
        ending = self._ending(container.name).exists()
        return replace(container.status(), running=False, detail="stopping") if ending else container.status()

    def start(self, instance: ServiceInstance) -> None:
        release = Path(instance.directory)
        model = self._read(release)
        found = self._of(instance.name)
        image = self._image_of(instance.service, instance.directory)
        policy = models.restart_policy(model, instance.service)
        fixed = not self._engine.changes_policies  # then the container is created with its final policy
        policy = policy if instance.comes_back or fixed else "no"
        inside = self._port_inside(model, instance) if instance.port else 0
        wanted = models.instance_model(
            model,
            instance,
            image,
            self._environment_id,
            inside,
            keep_ports=self._keep_ports,
            restart=policy if fixed else "no",
        )
        if self._reached_inside and instance.kind == "web":
            wanted = models.named(wanted, instance)
        digest = (wanted["services"][instance.service].get("labels") or {})[DEFINITION_LABEL]
        if not self._keeps(instance.name, found, digest, image["id"]):
            self._stop(instance.name, found)
            self._up(model["name"], instance, wanted)
            if policy == "no" or fixed:
                return  # the policy is the one of its creation
            found = self._of(instance.name)
        for container in found:
            if not fixed and container.restart_policy != policy:
                self._engine.do("update", f"--restart={policy}", container.id)

    def address_of(self, instance: ServiceInstance, *, inside: bool) -> str:
        if not inside:
            return f"127.0.0.1:{instance.port}"
        model = self._read(Path(instance.directory))
        return f"{models.own_name(instance)}:{self._port_inside(model, instance)}"

    def _port_inside(self, model: Model, instance: ServiceInstance) -> int:
        """Return the port by the instance's own release, because the configuration may be a later one."""
        port = instance.port_inside or self._ports.get(instance.service, 0)
        return models.port_inside(model, instance.service, port)

    def _keeps(self, name: str, found: Sequence[Container], digest: str, image: str) -> bool:
        """Return whether the running container is the wanted one; an adopted one is compared by its image.

        One that is being ended may still run for a while, and must not be taken for one that stays.
        """
        if len(found) != 1 or self._ending(name).exists():
            return False
        return found[0].running and found[0].runs == image and found[0].definition in (digest, "")

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

    def _up(self, project: str, instance: ServiceInstance, wanted: Model) -> None:
        names = self._beside(project, instance.service)
        made = self._compose.placed(wanted, instance.service, names)
        file = self._folder / f"{instance.name}.json"
        self._write(made, file)
        durable.write_file(self._folder / NAME_FILE, project)
        argv = self._compose.up_argv(made, file, instance.service, names)
        try:
            environment = {**self._host.resolved(instance.environment), **QUIET}
            self._host.run(argv, environment=environment, timeout_seconds=_START_SECONDS)
        except CommandFailedError as error:
            if instance.port is not None and listeners_on(instance.port):
                raise PortTakenError(f"port {instance.port} of service {instance.service} is taken") from error
            raise StepError(f"service {instance.service} does not start", state=error.output_tail.strip()) from error

    def _write(self, made: Model, file: Path) -> None:
        durable.make_directory(self._folder)
        for path, text in self._compose.contents(made, file).items():
            durable.write_file(path, text)

    def _beside(self, project: str, service: str) -> list[str]:
        """Return the running containers of a service, after removing ended ones, which Compose would start too."""
        names = []
        for item in self._engine.of_project(project, f"{SERVICE}={service}"):
            if item["State"]["Running"]:
                names.append(str(item["Name"]).lstrip("/"))
            else:
                self._engine.remove(item)
        return names

    def _ending(self, name: str) -> Path:
        return self._folder / f"{name}.ending"

    def stop(self, name: str) -> float | None:
        return self._stop(name, self._of(name))

    def _stop(self, name: str, found: Sequence[Container]) -> float | None:
        if found:
            durable.make_directory(self._folder)
            durable.write_file(self._ending(name), "")
        killed = [seconds for item in found if (seconds := self._engine.remove(item.known)) is not None]
        self._adopted.forget(name)
        for ending in ("json", "env", "ending"):
            durable.unlink(self._folder / f"{name}.{ending}")
        return max(killed, default=None)

    def release_of(self, name: str) -> str | None:
        """Return the release; None also where the container runs another image than the release's."""
        for container in self._of(name):
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
                for container in self._of(name)
            )
        return ""

    def shut_down(self) -> None:
        for name in list(self.statuses()):
            self.stop(name)

    def check(self) -> list[Problem]:
        try:
            found = self.statuses()
            unmanaged = self.unmanaged()
        except (StepError, RefusedError) as error:
            return [Problem("runtime", "error", error.what, error.next_step)]
        if not found:
            return [
                Problem(
                    "runtime",
                    "warning",
                    "no service of this application runs",
                    "Run `holdfast service start` to start the services that ran before,"
                    " or `holdfast adopt` to take over running containers.",
                )
            ]
        problems = [
            Problem("runtime", "error", f"{status.name} is {status.detail}", "`holdfast service restart`")
            for status in found.values()
            if not status.running or status.healthy is False
        ]
        return problems + [
            Problem(
                "runtime",
                "error",
                f"container {name} of service {service} was not started by Holdfast",
                f"Run: {self._engine.name} rm --force {name}; then run: holdfast service restart {service}",
            )
            for name, service in unmanaged.items()
        ]

    # --- one-off commands --------------------------------------------------------------------------

    def run_task(
        self,
        command: ReleaseCommand,
        operation: str,
        *,
        timeout_seconds: float | None = None,
        output: IO[bytes] | None = None,
    ) -> CommandResult:
        argv = self._task_argv(command, operation)
        try:
            return self._host.run(
                argv, cwd="/", environment=command.environment, timeout_seconds=timeout_seconds, output=output
            )
        finally:
            self.end_tasks(operation)  # if only its client was ended, the container goes on

    def run_console(
        self,
        command: ReleaseCommand,
        *,
        terminal: bool,
    ) -> int:
        own = f"console-{os.getpid()}"
        argv = self._task_argv(command, own, terminal=terminal)
        code = self._host.interactive(argv, cwd=command.directory, environment=command.environment)
        self.end_tasks(own)
        return code

    def _task_argv(self, command: ReleaseCommand, operation: str, *, terminal: bool = False) -> list[str]:
        """Return the argv that runs a command in a container of its release; its exit code is the command's.

        The values of its variables are taken from the environment in which the argv is run. The container is removed
        afterwards.
        """
        model = self._read(Path(command.directory))
        image = self._image_of(command.service, command.directory)
        wanted = models.task_model(
            model, command.service, image["tag"], command.environment, self._environment_id, operation
        )
        # A file of its own, because a plan that is made meanwhile may run a command of another release.
        file = self._folder / f"task-{operation}-{secrets.token_hex(4)}.json"
        self._write(wanted, file)
        return self._compose.run_argv(wanted, file, command.service, command.argv, terminal=terminal)

    def end_tasks(self, operation: str) -> None:
        """End an operation's one-off containers; wait for an engine that is restarting. Idempotent. Raise StepError."""
        self._engine.wait_available()
        ours = f"{APPLICATION_LABEL}={self._environment_id}"
        for item in self._engine.containers(ours, f"{OPERATION_LABEL}={operation}"):
            self._engine.remove(item)
        for file in self._folder.glob(f"task-{operation}-*"):
            durable.unlink(file)

    # --- releases ----------------------------------------------------------------------------------

    def services_of(self, directory: str, configured: Collection[str]) -> list[str]:
        known = model_of(Path(directory))["services"]
        return [name for name in configured if name in known]

    def refused(self, directory: str) -> list[str]:
        model, images = model_of(Path(directory)), images_of(Path(directory))
        found = models.refused(model, self._ports, images, web=self._web, gated=not self._keep_ports)
        found += models.of_another_project(model, self.project_name())
        if found:
            return found
        for name in set(self._ports) & set(model["services"]):
            image, service = images[name]["tag"], model["services"][name]
            found += models.volumes_without_name(name, service, self._engine.volumes_of(image))
            found += self._compose.refused(name, service)
            found += sources_mounted(name, service, Path(directory), self._project.folder)
            made = models.task_model(model, name, image, [], self._environment_id, "none")
            found += self._unread(name, model["name"], made)
        return found

    def beside(self, directory: str, services: Sequence[str]) -> tuple[list[str], list[str]]:
        return models.beside_another(model_of(Path(directory)), services, web=self._web)

    def _unread(self, service: str, project: str, made: Model) -> list[str]:
        """Return the errors of Compose itself when it reads a model, before anything is stopped for it."""
        file = self._folder / f"task-none-{secrets.token_hex(4)}.json"
        self._write(made, file)
        try:
            self._host.capture(self._compose.check_argv(project, file))
        except CommandFailedError as error:
            return [f"service {service} cannot be started by itself: {error.output_tail.strip()}"]
        finally:
            for path in self._compose.contents(made, file):
                durable.unlink(path)
        return []

    def missing_images(self, directory: str, services: Collection[str] | None = None) -> list[str]:
        images = images_of(Path(directory))
        wanted = [image for name, image in images.items() if services is None or name in services]
        return [image["tag"] for image in wanted if self._engine.image(image["tag"]) != image["id"]]

    def storage_paths(self) -> list[Path]:
        place = self._engine.storage()
        return [Path(place)] if place and Path(place).is_dir() else []
