"""The application's one-off commands, run in a release."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import IO, Literal

from holdfast.application.commands import filled
from holdfast.application.context import ApplicationContext
from holdfast.config.schema import Task
from holdfast.errors import CancelledError, ConfigurationError, HoldfastError
from holdfast.model import Release, ReleaseCommand
from holdfast.steps.typed import Context, NoFacts, TypedStep, WarningFacts
from holdfast.system.host import CommandResult

TaskName = Literal[
    "prepare",
    "install",
    "migrate",
    "warm_cache",
    "after_rollback",
    "after_start",
    "after_restore",
    "after_clone",
    "reindex",
]
"""A key of `[tasks]` that operations run."""


def configured(application: ApplicationContext, name: TaskName) -> Task:
    """Return a task as it is configured. Raise ConfigurationError if the application has none of that name."""
    found = application.loaded.configuration.tasks.task(name)
    if found is None:
        raise ConfigurationError("holdfast.toml is wrong", [f"tasks.{name}: is missing, and an operation needs it"])
    return found


class RunTask(TypedStep[NoFacts], frozen=True):
    """Run a task in a release."""

    name = "task.run"
    may_change_data = True

    release: Release
    task: TaskName

    @property
    def title(self) -> str:
        return f"run {self.task}"

    def do(self, application: ApplicationContext, context: Context[NoFacts]) -> None:
        run(application, self.release, self.task, context.operation)

    def describe(self, application: ApplicationContext) -> list[str]:
        return describe(application, self.release, self.task)


class RunTaskAfterStart(TypedStep[WarningFacts], frozen=True):
    """Run the task `after_start`. This is a closing step, so its failure is a warning; a recovery repeats it."""

    name = "task.after_start"

    release: Release

    @property
    def title(self) -> str:
        return "run after_start"

    def do(self, application: ApplicationContext, context: Context[WarningFacts]) -> None:
        try:
            run(application, self.release, "after_start", context.operation)
        except CancelledError:
            raise
        except (HoldfastError, OSError) as error:
            what = error.what if isinstance(error, HoldfastError) else str(error)
            note = f"the task after_start failed: {application.host.redactor.text(what)}"
            context.say(note)
            context.facts.warnings = [note]
            context.record()

    def describe(self, application: ApplicationContext) -> list[str]:
        return describe(application, self.release, "after_start")


def run(application: ApplicationContext, release: Release, name: TaskName, operation: str) -> None:
    """Run the commands of a task in turn, with database sessions that the fence of this operation can end."""
    task = configured(application, name)
    for argv in task.argvs():
        wanted = in_release(application, release, argv, _more(application, task, operation), task.user)
        application.runtime.run_task(wanted, operation, timeout_seconds=_limit(application, task))


def run_scheduled(application: ApplicationContext, release: Release, task: Task, operation: str) -> str:
    """Run the commands of a scheduled task in turn; return the last lines that they printed.

    Raise what Host.run raises.
    """
    said = ""
    for argv in task.argvs():
        wanted = in_release(application, release, argv, application.host.resolved(task.environment), task.user)
        said += application.runtime.run_task(wanted, operation, timeout_seconds=_limit(application, task)).output_tail
    return said


def prepare(application: ApplicationContext, release: Release, name: TaskName, operation: str) -> None:
    """Prepare the run of a task."""
    task = configured(application, name)
    for argv in task.argvs():
        wanted = in_release(application, release, argv, _more(application, task, operation), task.user)
        application.runtime.prepare_task(wanted, operation)


def _more(application: ApplicationContext, task: Task, operation: str) -> dict[str, str]:
    return {**application.host.resolved(task.environment), **sessions(application, operation)}


def _limit(application: ApplicationContext, task: Task | None = None) -> float:
    own = task.timeout_seconds if task is not None else 0
    return own or application.loaded.configuration.limits.task_timeout_seconds


def sessions(application: ApplicationContext, operation: str) -> dict[str, str]:
    """Return the environment by which the fence of an operation ends the database sessions of its commands."""
    environment: dict[str, str] = {}
    for database in application.databases.values():
        environment.update(database.session_environment(operation))
    return environment


def in_release(
    application: ApplicationContext, release: Release, argv: Sequence[str], more: Mapping[str, str], user: str = ""
) -> ReleaseCommand:
    """Return a command that runs in the way the tasks of a release do."""
    configuration = application.loaded.configuration
    return ReleaseCommand(
        configuration.task_service(),
        release.path,
        filled(application, argv, release.path, None),
        {**application.resolved_environment(release), **more},
        user or configuration.task_user(),
    )


def describe(application: ApplicationContext, release: Release, name: TaskName) -> list[str]:
    """Return the exact commands of a task, each with its account and the file that it comes from."""
    task = configured(application, name)
    where = "(in a container of the new image)" if application.containers is not None else f"cd {release.path} &&"
    user = "" if application.containers is not None else task.user or application.loaded.configuration.task_user()
    lines = [f"{where} {' '.join(filled(application, argv, release.path, None))}" for argv in task.argvs()]
    origins = application.loaded.origins
    is_table = isinstance(getattr(application.loaded.configuration.tasks, name), Task)
    origin = origins.get(f"tasks.{name}.commands" if is_table else f"tasks.{name}", "")
    said = [f"as {user}"] if user and os.geteuid() == 0 else []
    said += [f"from {origin}"] if origin else []
    return [f"{line}   ({', '.join(said)})" for line in lines] if said else lines


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
    operation = application.host.operation or f"plan-{os.getpid()}"  # a plan asks a release for its migrations
    wanted = in_release(application, release, argv, more)
    return application.runtime.run_task(wanted, operation, timeout_seconds=_limit(application), output=output)
