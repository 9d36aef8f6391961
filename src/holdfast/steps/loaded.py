"""Checks of candidate databases while visitors are served."""

from __future__ import annotations

from holdfast.application.context import ApplicationContext
from holdfast.errors import StepError
from holdfast.model import Release
from holdfast.steps import migrations
from holdfast.steps.swap import loaded
from holdfast.steps.typed import Context, OperationContext, StepFacts, TypedStep, WarningFacts


class LoadedFacts(StepFacts):
    verified: list[str] | None = None
    """The databases whose migrations were compared."""


class CheckLoadedMigrations(TypedStep[LoadedFacts], frozen=True):
    """Refuse a candidate database with migrations that the release to run does not know.

    What cannot be compared before the swap is left to `CheckMigrations` after it.
    """

    name = "migrations.check_loaded"

    release: Release

    @property
    def title(self) -> str:
        return "compare migrations"

    def do(self, application: ApplicationContext, context: Context[LoadedFacts]) -> None:
        applied = _applied(application, context, self.release)
        shipped = _shipped(application, context, self.release) if applied is not None else None
        if applied is None or shipped is None:
            return
        migrations.refuse_unknown(self.release, migrations.unknown_among(application, self.release, applied, shipped))
        context.facts.verified = [migrations.database_of(application)]
        context.record()


class CheckReferences(TypedStep[WarningFacts], frozen=True):
    """Note missing files that a candidate database names; they may be imported after it."""

    name = "references.check_loaded"

    @property
    def title(self) -> str:
        return "look for the files that the candidate database names"

    def do(self, application: ApplicationContext, context: Context[WarningFacts]) -> None:
        references = application.loaded.configuration.backup.references
        identity = _candidate(context, references.database) if references is not None else None
        if references is None or identity is None:
            return
        try:
            with application.sql_database(references.database).candidate(context.operation, identity) as candidate:
                named = {str(row[0]) for row in candidate.query(references.query)}
        except StepError as error:
            context.say(f"the files that the candidate database names could not be listed: {error.what}")
            return
        named -= {entry.path for entry in application.files[references.files].scan() if entry.kind == "file"}
        if named:
            note = (
                f"{len(named)} files that the candidate database names are not in {references.files}, for example"
                f" {min(named)}"
            )
            context.say(f"{note}; to import them, run: holdfast import files SOURCE --into {references.files}")
            context.facts.warnings = [note]
            context.record()


def _candidate(context: OperationContext, database: str) -> str | None:
    """Return the identity of a candidate database; None if this one was not loaded."""
    found = loaded(context)
    return ((found.candidates if found is not None else None) or {}).get(database)


def _applied(application: ApplicationContext, context: OperationContext, release: Release) -> list[str] | None:
    """Return the migrations of the database that will be live; None where only the swap shows them."""
    name = migrations.database_of(application)
    identity = _candidate(context, name)
    if identity is None:
        return migrations.applied(application, release)
    needs_table = migrations.may_need_views(application)
    try:
        with application.sql_database(name).candidate(context.operation, identity) as candidate:
            return migrations.applied_in(application, candidate, release, needs_table=needs_table)
    except StepError as error:
        if not needs_table:
            raise
        _say_later(context, error)
        return None


def _shipped(application: ApplicationContext, context: OperationContext, release: Release) -> list[str] | None:
    """Return what a release ships; None where its command fails, for example with a broken live database."""
    try:
        return migrations.shipped(application, release)
    except StepError as error:
        if not migrations.asks_a_command(application):
            raise
        _say_later(context, error)
        return None


def _say_later(context: OperationContext, error: StepError) -> None:
    context.say(f"migrations are compared after the swap: {error.what}")
