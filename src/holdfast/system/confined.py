"""Trees of other accounts: descend by descriptor, name by name, and follow no link that the account could have made.

Holdfast often runs as root over folders of a web user, who may rename and replace everything in them at any moment. A
path that was checked says nothing about the next call; an open directory stays that directory, wherever it is moved.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from holdfast.errors import RefusedError

_PATH = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MOST_LINKS = 40  # the limit of path_resolution(7)
_MOST_OPEN = 200  # open directories of one path; deeper ones are opened again when they are needed


def open_folder(path: str | os.PathLike[str]) -> int:
    """Open a directory; links in its path must belong to root or to this user.

    Raise RefusedError at another account's link, and OSError.
    """
    waiting = [part for part in os.fsencode(os.path.abspath(path)).split(b"/") if part][::-1]
    trusted = (0, os.geteuid())
    links = 0
    here = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        while waiting:
            inner = os.open(waiting.pop(), _PATH, dir_fd=here)
            status = os.fstat(inner)
            if not stat.S_ISLNK(status.st_mode):
                os.close(here)
                here = inner
                continue
            target = os.readlink(b"", dir_fd=inner)
            os.close(inner)
            links += 1
            if status.st_uid not in trusted or links > _MOST_LINKS:
                raise _others_link(path, os.fsdecode(target))
            waiting += [part for part in target.split(b"/") if part][::-1]
            if target.startswith(b"/"):
                os.close(here)
                here = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        return os.open(".", FOLDER, dir_fd=here)
    finally:
        os.close(here)


def require_trusted(path: Path) -> None:
    """Raise RefusedError if a file is a link of another account, or has one in its path."""
    for _ in range(_MOST_LINKS):
        try:
            folder = open_folder(path.parent)
        except FileNotFoundError:
            return
        try:
            status = os.stat(path.name, dir_fd=folder, follow_symlinks=False)
            if not stat.S_ISLNK(status.st_mode):
                return
            target = os.readlink(path.name, dir_fd=folder)
        except FileNotFoundError:
            return
        finally:
            os.close(folder)
        if status.st_uid not in (0, os.geteuid()):
            raise _others_link(path, target)
        path = path.parent / target


def _others_link(path: str | os.PathLike[str], target: str) -> RefusedError:
    return RefusedError(
        f"the path {os.fspath(path)} contains a link of another account, to {target}",
        next_step="Find out who made it. Replace the link by its target, or name the target in holdfast.toml.",
    )


class Beneath:
    """The contents of one directory, reached by paths in bytes; a path's directories stay open for the next one.

    Threads must not share it.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        """Open the directory. Raise RefusedError at another account's link in its path, and OSError."""
        self._chain: list[tuple[bytes, int]] = [(b"", open_folder(root))]

    def close(self) -> None:
        while self._chain:
            os.close(self._chain.pop()[1])

    def __enter__(self) -> Beneath:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def top(self) -> int:
        return self._chain[0][1]

    def folder(self, path: bytes) -> int:
        """Return a descriptor of a directory, which stays this object's. Raise OSError, even for a link."""
        while len(self._chain) > 1 and not (path + b"/").startswith(self._chain[-1][0] + b"/"):
            os.close(self._chain.pop()[1])
        above, here = self._chain[-1]
        rest = path[len(above) :].strip(b"/")
        for name in rest.split(b"/") if rest else ():
            if name in (b".", b".."):
                raise PermissionError(f"{os.fsdecode(path)!r} is outside the tree")
            here = os.open(name, FOLDER, dir_fd=here)
            above = above + b"/" + name if above else name
            self._chain.append((above, here))
            if len(self._chain) > _MOST_OPEN:
                os.close(self._chain.pop(1)[1])
        return here

    def parent(self, path: bytes) -> tuple[int, bytes]:
        """Return the directory that contains a path, and its name there."""
        above, _, name = path.rpartition(b"/")
        if name in (b"", b".", b".."):
            raise PermissionError(f"{os.fsdecode(path)!r} is outside the tree")
        return self.folder(above), name

    def forget(self, path: bytes) -> None:
        """Close what is open at a path and below it, for example after a rename."""
        while len(self._chain) > 1 and (self._chain[-1][0] + b"/").startswith(path + b"/"):
            os.close(self._chain.pop()[1])

    def status(self, path: bytes) -> os.stat_result | None:
        """Return the status of a path, without following a link; None if it does not exist or a link is in its path."""
        try:
            folder, name = self.parent(path)
            return os.stat(name, dir_fd=folder, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            if error.errno in _NO_WAY:
                return None
            raise

    def open(self, path: bytes, flags: int) -> int:
        """Open a path, never through a link."""
        if not path:
            return os.open(".", flags | os.O_CLOEXEC, dir_fd=self.top)
        folder, name = self.parent(path)
        return os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)

    @contextlib.contextmanager
    def node(self, path: bytes) -> Iterator[int]:
        """Open a path of any type without the right to read it."""
        descriptor = self.open(path, os.O_PATH)
        try:
            yield descriptor
        finally:
            os.close(descriptor)


_NO_WAY = (errno.ELOOP, errno.ENOTDIR)


def place_of(descriptor: int) -> str:
    """Return a path to an open file for this process and its children, whatever the name of the file becomes."""
    return f"/proc/{os.getpid()}/fd/{descriptor}"


def open_private(path: Path, *, create: bool) -> int:
    """Open Holdfast's own folder in another account's tree.

    It must be a directory of this user that no other account may enter, so that its contents are out of reach. Raise
    RefusedError if it is not, and FileNotFoundError.
    """
    parent = open_folder(path.parent)
    try:
        if create:
            with contextlib.suppress(FileExistsError):
                os.mkdir(path.name, 0o700, dir_fd=parent)
                os.fsync(parent)
        try:
            descriptor = os.open(path.name, FOLDER, dir_fd=parent)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise _foreign(
                path, "is a link" if path.is_symlink() else "is not a directory that can be entered"
            ) from error
    finally:
        os.close(parent)
    status = os.fstat(descriptor)
    if status.st_uid != os.geteuid():
        os.close(descriptor)
        raise _foreign(path, f"belongs to account number {status.st_uid}")
    if stat.S_IMODE(status.st_mode) & 0o077:
        os.close(descriptor)
        raise _foreign(path, f"is open to others (mode {stat.S_IMODE(status.st_mode):o})")
    return descriptor


def _foreign(path: Path, why: str) -> RefusedError:
    return RefusedError(
        f"{path} {why}; Holdfast keeps data for an undo there, and no other account may enter that folder",
        next_step=f"Find out who made it. If it is not needed, remove {path}, then run the command again.",
    )
