"""The plan of `package build`, and the choice of `package prune`."""

from __future__ import annotations

from holdfast.application.application import App
from holdfast.model import Plan
from holdfast.operations import hooks, parts
from holdfast.steps import release as releases
from holdfast.steps.release import BuildPackage


def plan(app: App, reference: str) -> Plan:
    """Return the plan that builds the package of a git reference and deploys nothing. Raise NotFoundError."""
    commit, label = parts.resolve(app, reference)
    return Plan(
        kind="package.build",
        title=f"build {label}",
        steps=(*hooks.for_failure(app), *hooks.around_build(app, BuildPackage(commit, label))),
        barrier_paths=(str(app.loaded.state),),
    )


def unused(app: App) -> list[str]:
    """Return the packages of which no release is kept."""
    used = {release.commit for release in releases.known_releases(app.context)}
    return [package.id for package in app.context.packages.packages() if package.commit not in used]
