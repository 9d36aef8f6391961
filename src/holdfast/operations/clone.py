"""The plan of `clone FROM TO`: a restore whose backup comes from the vault of another environment."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from holdfast.application.application import App
from holdfast.config.schema import Database
from holdfast.errors import RefusedError
from holdfast.model import Plan, PlannedStep
from holdfast.operations import backup as backups
from holdfast.operations import hooks, index_parts, parts
from holdfast.steps import migrations, release_paths
from holdfast.steps.closing import TidyReplaced
from holdfast.steps.gate import OpenGate
from holdfast.steps.restore import (
    CheckBackup,
    Chosen,
    LoadDatabases,
    OtherVault,
    PinSource,
    RestoreFiles,
    UnpinSource,
)
from holdfast.steps.service_steps import AdoptServices
from holdfast.steps.swap import SwapDatabases


def plan(
    app: App,
    source: App,
    reference: str,
    *,
    only: Sequence[str] = (),
    except_: Sequence[str] = (),
    unsanitized: bool = False,
    safety: bool = True,
    reason: str = "",
) -> Plan:
    """Return the plan that brings a backup of `source` into `app`.

    Code and configuration stay those of the target; its `migrate` brings the data to its release.

    Raise RefusedError, NotFoundError, UsageError or DamagedError.
    """
    refuse(app, source, unsanitized=unsanitized)
    release = parts.require_installed(app)
    chosen = parts.choose(app, only, (*except_, *([] if "code" in except_ else ["code"])))
    wanted = (*chosen.databases, *chosen.files)
    found = backups.find(source, reference, wanted)
    saved = backups.vault(source)
    saved.open_set(found.id)
    databases = tuple(name for name in chosen.databases if name in only or name in found.datasets)
    files = tuple(name for name in chosen.files if name in only or name in found.datasets)
    vault = OtherVault(saved.kind, saved.location, source.loaded.owner)
    taken = Chosen(found.id, dict.fromkeys((*databases, *files), found.id), databases, files, release, vault)
    title = f"clone of {_named(source)} to {_named(app)}"
    stopping, completing = parts.stop_with_safety_backup_steps(app, databases, title, safety=safety)
    present = parts.only_existing(app, parts.Datasets(databases, files, False))
    recorded_in = migrations.database_of(app.context) if migrations.known(app.context) else ""
    checks = parts.check_loaded(app, release, found) if recorded_in in databases else parts.MigrationChecks()
    affected = index_parts.affected_indices(app, databases, except_)
    steps: list[PlannedStep] = [
        parts.preflight(app, present, dumps=int(safety), adopts=True),
        *hooks.for_failure(app),
        PinSource(*taken),
        CheckBackup(*taken),
        *([LoadDatabases(*taken)] if databases else []),
        *checks.before,
        *stopping,
        *([SwapDatabases("loaded", *taken)] if databases else []),
        *index_parts.swap_indices(affected, exact=found.consistency == "quiesce"),
        *checks.after,
        *([RestoreFiles(*taken, owner=_owner(source))] if files else []),
        *parts.tasks(app, release, "migrate", "after_clone", *index_parts.reindex(app)),
        *parts.start_all(app, release),
    ]
    after: tuple[PlannedStep, ...] = (
        AdoptServices(),
        OpenGate(),
        *completing,
        UnpinSource(*taken),
        TidyReplaced(keep_replaced=True),
        *index_parts.rebuild_indices(release, affected),
        *parts.after_start(app, release),
        *hooks.hook(app, "after_clone"),
    )
    return Plan(
        kind="clone",
        title=title,
        steps=tuple(steps),
        after_commit=after,
        also_locks=("backup",),
        notes=(*_notes(app, source, found.instant, (*databases, *files), wanted), *checks.notes),
        parameters=parts.parameters(app, release, set=found.id, reason=reason or None),
        barrier_paths=tuple(app.context.barrier_paths()),
    )


def _owner(source: App) -> tuple[int, int] | None:
    """Return the user and group of another environment's account, as far as this machine knows it."""
    ids = release_paths.owner_of(source.context).ids
    return ids[:2] if ids is not None else None


def _named(app: App) -> str:
    application = app.loaded.configuration.application
    return f"{application.name}.{application.environment}"


def _notes(app: App, source: App, instant: str, taken: Sequence[str], wanted: Sequence[str]) -> list[str]:
    keep = app.loaded.configuration.upgrade.keep_replaced
    notes = [
        f"{', '.join(taken) or 'nothing'} of {_named(app)} become those of {_named(source)} at {instant};"
        f" the replaced data is kept for {keep}",
        f"unsanitized: {_named(app)} receives the personal data of {_named(source)} unchanged",
    ]
    if left := [name for name in wanted if name not in taken]:
        notes.append(f"The backup has no {', '.join(left)}, so they are not changed.")
    if not app.loaded.configuration.tasks.after_clone:
        notes.append("No tasks.after_clone: site addresses, mail and schedules are those of the source from now on.")
    return notes


def refuse(app: App, source: App, *, unsanitized: bool) -> None:
    """Raise RefusedError where a clone is not allowed, before any backup is made for it."""
    refuse_target(app, source)
    if not unsanitized:
        raise RefusedError(
            f"data of {_named(source)} would be copied into {_named(app)} unchanged, including personal data",
            next_step="If that is intended, add --unsanitized. The log records it.",
        )


def refuse_target(app: App, source: App) -> None:
    """Raise RefusedError where nothing may be copied into an environment, or the two share what each writes into."""
    if app.loaded.environment_type == "prod":
        raise RefusedError(
            f"{_named(app)} is a production environment: cloning into it is refused",
            next_step="To bring data back, use `holdfast backup restore` or `holdfast import`.",
        )
    if shared := _shared(app, source):
        raise RefusedError(f"{_named(source)} and {_named(app)} share {', '.join(shared)}")


def _shared(app: App, source: App) -> list[str]:
    """Return what two environments share although each would write into it."""
    found = [f"{what} {place}" for what, place in sorted(_places(app) & _places(source))]
    mine, theirs = _trees(app), _trees(source)
    found += [f"{one} inside {other}" for one in mine for other in theirs if one != other and one.is_relative_to(other)]
    found += [f"{one} inside {other}" for one in theirs for other in mine if one != other and one.is_relative_to(other)]
    return found


def _trees(app: App) -> list[Path]:
    files = [app.loaded.path(item.path) for item in app.loaded.configuration.files.values()]
    vault = app.context.vault.capabilities.folder if app.context.vault is not None else None
    return files if vault is None else [*files, vault]


def _places(app: App) -> set[tuple[str, str]]:
    found = {("the path", str(path)) for path in _trees(app)}
    found |= {("the state directory", str(app.loaded.state)), ("the releases", str(app.context.releases))}
    if (vault := app.context.vault) is not None and vault.capabilities.folder is None:
        found.add(("the vault", vault.location))
    if (place := app.context.runtime.place()) is not None:
        found.add(place)
    found |= {("the index", f"{item.name} of {item.url}") for item in app.loaded.configuration.indices.values()}
    return found | {("the database", _database(app, item)) for item in app.loaded.configuration.databases.values()}


def _database(app: App, item: Database) -> str:
    """Return what distinguishes a database from every other one on this machine, according to its configuration."""
    if item.path:
        return str(app.loaded.path(item.path))
    where = item.container
    if where.startswith("compose:") and app.context.containers is not None:
        where = app.context.containers.container_of(where.removeprefix("compose:"))
    return f"{item.name} of {where.rpartition(':')[2] or f'{item.host}:{item.port}'}"
