"""Parts that several plans share. They only describe; nothing runs here."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from holdfast.application.application import App
from holdfast.config import composer, own_files
from holdfast.config.load import FILE_NAME, merge_release, release_files
from holdfast.config.similar import no_such
from holdfast.errors import ConfigurationError, NotFoundError, RefusedError
from holdfast.model import Backup, CommitFacts, PlannedStep, PlanParameters, Release
from holdfast.model.packages import Package
from holdfast.operations import index_parts
from holdfast.steps import migrations
from holdfast.steps.backup import CopyFiles, FinishBackup, PublishBackup
from holdfast.steps.closing import CompleteBackup
from holdfast.steps.gate import CloseGate
from holdfast.steps.guard import CompareRows
from holdfast.steps.last_pass import TakeLastPass
from holdfast.steps.loaded import CheckLoadedMigrations
from holdfast.steps.migrate import CheckMigrations, VerifyMigrations, VerifyNonePending
from holdfast.steps.package_use import RecordUse
from holdfast.steps.preflight import Preflight
from holdfast.steps.restore_point import PrepareRestorePoint
from holdfast.steps.service_preparation import PrepareServices, RemoveStopped
from holdfast.steps.service_steps import StartServices, StopServices
from holdfast.steps.services import BEHIND, WEB
from holdfast.steps.tasks import RunTask, RunTaskAfterStart, TaskName

_UNFIT = re.compile(r"[^A-Za-z0-9._+-]+")
_NAME_LETTERS = 80


@dataclass(frozen=True)
class Datasets:
    """The datasets that an operation covers."""

    databases: tuple[str, ...]
    files: tuple[str, ...]
    code: bool
    indices: tuple[str, ...] = ()


def expanded(app: App, names: Sequence[str]) -> list[str]:
    """Return names of datasets, with those of all databases for `@databases` and of all files for `@files`."""
    configuration = app.loaded.configuration
    groups = {"@databases": list(configuration.databases), "@files": list(configuration.files)}
    return [name for given in names for name in groups.get(given, [given])]


def choose(app: App, only: Sequence[str] = (), except_: Sequence[str] = ()) -> Datasets:
    """Return the datasets that `--only` and `--except` choose; `code` is one, `@databases` and `@files` are groups.

    Raise NotFoundError.
    """
    configuration = app.loaded.configuration
    known = [*configuration.databases, *configuration.files, *configuration.indices, "code"]
    only, except_ = expanded(app, only), expanded(app, except_)
    for name in (*only, *except_):
        if name not in known:
            raise no_such("dataset", name, known)
    chosen = {name for name in known if (not only or name in only) and name not in except_}
    return Datasets(
        tuple(name for name in configuration.databases if name in chosen),
        tuple(name for name in configuration.files if name in chosen),
        "code" in chosen,
        tuple(name for name in configuration.indices if name in chosen),
    )


def only_existing(app: App, datasets: Datasets) -> Datasets:
    """Return the datasets without databases that do not exist yet."""
    present = tuple(name for name in datasets.databases if app.context.databases[name].inspect()["exists"])
    return Datasets(present, datasets.files, datasets.code, datasets.indices)


def require_existing(app: App, datasets: Datasets, otherwise: str = "") -> Datasets:
    """Return the same datasets, for a plan that must not silently omit a database.

    `otherwise`: advice besides correcting the configuration. Raise RefusedError where a database does not exist.
    """
    present = only_existing(app, datasets)
    missing = [name for name in datasets.databases if name not in present.databases]
    if missing:
        names = ", ".join(f"databases.{name}" for name in missing)
        raise RefusedError(
            f"the database of {names} does not exist",
            state="Nothing was changed.",
            next_step=f"Correct its name or path under [{names.split(', ')[0]}].{otherwise}",
        )
    return present


def new_release(app: App, package_id: str, label: str, commit: str) -> Release:
    """Return a release that does not exist yet; its id is unique in this environment."""
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    # The id names a folder and services, also in configuration files; a tag may be long and contain any character.
    name = _UNFIT.sub("-", label)[:_NAME_LETTERS].strip("-.") or "release"
    identifier, number = f"{stamp}-{name}", 1
    while (app.context.releases / identifier).exists():
        number += 1
        identifier = f"{stamp}.{number}-{name}"
    return Release(
        id=identifier,
        package=package_id,
        label=label,
        commit=commit,
        path=str(app.context.releases / identifier),
        deployed_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    )


def resolve(app: App, reference: str) -> tuple[str, str]:
    """Return commit and label of a git reference or of a stored package. Raise NotFoundError."""
    package: Package | None = app.context.find_package(reference)
    try:
        return app.context.packages.resolve(reference)
    except NotFoundError:
        if package is None:
            raise
        return package.commit, package.label


def adopt_configuration(app: App, text: str | None, label: str) -> list[str]:
    """Let a release's own files set its tasks, services and migrations, instead of those of the running release.

    `text` is what `config.own_files` puts together. Return notes that name the keys that are set, no longer set and
    ignored. Raise ConfigurationError.
    """
    before = app.context.loaded
    names, files = release_files(before), own_files.split(text)
    origins = [f"{label}:{name}" for name in names]
    try:
        merged = merge_release(
            before,
            files[names[0]],
            origins[0],
            of_type=(files.get(names[1], ""), origins[1]),
            scripts=(files.get(composer.FILE_NAME, ""), origins[2]),
        )
    except ConfigurationError as error:
        error.what = f"{FILE_NAME} of {label} is wrong: {error.what}"
        raise
    if merged is not before:
        app.use_configuration(merged)
    notes = []
    for origin in origins:
        if keys := {key for key, value in merged.origins.items() if value == origin}:
            notes.append(f"Set by {origin}: {', '.join(sorted(keys))}")
    keys = {key for key, value in merged.origins.items() if value in origins}
    running = [f"current/{name}" for name in names]
    gone = {key for key, value in before.origins.items() if value in running} - keys
    if gone:
        notes.append(f"No longer set by the running release's {FILE_NAME}: {', '.join(sorted(gone))}")
    if merged.refused:
        notes.append(f"Ignored from {origins[0]}: {', '.join(merged.refused)} (only the operator may set these keys)")
    return notes


def refuse_without_task(app: App, task: str) -> None:
    if not getattr(app.loaded.configuration.tasks, task, None):
        raise RefusedError(f"the application has no task {task}", next_step=f"Add it to [tasks]: `{task} = [...]`.")


# --- steps ------------------------------------------------------------------------------------------


def preflight(
    app: App,
    datasets: Datasets,
    *,
    dumps: int = 0,
    reserve: bool = True,
    copies: bool = False,
    taken_over: bool = True,
    stops: bool = True,
    more: Mapping[str, int] | None = None,
    adopts: bool = False,
    saves_configuration: bool = False,
) -> PlannedStep:
    """Return the step of the preflight checks.

    `dumps`: how many of each database the vault must have space for. `copies`: servers will copy their databases.
    `more`: bytes needed in other places. The rest is as in `Preflight`.
    """
    need = {**disk_requirements(app, datasets, dumps=dumps, copies=copies), **(more or {})}
    return Preflight(
        need_bytes=need,
        reserve=reserve,
        taken_over=taken_over,
        stops=stops,
        adopts=adopts,
        saves_configuration=saves_configuration,
    )


def disk_requirements(app: App, datasets: Datasets, *, dumps: int, copies: bool) -> dict[str, int]:
    """Return the bytes needed by path: restore points next to each database, dumps for the vault, one copy of each."""
    found: dict[str, int] = {}
    total = 0
    for name in datasets.databases:
        facts = app.context.databases[name].inspect()
        size = facts["size_bytes"]
        private = app.context.databases[name].private_folder
        where = str(private.parent) if private is not None else (facts.get("data_folder") if copies else None)
        if where:
            found[where] = found.get(where, 1 << 20) + size
        total += size
    if dumps and app.context.vault is not None:
        vault = app.context.vault.capabilities
        if vault.folder is not None:
            found[str(vault.folder)] = dumps * total + (1 << 20)
        if not vault.in_place:  # dumps are made next to the state and streamed from there
            found[str(app.loaded.state)] = total + (1 << 20)
    return found


def vanished(app: App) -> list[str]:
    """Return a note on each database of the newest backup that the application does not name any more."""
    newest = app.context.vault.backups()[-1:] if app.context.vault is not None else []
    known = app.loaded.configuration.databases
    return [
        f"Database {facts['discovered']['name']} is not named any more by {facts['discovered']['by']};"
        f" {backup.id} is the last backup with it."
        for backup in newest
        for name, facts in backup.datasets.items()
        if "discovered" in facts and name not in known
    ]


def backup_copy(datasets: Datasets) -> PlannedStep:
    return CopyFiles(datasets.files, datasets.databases)


def backup_finish(
    datasets: Datasets, level: str, reason: str, *, tolerant: bool = False, safety: bool = False
) -> PlannedStep:
    """Return the step that completes a backup."""
    return FinishBackup(
        datasets.files, datasets.databases, level, reason, datasets.code, tolerant=tolerant, safety=safety
    )


def backup_before(app: App, datasets: Datasets, level: str, label: str, *, tolerant: bool = False) -> list[PlannedStep]:
    """Return the steps of a whole backup while everything runs."""
    return [
        backup_copy(datasets),
        *index_parts.snapshot_indices(app, datasets.indices),
        backup_finish(datasets, level, f"before the upgrade to {label}", tolerant=tolerant),
        PublishBackup(pin=True),
    ]


def finalize_backup_steps(
    datasets: Datasets, reason: str, *, tolerant: bool = False, safety: bool = False
) -> tuple[PlannedStep, PlannedStep]:
    """Return the two steps of a backup: its files in the window, its databases after the commit.

    `tolerant`: the databases may be broken. `safety`: it contains what is about to be replaced.
    """
    files = TakeLastPass(datasets.files, reason, datasets.code, tolerant=tolerant, safety=safety)
    databases = CompleteBackup(datasets.databases, reason, tolerant=tolerant, safety=safety)
    return files, databases


def stop_with_safety_backup_steps(
    app: App, replaced: Sequence[str], title: str, *, safety: bool
) -> tuple[list[PlannedStep], list[PlannedStep]]:
    """Return the steps that close the gate, stop services and make the safety backup, and its closing steps.

    The backup contains files, code, and the existing databases among those that are replaced.

    Raise RefusedError where there is no vault for it.
    """
    stop: list[PlannedStep] = [CloseGate(title), StopServices(keeps=True)]
    if not safety:
        return stop, remove_stopped(app)
    if not app.loaded.configuration.vaults:
        raise RefusedError("no vault is configured for the safety backup", next_step="Use --no-safety.")
    present = only_existing(app, choose(app))
    databases = tuple(name for name in present.databases if name in replaced)
    saved = Datasets(databases, present.files, present.code)
    files, dumps = finalize_backup_steps(saved, f"before the {title}", tolerant=True, safety=True)
    return [backup_copy(saved), *stop, files], [*remove_stopped(app), dumps]


@dataclass(frozen=True)
class MigrationChecks:
    """The steps that compare the migrations of a candidate database with the release that will run."""

    before: tuple[PlannedStep, ...] = ()
    """Steps before the swap, while visitors are served."""
    after: tuple[PlannedStep, ...] = ()
    """Steps after the swap, for migrations that may not be known before it."""
    notes: tuple[str, ...] = ()


def check_loaded(app: App, release: Release | None, origin: Backup | None = None) -> MigrationChecks:
    """Return the steps that compare a candidate database's migrations; none without configured migrations.

    `origin`: the backup that it comes from. The release of that backup ran on this very database and knows it.
    """
    same = origin is not None and release is not None and origin.release.get("commit") == release.commit
    if release is None or same or not migrations.known(app.context):
        return MigrationChecks()
    before = CheckLoadedMigrations(release)
    if migrations.names_itself(app.context):
        note = "Migrations are compared after the swap, because migrations.applied names the live database itself."
        return MigrationChecks((), (CheckMigrations(release, "maintenance"),), (note,))
    if migrations.asks_a_command(app.context):
        note = "If the release cannot list its migrations with the present database, they are compared after the swap."
    elif migrations.may_need_views(app.context):
        note = "If migrations.applied needs a view or a function, migrations are compared after the swap."
    else:
        return MigrationChecks((before,))
    return MigrationChecks((before,), (CheckMigrations(release, "maintenance", left=True),), (note,))


def copy_ahead(app: App) -> list[PlannedStep]:
    """Return the step that prepares restore points before a gate is closed; none if no database has a use for it."""
    return [PrepareRestorePoint()] if any(one.copying().ahead for one in app.context.databases.values()) else []


def start_all(
    app: App, release: Release, compare: Sequence[PlannedStep] = (), *, behind: bool = True
) -> list[PlannedStep]:
    """Return the steps that start web, workers and schedulers.

    `compare`: what compares the rows if the web migrates at its start, before a worker sees the result. Without
    `behind`, a later step starts workers and schedulers.
    """
    if not app.loaded.configuration.migrations.on_start:
        return [StartServices(release, (*WEB, *BEHIND) if behind else WEB)]
    web, last = StartServices(release, WEB), StartServices(release, BEHIND)
    return [web, VerifyMigrations(release), *compare, *([last] if behind else [])]


def migrate_and_start(
    app: App, release: Release, may_shrink: Sequence[str] = (), *, behind: bool = True
) -> list[PlannedStep]:
    """Return the steps that migrate, compare the rows with those from before, and start everything.

    `may_shrink`: tables that may lose rows this time. The rows are compared right after the migration, before anything
    that takes long. Without `behind`, a later step starts workers and schedulers.
    """
    compare: list[PlannedStep] = [CompareRows(tuple(may_shrink))]
    migrates_at_start = app.loaded.configuration.migrations.on_start
    return [
        *tasks(app, release, "migrate"),
        *still_pending(app, release),
        *([] if migrates_at_start else compare),
        *tasks(app, release, "warm_cache"),
        *start_all(app, release, compare, behind=behind),
    ]


def still_pending(app: App, release: Release) -> list[PlannedStep]:
    """Return the step that looks for migrations after `migrate`, where a release can be asked for them at little cost.

    The questions of other frameworks take seconds, in which visitors wait.
    """
    configuration = app.loaded.configuration
    asks = bool(configuration.migrations.pending) or configuration.migrations.kind == "oro"
    return [VerifyNonePending(release)] if asks and configuration.tasks.task("migrate") is not None else []


def prepare(app: App, release: Release, *tasks: TaskName) -> list[PlannedStep]:
    """Return the step that prepares the services of a release, and those of these tasks that exist.

    Return none where the runtime creates nothing ahead.
    """
    if not app.context.runtime.creates_ahead:
        return []
    configured = app.loaded.configuration.tasks
    return [PrepareServices(release, tuple(name for name in tasks if configured.task(name) is not None))]


def remove_stopped(app: App) -> list[PlannedStep]:
    """Return the closing step that removes what the runtime keeps of stopped services; none where it keeps nothing."""
    return [RemoveStopped()] if app.context.runtime.keeps_stopped else []


def record_use(app: App) -> list[PlannedStep]:
    """Return the closing step that records in the registry what runs here; none without a registry."""
    return [RecordUse()] if app.context.registry is not None else []


def tasks(app: App, release: Release, *names: TaskName) -> list[PlannedStep]:
    """Return the steps of those tasks that the application has."""
    return [RunTask(release, name) for name in names if app.loaded.configuration.tasks.task(name) is not None]


def after_start(app: App, release: Release | None) -> list[PlannedStep]:
    """Return the closing step of the task that need not hold visitors; none without one or without a release."""
    configured = app.loaded.configuration.tasks.task("after_start")
    return [RunTaskAfterStart(release)] if configured is not None and release is not None else []


def parameters(
    app: App,
    release: Release | None,
    *,
    set: str | None = None,
    supersedes: str | None = None,
    mode: str | None = None,
    known_services: Sequence[str] | None = None,
    previous: Release | None = None,
    start_all: bool = False,
    reason: str | None = None,
) -> PlanParameters:
    """Return parameters of a plan: the release that a commit makes current, and the newest change before the plan."""
    return PlanParameters(
        planned_after=app.journal.newest_change(),
        commit_facts=CommitFacts(release),
        supersedes=supersedes,
        known_services=tuple(known_services) if known_services is not None else None,
        previous=previous,
        mode=mode,
        set=set,
        start_all=start_all,
        reason=reason,
    )


def require_installed(app: App) -> Release:
    release = app.context.current_release()
    if release is None:
        over = "\nTo take over the running containers, run: holdfast adopt" if app.context.runtime.takes_over else ""
        raise RefusedError("nothing is installed here", next_step=f"Run: holdfast install REF{over}")
    if not Path(release.path).is_dir():
        raise RefusedError(
            f"the folder of the current release is gone: {release.path}",
            next_step="Run `holdfast backup restore latest` to bring it back.",
        )
    return release
