"""Checks of candidate databases while visitors are served."""

from __future__ import annotations

from holdfast.application.context import Opened
from holdfast.engine.runner import StepContext
from holdfast.errors import StepError
from holdfast.model import Release
from holdfast.steps import migrations
from holdfast.steps.restore import loaded


def check_migrations(opened: Opened, context: StepContext) -> None:
    """Refuse a candidate database with migrations that the release to run does not know.

    What cannot be asked before the swap is left to `migrations.check` after it.
    """
    release = Release(**context.parameters["release"])
    applied = _applied(opened, context, release)
    shipped = _shipped(opened, context, release) if applied is not None else None
    if applied is None or shipped is None:
        return
    unknown = migrations.not_in(opened, applied, shipped)
    migrations.refuse_unknown(release, migrations.incompatible(opened, unknown))
    context.record({"verified": [migrations.database_of(opened)]})


def check_references(opened: Opened, context: StepContext) -> None:
    """Note missing files that a candidate database names; they may be imported after it."""
    references = opened.loaded.configuration.backup.references
    if references is None:
        return
    identity = loaded(context)["candidates"][references.database]
    try:
        with opened.sql_database(references.database).candidate(context.operation, identity) as candidate:
            named = {str(row[0]) for row in candidate.query(references.query)}
    except StepError as error:
        context.say(f"the files that the candidate database names could not be listed: {error.what}")
        return
    named -= {entry.path for entry in opened.files[references.files].scan() if entry.kind == "file"}
    if named:
        note = (
            f"{len(named)} files that the candidate database names are not in {references.files}, for example"
            f" {min(named)}"
        )
        context.say(f"{note}; to import them, run: holdfast import files SOURCE --into {references.files}")
        context.record({"warnings": [note]})


def _applied(opened: Opened, context: StepContext, release: Release) -> list[str] | None:
    """Return the migrations of the database that will be live; None where only the swap shows them."""
    name = migrations.database_of(opened)
    identity = loaded(context)["candidates"].get(name)
    if identity is None:
        return migrations.applied(opened, release)
    needs_table = migrations.may_need_views(opened)
    try:
        with opened.sql_database(name).candidate(context.operation, identity) as candidate:
            return migrations.applied_in(opened, candidate, release, needs_table=needs_table)
    except StepError as error:
        if not needs_table:
            raise
        _say_later(context, error)
        return None


def _shipped(opened: Opened, context: StepContext, release: Release) -> list[str] | None:
    """Return what a release ships; None where its command fails, for example with a broken live database."""
    try:
        return migrations.shipped(opened, release)
    except StepError as error:
        if not migrations.asks_a_command(opened):
            raise
        _say_later(context, error)
        return None


def _say_later(context: StepContext, error: StepError) -> None:
    context.say(f"migrations are compared after the swap: {error.what}")
