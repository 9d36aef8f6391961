"""Running the application's one-off commands in a release."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from holdfast.engine.runner import StepContext
from holdfast.model import Release
from holdfast.steps.opened import Opened


def command(opened: Opened, task: str) -> list[str]:
    """The configured command of a task; empty if the application has none."""
    found: list[str] = getattr(opened.loaded.configuration.tasks, task)
    return list(found)


def run(opened: Opened, context: StepContext) -> None:
    release = Release(**context.parameters["release"])
    environment = opened.resolved_environment(release)
    for database in opened.databases.values():
        environment.update(database.session_environment(context.operation))
    opened.host.run(
        command(opened, context.parameters["task"]),
        cwd=release.path,
        environment=environment,
        timeout_seconds=opened.loaded.configuration.limits.task_timeout_seconds,
    )


def describe(opened: Opened, parameters: Mapping[str, Any]) -> list[str]:
    return [f"cd {parameters['release']['path']} && " + " ".join(command(opened, parameters["task"]))]
