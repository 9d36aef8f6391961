"""The steps of packages and releases: build, unpack, link shared paths, switch `current`, prune."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import cast

from holdfast.application.context import Opened
from holdfast.drivers.protocols.containers import ImageKeeping
from holdfast.engine.runner import StepContext
from holdfast.errors import NotFoundError, RefusedError
from holdfast.model import Backup, Release
from holdfast.system import durable


def build(opened: Opened, context: StepContext) -> None:
    package = opened.packages.build(context.parameters["commit"], context.parameters["label"], context.operation)
    context.record({"package": package.id})
    images = _images(opened)
    for release in known_releases(opened) if images is not None else ():
        if images is not None and release.commit == package.commit:
            images.refresh(Path(release.path), package)


def unbuild(opened: Opened, context: StepContext) -> None:
    """Undo `build`. A finished package stays: it is whole and changes nothing."""
    opened.packages.abandon(context.operation)


def unpack(opened: Opened, context: StepContext) -> None:
    release = Release(**context.parameters["release"])
    package = opened.find_package(release.commit)
    if package is None:
        raise NotFoundError(
            f"there is no package for {release.label}", next_step=f"Run: holdfast package build {release.label}"
        )
    path = Path(release.path)
    durable.make_directory(path.parent, 0o755)
    context.record({"path": release.path, "created": True})
    opened.packages.unpack(package, path, asdict(release))
    link_shared(opened, path)
    durable.sync_filesystem(path)
    refuse_unfit(opened, release)
    _refuse_beside(opened, context, release)


def _refuse_beside(opened: Opened, context: StepContext, release: Release) -> None:
    """Raise RefusedError where services that should start next to the old ones cannot."""
    kinds = context.parameters.get("beside") or ()
    configuration = opened.loaded.configuration
    names = [name for name in configuration.services if configuration.service_kind(name) in kinds]
    if opened.containers is None or not names:
        return
    against, without = opened.containers.beside(release.path, names)
    if against:
        raise RefusedError(
            f"release {release.label} cannot start next to the old one: " + "; ".join(against),
            next_step=f"Run `holdfast upgrade {release.label}` (maintenance mode).",
        )
    for text in without:
        context.say(text)


def refuse_unfit(opened: Opened, release: Release) -> None:
    """Raise RefusedError for a release whose services cannot run, before anything is stopped for it."""
    found = opened.containers.refused(release.path) if opened.containers is not None else []
    if found:
        raise RefusedError(f"release {release.label} cannot run: " + "; ".join(found))


def link_shared(opened: Opened, release: Path) -> None:
    """Create the folders of the datasets, and the links to shared paths in a new release. Idempotent."""
    datasets = {opened.loaded.path(item.path) for item in opened.loaded.configuration.files.values()}
    for dataset in datasets:
        durable.make_directory(dataset, 0o755)
    for database in opened.databases.values():
        if database.private_folder is not None:
            durable.make_directory(database.private_folder.parent, 0o755)
    for inside, shared in opened.loaded.configuration.source.shared.items():
        link = Path(os.path.normpath(release / inside))
        target = opened.loaded.path(shared)
        if release not in link.parents:
            raise RefusedError(f"source.shared: {inside!r} is outside the release")
        if link.is_symlink() or link.is_file():
            link.unlink()
        elif link.is_dir():
            shutil.rmtree(link)
        link.parent.mkdir(parents=True, exist_ok=True)
        durable.make_directory(target if target in datasets else target.parent, 0o755)
        os.symlink(os.path.relpath(target, link.parent), link)


def remove(opened: Opened, context: StepContext) -> None:
    """Undo `unpack`: remove the folder that this operation created."""
    opened.packages.abandon(context.operation)
    if context.facts.get("created"):
        durable.remove_tree(context.facts["path"])


def switch(opened: Opened, context: StepContext) -> None:
    release = Release(**context.parameters["release"])
    images = _images(opened)
    tags = images.tags(Path(release.path)) if images is not None else {}
    if "previous" not in context.facts:
        link = opened.current_link
        context.record(
            {
                "previous": os.readlink(link) if link.is_symlink() else None,
                "tags": images.tagged(tags) if images is not None else {},
            }
        )
    if images is not None:
        images.tag(tags)
    point(opened, release.path)


def _images(opened: Opened) -> ImageKeeping | None:
    """Return the store of packages if packages are images."""
    return cast(ImageKeeping, opened.packages) if opened.containers is not None else None


def point(opened: Opened, path: str) -> None:
    durable.point_link(opened.current_link, os.path.relpath(path, opened.current_link.parent))


def switch_back(opened: Opened, context: StepContext) -> None:
    if "previous" not in context.facts:
        return
    images = _images(opened)
    if images is not None:
        images.tag(context.facts.get("tags", {}))
    previous = context.facts["previous"]
    if previous is None:
        durable.unlink(opened.current_link)
    else:
        durable.point_link(opened.current_link, previous)


def known_releases(opened: Opened) -> list[Release]:
    """Return committed releases whose folder exists, newest first, each once."""
    found: dict[str, Release] = {}
    for record in opened.journal.committed():
        value = record.commit_facts.get("release")
        if value and value["id"] not in found and Path(value["path"]).is_dir():
            found[value["id"]] = Release(**value)
    return list(found.values())


def data_of(opened: Opened, release: Release, sets: Sequence[Backup]) -> Backup | None:
    """Return the backup with a release's last data, made by the change that replaced it; None without one."""
    replaced: list[str] = []
    running = ""
    for record in reversed(opened.journal.committed()):
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


def prune(opened: Opened, context: StepContext) -> None:
    """Remove releases and packages beyond those kept for a rollback. Idempotent. This is a closing step."""
    keep = max(opened.loaded.configuration.releases.keep, 2)
    releases = known_releases(opened)
    kept = {release.id for release in releases[:keep]}
    for release in releases[keep:]:
        durable.remove_tree(release.path)
    packages = opened.packages.packages()
    used = {release.commit for release in releases if release.id in kept}
    spare = [package for package in packages if package.commit not in used]
    for package in spare[: max(0, len(packages) - max(keep, len(used)))]:
        opened.packages.remove(package.id)
