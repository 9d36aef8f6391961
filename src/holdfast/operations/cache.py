"""The plan of `cache rebuild`: the running package as a new release, whose cache is warm before visitors reach it."""

from __future__ import annotations

from holdfast.application.application import App
from holdfast.model import Plan, PlannedStep
from holdfast.operations import beside, hooks, parts
from holdfast.operations.patches import package_of_current
from holdfast.steps.release import UnpackRelease


def plan(app: App) -> Plan:
    """Return the plan that unpacks the running package once more, warms its cache, and switches to it.

    A release has its own cache, so no request sees one that is half warm, and a failure leaves the old one in use.

    Raise RefusedError or NotFoundError; nothing is changed.
    """
    current = parts.require_installed(app)
    package = package_of_current(app)
    notes = parts.adopt_configuration(app, app.context.packages.configuration_of(package), current.label)
    parts.refuse_without_task(app, "warm_cache")
    release = parts.new_release(app, package.id, current.label, current.commit)
    making: list[PlannedStep] = [
        UnpackRelease(release, beside.kinds(app)),
        *parts.tasks(app, release, "prepare", "warm_cache"),
    ]
    steps, after = beside.switching(app, release, making, "upgrade")
    return Plan(
        kind="cache.rebuild",
        title=f"rebuild the cache of {current.label}",
        steps=(parts.preflight(app, parts.Datasets((), (), False)), *hooks.for_failure(app), *steps),
        after_commit=(*after, *parts.record_use(app), *parts.after_start(app, release)),
        also_locks=("backup",),
        notes=(*notes, "Code and data stay as they are; the release gets a new folder."),
        parameters=parts.parameters(app, release, mode="source", previous=current),
        barrier_paths=tuple(app.context.barrier_paths()),
    )
