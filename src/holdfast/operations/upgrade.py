"""The plan of `upgrade REF` in its three modes: maintenance, rolling, source."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime

from holdfast.application import development
from holdfast.application.application import App
from holdfast.config.schema.section import seconds_of
from holdfast.errors import AlreadyThereError, RefusedError, UsageError
from holdfast.model import Backup, Plan, PlannedStep, Release, StepState
from holdfast.operations import beside, hooks, parts, provision
from holdfast.operations.patches import Patches, carried
from holdfast.operations.provision import Provision
from holdfast.steps import services
from holdfast.steps.gate import CloseGate, OpenGate
from holdfast.steps.guard import CountRows
from holdfast.steps.indices import DropIndexCopies, ProtectIndices
from holdfast.steps.migrate import CheckMigrations, MigrateWhileServing, Mode, refuse_unknown_migrations
from holdfast.steps.release import PruneReleases, SwitchRelease, UnpackRelease
from holdfast.steps.restore_point import AllowChanges, CreateRestorePoint, DropRestorePoint
from holdfast.steps.service_steps import AdoptServices, StartServices, StopServices
from holdfast.steps.services import BEHIND

_WORTH_TELLING_SECONDS = 0.1


def plan(
    app: App,
    reference: str,
    *,
    mode: Mode = "maintenance",
    backup: bool = True,
    backup_except: tuple[str, ...] = (),
    again: bool = False,
    may_shrink: Sequence[str] = (),
    allow_incompatible: bool = False,
    provided: Provision | None = None,
    patches: Patches = "refuse",
    push: bool | None = None,
) -> Plan:
    """Return the plan of an upgrade; `provided` is a package that exists already.

    `again`: even to the release that is running. `may_shrink`: tables that may lose rows this time.
    `allow_incompatible`: a rolling upgrade even where the old code may not tolerate the migrations. `patches`: what
    becomes of those that were applied to the running release. `push`: as in `provision.building`.

    Raise UsageError, NotFoundError, RefusedError or ConfigurationError; nothing is changed.
    """
    if allow_incompatible and mode != "rolling":
        raise UsageError("--allow-incompatible is for --rolling", next_step="Leave it out, or add --rolling.")
    current = parts.require_installed(app)
    known_services = list(app.loaded.configuration.running_services())
    if provided is None:
        _refuse_running(app, current, reference, again=again)
        provided = provision.building(app, reference, push=push)
    commit, label = provided.commit, provided.label
    carry, patch_notes = carried(app, current, provided, patches)
    if provided.package == current.package and not again:
        raise AlreadyThereError(
            f"{label} ({commit[:12]}) is already running",
            state="Nothing was changed.",
            next_step=f"To build, migrate and start it again, run: holdfast upgrade {reference} --again",
        )
    notes = parts.adopt_configuration(app, provided.configuration, label) + patch_notes
    development.refuse(app.context)
    if app.context.packages.precedes(commit, current.commit):
        notes.append(
            f"{label} is older than the running {current.label}. An upgrade does not bring its data back."
            " To go back, run: holdfast rollback"
        )
    release = parts.new_release(app, provided.package, label, commit)
    making = (*hooks.around_build(app, provided.steps), *carry)
    backup = backup and bool(app.loaded.configuration.vaults)
    saved = parts.only_existing(app, parts.choose(app, except_=backup_except))
    everything = parts.only_existing(app, parts.choose(app))
    parameters = parts.parameters(app, release, mode=mode, known_services=known_services, previous=current)
    recent = _recent_backup(app, saved) if backup and mode == "maintenance" else None
    if mode == "maintenance":
        steps, after = _maintenance(app, release, making, saved, backup, recent, may_shrink)
        notes += [*_restore_points(app), *_losses(saved, everything, backup)]
        if recent is not None and saved.databases:
            notes.append(f"Databases are dumped once, after the commit, because the vault has backup {recent.id}.")
    else:
        _refuse_without_front(app, mode)
        refuse_unknown_migrations(app.context, mode)
        steps, after = _beside(app, release, making, saved, mode, backup, allow_incompatible)
        if allow_incompatible:
            notes.append(f"--allow-incompatible: {current.label} serves while migrations run that it may not tolerate.")
        if mode == "rolling":
            notes.append(f"A rolling upgrade never restores data: if {label} is bad, its compatible migrations stay.")
    return Plan(
        kind="upgrade",
        title=f"upgrade to {label} ({mode})",
        steps=(
            parts.preflight(
                app,
                everything,
                dumps=int(backup) + int(backup and mode == "maintenance" and recent is None),
                copies=mode == "maintenance",
                saves_configuration=backup,
            ),
            *hooks.for_failure(app),
            *steps,
        ),
        after_commit=(
            *after,
            *parts.record_use(app),
            *parts.after_start(app, release),
            *hooks.hook(app, "post_upgrade", release),
        ),
        also_locks=("backup",),
        notes=tuple(notes),
        parameters=parameters,
        barrier_paths=tuple(app.context.barrier_paths()),
    )


def _refuse_running(app: App, current: Release, reference: str, *, again: bool) -> None:
    """Raise AlreadyThereError for the git commit that is running, unless patches were applied to it."""
    commit, label = parts.resolve(app, reference)
    package = app.context.package_of(current)
    if commit == current.commit and not again and (package is None or not package.patches):
        raise AlreadyThereError(
            f"{label} ({commit[:12]}) is already running",
            state="Nothing was changed.",
            next_step=f"To build, migrate and start it again, run: holdfast upgrade {reference} --again",
        )


def _recent_backup(app: App, saved: parts.Datasets) -> Backup | None:
    """Return a backup of these datasets that is young enough to save the dump before the window."""
    limit = seconds_of(app.loaded.configuration.upgrade.recent_backup) or 0
    vault = app.context.vault
    for backup in reversed(vault.backups()) if vault is not None else ():
        age = time.time() - datetime.fromisoformat(backup.instant).timestamp()
        if 0 <= age < limit and not backup.safety and {*saved.databases, *saved.files} <= backup.datasets.keys():
            return backup
    return None


def _losses(saved: parts.Datasets, everything: parts.Datasets, backup: bool) -> list[str]:
    """Return notes on what an undo does not bring back because it is in no backup."""
    files = [name for name in everything.files if not backup or name not in saved.files]
    notes = []
    if not backup:
        notes.append("No backup is made. Databases still have a restore point until the commit.")
    if files:
        notes.append(
            f"If the upgrade is undone, files of {', '.join(files)} that it changed or removed do not come back."
        )
    return notes


def _restore_points(app: App) -> list[str]:
    """Return notes on how each restore point is made and how large it is, and what it costs in the window.

    That is what is done before the window, and how long the window's part took last time.
    """
    last = next(
        (
            step.seconds
            for record in app.journal.committed(["upgrade"])
            for step in app.journal.steps(record.id)
            if step.name == CreateRestorePoint.name and step.state is StepState.DONE
        ),
        None,
    )
    notes = []
    for name, database in app.context.databases.items():
        facts = database.inspect()
        if facts["exists"]:
            copying = database.copying()
            because = f" By its log it cannot be: {copying.why}." if copying.why else ""
            notes.append(
                f"The restore point of {name} is {copying.made} (about {(facts['size_bytes'] >> 20) + 1} MiB);"
                f" an undo {copying.back}.{because}"
            )
            if copying.ahead:
                notes.append(f"Before the window, {copying.ahead}.")
    if notes and last is not None and last >= _WORTH_TELLING_SECONDS:
        notes.append(f"The window's part of making restore points took {last:.1f} s last time.")
    return notes


def _maintenance(
    app: App,
    release: Release,
    making: Sequence[PlannedStep],
    saved: parts.Datasets,
    backup: bool,
    recent: Backup | None,
    may_shrink: Sequence[str],
) -> tuple[list[PlannedStep], list[PlannedStep]]:
    label = release.label
    indices = tuple(app.loaded.configuration.indices)
    opened = hooks.hook(app, "post_maintenance", release)
    if opened:  # its author counts on it that what works in the background starts after it
        opened += [StartServices(release, BEHIND, tolerant=True), AdoptServices()]
    files, databases = parts.finalize_backup_steps(saved, f"before the upgrade to {label}")
    steps: list[PlannedStep] = [
        *making,
        UnpackRelease(release),
        CheckMigrations(release, "maintenance"),
        *parts.tasks(app, release, "prepare"),
        *hooks.hook(app, "pre_upgrade", release),
    ]
    if backup and recent is None:
        steps += parts.backup_before(app, saved, "live", label, tolerant=True)
    elif backup:
        steps.append(parts.backup_copy(saved))
    steps += [
        *parts.copy_ahead(app),
        *parts.prepare(app, release, "migrate", "warm_cache"),
        *hooks.hook(app, "pre_maintenance", release),
        CloseGate(f"upgrade to {label}"),
        StopServices(keeps=True),
        CountRows(),
    ]
    if backup:
        steps.append(files)
    steps += [
        CreateRestorePoint(),
        *([ProtectIndices(indices)] if indices else []),
        AllowChanges(saved.files if backup else ()),
        SwitchRelease(release),
        *parts.migrate_and_start(app, release, may_shrink, behind=not opened),
    ]
    after: list[PlannedStep] = [
        AdoptServices(),
        OpenGate(),
        *opened,
        *parts.remove_stopped(app),
        *([databases] if backup else []),
        *([] if app.loaded.configuration.upgrade.keep_restore_point else [DropRestorePoint()]),
        *([DropIndexCopies(indices)] if indices else []),
        PruneReleases(),
    ]
    return steps, after


def _refuse_without_front(app: App, mode: Mode) -> None:
    if app.loaded.configuration.gate.kind == "none":
        raise RefusedError(
            f"a {mode} upgrade needs a gate that can send visitors from the old web to the new one",
            next_step='Set `gate.kind` to "front", "nginx" or "caddy", or upgrade in maintenance mode.',
        )
    if not beside.kinds(app):
        raise RefusedError(
            f"a {mode} upgrade starts a second web, and this web sends visitors to another service at a fixed address",
            next_step="Upgrade in maintenance mode. Without containers it is possible if both commands contain"
            " {release}, as for a socket at {release}/var/app.sock.",
        )
    if not any(instance.kind == "web" for instance in services.wanted(app.context)):
        raise RefusedError(
            f"a {mode} upgrade starts the new web next to the old one, and no web is running",
            next_step="Run `holdfast service start`, or upgrade in maintenance mode.",
        )


def _beside(
    app: App,
    release: Release,
    making: Sequence[PlannedStep],
    saved: parts.Datasets,
    mode: Mode,
    backup: bool,
    allow_incompatible: bool,
) -> tuple[list[PlannedStep], list[PlannedStep]]:
    """Return the steps of a rolling or source upgrade, which starts the new web next to the old one.

    No undo touches the data.
    """
    kinds = beside.kinds(app)
    steps: list[PlannedStep] = [
        *making,
        UnpackRelease(release, kinds),
        CheckMigrations(release, mode, allow_incompatible=allow_incompatible),
        *parts.tasks(app, release, "prepare"),
        *hooks.hook(app, "pre_upgrade", release),
    ]
    if mode == "rolling":
        if backup:
            level = app.loaded.configuration.backup.consistency
            steps += parts.backup_before(app, saved, "pause" if level == "quiesce" else level, release.label)
        if app.loaded.configuration.tasks.task("migrate") is not None:
            steps += [MigrateWhileServing(release), *parts.still_pending(app, release)]
    steps += parts.tasks(app, release, "warm_cache")
    steps.append(StartServices(release, kinds, during="upgrade", beside=beside.divided(app)))
    return steps, beside.after(app, release)
