"""`package build`, `package prune`, and what `package deploy` shares with upgrade."""

from __future__ import annotations

from holdfast.application.application import App
from holdfast.model import Plan
from holdfast.operations import parts
from holdfast.steps import release as releases


def plan(app: App, reference: str) -> Plan:
    """Builds the package of a git reference; deploys nothing. Raises NotFoundError."""
    commit, label = parts.resolve(app, reference)
    return Plan(
        kind="package.build",
        title=f"build {label}",
        steps=(parts.build(commit, label),),
        barrier_paths=(str(app.loaded.state),),
    )


def unused(app: App) -> list[str]:
    """Packages that no kept release came from."""
    used = {release.commit for release in releases.known_releases(app.opened)}
    return [package.id for package in app.opened.packages.packages() if package.commit not in used]
