"""The application's one-off commands, run in a release."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import IO, Any

from holdfast.application.context import Opened
from holdfast.engine.runner import StepContext
from holdfast.model import Release
from holdfast.system.host import CommandResult


def command(opened: Opened, task: str) -> list[str]:
    """Return the configured command of a task; empty if the application has none."""
    found: list[str] = getattr(opened.loaded.configuration.tasks, task)
    return list(found)


def run(opened: Opened, context: StepContext) -> None:
    release = Release(**context.parameters["release"])
    environment: dict[str, str] = {}
    for database in opened.databases.values():
        environment.update(database.session_environment(context.operation))
    invoke(opened, release, command(opened, context.parameters["task"]), environment)


def invoke(
    opened: Opened, release: Release, argv: Sequence[str], more: Mapping[str, str], output: IO[bytes] | None = None
) -> CommandResult:
    """Run a command in a release to its end; its output goes to the log, or to `output`.

    Raise what Host.run raises.
    """
    environment = {**opened.resolved_environment(release), **more}
    limit = opened.loaded.configuration.limits.task_timeout_seconds
    if opened.containers is None:
        return opened.host.run(
            argv, cwd=release.path, environment=environment, timeout_seconds=limit, output=output, as_application=True
        )
    operation = opened.host.operation or f"plan-{os.getpid()}"  # a plan asks a release for its migrations
    service = opened.loaded.configuration.task_service()
    words = opened.containers.one_off(service, release.path, argv, environment, operation)
    try:
        return opened.host.run(words, cwd="/", environment=environment, timeout_seconds=limit, output=output)
    finally:
        opened.containers.end_one_offs(operation)  # if only its client was ended, the container goes on


def describe(opened: Opened, parameters: Mapping[str, Any]) -> list[str]:
    return [f"cd {parameters['release']['path']} && " + " ".join(command(opened, parameters["task"]))]
