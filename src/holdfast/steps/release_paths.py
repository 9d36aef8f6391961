"""The paths of a release that it does not own alone: links to what all releases share, and what the application writes.

Holdfast creates what is missing for the account of the application, and never changes the owner of what exists.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from holdfast.application.context import ApplicationContext
from holdfast.errors import RefusedError
from holdfast.system import durable
from holdfast.system.accounts import Account, account_of


def owner_of(application: ApplicationContext) -> Account:
    """Return the account to which folders belong that the application writes into."""
    return account_of(application.loaded.configuration.owner())


def shared_links(application: ApplicationContext, release: Path) -> dict[Path, str]:
    """Return the links of a release, each with the shared path as it is configured.

    Raise RefusedError for a link that would be outside the release.
    """
    found = {}
    for inside, shared in application.loaded.configuration.source.shared.items():
        link = Path(os.path.normpath(release / inside))
        if release not in link.parents:
            raise RefusedError(f"source.shared: {inside!r} is outside the release")
        found[link] = shared
    return found


def seeds(application: ApplicationContext, release: Path) -> dict[str, list[str]]:
    """Return the shared folders that get what an unpacked release ships there, each with the names in it.

    That is a folder which does not exist yet or, at the installation, an empty one. Later, visitors may just be writing
    into an empty one.
    """
    found = {}
    installs = application.current_release() is None
    for link, shared in shared_links(application, release).items():
        target = application.loaded.path(shared)
        if link.is_dir() and not link.is_symlink() and (not target.exists() or (installs and _is_empty(target))):
            found[str(target)] = sorted(os.listdir(link))
    return found


def remove_seeds(seeded: Mapping[str, Sequence[str]]) -> None:
    """Remove what was copied to shared folders, for an undo. Idempotent."""
    for target, names in seeded.items():
        for name in names:
            durable.remove_tree(os.path.join(target, name))


def missing_shared(application: ApplicationContext) -> list[str]:
    """Return the shared paths that do not exist yet, and neither are data nor contain any.

    What an undone operation created there is removed with it.
    """
    data = application.places()
    targets = [application.loaded.path(shared) for shared in application.loaded.configuration.source.shared.values()]
    return [
        str(target)
        for target in dict.fromkeys(targets)
        if not os.path.lexists(target) and not any(place == target or target in place.parents for place in data)
    ]


def link_shared(application: ApplicationContext, release: Path, seeded: Collection[str]) -> None:
    """Create the folders of the datasets, and the links to shared paths in a new release. Idempotent.

    `seeded`: the shared folders that get what the release ships.
    """
    account = owner_of(application)
    datasets = {application.loaded.path(item.path) for item in application.loaded.configuration.files.values()}
    databases = {application.loaded.path(item.path) for item in application.loaded.configuration.databases.values()}
    for link, shared in shared_links(application, release).items():
        target = application.loaded.path(shared)
        shipped = link if link.is_dir() and not link.is_symlink() else None
        is_folder = target in datasets or shipped is not None or (_means_folder(shared) and not target.is_file())
        if target in databases or (not is_folder and not link.is_file()):
            make_folder(target.parent, account)
        elif is_folder:
            make_folder(target, account)
            if shipped is not None and str(target) in seeded:
                _copy(application, shipped, target, account)
        elif not os.path.lexists(target):
            make_folder(target.parent, account)
            _copy(application, link, target, account)
        if shipped is not None:
            shutil.rmtree(shipped)
        elif os.path.lexists(link):
            link.unlink()
        link.parent.mkdir(parents=True, exist_ok=True)
        os.symlink(os.path.relpath(target, link.parent), link)
    for dataset in datasets:
        make_folder(dataset, account)
    for database in application.databases.values():
        if database.private_folder is not None:
            make_folder(database.private_folder.parent, account)


def _means_folder(shared: str) -> bool:
    return shared.endswith("/") or "." not in os.path.basename(shared)


def _is_empty(folder: Path) -> bool:
    """Return whether a folder contains nothing but Holdfast's own, or does not exist."""
    try:
        return all(name.startswith(".holdfast") for name in os.listdir(folder))
    except FileNotFoundError:
        return True


def _copy(application: ApplicationContext, shipped: Path, target: Path, account: Account) -> None:
    """Copy what a release ships to a shared path, as the account that owns it.

    So nothing that the account does meanwhile in its own folder can lead the copy elsewhere.
    """
    source = f"{shipped}/." if shipped.is_dir() else str(shipped)
    argv = ["cp", "-R", "--no-dereference", "--preserve=mode,timestamps,links", "--", source, str(target)]
    application.host.run(argv, cwd="/", account=account)
    durable.sync_filesystem(target)


def make_folder(path: Path, account: Account) -> None:
    """Create a folder for an account, and missing ones above it; leave an existing one unchanged."""
    if path.is_dir():
        return
    durable.make_directory(path, 0o755)
    if account.ids is not None:
        os.chown(path, account.ids[0], account.ids[1], follow_symlinks=False)
        durable.sync_directory(path.parent)


def make_writable(application: ApplicationContext, release: Path) -> None:
    """Give the configured paths of a new release to the account of the application. Idempotent.

    Raise RefusedError where such a path leads out of the release.
    """
    account = owner_of(application)
    for inside in application.loaded.configuration.source.writable:
        path = release / inside
        if not path.is_symlink() and not path.exists():
            path.mkdir(parents=True, mode=0o755)
        if os.path.realpath(path) != os.path.normpath(os.path.realpath(release) + "/" + inside):
            raise RefusedError(
                f"source.writable: {inside} is a link, or is below one",
                next_step="Name the folder itself, or share the path with `source.shared`.",
            )
        if account.ids is not None:
            _give(path, account.ids[0], account.ids[1])


def _give(path: Path, uid: int, gid: int) -> None:
    """Change the owner of a tree; the release still belongs to Holdfast alone, and no link is followed."""
    if not stat.S_ISDIR(os.lstat(path).st_mode):
        os.chown(path, uid, gid, follow_symlinks=False)
        return
    for _, folders, files, folder in os.fwalk(path, topdown=False, follow_symlinks=False):
        for name in (*folders, *files):
            os.chown(name, uid, gid, dir_fd=folder, follow_symlinks=False)
        os.fchown(folder, uid, gid)
