"""The steps that compare migrations of the live database with those of a release, and apply them while it serves."""

from __future__ import annotations

from typing import Literal

from holdfast.application.context import ApplicationContext
from holdfast.errors import RefusedError, StepError
from holdfast.model import Release
from holdfast.steps import services, tasks
from holdfast.steps.loaded import CheckLoadedMigrations
from holdfast.steps.migrations import applied, compared, incompatible, known, not_in, pending, refuse_unknown
from holdfast.steps.typed import Context, NoFacts, StepFacts, TypedStep

Mode = Literal["maintenance", "rolling", "source"]


class PendingFacts(StepFacts):
    pending: list[str] | None = None
    """The migrations that the release brings."""


class CheckMigrations(TypedStep[PendingFacts], frozen=True):
    """Refuse a release that is older than the database, and migrations that the mode does not allow."""

    name = "migrations.check"

    release: Release
    mode: Mode
    left: bool = False
    """Whether it may have been done before the swap of databases, for the title."""

    @property
    def title(self) -> str:
        return f"compare migrations{' that could not be compared before the swap' if self.left else ''}"

    def do(self, application: ApplicationContext, context: Context[PendingFacts]) -> None:
        if not known(application):
            refuse_unknown_migrations(application, self.mode)
            return
        loaded = context.facts_of(CheckLoadedMigrations)
        if loaded is not None and loaded.verified:
            return  # the candidate, which is the live database by now, was already checked
        unknown, waiting = compared(application, self.release)
        refuse_unknown(self.release, unknown)
        context.facts.pending = waiting
        context.record()
        if self.mode == "source" and waiting:
            raise RefusedError(
                f"a source-only upgrade cannot carry migrations: {', '.join(waiting)}",
                next_step=f"Run `holdfast upgrade {self.release.label}` (maintenance mode), or add --rolling if the old"
                " code tolerates them.",
            )
        if self.mode == "rolling" and waiting:
            _refuse_rolling(application, waiting)


def refuse_unknown_migrations(application: ApplicationContext, mode: Mode) -> None:
    """Refuse a mode in which migrations have to be known, where they are not."""
    unknown = not known(application) and application.loaded.configuration.tasks.task("migrate") is not None
    if unknown and mode in ("rolling", "source"):
        raise RefusedError(
            f"a {mode} upgrade needs to know the migrations",
            next_step="Describe them under [migrations], or upgrade in maintenance mode.",
        )


def _refuse_rolling(application: ApplicationContext, waiting: list[str]) -> None:
    """Refuse migrations that cannot run while the old version serves."""
    if application.loaded.configuration.migrations.on_start:
        raise RefusedError(
            f"the web runs {', '.join(waiting)} when it starts, next to the old one and before it is verified",
            next_step="Upgrade in maintenance mode.",
        )
    bad = incompatible(application, waiting)
    if bad:
        raise RefusedError(
            f"a rolling upgrade needs migrations that the old code tolerates; not declared as such: {', '.join(bad)}",
            next_step="Declare them under `migrations.compatible` if they are, or upgrade in maintenance mode.",
        )
    if not application.loaded.configuration.migrations.transactional:
        raise RefusedError(
            "migrations of this database are not transactional; a failed one would stay half done",
            next_step="Upgrade in maintenance mode.",
        )


class VerifyMigrations(TypedStep[NoFacts], frozen=True):
    """Look for migrations that a web did not apply which migrates at its start."""

    name = "migrations.verify"

    release: Release

    @property
    def title(self) -> str:
        return "look for migrations that the start did not apply"

    def do(self, application: ApplicationContext, context: Context[NoFacts]) -> None:
        """Raise StepError where the web is serving without all migrations."""
        checked = context.facts_of(CheckMigrations)
        if checked is not None and checked.pending is not None:  # the release is the same, and visitors wait
            left = not_in(application, checked.pending, applied(application, self.release))
        else:
            left = pending(application, self.release)
        if left:
            begun = services.ordered(services.started(application, context.operation), stopping=False)
            output = (
                application.host.redactor.text(application.runtime.output_tail(begun[0].name).strip()) if begun else ""
            )
            raise StepError(
                f"release {self.release.label} serves, but its start did not apply all migrations: {', '.join(left)}",
                state=output,
            )


class MigrateFacts(StepFacts):
    before: list[str] | None = None
    """The migrations that were applied before."""
    degraded: str | None = None
    """What an undo leaves, which the engine reports."""


class MigrateWhileServing(TypedStep[MigrateFacts], frozen=True):
    """Migrate while the old code serves."""

    name = "migrations.apply_compatible"
    is_undone = True

    release: Release
    task: tasks.TaskName = "migrate"

    @property
    def title(self) -> str:
        return f"run {self.task} while the old version serves"

    def do(self, application: ApplicationContext, context: Context[MigrateFacts]) -> None:
        context.facts.before = applied(application)
        context.record()
        tasks.run(application, self.release, self.task, context.operation)

    def undo(self, application: ApplicationContext, context: Context[MigrateFacts]) -> None:
        """Record which migrations stay: data is never restored here."""
        now = applied(application)
        before = set(now if context.facts.before is None else context.facts.before)
        stayed = [name for name in now if name not in before]
        if stayed:
            span = stayed[0] if len(stayed) == 1 else f"{stayed[0]} to {stayed[-1]}"
            context.facts.degraded = (
                f"Migrations {span} stay; they are declared compatible with it, and no write was lost."
            )
            context.record()

    def describe(self, application: ApplicationContext) -> list[str]:
        return tasks.describe(application, self.release, self.task)
