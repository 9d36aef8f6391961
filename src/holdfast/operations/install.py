"""The plan of `install REF`, the first installation of the application."""

from __future__ import annotations

from holdfast.application import development
from holdfast.application.application import App
from holdfast.errors import RefusedError
from holdfast.model import Plan, PlannedStep
from holdfast.operations import hooks, parts, provision
from holdfast.operations.provision import Provision
from holdfast.steps.backup import PublishBackup, UnpinBackup
from holdfast.steps.gate import CloseGate, OpenGate
from holdfast.steps.release import SwitchRelease, UnpackRelease
from holdfast.steps.restore_point import AllowChanges, CreateRestorePoint, DropRestorePoint, WipeData
from holdfast.steps.service_steps import AdoptServices, StopServices


def plan(
    app: App, reference: str, *, wipe: bool = False, provided: Provision | None = None, push: bool | None = None
) -> Plan:
    """Return the plan of an installation; `provided` is a package that exists already, `push` as in an upgrade.

    Raise RefusedError where a release is installed, unless the data is wiped, which production forbids.
    """
    current = app.context.current_release()
    if current is not None and not wipe:
        raise RefusedError(
            f"{current.label} is already installed here",
            next_step=f"Run `holdfast upgrade {reference}`; outside production, --wipe installs it again on empty"
            " data.",
        )
    if wipe and app.loaded.environment_type == "prod":
        raise RefusedError(
            "the data of a production environment cannot be wiped",
            next_step="Use `holdfast upgrade`, which keeps the data.",
        )
    if wipe and not app.loaded.configuration.vaults:
        raise RefusedError(
            "no vault is configured, and wiped files could only come back from a backup",
            next_step='Add [vaults.local] with `kind = "local"` and a `path`.',
        )
    provided = provided or provision.building(app, reference, push=push)
    label = provided.label
    notes = parts.adopt_configuration(app, provided.configuration, label)
    development.refuse(app.context)
    release = parts.new_release(app, provided.package, label, provided.commit)
    datasets = parts.only_existing(app, parts.choose(app))
    with_vault = bool(app.loaded.configuration.vaults)
    if wipe:
        notes.append(
            f"All data of {', '.join((*datasets.databases, *datasets.files))} is replaced. A backup is made first."
        )
    steps: list[PlannedStep] = [
        parts.preflight(app, datasets, dumps=int(with_vault)),
        *hooks.for_failure(app),
        *hooks.around_build(app, provided.steps),
        UnpackRelease(release),
        *parts.tasks(app, release, "prepare"),
    ]
    if with_vault:
        steps.append(parts.backup_copy(datasets))
    if wipe:
        steps += parts.copy_ahead(app)
    steps += [CloseGate(f"installation of {label}"), StopServices()]
    if with_vault:
        steps += [
            parts.backup_finish(datasets, "quiesce", f"before the installation of {label}", tolerant=True),
            PublishBackup(pin=True),
        ]
    steps += [
        CreateRestorePoint(),
        AllowChanges(datasets.files if with_vault else ()),
        *([WipeData(release)] if wipe else []),
        SwitchRelease(release),
        *(parts.tasks(app, release, "install") or parts.tasks(app, release, "migrate")),
        *parts.tasks(app, release, "warm_cache"),
        *parts.start_all(app, release),
    ]
    after: tuple[PlannedStep, ...] = (
        AdoptServices(),
        OpenGate(),
        UnpinBackup(),
        DropRestorePoint(),
        *parts.record_use(app),
        *parts.after_start(app, release),
    )
    return Plan(
        kind="install",
        title=f"install {label}",
        steps=tuple(steps),
        after_commit=after,
        also_locks=("backup",),
        notes=tuple(notes),
        parameters=parts.parameters(app, release, start_all=True),
        barrier_paths=tuple(app.context.barrier_paths()),
    )
