"""The plans of `backup restore ID`: the whole application, or some of its datasets, as at one instant."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from holdfast.application.application import App
from holdfast.drivers.databases.discovery import with_databases
from holdfast.errors import UsageError
from holdfast.model import Backup, Outcome, Plan, PlannedStep, Release
from holdfast.operations import backup as backups
from holdfast.operations import hooks, index_parts, parts
from holdfast.steps import configuration, migrations
from holdfast.steps.closing import TidyReplaced
from holdfast.steps.configuration import RestoreConfiguration
from holdfast.steps.gate import OpenGate
from holdfast.steps.release import SwitchRelease
from holdfast.steps.restore import (
    CheckBackup,
    Chosen,
    HandOver,
    LoadDatabases,
    RestoreFiles,
    UnpackBackupCode,
)
from holdfast.steps.service_steps import AdoptServices
from holdfast.steps.swap import SwapDatabases

CONFIGURATION = "config"
_RELEASE_FIELDS = ("id", "package", "label", "commit", "path", "deployed_at", "operation")


def plan(
    app: App, *references: str, only: Sequence[str] = (), except_: Sequence[str] = (), safety: bool = True
) -> Plan:
    """Return the plan of a restore.

    With several backups, each dataset is taken from the first that has it; the code is that of the backup with the
    database.

    Raise NotFoundError, UsageError, RefusedError or DamagedError; nothing is changed.
    """
    only, except_ = parts.expanded(app, only), parts.expanded(app, except_)
    if tuple(only) == (CONFIGURATION,):
        return _plan_configuration(app, references)
    with_configuration = CONFIGURATION not in except_ and (not only or CONFIGURATION in only)
    only, except_ = ([name for name in given if name != CONFIGURATION] for given in (only, except_))
    _add_discovered(app, references)
    chosen = parts.choose(app, only, except_)
    wanted = (*chosen.databases, *chosen.files) if len(references) == 1 else ()
    joined = [backups.find(app, reference, wanted) for reference in references]
    for item in joined:
        backups.vault(app).open_set(item.id)
    sources = {
        name: next((item for item in joined if name in item.datasets), joined[0])
        for name in (*chosen.databases, *chosen.files)
        if name in only or any(name in item.datasets for item in joined)
    }
    affected = index_parts.affected_indices(app, [name for name in chosen.databases if name in sources], except_)
    having = {
        name: next(item for item in joined if name in item.datasets)
        for name in affected
        if any(name in item.datasets for item in joined)
    }
    datasets = parts.Datasets(
        tuple(name for name in chosen.databases if name in sources),
        tuple(name for name in chosen.files if name in sources),
        chosen.code,
    )
    found = sources[datasets.databases[0]] if datasets.databases else joined[0]
    release = _release(app, found, datasets.code)
    supersedes = _stuck(app)
    safety = safety and supersedes is None
    stopping, completing = parts.stop_with_safety_backup_steps(
        app, datasets.databases, f"restore of {found.id}", safety=safety
    )
    recorded_in = migrations.database_of(app.context) if migrations.known(app.context) else ""
    checks = parts.MigrationChecks()
    if recorded_in in datasets.databases:
        checks = parts.check_loaded(app, release, sources[recorded_in])
    steps = _steps(
        app,
        found,
        {name: item.id for name, item in (sources | having).items()},
        datasets,
        release,
        stopping,
        checks,
        affected,
        with_configuration=with_configuration,
    )
    days = app.loaded.configuration.upgrade.keep_replaced
    unsaved = f"Later changes are in no backup; the replaced data is kept for {days}."
    notes = _notes(joined, sources, "Later changes go into a safety backup." if safety else unsaved)
    notes += checks.notes
    newest = [backup for backup in backups.vault(app).backups() if not backup.safety or backup.id == found.id][-1]
    if with_configuration:
        notes += _configuration_notes(app, found)
    if references == ("latest",) and newest.id != found.id:
        notes.append(f"{newest.id} is newer, but contains only {', '.join(newest.datasets) or 'no data'}.")
    if release is not None and release != app.context.current_release():
        notes.append(f"The code changes to release {release.label}.")
    missing = [name for name in (*chosen.databases, *chosen.files) if name not in sources]
    if missing:
        notes.append(f"Not in the named backups, and not changed: {', '.join(missing)}")
    after: tuple[PlannedStep, ...] = (
        AdoptServices(),
        OpenGate(),
        *completing,
        TidyReplaced(keep_replaced=not safety),
        *index_parts.rebuild_indices(release, affected),
        *parts.after_start(app, release),
        *hooks.hook(app, "after_restore"),
    )
    return Plan(
        kind="backup.restore",
        title=f"restore backup {' + '.join(item.id for item in joined)}",
        steps=tuple(steps),
        after_commit=after,
        also_locks=("backup",),
        notes=tuple(notes),
        barrier_paths=tuple(app.context.barrier_paths()),
        parameters=parts.parameters(app, release, set=found.id, supersedes=supersedes),
    )


def _add_discovered(app: App, references: Sequence[str]) -> None:
    """Configure the databases of these backups that the application no longer names, or did not name yet."""
    found: dict[str, list[str]] = {}
    for reference in references:
        for facts in backups.find(app, reference).datasets.values():
            if "discovered" in facts:
                found.setdefault(facts["discovered"]["by"], []).append(facts["discovered"]["name"])
    if found:
        app.use_configuration(with_databases(app.loaded, found))


def _plan_configuration(app: App, references: Sequence[str]) -> Plan:
    """Return the plan that restores only configuration; existing files that differ are kept under another name."""
    if len(references) != 1:
        raise UsageError("--only config takes one backup")
    found = backups.find(app, references[0], ())
    backups.vault(app).open_set(found.id)
    return Plan(
        kind="backup.restore_configuration",
        title=f"restore the configuration of {found.id}",
        steps=(
            parts.preflight(app, parts.Datasets((), (), False), reserve=False, stops=False, adopts=True),
            RestoreConfiguration(found.id, over=True),
        ),
        notes=(
            *_configuration_notes(app, found, over=True),
            "Existing files that differ are kept as NAME.before-ID, where ID is that of the operation.",
            "Running services use the old configuration until `holdfast service restart`.",
        ),
        barrier_paths=tuple(app.context.barrier_paths()),
    )


def _configuration_notes(app: App, found: Backup, *, over: bool = False) -> list[str]:
    names = configuration.members(configuration.open_configuration(backups.vault(app), found.id))
    missing = [name for name in names if not os.path.lexists(app.loaded.root / name)]
    notes = [f"Missing configuration that comes back: {', '.join(missing)}"] if missing else []
    kept = [name for name in names if name not in missing]
    if kept and not over:
        notes.append(f"Existing configuration that is not changed: {', '.join(kept)} (--only config restores it)")
    if kept and over:
        notes.append(f"Configuration that is restored where it differs: {', '.join(kept)}")
    store = app.loaded.secret_store()
    if store.path.name in missing or (over and store.path.name in kept):
        here = "is here" if store.identity_path.exists() else "does not exist: copy it there before services start"
        notes.append(f"The backup has secrets only encrypted. Their identity {store.identity_path} {here}.")
    return notes


def plan_into(app: App, reference: str, name: str, *, only: Sequence[str] = ()) -> Plan:
    """Return the plan that loads one database of a backup under another name, for an inspection.

    The application is not touched. Raise NotFoundError, UsageError or DamagedError.
    """
    databases = parts.choose(app, only).databases
    found = backups.find(app, reference, databases)
    backups.vault(app).open_set(found.id)
    chosen = [dataset for dataset in databases if dataset in found.datasets]
    if len(chosen) != 1:
        raise UsageError(
            f"--into takes one database; backup {found.id} has {', '.join(chosen) or 'none of those named'}",
            next_step="Choose it with `--only`.",
        )
    dataset = chosen[0]
    candidate = Chosen(found.id, {dataset: found.id}, (dataset,), files=())
    if app.loaded.configuration.databases[dataset].kind == "sqlite":
        name = str(Path(name).absolute())
    return Plan(
        kind="backup.restore_into",
        title=f"load database {dataset} of {found.id} as {name}",
        lock="backup",
        steps=(
            parts.preflight(app, parts.Datasets((), (), False), reserve=False, stops=False, adopts=True),
            CheckBackup(*candidate),
            LoadDatabases(*candidate, into=name),
        ),
        after_commit=(HandOver(dataset, name),),
        notes=(f"{dataset} has the content of {found.instant}. The live database is not changed.",),
        barrier_paths=tuple(app.context.barrier_paths()),
    )


def _notes(joined: Sequence[Backup], sources: Mapping[str, Backup], kept: str) -> list[str]:
    if len(joined) == 1:
        names = " and ".join(filter(None, (", ".join([*sources][:-1]), [*sources][-1]))) if sources else "No data"
        return [f"{names} {'go' if len(sources) > 1 else 'goes'} back to {joined[0].instant}. {kept}"]
    notes = [f"{name} goes back to {item.instant}, from {item.id}." for name, item in sources.items()]
    return [*notes, "These are different instants: rows and files may not agree.", kept]


def _stuck(app: App) -> str | None:
    """Return a stuck operation that this restore supersedes."""
    for record in app.journal.interrupted():
        if record.outcome is Outcome.STUCK:
            return record.id
    return None


def _release(app: App, found: Backup, code: bool) -> Release | None:
    """Return the release to run afterwards: that of the backup, or the present one."""
    if code and all(field in found.release for field in ("id", "commit", "path")):
        release = Release(**{field: found.release.get(field, "") for field in _RELEASE_FIELDS})
        current = app.context.current_release()
        return current if current is not None and current.id == release.id else release
    return app.context.current_release()


def _steps(
    app: App,
    found: Backup,
    sets: Mapping[str, str],
    datasets: parts.Datasets,
    release: Release | None,
    stopping: Sequence[PlannedStep],
    checks: parts.MigrationChecks,
    affected: Sequence[str],
    *,
    with_configuration: bool,
) -> list[PlannedStep]:
    chosen = Chosen(found.id, dict(sets), datasets.databases, datasets.files, release)
    steps: list[PlannedStep] = [
        parts.preflight(app, parts.Datasets((), (), False), adopts=True),
        *hooks.for_failure(app),
        CheckBackup(*chosen),
    ]
    if with_configuration:
        steps.append(RestoreConfiguration(found.id))
    if release is not None:
        steps.append(UnpackBackupCode(found.id, dict(sets), datasets.databases, datasets.files, release))
    if datasets.databases:
        steps += [LoadDatabases(*chosen), *checks.before]
        steps += index_parts.load_indices(chosen, [name for name in affected if name in sets])
    steps += stopping
    if datasets.databases:
        steps += [
            SwapDatabases("restored", *chosen),
            *index_parts.swap_indices(affected, exact=found.consistency == "quiesce"),
            *checks.after,
        ]
    if datasets.files:
        steps.append(RestoreFiles(*chosen))
    if release is not None:
        steps += [
            SwitchRelease(release),
            *parts.tasks(app, release, "after_restore", *index_parts.reindex(app)),
            *parts.start_all(app, release),
        ]
    return steps
