"""The plan of `package build`, and the choice of `package prune`."""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.application.application import App
from holdfast.model import Plan, PlannedStep
from holdfast.model.packages import EnvironmentUse, StoredPackage
from holdfast.operations import hooks, parts, provision
from holdfast.steps import release as releases
from holdfast.steps.packages import PushPackage
from holdfast.steps.release import BuildPackage


def plan(
    app: App,
    reference: str,
    tag: str = "",
    *,
    note: str | None = None,
    assets: bool = True,
    push: bool | None = None,
) -> Plan:
    """Return the plan that builds the package of a git reference and deploys nothing.

    Raise NotFoundError, AlreadyThereError, RefusedError or RegistryError.
    """
    commit, label = parts.resolve(app, reference)
    pushed = provision.pushes(app, push)
    if not tag:
        tag = provision.default_tag(app, reference, commit, push=push, assets=assets)
    provision.require_free(app, tag, commit, assets=assets)
    note = provision.default_note(reference) if note is None else note
    building = hooks.around_build(app, [BuildPackage(commit, label, tag, note, assets)])
    steps: list[PlannedStep] = [*hooks.for_failure(app), *building]
    return Plan(
        kind="package.build",
        title=f"build {tag}",
        steps=(*steps, PushPackage(tag)) if pushed else tuple(steps),
        barrier_paths=(str(app.loaded.state),),
    )


def unused(app: App) -> list[str]:
    """Return the packages of this environment's folder of which no release is kept."""
    used = releases.used_packages(app.context, releases.known_releases(app.context))
    return [package.id for package in app.context.packages.packages() if package.id not in used]


def unused_stored(
    stored: Sequence[StoredPackage], uses: Sequence[EnvironmentUse], needed: Sequence[str], keep: int
) -> list[StoredPackage]:
    """Return the packages of the registry that no environment needs, but for the newest ones.

    `stored` is sorted, the newest first; `needed` are those of this environment.
    """
    used = {*needed, *(id for use in uses for id in use.packages)}
    # One manifest may have several names, and is removed with all of them.
    manifests = {one.manifest for one in stored if one.package.id in used}
    return [one for one in stored[keep:] if one.package.id not in used and one.manifest not in manifests]
