"""Files of a backup, written into a folder of their own: no application, no journal, nothing outside of the folder."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import msgspec

from holdfast.drivers.files.local import LocalFiles
from holdfast.drivers.protocols.files import Fetch
from holdfast.errors import NotFoundError, RefusedError
from holdfast.model import Entry
from holdfast.system import confined, durable
from holdfast.system.host import Host

_TOKEN = "extraction"
_SET_ID = 0o6000


def extract(
    folder: Path,
    trees: Mapping[str, Callable[[], Iterator[Entry]]],
    fetch: Fetch,
    check: Callable[[], None],
    host: Host | None = None,
) -> None:
    """Write entries below a folder for each tree. Every content is verified before it gets its name.

    The folder must be new or empty, and is as before if an error is raised: RefusedError for another folder,
    DamagedError for a damaged backup. Only root sets owners; without them, no file gets set-id bits.
    """
    created = _make(folder)
    begun: list[Path] = []
    try:
        for name, entries in trees.items():
            begun.append(folder / name)
            _write(folder / name, entries(), fetch, check, host)
    except BaseException:
        for path in begun:
            durable.remove_tree(path)
        if created:
            os.rmdir(folder)
        raise


def _make(folder: Path) -> bool:
    """Make the folder, or return False for an empty one. Raise RefusedError or NotFoundError."""
    try:
        above = confined.open_folder(folder.parent)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFoundError(
            f"there is no folder {folder.parent}", next_step="Create it, or name another one."
        ) from error
    try:
        try:
            os.mkdir(folder.name, 0o700, dir_fd=above)
            return True
        except FileExistsError:
            status = os.stat(folder.name, dir_fd=above, follow_symlinks=False)
    finally:
        os.close(above)
    if not stat.S_ISDIR(status.st_mode):
        raise RefusedError(f"{folder} is not a folder", next_step="Name a new or an empty folder.")
    if os.listdir(folder):
        raise RefusedError(f"{folder} is not empty", next_step="Name a new or an empty folder.")
    return False


def _write(root: Path, entries: Iterator[Entry], fetch: Fetch, check: Callable[[], None], host: Host | None) -> None:
    above = confined.open_folder(root.parent)
    try:
        os.mkdir(root.name, 0o755, dir_fd=above)
    finally:
        os.close(above)
    files = LocalFiles(root.name, root, host=host)
    try:
        files.stage(_TOKEN, entries if os.geteuid() == 0 else map(_as_own, entries), fetch, check)
        files.apply(_TOKEN)
        files.discard(_TOKEN)
    finally:
        files.close()
    durable.remove_tree(root / ".holdfast")


def _as_own(entry: Entry) -> Entry:
    """Return an entry as a file of this account, which must not lend its rights to others."""
    mode = f"{int(entry.mode, 8) & ~_SET_ID:o}"
    return msgspec.structs.replace(entry, uid=os.geteuid(), gid=os.getegid(), mode=mode)
