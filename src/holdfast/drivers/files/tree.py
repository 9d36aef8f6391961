"""Reading a tree: one pass in one fixed order, entries without content."""

from __future__ import annotations

import base64
import fnmatch
import functools
import operator
import os
import stat
from collections.abc import Callable, Iterator, Sequence

from holdfast.drivers.protocols import never
from holdfast.model import Entry

PRIVATE_NAME = b".holdfast"
_name = operator.attrgetter("name")


def readable(raw: bytes) -> tuple[str, str]:
    """A name for people, and its exact bytes in base64 where the name alone would not carry them."""
    try:
        return raw.decode(), ""
    except UnicodeDecodeError:
        return raw.decode(errors="replace"), base64.b64encode(raw).decode()


def read_xattrs(path: bytes | int) -> dict[str, str]:
    """Extended attributes in base64; none where the filesystem has none."""
    try:
        names = os.listxattr(path, follow_symlinks=False) if isinstance(path, bytes) else os.listxattr(path)
    except OSError:
        names = []
    found: dict[str, str] = {}
    for name in names:
        try:
            value = (
                os.getxattr(path, name, follow_symlinks=False) if isinstance(path, bytes) else os.getxattr(path, name)
            )
        except OSError:
            continue  # removed meanwhile, or readable by root alone
        found[name] = base64.b64encode(value).decode()
    return found


def data_segments(descriptor: int, size: int) -> list[tuple[int, int]]:
    """[offset, length] of the data in a file with holes (lseek(2) SEEK_DATA)."""
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
    return segments or [(0, 0)]  # nothing but a hole


class Excludes:
    """Patterns as in a shell, against the path below the root; one without a slash matches names at any depth."""

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


def entry_of(path: bytes, status: os.stat_result, full: bytes) -> Entry | None:
    """An entry without what only reading a file tells (digest, attributes, holes); None for sockets and devices, which are no data."""
    mode = status.st_mode
    name, encoded = readable(path)
    entry = Entry(
        name, "file", _octal(mode & 0o7777), status.st_uid, status.st_gid, status.st_mtime_ns, 0, status.st_ctime_ns,
        status.st_ino,
    )  # fmt: skip
    if encoded:
        entry.path_base64 = encoded
    if stat.S_ISREG(mode):
        entry.size = status.st_size
        if status.st_nlink > 1:
            entry.hardlink = f"{status.st_dev}:{status.st_ino}"
        return entry
    if stat.S_ISDIR(mode):
        entry.kind = "directory"
        entry.xattrs = read_xattrs(full)
    elif stat.S_ISLNK(mode):
        entry.kind = "symlink"
        entry.target, entry.target_base64 = readable(os.readlink(full))
    elif stat.S_ISFIFO(mode):
        entry.kind = "fifo"
    else:
        return None
    return entry


def scan(root: bytes, excludes: Excludes, by_name: Callable[[], bool] = never) -> Iterator[Entry]:
    """Every entry below `root`, a directory before its content, siblings by name; files not looked at while `by_name`.

    What vanishes while it is looked at is left out. Raises OSError for what cannot be read.
    """
    stack: list[Iterator[os.DirEntry[bytes]]] = [_children(root)]
    prefix = len(root.rstrip(b"/")) + 1
    excluded = excludes.matches if excludes else None
    while stack:
        for child in stack[-1]:
            full = child.path
            path = full[prefix:]
            if (child.name.startswith(PRIVATE_NAME) and _is_private(child.name)) or (excluded and excluded(path)):
                continue
            if by_name() and child.is_file(follow_symlinks=False):
                name, encoded = readable(path)
                yield Entry(name, "file", "", 0, 0, 0, path_base64=encoded)
                continue
            try:
                entry = entry_of(path, child.stat(follow_symlinks=False), full)
            except FileNotFoundError:
                continue
            if entry is None:
                continue
            yield entry
            if entry.kind == "directory":
                try:
                    stack.append(_children(full))
                except FileNotFoundError:
                    continue
                break
        else:
            stack.pop()


def left_out(name: bytes, path: bytes, excludes: Excludes) -> bool:
    """Whether an entry is no part of the dataset: Holdfast's own, or excluded."""
    return _is_private(name) or (bool(excludes) and excludes.matches(path))


def _is_private(name: bytes) -> bool:
    return name == PRIVATE_NAME or name.startswith(PRIVATE_NAME + b"-")


def _children(directory: bytes) -> Iterator[os.DirEntry[bytes]]:
    with os.scandir(directory) as found:
        return iter(sorted(found, key=_name))
