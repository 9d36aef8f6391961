"""Reading of a tree: one pass in one fixed order, entries without content."""

from __future__ import annotations

import base64
import errno
import fnmatch
import functools
import operator
import os
import stat
from collections.abc import Callable, Iterator, Sequence

from holdfast.drivers.protocols.files import never
from holdfast.model import Entry
from holdfast.system.confined import Beneath

PRIVATE_NAME = b".holdfast"
_name = operator.itemgetter(0)
_REPLACED = (errno.ELOOP, errno.ENOTDIR, errno.EINVAL)  # since it was listed, an entry of another kind took its place


def readable(raw: bytes) -> tuple[str, str]:
    """Return a readable name, and its exact bytes in base64 where the readable name does not determine them."""
    try:
        return raw.decode(), ""
    except UnicodeDecodeError:
        return raw.decode(errors="replace"), base64.b64encode(raw).decode()


def read_xattrs(path: bytes | int, *, follow: bool = False) -> dict[str, str]:
    """Return extended attributes in base64; none where the filesystem has none.

    Links are followed only with `follow` or for a descriptor.
    """
    follow = follow or isinstance(path, int)
    try:
        names = os.listxattr(path, follow_symlinks=follow)
    except OSError:
        names = []
    found: dict[str, str] = {}
    for name in names:
        try:
            value = os.getxattr(path, name, follow_symlinks=follow)
        except OSError:
            continue  # removed meanwhile, or readable only by root
        found[name] = base64.b64encode(value).decode()
    return found


def data_segments(descriptor: int, size: int) -> list[tuple[int, int]]:
    """Return [offset, length] of the data in a file with holes (lseek(2) SEEK_DATA)."""
    segments: list[tuple[int, int]] = []
    position = 0
    while position < size:
        try:
            start = os.lseek(descriptor, position, os.SEEK_DATA)
        except OSError:
            break
        end = os.lseek(descriptor, start, os.SEEK_HOLE)
        segments.append((start, min(end, size) - start))
        position = end
    os.lseek(descriptor, 0, os.SEEK_SET)
    return segments or [(0, 0)]  # the file is a single hole


class Excludes:
    """Shell patterns for the path below the root; one without a slash matches names at any depth."""

    def __init__(self, patterns: Sequence[str]) -> None:
        self._patterns = [os.fsencode(pattern.strip("/")) for pattern in patterns]

    def matches(self, path: bytes) -> bool:
        name = path.rpartition(b"/")[2]
        for pattern in self._patterns:
            if fnmatch.fnmatchcase(path, pattern) or (b"/" not in pattern and fnmatch.fnmatchcase(name, pattern)):
                return True
        return False

    def __bool__(self) -> bool:
        return bool(self._patterns)


_octal = functools.cache("{:o}".format)  # a tree has few different modes


def entry_of(
    path: bytes, status: os.stat_result, *, target: bytes = b"", xattrs: dict[str, str] | None = None
) -> Entry:
    """Return an entry without the facts that only reading a file shows: digest, attributes, holes."""
    mode = status.st_mode
    name, encoded = readable(path)
    entry = Entry(
        name,
        "file",
        _octal(mode & 0o7777),
        status.st_uid,
        status.st_gid,
        status.st_mtime_ns,
        0,
        status.st_ctime_ns,
        status.st_ino,
    )
    if encoded:
        entry.path_base64 = encoded
    if stat.S_ISREG(mode):
        entry.size = status.st_size
        if status.st_nlink > 1:
            entry.hardlink = f"{status.st_dev}:{status.st_ino}"
    elif stat.S_ISDIR(mode):
        entry.kind = "directory"
        entry.xattrs = xattrs or {}
    elif stat.S_ISLNK(mode):
        entry.kind = "symlink"
        entry.target, entry.target_base64 = readable(target)
    else:
        entry.kind = "fifo"
    return entry


Seen = Callable[[bytes, int], None]
"""Receives each directory, its path and a descriptor, before its names are read."""


def _unseen(path: bytes, folder: int) -> None:
    pass


def scan(
    root: str | bytes, excludes: Excludes, by_name: Callable[[], bool] = never, seen: Seen = _unseen
) -> Iterator[Entry]:
    """Yield every entry below `root`, a directory before its content, siblings by name.

    While `by_name` returns true, files are not looked at. Entries that vanish meanwhile are left out, also a directory
    that was replaced by a link. Raise OSError for an unreadable entry, and RefusedError where a link of another account
    leads to the root.
    """
    with Beneath(os.fsdecode(root)) as tree:
        yield from scan_below(tree, b"", excludes, by_name, seen)


def look(tree: Beneath, path: bytes, excludes: Excludes, seen: Seen = _unseen, *, below: bool) -> Iterator[Entry]:
    """Yield the entry at one path of a tree, if there is one, and with `below` all entries below it."""
    try:
        folder, name = tree.parent(path)
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode):
            inner = tree.folder(path)
            yield entry_of(path, os.fstat(inner), xattrs=read_xattrs(inner))
            if below:
                yield from scan_below(tree, path, excludes, seen=seen)
        elif stat.S_ISLNK(status.st_mode):
            yield entry_of(path, status, target=os.readlink(name, dir_fd=folder))
        elif stat.S_ISREG(status.st_mode) or stat.S_ISFIFO(status.st_mode):
            yield entry_of(path, status)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        if error.errno not in _REPLACED:
            raise


def scan_below(
    tree: Beneath, path: bytes, excludes: Excludes, by_name: Callable[[], bool] = never, seen: Seen = _unseen
) -> Iterator[Entry]:
    """Yield the entries of a directory in a tree, as `scan` does; paths are those below the tree's root."""
    excluded = excludes.matches if excludes else None
    top = tree.folder(path)
    seen(path, top)
    stack = [(path + b"/" if path else b"", _children(top))]
    while stack:
        prefix, children = stack[-1]
        for name, child in children:
            path = prefix + name
            if (name.startswith(PRIVATE_NAME) and is_private(name)) or (excluded and excluded(path)):
                continue
            if by_name() and child.is_file(follow_symlinks=False):
                shown, encoded = readable(path)
                yield Entry(shown, "file", "", 0, 0, 0, path_base64=encoded)
                continue
            try:
                # Not child.stat(), whose remembered descriptor may belong to another directory by now.
                status = os.stat(name, dir_fd=tree.folder(prefix[:-1]), follow_symlinks=False)
                if stat.S_ISDIR(status.st_mode):
                    folder = tree.folder(path)
                    seen(path, folder)
                    below = _children(folder)
                    yield entry_of(path, os.fstat(folder), xattrs=read_xattrs(folder))
                    stack.append((path + b"/", below))
                    break
                if stat.S_ISLNK(status.st_mode):
                    yield entry_of(path, status, target=os.readlink(name, dir_fd=tree.folder(prefix[:-1])))
                elif stat.S_ISREG(status.st_mode) or stat.S_ISFIFO(status.st_mode):
                    yield entry_of(path, status)
            except FileNotFoundError:
                continue
            except OSError as error:
                if error.errno not in _REPLACED:
                    raise
        else:
            stack.pop()


def holds_left_out(tree: Beneath, directory: bytes, excludes: Excludes) -> bool:
    """Return whether an entry below a directory of a tree is not part of the dataset."""
    waiting = [directory]
    while waiting:
        path = waiting.pop()
        for name, child in _children(tree.folder(path)):
            inner = path + b"/" + name
            if left_out(name, inner, excludes):
                return True
            if child.is_dir(follow_symlinks=False):
                waiting.append(inner)
    return False


def left_out(name: bytes, path: bytes, excludes: Excludes) -> bool:
    """Return whether an entry is not part of the dataset: it is Holdfast's own, or excluded."""
    return is_private(name) or (bool(excludes) and excludes.matches(path))


def is_private(name: bytes) -> bool:
    """Return whether a name is that of a folder of Holdfast's own."""
    return name == PRIVATE_NAME or name.startswith(PRIVATE_NAME + b"-")


def _children(folder: int) -> Iterator[tuple[bytes, os.DirEntry[str]]]:
    """Return the entries of an open directory, sorted by the bytes of their names.

    Sockets and devices, which are no data, are included.
    """
    with os.scandir(folder) as found:
        return iter(sorted(((os.fsencode(child.name), child) for child in found), key=_name))
