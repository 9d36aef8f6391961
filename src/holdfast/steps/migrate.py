"""The steps that compare migrations of the live database with those of a release, and apply them while it serves."""

from __future__ import annotations

from typing import Literal

from holdfast.application.context import ApplicationContext
from holdfast.errors import CommandFailedError, RefusedError, StepError
from holdfast.model import Release
from holdfast.steps import services, tasks
from holdfast.steps.loaded import CheckLoadedMigrations
from holdfast.steps.migrations import (
    absent_bundles,
    applied,
    compared,
    incompatible,
    intolerable,
    known,
    listed,
    not_in,
    pending,
    refuse_unknown,
    shipped,
    tells_pending,
)
from holdfast.steps.typed import Context, NoFacts, StepFacts, TypedStep, WarningFacts

_TAIL_LINES = 10
Mode = Literal["maintenance", "rolling", "source"]


class PendingFacts(WarningFacts):
    pending: list[str] | None = None
    """The migrations that the release brings."""
    tolerated: list[str] | None = None
    """Those that the code from before tolerates, by their SQL, under the names that the database has of them."""


class CheckMigrations(TypedStep[PendingFacts], frozen=True):
    """Refuse a release that is older than the database, and migrations that the mode does not allow."""

    name = "migrations.check"

    release: Release
    mode: Mode
    left: bool = False
    """Whether it may have been done before the swap of databases, for the title."""
    allow_incompatible: bool = False
    """Whether the operator allows a rolling upgrade that the old code may not tolerate."""

    @property
    def title(self) -> str:
        return f"compare migrations{' that could not be compared before the swap' if self.left else ''}"

    def do(self, application: ApplicationContext, context: Context[PendingFacts]) -> None:
        if not tells_pending(application):
            refuse_unknown_migrations(application, self.mode)
            return
        loaded = context.facts_of(CheckLoadedMigrations)
        if loaded is not None and loaded.verified:
            return  # the candidate, which is the live database by now, was already checked
        unknown, waiting = compared(application, self.release)
        refuse_unknown(self.release, unknown)
        context.facts.pending = waiting
        context.record()
        if absent := absent_bundles(application, self.release):
            context.say(f"The database has bundles that {self.release.label} does not have: {listed(absent)}")
        if self.mode == "source":
            _refuse_source(application, self.release, waiting)
        if self.mode == "rolling" and waiting:
            self._refuse_rolling(application, context, waiting)

    def _refuse_rolling(
        self, application: ApplicationContext, context: Context[PendingFacts], waiting: list[str]
    ) -> None:
        """Refuse migrations that cannot run while the old version serves, unless the operator allows them."""
        migrations = application.loaded.configuration.migrations
        if migrations.on_start:
            raise RefusedError(
                f"the web runs {listed(waiting)} when it starts, next to the old one and before it is verified",
                next_step="Upgrade in maintenance mode.",
            )
        undeclared = incompatible(application, waiting)
        changes = intolerable(application, self.release, undeclared) if undeclared else []
        why = ""
        if changes is None:
            why = (
                "a rolling upgrade needs migrations that the old code tolerates; not declared as such:"
                f" {listed(undeclared)}"
            )
        elif changes:
            why = f"the old code does not tolerate that {self.release.label} {', '.join(changes)}"
        elif not undeclared and not migrations.transactional:
            why = "migrations of this database are not transactional; a failed one would stay half done"
        if why and not self.allow_incompatible:
            raise RefusedError(
                why,
                next_step="Upgrade in maintenance mode. If the old code tolerates them, declare them under"
                " `migrations.compatible`, or add --allow-incompatible.",
            )
        if why:
            note = f"allowed by --allow-incompatible: {why}"
            context.say(note)
            context.facts.warnings = [note]
        elif undeclared:
            context.facts.tolerated = not_in(
                application, shipped(application, self.release), applied(application, self.release)
            )
        context.record()


def _refuse_source(application: ApplicationContext, release: Release, waiting: list[str]) -> None:
    """Refuse a change of code alone where the data are not those of the new code. Raise RefusedError."""
    if waiting:
        raise RefusedError(
            f"a source-only upgrade cannot carry migrations: {', '.join(waiting)}",
            next_step=f"Run `holdfast upgrade {release.label}` (maintenance mode), or add --rolling if the old code"
            " tolerates them.",
        )
    for argv in application.loaded.configuration.migrations.commands("check"):
        try:
            tasks.invoke(application, release, argv, {})
        except CommandFailedError as error:
            lines = "".join(f"\n  | {line}" for line in error.output_tail.strip().splitlines()[-_TAIL_LINES:])
            raise RefusedError(
                f"the schema is not the one that {release.label} describes: `{' '.join(argv)}` failed{lines}",
                next_step=f"Run `holdfast upgrade {release.label}` (maintenance mode), or add --rolling.",
            ) from error


def refuse_unknown_migrations(application: ApplicationContext, mode: Mode) -> None:
    """Refuse a mode in which migrations have to be known, where they are not."""
    unknown = not tells_pending(application) and application.loaded.configuration.tasks.task("migrate") is not None
    if unknown and mode in ("rolling", "source"):
        raise RefusedError(
            f"a {mode} upgrade needs to know the migrations",
            next_step="Describe them under [migrations], or upgrade in maintenance mode.",
        )


class VerifyNonePending(TypedStep[NoFacts], frozen=True):
    """Look for migrations that are pending after the task that should have run them: a task may do nothing and end."""

    name = "migrations.verify_none_pending"

    release: Release

    @property
    def title(self) -> str:
        return "look for migrations that are still pending"

    def do(self, application: ApplicationContext, context: Context[NoFacts]) -> None:
        left = pending(application, self.release)
        if left:
            raise StepError(
                f"`migrate` ended without an error, and migrations are still pending: {listed(left)}",
                next_step="Correct the command of tasks.migrate; it may lack an option such as --force.",
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
    finished: bool = False
    """Whether the task ended without an error."""
    degraded: str | None = None
    """What an undo leaves, which the engine reports."""


class MigrateWhileServing(TypedStep[MigrateFacts], frozen=True):
    """Migrate while the old code serves."""

    name = "migrations.apply_compatible"
    is_undone = True
    undo_strategy = "code"
    may_change_data = True

    release: Release
    task: tasks.TaskName = "migrate"

    @property
    def title(self) -> str:
        return f"run {self.task} while the old version serves"

    def do(self, application: ApplicationContext, context: Context[MigrateFacts]) -> None:
        context.facts.before = applied(application)
        context.record()
        tasks.run(application, self.release, self.task, context.operation)
        context.facts.finished = True
        context.record()

    def undo(self, application: ApplicationContext, context: Context[MigrateFacts]) -> None:
        """Record which migrations stay: data is never restored here."""
        now = applied(application)
        before = set(now if context.facts.before is None else context.facts.before)
        stayed = [name for name in now if name not in before]
        migrations = application.loaded.configuration.migrations
        half = context.facts.before is not None and not (known(application) and migrations.transactional)
        if stayed:
            span = stayed[0] if len(stayed) == 1 else f"{stayed[0]} to {stayed[-1]}"
            context.facts.degraded = f"Migrations {span} stay; the old code tolerates them, and no write was lost."
        elif half and not context.facts.finished:
            context.facts.degraded = "What `migrate` did before it failed stays in the database, and no write was lost."
        if context.facts.degraded:
            context.record()

    def describe(self, application: ApplicationContext) -> list[str]:
        return tasks.describe(application, self.release, self.task)
