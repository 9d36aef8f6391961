"""The paths of a release that it does not own alone: links to what all releases share, and what the application writes.

Holdfast creates what is missing for the account of the application, and never changes the owner of what exists.
"""

from __future__ import annotations

import grp
import os
import shutil
import stat
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from holdfast.application.context import ApplicationContext
from holdfast.config.schema import WritablePath
from holdfast.errors import RefusedError
from holdfast.system import confined, durable
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


def refuse_groups(application: ApplicationContext) -> None:
    """Raise RefusedError for a group of `source.writable` that does not exist, or that Holdfast cannot give."""
    for one in application.loaded.configuration.source.writable_paths():
        if one.group and os.geteuid() != 0 and _gid_of(one) not in (os.getegid(), *os.getgroups()):
            raise RefusedError(
                f"source.writable: only root can give {one.path} to the group {one.group}",
                next_step="Run Holdfast as root, or as an account of that group.",
            )
        _gid_of(one)


def _gid_of(one: WritablePath) -> int:
    """Return the number of a path's group; -1 without one, which changes nothing. Raise RefusedError."""
    try:
        return grp.getgrnam(one.group).gr_gid if one.group else -1
    except KeyError:
        raise RefusedError(
            f"source.writable: there is no group {one.group!r} on this machine",
            next_step=f"Create it, for example with `groupadd --system {one.group}`, or correct holdfast.toml.",
        ) from None


def make_writable(application: ApplicationContext, release: Path) -> None:
    """Give the configured paths of a new release to the account of the application, or to a group. Idempotent.

    Raise RefusedError where such a path is a link, or is below one.
    """
    account = owner_of(application)
    with confined.Beneath(release) as beneath:
        for one in application.loaded.configuration.source.writable_paths():
            uid, gid = -1, _gid_of(one)
            if not one.group and account.ids is not None:
                uid, gid = account.ids[:2]
            path = os.fsencode(os.path.normpath(one.path))
            try:
                _make_path(beneath, path)
                descriptor = beneath.open(path, os.O_PATH)
            except OSError as error:
                raise RefusedError(
                    f"source.writable: {one.path} is a link, or is below one ({error.strerror})",
                    next_step="Name the folder itself, or share the path with `source.shared`.",
                ) from error
            try:
                if stat.S_ISLNK(os.fstat(descriptor).st_mode):
                    raise RefusedError(
                        f"source.writable: {one.path} is a link",
                        next_step="Name the folder itself, or share the path with `source.shared`.",
                    )
                _give(descriptor, one, uid, gid)
            finally:
                os.close(descriptor)


def _make_path(beneath: confined.Beneath, path: bytes) -> None:
    """Create missing folders of a path, and never through a link. Raise OSError."""
    above = b""
    for name in path.split(b"/"):
        inner = above + b"/" + name if above else name
        if inner != b"." and beneath.status(inner) is None:
            os.mkdir(name, 0o755, dir_fd=beneath.folder(above))
        above = inner


def _give(descriptor: int, one: WritablePath, uid: int, gid: int) -> None:
    """Change owner, group and mode of what is open, and of the tree below it if that is meant. No link is followed.

    A folder comes after its contents: until then it belongs to Holdfast, and nobody can replace what is in it.
    """
    if one.recursive and stat.S_ISDIR(os.fstat(descriptor).st_mode):
        for name in os.listdir(confined.place_of(descriptor)):
            inner = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=descriptor)
            try:
                _give(inner, one, uid, gid)
            finally:
                os.close(inner)
    status, place = os.fstat(descriptor), confined.place_of(descriptor)
    if (uid, gid) != (-1, -1):
        os.chown(place, uid, gid)
    if not stat.S_ISLNK(status.st_mode) and (mode := _mode_of(one, status.st_mode)) != stat.S_IMODE(status.st_mode):
        os.chmod(place, mode)


def _mode_of(one: WritablePath, present: int) -> int:
    """Return the mode that a folder or file gets; a file is no more executable than before, and has no special bits."""
    is_folder, mode = stat.S_ISDIR(present), stat.S_IMODE(present)
    if one.mode:
        wanted = int(one.mode, 8)
        return wanted if is_folder else wanted & (0o777 if mode & 0o100 else 0o666)
    if one.group:
        return mode | (0o070 if is_folder else 0o060)
    return mode
