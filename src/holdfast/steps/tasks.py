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
    invoke(application, release, command(application, task), _sessions(application, operation))


def prepare(application: ApplicationContext, release: Release, task: Task, operation: str) -> None:
    """Prepare the run of a task."""
    wanted = _in_release(application, release, command(application, task), _sessions(application, operation))
    application.runtime.prepare_task(wanted, operation)


def _sessions(application: ApplicationContext, operation: str) -> dict[str, str]:
    environment: dict[str, str] = {}
    for database in application.databases.values():
        environment.update(database.session_environment(operation))
    return environment


def _in_release(
    application: ApplicationContext, release: Release, argv: Sequence[str], more: Mapping[str, str]
) -> ReleaseCommand:
    environment = {**application.resolved_environment(release), **more}
    return ReleaseCommand(application.loaded.configuration.task_service(), release.path, argv, environment)


def describe(application: ApplicationContext, release: Release, task: Task) -> list[str]:
    """Return the exact command of a task."""
    argv = " ".join(command(application, task))
    if application.containers is not None:
        return [f"(in a container of the new image) {argv}"]
    return [f"cd {release.path} && {argv}"]


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
    limit = application.loaded.configuration.limits.task_timeout_seconds
    operation = application.host.operation or f"plan-{os.getpid()}"  # a plan asks a release for its migrations
    wanted = _in_release(application, release, argv, more)
    return application.runtime.run_task(wanted, operation, timeout_seconds=limit, output=output)
