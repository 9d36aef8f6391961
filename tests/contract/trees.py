"""Trees for the suites: made, listed, changed and compared without the code under test."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from holdfast.drivers.protocols.files import Fetch, Files
from holdfast.model import Entry


def look(root: Path) -> dict[bytes, tuple[Any, ...]]:
    """Everything below a root that a restore must bring back; `.holdfast` left out. Hard links as groups of names."""
    found: dict[bytes, tuple[Any, ...]] = {}
    groups: dict[int, list[bytes]] = {}
    base = os.fsencode(root)
    for folder, directories, names in os.walk(base):
        if folder == base and b".holdfast" in directories:
            directories.remove(b".holdfast")
        for name in [*directories, *names]:
            full = os.path.join(folder, name)
            path = full[len(base) + 1 :]
            status = os.lstat(full)
            facts: tuple[Any, ...] = (stat.S_IFMT(status.st_mode),)
            if stat.S_ISLNK(status.st_mode):
                found[path] = (*facts, os.readlink(full), status.st_mtime_ns)
                continue
            facts += (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, status.st_mtime_ns, xattrs(full))
            if stat.S_ISREG(status.st_mode):
                groups.setdefault(status.st_ino, []).append(path)
                with open(full, "rb") as file:
                    facts += (hashlib.file_digest(file, "sha256").hexdigest(),)
            found[path] = facts
    for names in groups.values():
        for name in names:
            found[name] = (*found[name], tuple(sorted(names)))
    return found


def xattrs(path: bytes) -> tuple[tuple[str, bytes], ...]:
    try:
        return tuple(sorted((name, os.getxattr(path, name)) for name in os.listxattr(path)))
    except OSError:
        return ()


def supports_xattrs(folder: Path) -> bool:
    try:
        os.setxattr(folder, "user.holdfast", b"1")
        os.removexattr(folder, "user.holdfast")
    except OSError:
        return False
    return True


def listed(files: Files) -> tuple[list[Entry], Fetch]:
    """A complete listing of a tree, as a vault would make it, and where its contents come from."""
    contents: dict[str, bytes] = {}
    entries = []
    for entry in files.scan():
        if entry.kind == "file":
            descriptor = files.open(entry)
            with os.fdopen(descriptor, "rb") as file:
                files.complete(entry, descriptor)
                content = file.read()
            entry.size, entry.sha256 = len(content), hashlib.sha256(content).hexdigest()
            contents[entry.sha256] = content
        entries.append(entry)

    def fetch(entry: Entry, target: int) -> None:
        os.write(target, contents[entry.sha256])

    return entries, fetch


def walk_back(paths: dict[bytes, tuple[Any, ...]]) -> Iterator[bytes]:
    yield from sorted(paths, reverse=True)


def clear(root: Path) -> None:
    """Removes everything below a root but `.holdfast`."""
    for path in walk_back(look(root)):
        full = os.fsencode(root) + b"/" + path
        if os.path.isdir(full) and not os.path.islink(full):
            os.rmdir(full)
        else:
            os.unlink(full)


def plain(root: Path) -> None:
    """A small tree of what every driver knows: files, directories, links, modes, times."""
    (root / "a").mkdir(parents=True)
    (root / "a" / "b").mkdir()
    (root / "a" / "b" / "deep.txt").write_bytes(b"deep")
    (root / "a" / "one.txt").write_bytes(b"one")
    (root / "a-b").write_bytes(b"beside a")
    (root / "empty").write_bytes(b"")
    (root / "emptydir").mkdir()
    (root / "link").symlink_to("a/one.txt")
    (root / "dangling").symlink_to("/nowhere/at all")
    os.chmod(root / "a" / "one.txt", 0o640)
    os.chmod(root / "a" / "b", 0o750)
    os.utime(root / "a" / "one.txt", ns=(1, 1_600_000_000_123_456_789))
    os.utime(root / "a", ns=(1, 1_500_000_000_000_000_001))


def file_to_directory(root: Path) -> None:
    (root / "a-b").unlink()
    (root / "a-b").mkdir()
    (root / "a-b" / "inside").write_bytes(b"now a directory")


def directory_to_file(root: Path) -> None:
    (root / "a" / "b" / "deep.txt").unlink()
    (root / "a" / "b").rmdir()
    (root / "a" / "b").write_bytes(b"now a file")


def link_to_directory(root: Path) -> None:
    (root / "link").unlink()
    (root / "link").mkdir()
    (root / "link" / "x").symlink_to("..")


def file_to_link(root: Path) -> None:
    (root / "empty").unlink()
    (root / "empty").symlink_to("a")


def all_gone(root: Path) -> None:
    clear(root)


def nothing(root: Path) -> None:
    pass


def modes_and_times(root: Path) -> None:
    os.chmod(root / "a" / "one.txt", 0o4711)
    os.chmod(root / "emptydir", 0o1777)
    os.utime(root / "a-b", ns=(1, 2))


def same_size_and_time(root: Path) -> None:
    """Content changed behind an equal size and mtime, as rsync's quick check would miss it."""
    status = (root / "a-b").stat()
    (root / "a-b").write_bytes(b"BESIDE A")
    os.utime(root / "a-b", ns=(status.st_mtime_ns, status.st_mtime_ns))


def additions(root: Path) -> None:
    (root / "new").mkdir()
    (root / "new" / "file").write_bytes(b"new")
    (root / "a" / "b" / "more").write_bytes(b"more")
    (root / "zz").symlink_to("new")


CHANGES: list[Callable[[Path], None]] = [
    nothing,
    file_to_directory,
    directory_to_file,
    link_to_directory,
    file_to_link,
    all_gone,
    modes_and_times,
    same_size_and_time,
    additions,
]
