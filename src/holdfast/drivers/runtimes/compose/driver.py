"""A Compose project as a runtime: its services as containers, and the application's commands in one-off containers.

Facts from the documentation of Docker and measured on 20.10 with Compose 2.26: a container with `always` that was
stopped by hand is started again with the engine, so one that is to stay stopped loses its policy first;
`docker update --restart` takes effect at once; a `docker stop` whose client was killed goes on in the engine; the
client of a killed `docker compose run` leaves its container running; `docker start --attach` ends with the exit code of
the container's process.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import IO

from holdfast.containers.container import APPLICATION_LABEL, DEFINITION_LABEL, OPERATION_LABEL, label
from holdfast.containers.facts import Known
from holdfast.drivers.compose_model import Model
from holdfast.drivers.runtimes.compose import models
from holdfast.drivers.runtimes.compose.instances import InstanceContainers
from holdfast.drivers.runtimes.compose.project import QUIET, images_of, model_of, sources_mounted
from holdfast.errors import CommandFailedError, RefusedError, StepError
from holdfast.model import Problem, ReleaseCommand
from holdfast.system import durable
from holdfast.system.host import CommandResult


class ComposeRuntime(InstanceContainers):
    takes_over = True
    tells_port = False  # the image decides on the port

    def check(self) -> list[Problem]:
        try:
            known = self._ours()
            unmanaged = self.unmanaged()
        except (StepError, RefusedError) as error:
            return [Problem("runtime", "error", error.what, error.next_step)]
        found = [self._status(container) for container in known if not self._waits(container)]
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
            for status in found
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

    def prepare_task(self, command: ReleaseCommand, operation: str) -> None:
        if not self.creates_ahead:
            return
        made, service, file = self._prepared(command, operation)
        self._write(made, file)
        try:
            self._host.run(
                self._compose.creation_argv(made, file, {service: 0}), environment={**command.environment, **QUIET}
            )
        finally:
            durable.unlink(file)

    def _prepared(self, command: ReleaseCommand, operation: str) -> tuple[Model, str, Path]:
        """Return the model of a command's container that is created ahead, its service in the model, and a file."""
        model = self._read(Path(command.directory))
        image = self._image_of(command.service, command.directory)
        task = models.task_model(
            model, command.service, image["tag"], command.environment, self._environment_id, operation
        )
        made = models.prepared_task(task, command.service, command.argv)
        file = self._folder / f"task-{operation}-{secrets.token_hex(4)}.json"
        return made, next(iter(made["services"])), file

    def run_task(
        self,
        command: ReleaseCommand,
        operation: str,
        *,
        timeout_seconds: float | None = None,
        output: IO[bytes] | None = None,
    ) -> CommandResult:
        ready = self._ready(command, operation)
        argv = [self._engine.name, "start", "--attach", ready] if ready else self._task_argv(command, operation)
        try:
            return self._host.run(
                argv, cwd="/", environment=command.environment, timeout_seconds=timeout_seconds, output=output
            )
        except CommandFailedError as error:
            # The operator knows the command, and not the one that runs it in a container.
            shown = self._host.redactor.text(" ".join(command.argv))
            error.what = (
                f"`{shown}` in a container of {command.service} ended with exit code {error.exit_code_of_command}"
            )
            raise
        finally:
            self._end_tasks(operation, waiting=False)  # if only its client was ended, the container goes on

    def _ready(self, command: ReleaseCommand, operation: str) -> str:
        """Return the id of a container that was created ahead for a command; empty where there is none."""
        waiting = [item for item in self._of_operation(operation) if item["State"]["Status"] == "created"]
        if not waiting:
            return ""
        made, service, _ = self._prepared(command, operation)
        wanted = (made["services"][service].get("labels") or {})[DEFINITION_LABEL]
        return next((item["Id"] for item in waiting if label(item, DEFINITION_LABEL) == wanted), "")

    def run_console(
        self,
        command: ReleaseCommand,
        *,
        terminal: bool,
        timeout_seconds: float | None = None,
    ) -> int:
        own = f"console-{os.getpid()}"
        argv = self._task_argv(command, own, terminal=terminal)
        try:
            return self._host.interactive(
                argv, cwd=command.directory, environment=command.environment, timeout_seconds=timeout_seconds
            )
        finally:
            self.end_tasks(own)

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
        self._end_tasks(operation)

    def _end_tasks(self, operation: str, *, waiting: bool = True) -> None:
        """End one-off containers, those that were created ahead and wait among them unless told otherwise."""
        self._engine.wait_available()
        found = self._of_operation(operation)
        self._engine.end([item for item in found if waiting or item["State"]["Status"] != "created"])
        for file in self._folder.glob(f"task-{operation}-*"):
            durable.unlink(file)

    def _of_operation(self, operation: str) -> list[Known]:
        return self._engine.containers(f"{APPLICATION_LABEL}={self._environment_id}", f"{OPERATION_LABEL}={operation}")

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
