"""The steps of packages and releases: build, unpack, link shared paths, switch `current`, prune."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import msgspec
from msgspec.structs import asdict, replace

from holdfast.application.context import ApplicationContext
from holdfast.drivers.protocols.containers import ImageKeeping
from holdfast.errors import NotFoundError, RefusedError
from holdfast.model import Backup, Release
from holdfast.model.packages import PATCHED, Package
from holdfast.steps.packages import CarryPatches, FetchPackage, PackageFacts, PatchPackage
from holdfast.steps.release_paths import link_shared, make_writable, missing_shared, remove_seeds, seeds
from holdfast.steps.typed import Context, NoFacts, OperationContext, StepFacts, TypedStep
from holdfast.system import durable

_ROOM_BYTES, _ROOM_SHARE = 2 << 30, 0.1
"""The space that must be free for keeping what failed."""


class BuildPackage(TypedStep[PackageFacts], frozen=True):
    """Build the package of a git commit, or find the one that was built before."""

    name = "package.build"
    is_undone = True

    commit: str
    label: str
    id: str = ""
    """The name of the package; empty for `<label>-<commit12>`."""
    note: str = ""
    assets: bool = True
    """Whether the commands that build assets run, too."""

    @property
    def title(self) -> str:
        return f"build the package of {self.label}"

    def do(self, application: ApplicationContext, context: Context[PackageFacts]) -> None:
        package = application.packages.build(
            self.commit, self.label, context.operation, id=self.id, note=self.note, assets=self.assets
        )
        context.facts.package = package.id
        context.record()
        images = _images(application)
        for release in known_releases(application) if images is not None else ():
            if images is not None and release.commit == package.commit:
                images.refresh(Path(release.path), package)

    def undo(self, application: ApplicationContext, context: Context[PackageFacts]) -> None:
        """Remove an unfinished build. A finished package stays: it is whole and changes nothing."""
        application.packages.abandon(context.operation)

    def describe(self, application: ApplicationContext) -> list[str]:
        source = application.loaded.configuration.source
        commands = [*source.build, *(source.assets if self.assets else [])]
        return [f"git archive {self.commit}", *(" ".join(command) for command in commands)]


class UnpackFacts(StepFacts):
    path: str | None = None
    package: str | None = None
    """The package that was unpacked, which the commit keeps."""
    created: bool | None = None
    """Whether this operation created the folder, so that its undo removes it."""
    shared: list[str] | None = None
    """The shared paths that did not exist before this operation."""
    seeded: dict[str, list[str]] | None = None
    """The shared folders that got what the release ships, each with the names in it."""


class UnpackRelease(TypedStep[UnpackFacts], frozen=True):
    """Unpack the package of a release into a folder of its own."""

    name = "release.unpack"
    is_undone = True

    release: Release
    beside: tuple[str, ...] = ()
    """The kinds of services that will start while the old ones run."""

    @property
    def title(self) -> str:
        return f"unpack {self.release.label}"

    def do(self, application: ApplicationContext, context: Context[UnpackFacts]) -> None:
        release = self.release
        package = _made(application, context) or application.package_of(release)
        if package is None:
            raise NotFoundError(
                f"there is no package for {release.label}", next_step=f"Run: holdfast package build {release.label}"
            )
        unpack_package(application, context, package, release)
        refuse_incompatible(application, release)
        self._refuse_beside(application, context)

    def _refuse_beside(self, application: ApplicationContext, context: OperationContext) -> None:
        """Raise RefusedError where services that should start next to the old ones cannot."""
        configuration = application.loaded.configuration
        names = [name for name in configuration.running_services() if configuration.service_kind(name) in self.beside]
        if not names:
            return
        against, without = application.runtime.beside(self.release.path, names)
        if against:
            raise RefusedError(
                f"release {self.release.label} cannot start next to the old one: " + "; ".join(against),
                next_step=f"Run `holdfast upgrade {self.release.label}` (maintenance mode).",
            )
        for text in without:
            context.say(text)

    def undo(self, application: ApplicationContext, context: Context[UnpackFacts]) -> None:
        remove_unpacked(application, context)


def _made(application: ApplicationContext, context: OperationContext) -> Package | None:
    """Return the package that this operation built, fetched or patched last; None if it did nothing of that."""
    carried, patched = context.facts_of(CarryPatches), context.facts_of(PatchPackage)
    fetched, built = context.facts_of(FetchPackage), context.facts_of(BuildPackage)
    ids = [facts.package for facts in (carried, patched, fetched, built) if facts is not None and facts.package]
    return application.find_package(ids[0]) if ids else None


def unpack_package(
    application: ApplicationContext, context: Context[UnpackFacts], package: Package, release: Release
) -> None:
    """Unpack a package into the folder of a release, with its links and for the accounts that need it."""
    path = Path(release.path)
    durable.make_directory(path.parent, 0o755)
    remove_failed(application)
    context.facts.path, context.facts.created = release.path, True
    context.facts.package = package.id
    context.facts.shared = missing_shared(application)
    context.record()
    application.packages.unpack(package, path, asdict(replace(release, package=package.id)))
    if seeded := seeds(application, path):
        context.facts.seeded = seeded
        context.record()
    link_shared(application, path, seeded)
    make_writable(application, path)
    durable.sync_filesystem(path)


def remove_unpacked(application: ApplicationContext, context: Context[UnpackFacts]) -> None:
    """Take away the folder of a release if this operation created it, and what it created at shared paths.

    The folder is kept aside for a look at it, until the next release is unpacked, if the disk has room for that.
    """
    application.packages.abandon(context.operation)
    remove_seeds(context.facts.seeded or {})
    for shared in context.facts.shared or ():
        durable.remove_tree(shared)
    if not context.facts.created or context.facts.path is None:
        return
    path = Path(context.facts.path)
    kept = application.failed_releases / path.name
    if path.is_dir() and has_room(path.parent):
        durable.make_directory(kept.parent)
        durable.remove_tree(kept)
        durable.rename(path, kept)
        context.say(f"The files of the release that failed are in {kept} until the next one is unpacked.")
    else:
        durable.remove_tree(path)


def has_room(folder: Path) -> bool:
    """Return whether a disk has room for files that nobody needs."""
    status = os.statvfs(folder)
    free = status.f_bavail * status.f_frsize
    return free >= _ROOM_BYTES and free >= _ROOM_SHARE * status.f_blocks * status.f_frsize


def remove_failed(application: ApplicationContext) -> None:
    """Remove what earlier operations kept of releases that failed."""
    durable.remove_tree(application.failed_releases)


def refuse_incompatible(application: ApplicationContext, release: Release) -> None:
    """Raise RefusedError for a release whose services cannot run, before anything is stopped for it."""
    found = application.runtime.refused(release.path)
    if found:
        raise RefusedError(f"release {release.label} cannot run: " + "; ".join(found))


class SwitchFacts(StepFacts):
    previous: str | msgspec.UnsetType | None = msgspec.UNSET
    """Where `current` pointed; None if it did not exist, unset until it was looked at."""
    tags: dict[str, str] | None = None
    """The images, by id, that had the project's own names."""


class SwitchRelease(TypedStep[SwitchFacts], frozen=True):
    """Point `current` to a release, and give its images the project's own names."""

    name = "release.switch"
    is_undone = True

    release: Release

    @property
    def title(self) -> str:
        return f"switch to {self.release.label}"

    def do(self, application: ApplicationContext, context: Context[SwitchFacts]) -> None:
        images = _images(application)
        tags = images.tags(Path(self.release.path)) if images is not None else {}
        if context.facts.previous is msgspec.UNSET:
            link = application.current_link
            context.facts.previous = os.readlink(link) if link.is_symlink() else None
            context.facts.tags = images.tagged(tags) if images is not None else {}
            context.record()
        if images is not None:
            images.tag(tags)
        durable.point_link(
            application.current_link, os.path.relpath(self.release.path, application.current_link.parent)
        )

    def undo(self, application: ApplicationContext, context: Context[SwitchFacts]) -> None:
        previous = context.facts.previous
        if previous is msgspec.UNSET:
            return
        images = _images(application)
        if images is not None:
            images.tag(context.facts.tags or {})
        if previous is None:
            durable.unlink(application.current_link)
        else:
            durable.point_link(application.current_link, previous)

    def describe(self, application: ApplicationContext) -> list[str]:
        return [f"current -> {self.release.path}"]


def _images(application: ApplicationContext) -> ImageKeeping | None:
    """Return the store of packages if packages are images."""
    return cast(ImageKeeping, application.packages) if application.containers is not None else None


def known_releases(application: ApplicationContext) -> list[Release]:
    """Return committed releases whose folder exists, newest first, each once."""
    found: dict[str, Release] = {}
    for release in application.committed_releases():
        if release.id not in found and Path(release.path).is_dir():
            found[release.id] = release
    return list(found.values())


def used_packages(application: ApplicationContext, releases: Sequence[Release]) -> set[str]:
    """Return the packages of releases, and those from which patched ones were made."""
    packages = application.packages.packages()
    ids = {package.id for package in packages}
    used: set[str] = set()
    for release in releases:
        exact = {release.package, release.package.partition(PATCHED)[0]} & ids
        used |= exact or {package.id for package in packages if package.commit == release.commit}
    return used


def data_of(application: ApplicationContext, release: Release, sets: Sequence[Backup]) -> Backup | None:
    """Return the backup with a release's last data, made by the change that replaced it; None without one."""
    replaced: list[str] = []
    running = ""
    for record in reversed(application.journal.committed()):
        found = record.commit_facts.get("release", {}).get("id")
        if found and found != running:
            if running == release.id:
                replaced.append(record.id)
            running = found
    for operation in reversed(replaced):
        for backup in sorted(sets, key=lambda backup: backup.sequence, reverse=True):
            if backup.operation == operation and backup.release.get("id") == release.id:
                return backup
        return None  # an older backup would have older data
    return None


class PruneReleases(TypedStep[NoFacts], frozen=True):
    """Remove releases and packages beyond those kept for a rollback. Idempotent. This is a closing step."""

    name = "release.prune"

    @property
    def title(self) -> str:
        return "remove old releases"

    def do(self, application: ApplicationContext, context: Context[NoFacts]) -> None:
        keep = max(application.loaded.configuration.releases.keep, 2)
        releases = known_releases(application)
        for release in releases[keep:]:
            durable.remove_tree(release.path)
        packages = application.packages.packages()
        used = used_packages(application, releases[:keep])
        # What was built later than all of them may wait for its deployment.
        newest = max((package.built_at for package in packages if package.id in used), default="")
        spare = [package for package in packages if package.id not in used and package.built_at < newest]
        beyond = spare[: max(0, len(packages) - max(keep, len(used)))]
        application.packages.remove(*(package.id for package in beyond))
