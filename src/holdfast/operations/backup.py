"""The plans of `backup create` and `backup verify --load`, and the choice of a backup for other commands."""

from __future__ import annotations

from collections.abc import Collection

from holdfast.application.application import App
from holdfast.config.load import ResolvedConfig
from holdfast.config.similar import no_such
from holdfast.drivers.protocols.vaults import Vault
from holdfast.errors import NotFoundError, RefusedError
from holdfast.model import Backup, Plan, PlannedStep, PlanParameters
from holdfast.operations import hooks, index_parts, parts
from holdfast.steps.backup import PublishBackup
from holdfast.steps.gate import CloseGate, OpenGate
from holdfast.steps.proof import ProveDatabases, ProveNewDatabases
from holdfast.steps.restore import CheckBackup, Chosen
from holdfast.steps.service_steps import ResumeServices, StopServices


def vault(app: App) -> Vault:
    return require_vault(app.context.vault)


def require_vault(found: Vault | None) -> Vault:
    if found is None:
        raise RefusedError("no vault is configured", next_step='Add [vaults.local] with `kind = "local"` and a `path`.')
    return found


def plan(
    app: App,
    *,
    consistency: str | None = None,
    only: tuple[str, ...] = (),
    except_: tuple[str, ...] = (),
    comment: str = "",
    adopt_data: bool = False,
) -> Plan:
    """Return the plan of a backup. `adopt_data`: accept data without Holdfast's marker.

    Raise UsageError or RefusedError.
    """
    vault(app)
    level = consistency or app.loaded.configuration.backup.consistency
    chosen = parts.choose(app, only, except_)
    installed = app.context.current_release() is not None
    otherwise = " If it was lost, run `holdfast backup restore latest`; to leave it out, add `--except NAME`."
    datasets = parts.require_existing(app, chosen, otherwise) if installed else parts.only_existing(app, chosen)
    missing = [
        f"{section}.{name}"
        for section, names, present in (
            ("databases", chosen.databases, datasets.databases),
            ("files", chosen.files, datasets.files),
        )
        for name in names
        if name not in present
    ]
    stops = level == "quiesce"
    steps: list[PlannedStep] = [
        parts.preflight(
            app, datasets, dumps=1, reserve=stops, stops=stops, adopts=adopt_data, saves_configuration=True
        ),
        *hooks.for_failure(app, "after_backup"),
        *hooks.hook(app, "before_backup"),
        parts.backup_copy(datasets),
    ]
    after: list[PlannedStep] = []
    if stops:
        steps += [CloseGate("backup"), StopServices(keeps=True)]
        after += [ResumeServices(), OpenGate()]
    steps += index_parts.snapshot_indices(app, datasets.indices)
    steps.append(parts.backup_finish(datasets, level, comment))
    after.append(PublishBackup())
    if datasets.databases:
        after.append(ProveNewDatabases(datasets.databases))
    after += hooks.hook(app, "after_backup")
    return Plan(
        kind="backup.create",
        title=f"backup ({level})",
        steps=tuple(steps),
        after_commit=tuple(after),
        lock="backup",
        also_locks=("change",) if level == "quiesce" else (),
        notes=(
            *([f"This backup is partial: there is no {', '.join(missing)} yet."] if missing else []),
            *parts.vanished(app),
        ),
        barrier_paths=tuple(app.context.barrier_paths()),
        parameters=PlanParameters(level=level),
    )


def plan_proof(app: App, reference: str) -> Plan:
    """Return the plan that loads each database of a backup as a candidate database, compares it and drops it.

    Raise NotFoundError, UsageError or DamagedError.
    """
    found = find(app, reference)
    vault(app).open_set(found.id)
    databases = tuple(name for name in app.loaded.configuration.databases if name in found.datasets)
    chosen = Chosen(found.id, dict.fromkeys(databases, found.id), databases, files=())
    return Plan(
        kind="backup.verify",
        title=f"load {found.id} as candidate databases",
        lock="backup",
        steps=(
            parts.preflight(app, parts.Datasets((), (), False), reserve=False, stops=False, adopts=True),
            CheckBackup(*chosen),
            ProveDatabases(*chosen),
        ),
        notes=("The live databases are not changed.",),
        barrier_paths=(str(app.loaded.state),),
    )


def find(app: App, reference: str, datasets: Collection[str] = ()) -> Backup:
    """Return a backup by id, unique prefix or `latest`.

    `latest` is the newest of those that contain most of `datasets`, or of all datasets. It is never a safety backup:
    after a restore the same command would bring back what was just replaced.

    Raise NotFoundError, which names similar ones, or several that fit.
    """
    return find_in(vault(app), app.loaded, reference, datasets)


def find_in(vault: Vault, loaded: ResolvedConfig, reference: str, datasets: Collection[str] = ()) -> Backup:
    """Do the same, without an open application."""
    found = vault.backups()
    if reference == "latest":
        if not found:
            raise NotFoundError("there is no backup yet", next_step="Run: holdfast backup create")
        made = [backup for backup in found if not backup.safety]
        if not made:
            raise NotFoundError(
                f"there are only safety backups: {', '.join(backup.id for backup in found[-3:])}",
                next_step="Name one of them by its id, or run: holdfast backup create",
            )
        configuration = loaded.configuration
        wanted = {*datasets} or {*configuration.databases, *configuration.files}
        return max(made, key=lambda backup: (len(wanted & {*backup.datasets}), backup.sequence))
    exact = [backup for backup in found if backup.id == reference]
    matches = exact or [backup for backup in found if backup.id.startswith(reference)]
    if not matches:
        if reference in vault.damaged():
            raise NotFoundError(
                f"backup {reference} is damaged", next_step="Run `holdfast backup verify` to see what is wrong."
            )
        raise no_such(
            "backup",
            reference,
            ["latest", *(backup.id for backup in found)],
            next_step="Run `holdfast backup list` to see the backups.",
            cutoff=0.85,  # all ids of a month are similar to each other
        )
    if len(matches) > 1:
        raise NotFoundError(
            f"{reference!r} matches {len(matches)} backups: {', '.join(backup.id for backup in matches[:5])}",
            next_step="Give more of the id.",
        )
    return matches[0]
