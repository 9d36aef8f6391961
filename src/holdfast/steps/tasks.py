"""The application's one-off commands, run in a release."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import IO, Literal

from holdfast.application.context import ApplicationContext
from holdfast.model import Release, ReleaseCommand
from holdfast.steps.typed import Context, NoFacts, TypedStep
from holdfast.system.host import CommandResult


def command(application: ApplicationContext, task: Task) -> list[str]:
    """Return the configured command of a task; empty if the application has none."""
    found: list[str] = getattr(application.loaded.configuration.tasks, task)
    return list(found)


Task = Literal["install", "migrate", "warm_cache", "after_restore", "after_clone", "reindex"]
"""A key of `[tasks]` that operations run."""


class RunTask(TypedStep[NoFacts], frozen=True):
    """Run a task in a release."""

    name = "task.run"

    release: Release
    task: Task

    @property
    def title(self) -> str:
        return f"run {self.task}"

    def do(self, application: ApplicationContext, context: Context[NoFacts]) -> None:
        run(application, self.release, self.task, context.operation)

    def describe(self, application: ApplicationContext) -> list[str]:
        return describe(application, self.release, self.task)


def run(application: ApplicationContext, release: Release, task: Task, operation: str) -> None:
    """Run a task to its end, with database sessions that the fence of this operation can end."""
    environment: dict[str, str] = {}
    for database in application.databases.values():
        environment.update(database.session_environment(operation))
    invoke(application, release, command(application, task), environment)


def describe(application: ApplicationContext, release: Release, task: Task) -> list[str]:
    """Return the exact command of a task."""
    return [f"cd {release.path} && " + " ".join(command(application, task))]


def invoke(
    application: ApplicationContext,
    release: Release,
    argv: Sequence[str],
    more: Mapping[str, str],
    output: IO[bytes] | None = None,
) -> CommandResult:
    """Run a command in a release to its end; its output goes to the log, or to `output`.

    Raise what Host.run raises.
    """
    environment = {**application.resolved_environment(release), **more}
    limit = application.loaded.configuration.limits.task_timeout_seconds
    operation = application.host.operation or f"plan-{os.getpid()}"  # a plan asks a release for its migrations
    service = application.loaded.configuration.task_service()
    command = ReleaseCommand(service, release.path, argv, environment)
    return application.runtime.run_task(command, operation, timeout_seconds=limit, output=output)
