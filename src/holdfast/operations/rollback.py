"""The plan of `rollback`: only the code goes back if the database allows it, else the data of that time, too."""

from __future__ import annotations

from pathlib import Path

from holdfast.application.application import App
from holdfast.config import own_files
from holdfast.config.similar import did_you_mean
from holdfast.engine.records import StepRecord, parameters_of
from holdfast.errors import NotFoundError, RefusedError
from holdfast.model import Backup, Plan, PlannedStep, Release, StepState
from holdfast.operations import backup as backups
from holdfast.operations import beside, hooks, index_parts, parts
from holdfast.steps import migrations
from holdfast.steps import release as releases
from holdfast.steps.closing import TidyReplaced
from holdfast.steps.gate import OpenGate
from holdfast.steps.migrate import CheckMigrations, MigrateWhileServing
from holdfast.steps.release import SwitchRelease
from holdfast.steps.restore import CheckBackup, Chosen, LoadDatabases, RestoreFiles
from holdfast.steps.service_steps import AdoptServices
from holdfast.steps.swap import SwapDatabases
from holdfast.steps.tasks import RunTask

_LOADS = "import.database"  # replaces data without a change of the release


def plan(app: App, *, to: str | None = None, discard_writes_since: str | None = None, keep_data: bool = False) -> Plan:
    """Return the plan of a rollback.

    `keep_data`: change only the code although the schema changed and no migrations are configured.

    Raise RefusedError with the later writes, or NotFoundError.
    """
    current = parts.require_installed(app)
    target = _target(app, current, to)
    if gone := app.context.runtime.missing_images(target.path):
        raise RefusedError(
            f"images of {target.label} are gone: {', '.join(gone)}",
            next_step=f"Run: holdfast package build {target.label}",
        )
    notes = parts.adopt_configuration(app, own_files.in_folder(Path(target.path)), target.label)
    found = (
        releases.data_of(app.context, target, backups.vault(app).backups()) if app.context.vault is not None else None
    )
    if discard_writes_since is None:
        why = _why_not(app, target, found, keep_data=keep_data)
        if why:
            raise _refusal(app, target, found, why, keep_data=not migrations.known(app.context))
        return _code_only(app, current, target, notes)
    if found is None:
        raise NotFoundError(
            f"the backup with the data of {target.label} is gone",
            next_step="Choose another one from `holdfast backup list`, then run: holdfast backup restore ID",
        )
    if found.instant != discard_writes_since:
        raise RefusedError(
            f"the data of {target.label} is that of {found.instant}, not of {discard_writes_since}",
            next_step=f"Run: holdfast rollback {_to(app, target)}--discard-writes-since {found.instant}",
        )
    return _with_data(app, target, found, notes)


def _to(app: App, target: Release) -> str:
    """Return the option that chooses a target; empty for the default one."""
    current = app.context.current_release()
    return "" if current is not None and _target(app, current, None).id == target.id else f"--to {target.id} "


def _why_not(app: App, target: Release, found: Backup | None, *, keep_data: bool) -> str:
    """Return why the code of an earlier release may not work with the present data; empty if it does.

    Without configured migrations the schema shows whether it changed. Nothing shows what a task did to contents alone.
    """
    if migrations.known(app.context):
        unknown = [name for name in migrations.unknown_to(app.context, target) if name not in _tolerated(app)]
        unknown += _bundles_since(app, target)
        if unknown:
            return f"does not know the applied migrations {', '.join(unknown)}"
    if app.loaded.configuration.migrations.pending and (left := migrations.pending(app.context, target)):
        return f"needs migrations that the data does not have: {migrations.listed(left)}"
    if migrations.known(app.context):
        return ""
    if keep_data or not app.context.databases:
        return ""
    if _was_left_for_this(app, target):
        return ""
    if found is None:
        return "may have had another schema; the backup of its data is gone"
    changed = migrations.changed_schemas(app.context, found.release.get("schema", {}))
    if changed:
        return f"may not run on the present schema of {', '.join(changed)}"
    migrated = _migrated_since(app, target)
    return f"comes from before {', '.join(migrated)}, where `migrate` may have changed contents" if migrated else ""


def _was_left_for_this(app: App, target: Release) -> bool:
    """Return whether the present release came by a rollback of the code alone from that one, which knows these data."""
    changes = (one for one in app.journal.committed() if one.commit_facts.get("release") or one.kind == _LOADS)
    record = next(changes, None)
    if record is None or record.kind != "rollback":
        return False
    parameters = parameters_of(record)
    previous = parameters.previous
    return parameters.set is None and previous is not None and previous.id == target.id


def _tolerated(app: App) -> set[str]:
    """Return the migrations of which a rolling upgrade found in their SQL that code from before tolerates them."""
    found: set[str] = set()
    for record in app.journal.committed(["upgrade"]):
        for step in app.journal.steps(record.id):
            if step.name == CheckMigrations.name:
                found.update(step.facts.get("tolerated") or [])
    return found


def _bundles_since(app: App, target: Release) -> list[str]:
    """Return versions of bundles that the running release has and an earlier one lacks: it does not know them."""
    current = app.context.current_release()
    absent = migrations.absent_bundles(app.context, target)
    if not absent or current is None:
        return []
    gone = {name.rpartition(" ")[0] for name in migrations.absent_bundles(app.context, current)}
    return [name for name in absent if name.rpartition(" ")[0] not in gone and name not in _tolerated(app)]


def _migrated_since(app: App, target: Release) -> list[str]:
    """Operations since a release ran last that ran its successors' migrations."""
    found = []
    for record in app.journal.committed():
        if record.commit_facts.get("release", {}).get("id") == target.id:
            break
        done = [step for step in app.journal.steps(record.id) if step.state is StepState.DONE]
        # Where nothing was pending, the task had nothing to do.
        idle = any(step.name == CheckMigrations.name and step.facts.get("pending") == [] for step in done)
        if not idle and any(_migrates(step) for step in done):
            found.append(record.id)
    return found[::-1]


def _migrates(step: StepRecord) -> bool:
    if step.name == RunTask.name:
        # Not as the step's class reads it: the operation is over, and a later version may have written more.
        return bool(step.parameters.get("task") == "migrate")
    return step.name == MigrateWhileServing.name


def _target(app: App, current: Release, to: str | None) -> Release:
    for release in releases.known_releases(app.context):
        if release.id != current.id and (to is None or to in (release.id, release.label, release.commit)):
            return release
    known = [release for release in releases.known_releases(app.context) if release.id != current.id]
    question = did_you_mean(to, [name for one in known for name in (one.id, one.label)]) if to else ""
    raise NotFoundError(
        f"there is no earlier release{f' {to!r}' if to else ''} to go back to",
        next_step=f"{question} Run `holdfast release list` to see which releases are kept.".strip(),
    )


def _refusal(app: App, target: Release, found: Backup | None, why: str, *, keep_data: bool) -> RefusedError:
    keep = (
        f"\nIf its code works with the present data, run: holdfast rollback {_to(app, target)}--keep-data"
        if keep_data
        else ""
    )
    if found is None:
        return RefusedError(
            f"{target.label} {why}",
            state="Nothing was changed. No backup contains the data that it had, so that data cannot be restored.",
            next_step="Choose another one from `holdfast backup list`, then run: holdfast backup restore ID" + keep,
        )
    days = app.loaded.configuration.upgrade.keep_replaced
    changes = []
    for name, database in app.context.databases.items():
        before = found.datasets.get(name, {}).get("rows", {})
        for table, facts in database.tables().items():
            if table not in before:
                changes.append(f"  {name}.{table}: there was no such table, {facts['rows']} rows now")
            elif facts["rows"] != before[table]:
                changes.append(f"  {name}.{table}: {before[table]} rows then, {facts['rows']} now")
    rows = "\n".join(changes) or "  equal in every table; rows may still have been changed"
    return RefusedError(
        f"{target.label} {why}. It needs the data as it was at {found.instant}",
        state=f"Rows per table:\n{rows}\nEverything written since then would leave the application."
        " Nothing was changed.",
        next_step=f"To go back with that data, run: holdfast rollback {_to(app, target)}--discard-writes-since"
        f" {found.instant}\n"
        f"The present data goes into a safety backup, and is also kept for {days}." + keep,
    )


def _code_only(app: App, current: Release, target: Release, notes: list[str]) -> Plan:
    steps, after = beside.switching(app, target, parts.tasks(app, target, "after_rollback"), "rollback")
    nothing = parts.Datasets((), (), False)
    return Plan(
        kind="rollback",
        title=f"roll back from {current.label} to {target.label} (code only)",
        steps=(parts.preflight(app, nothing), *hooks.for_failure(app), *steps),
        after_commit=(*after, *parts.record_use(app), *parts.after_start(app, target)),
        also_locks=("backup",),
        notes=(*notes, "The data is not changed."),
        parameters=parts.parameters(app, target, previous=current),
        barrier_paths=tuple(app.context.barrier_paths()),
    )


def _with_data(app: App, target: Release, found: Backup, notes: list[str]) -> Plan:
    datasets = parts.only_existing(app, parts.choose(app))
    databases = tuple(name for name in app.loaded.configuration.databases if name in found.datasets)
    files = tuple(name for name in app.loaded.configuration.files if name in found.datasets)
    chosen = Chosen(found.id, dict.fromkeys(found.datasets, found.id), databases, files, target)
    stopping, completing = parts.stop_with_safety_backup_steps(
        app, databases, f"rollback to {target.label}", safety=True
    )
    affected = index_parts.affected_indices(app, databases)
    steps: list[PlannedStep] = [
        parts.preflight(app, datasets, dumps=1),
        *hooks.for_failure(app),
        CheckBackup(*chosen),
        LoadDatabases(*chosen),
        *index_parts.load_indices(chosen, [name for name in affected if name in found.datasets]),
        *parts.prepare(app, target, "after_restore", *index_parts.reindex(app)),
        *stopping,
        SwapDatabases("earlier", *chosen),
        *index_parts.swap_indices(affected, exact=found.consistency == "quiesce"),
        RestoreFiles(*chosen),
        SwitchRelease(target),
        *parts.tasks(app, target, "after_restore", *index_parts.reindex(app), "after_rollback"),
        *parts.start_all(app, target),
    ]
    after: tuple[PlannedStep, ...] = (
        AdoptServices(),
        OpenGate(),
        *completing,
        TidyReplaced(keep_replaced=True),
        *parts.record_use(app),
        *index_parts.rebuild_indices(target, affected),
        *parts.after_start(app, target),
        *hooks.hook(app, "after_restore"),
    )
    return Plan(
        kind="rollback",
        title=f"roll back to {target.label} with the data of {found.instant}",
        steps=tuple(steps),
        after_commit=after,
        also_locks=("backup",),
        parameters=parts.parameters(app, target, set=found.id),
        notes=(*notes, f"Everything written since {found.instant} leaves the application."),
        barrier_paths=tuple(app.context.barrier_paths()),
    )
