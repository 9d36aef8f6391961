"""The plans of sanitized backups: make one, delete one, and load one into an environment that is not production."""

from __future__ import annotations

from holdfast.application import sanitizing
from holdfast.application.application import App
from holdfast.errors import RefusedError, UsageError
from holdfast.model import Plan, PlanParameters
from holdfast.operations import backup as backups
from holdfast.operations import import_
from holdfast.sanitize.store import SanitizedBackup
from holdfast.steps.sanitizing import DeleteSanitized, PublishSanitized, WriteSanitized


def plan(app: App, *, comment: str = "") -> Plan:
    """Return the plan of a sanitized backup of all databases. Raise where a column is undecided; no row is read."""
    backups.vault(app)
    store = sanitizing.store(app.context)
    _, plans = sanitizing.ready(app.context)
    id = store.new_id()
    exempt = [f"{name}: {one.table.name}" for name, made in plans.items() for one in made.tables if one.exempt]
    notes = ["Databases only: files, code and configuration are not part of it."]
    notes += [f"Some rows of {', '.join(exempt)} stay unchanged, as the rules say."] if exempt else []
    return Plan(
        kind="backup.sanitized",
        title=f"sanitized backup {id}",
        steps=(WriteSanitized(id, comment),),
        after_commit=(PublishSanitized(id),),
        lock="backup",
        notes=tuple(notes),
        barrier_paths=(str(app.loaded.state), str(store.folder.parent)),
        parameters=PlanParameters(set=id),
    )


def plan_delete(app: App, reference: str) -> Plan:
    """Return the plan that deletes a sanitized backup. Raise NotFoundError."""
    found = sanitizing.store(app.context).find(reference)
    return Plan(
        kind="backup.sanitized.delete",
        title=f"delete sanitized backup {found.id}",
        steps=(),
        after_commit=(DeleteSanitized(found.id),),
        lock="backup",
        notes=(f"{', '.join(found.files)} cannot be brought back.",),
        barrier_paths=(str(app.loaded.state),),
    )


def plan_restore(
    app: App, found: SanitizedBackup, source: App, *, database: str | None, safety: bool = True, clone: bool = False
) -> Plan:
    """Return the plan that loads a sanitized backup of an environment, `source`, into one database of another.

    Raise RefusedError for production, and for an encrypted one.
    """
    if app.loaded.environment_type == "prod":
        raise RefusedError(
            "this is a production environment: a sanitized backup has no personal data to give back",
            next_step="To bring data back, use `holdfast backup restore`; `holdfast import` loads a dump all the same.",
        )
    store = sanitizing.store(source.context)
    store.verify(found)
    if found.encrypted_to:
        raise RefusedError(
            f"sanitized backup {found.id} is encrypted, and Holdfast does not have the key of its readers",
            next_step=f"Decrypt it, then: holdfast import database FILE (from {store.folder})",
        )
    by_database = {one.database: name for name, one in found.files.items()}
    if database is None and len(by_database) > 1:
        raise UsageError(f"it has several databases: {', '.join(by_database)}", next_step="Name one with --only.")
    chosen = database or next(iter(by_database))
    if chosen not in by_database:
        raise UsageError(
            f"sanitized backup {found.id} has no database {chosen}", next_step=f"It has: {', '.join(by_database)}."
        )
    file = str(store.path(by_database[chosen]))
    return import_.plan_database(
        app, file, database=chosen, safety=safety, then="after_clone" if clone else "after_restore"
    )
