"""The application's one-off commands, run in a release."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import IO, Literal

from holdfast.application.context import Opened
from holdfast.model import Release
from holdfast.steps.typed import Context, NoFacts, TypedStep
from holdfast.system.host import CommandResult


def command(opened: Opened, task: Task) -> list[str]:
    """Return the configured command of a task; empty if the application has none."""
    found: list[str] = getattr(opened.loaded.configuration.tasks, task)
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

    def do(self, opened: Opened, context: Context[NoFacts]) -> None:
        run(opened, self.release, self.task, context.operation)

    def describe(self, opened: Opened) -> list[str]:
        return describe(opened, self.release, self.task)


def run(opened: Opened, release: Release, task: Task, operation: str) -> None:
    """Run a task to its end, with database sessions that the fence of this operation can end."""
    environment: dict[str, str] = {}
    for database in opened.databases.values():
        environment.update(database.session_environment(operation))
    invoke(opened, release, command(opened, task), environment)


def describe(opened: Opened, release: Release, task: Task) -> list[str]:
    """Return the exact command of a task."""
    return [f"cd {release.path} && " + " ".join(command(opened, task))]


def invoke(
    opened: Opened, release: Release, argv: Sequence[str], more: Mapping[str, str], output: IO[bytes] | None = None
) -> CommandResult:
    """Run a command in a release to its end; its output goes to the log, or to `output`.

    Raise what Host.run raises.
    """
    environment = {**opened.resolved_environment(release), **more}
    limit = opened.loaded.configuration.limits.task_timeout_seconds
    operation = opened.host.operation or f"plan-{os.getpid()}"  # a plan asks a release for its migrations
    service = opened.loaded.configuration.task_service()
    return opened.runtime.run_task(
        service, release.path, argv, environment, operation, timeout_seconds=limit, output=output
    )
