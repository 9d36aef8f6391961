"""Files of a backup, written into a folder of their own: no application, no journal, nothing outside of the folder."""

from __future__ import annotations

import contextlib
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
    with contextlib.ExitStack() as held:
        above = _held(held, lambda: _open_above(folder))
        created = _make(folder.name, above, folder)
        # Others may own the folder, or what it is in, and put something else there: it is removed by descriptors alone.
        place = _held(held, lambda: os.open(folder.name, confined.FOLDER, dir_fd=above))
        if os.listdir(place):
            raise RefusedError(f"{folder} is not empty", next_step="Name a new or an empty folder.")
        try:
            for name, entries in trees.items():
                _write(folder / name, place, entries(), fetch, check, host)
        except BaseException:
            for name in trees:
                durable.remove_tree(Path(confined.place_of(place)) / name)
            if created:
                with contextlib.suppress(OSError):  # somebody else has put something there
                    os.rmdir(folder.name, dir_fd=above)
            raise


def _held(held: contextlib.ExitStack, opened: Callable[[], int]) -> int:
    descriptor = opened()
    held.callback(os.close, descriptor)
    return descriptor


def _open_above(folder: Path) -> int:
    try:
        return confined.open_folder(folder.parent)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFoundError(
            f"there is no folder {folder.parent}", next_step="Create it, or name another one."
        ) from error


def _make(name: str, above: int, folder: Path) -> bool:
    """Make the folder, or return False for one that is there. Raise RefusedError for something else."""
    try:
        os.mkdir(name, 0o700, dir_fd=above)
        return True
    except FileExistsError:
        if not stat.S_ISDIR(os.stat(name, dir_fd=above, follow_symlinks=False).st_mode):
            raise RefusedError(f"{folder} is not a folder", next_step="Name a new or an empty folder.") from None
        return False


def _write(
    root: Path, above: int, entries: Iterator[Entry], fetch: Fetch, check: Callable[[], None], host: Host | None
) -> None:
    os.mkdir(root.name, 0o755, dir_fd=above)
    own = os.open(root.name, confined.FOLDER, dir_fd=above)
    files = LocalFiles(root.name, root, host=host)
    try:
        files.stage(_TOKEN, entries if os.geteuid() == 0 else map(_as_own, entries), fetch, check)
        files.apply(_TOKEN)
        files.discard(_TOKEN)
        durable.remove_tree(Path(confined.place_of(own)) / ".holdfast")
    finally:
        files.close()
        os.close(own)


def _as_own(entry: Entry) -> Entry:
    """Return an entry as a file of this account, which must not lend its rights to others."""
    mode = f"{int(entry.mode, 8) & ~_SET_ID:o}"
    return msgspec.structs.replace(entry, uid=os.geteuid(), gid=os.getegid(), mode=mode)
