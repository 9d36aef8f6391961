"""The plans of `patch apply` and `patch revert`, and what an upgrade does with patches."""

from __future__ import annotations

import hashlib
import os
import secrets
from pathlib import Path
from typing import Literal

from holdfast.application.application import App
from holdfast.config.similar import did_you_mean
from holdfast.drivers.packages import patch_files
from holdfast.errors import NotFoundError, RefusedError
from holdfast.model import Plan, PlannedStep, Release
from holdfast.model.packages import AppliedPatch, Package, PatchFit
from holdfast.operations import beside, hooks, parts
from holdfast.operations.provision import Provision
from holdfast.steps import migrations
from holdfast.steps.migrate import CheckMigrations
from holdfast.steps.packages import CarryPatches, PatchFile, PatchPackage
from holdfast.steps.release import UnpackRelease

_LEAST_DIGITS = 4
Patches = Literal["refuse", "drop", "reapply"]
"""What becomes of the patches of the running release in an upgrade."""


def package_of_current(app: App) -> Package:
    """Return the package of the running release. Raise RefusedError or NotFoundError."""
    current = parts.require_installed(app)
    package = app.context.package_of(current)
    if package is None:
        raise NotFoundError(
            f"the package of the running release {current.label} is gone",
            next_step=f"To build it again, run: holdfast package build {current.commit}",
        )
    return package


def applied(app: App) -> tuple[AppliedPatch, ...]:
    """Return the patches of the running release, in the order in which they were applied."""
    current = app.context.current_release()
    package = app.context.package_of(current) if current is not None else None
    return package.patches if package is not None else ()


def find(app: App, reference: str) -> AppliedPatch:
    """Return the patch of the running release with this id, the begin of one, or name. Raise NotFoundError."""
    known = applied(app)
    found = [one for one in known if one.id.startswith(reference.lower()) and len(reference) >= _LEAST_DIGITS]
    found = found or [one for one in known if one.name == reference]
    if len(found) == 1:
        return found[0]
    question = did_you_mean(reference, [name for one in known for name in (one.id[:12], one.name)])
    why = "names several patches" if found else "is not a patch of the running release"
    raise NotFoundError(f"{reference!r} {why}", next_step=f"{question} Run `holdfast patch list` to see them.".strip())


def text(app: App, patch: AppliedPatch) -> bytes:
    """Return the text of a patch of the running release."""
    return app.context.packages.patch_text(package_of_current(app), patch, _look())


def examine(app: App, path: str, strip: int | None) -> PatchFit:
    """Return how a patch file fits to the running release. Raise NotFoundError or RefusedError."""
    package = package_of_current(app)
    content = patch_files.read(Path(path))
    digest = hashlib.sha256(content).hexdigest()
    if any(one.id == digest for one in package.patches):
        raise RefusedError(
            f"{path} is already applied to the running release",
            next_step=f"To take it back, run: holdfast patch revert {digest[:12]}",
        )
    fit = app.context.packages.fit_patch(package, Path(path).name, content, strip, _look())
    if fit.contained:
        raise RefusedError(f"the running release contains all changes of {path} already")
    if fit.why_not:
        raise RefusedError(
            f"{path} does not apply to the running release: {fit.why_not}",
            next_step="Make it for the release that `holdfast status` names, or use -p0 or -p1.",
        )
    return fit


def _look() -> str:
    """Return the name of a folder for a look at a package, outside of any operation; it names the process."""
    return f"look-{os.getpid()}-{secrets.token_hex(4)}"


def require_revertible(app: App, reference: str) -> AppliedPatch:
    """Return a patch that can be taken back. Raise NotFoundError, or RefusedError where another one builds on it."""
    patch = find(app, reference)
    package = package_of_current(app)
    why = app.context.packages.why_not_reverted(package, patch, _look())
    if why:
        raise RefusedError(
            f"{patch.name} cannot be taken back: {why}",
            next_step="Take later patches of the same files back first: holdfast patch list",
        )
    return patch


def plan_apply(app: App, path: str, strip: int | None = None) -> Plan:
    """Return the plan that applies a patch to the running release, in a release of its own."""
    fit = examine(app, path, strip)
    file = PatchFile(str(Path(path).absolute()), fit.patch.id, fit.patch.strip)
    package = package_of_current(app)
    return _plan(app, "patch.apply", f"apply the patch {fit.patch.name}", PatchPackage(package.id, file))


def plan_revert(app: App, reference: str) -> Plan:
    """Return the plan that takes a patch of the running release back, in a release of its own."""
    patch = require_revertible(app, reference)
    package = package_of_current(app)
    step = PatchPackage(package.id, None, (patch.id,))
    return _plan(app, "patch.revert", f"take the patch {patch.name} back", step)


def _plan(app: App, kind: str, title: str, making: PatchPackage) -> Plan:
    current = parts.require_installed(app)
    package = package_of_current(app)
    notes = parts.adopt_configuration(app, app.context.packages.configuration_of(package), current.label)
    release = parts.new_release(app, package.id, current.label, current.commit)
    known = migrations.known(app.context)
    steps: list[PlannedStep] = [
        making,
        UnpackRelease(release, beside.kinds(app)),
        *([CheckMigrations(release, "source")] if known else []),
        *parts.tasks(app, release, "prepare", "warm_cache"),
    ]
    all_steps, after = beside.switching(app, release, steps, "upgrade")
    nothing = parts.Datasets((), (), False)
    return Plan(
        kind=kind,
        title=title,
        steps=(parts.preflight(app, nothing), *hooks.for_failure(app), *all_steps),
        after_commit=(*after, *parts.record_use(app)),
        also_locks=("backup",),
        notes=(*notes, "The data is not changed. To go back, run: holdfast rollback"),
        parameters=parts.parameters(app, release, mode="source", previous=current),
        barrier_paths=tuple(app.context.barrier_paths()),
    )


# --- upgrades --------------------------------------------------------------------------------------------


def carried(app: App, current: Release, provided: Provision, patches: Patches) -> tuple[list[PlannedStep], list[str]]:
    """Return the step that applies the patches of the running release again, if any, and notes.

    Raise RefusedError where the running release has patches, and nobody said what is to become of them.
    """
    package = app.context.package_of(current)
    present = package.patches if package is not None else ()
    if package is None or not present:
        return [], []
    names = ", ".join(one.name for one in present)
    if patches == "drop":
        return [], [f"The new release does not get the patches of the running one: {names}"]
    if patches == "reapply":
        note = f"The patches of the running release are applied again, but for those that the new one contains: {names}"
        return [CarryPatches(package.id, provided.package)], [note]
    if not left(app, provided):
        return [], [f"The new release contains the patches of the running one already: {names}"]
    raise RefusedError(
        f"{len(present)} patches are applied to the running release {current.label}: {names}",
        next_step="Add --reapply-patches to apply them to the new release, but for those that it contains already, or"
        " --skip-check-patches to leave them behind.",
    )


def left(app: App, provided: Provision) -> list[AppliedPatch]:
    """Return the patches of the running release that a new one does not contain, as far as that is known now."""
    current = app.context.current_release()
    package = app.context.package_of(current) if current is not None else None
    if package is None or not package.patches:
        return []
    if provided.here is None:
        return list(package.patches)
    found = []
    for one in package.patches:
        content = app.context.packages.patch_text(package, one, _look())
        if not app.context.packages.fit_patch(provided.here, one.name, content, one.strip, _look()).contained:
            found.append(one)
    return found
