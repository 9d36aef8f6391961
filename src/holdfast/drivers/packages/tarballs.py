"""The archives of packages: `.tar.zst` files, written without the builder's name and unpacked member by member."""

from __future__ import annotations

import hashlib
import os
import stat
import tarfile
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, cast

import zstandard

from holdfast.errors import DamagedError, RefusedError

_BLOCK_BYTES = 4096  # what an entry takes besides its content


def extract_package(archive: Path, target: Path, only: Collection[str] | None = None) -> None:
    """Unpack a `.tar.zst` below a target. Raise DamagedError.

    `only`: unpack just these files, with the folders above them, and all links.
    """
    wanted = None if only is None else {above for path in only for above in (path, *_above(path))}
    try:
        with open(archive, "rb") as file, zstandard.ZstdDecompressor().stream_reader(file) as stream:
            with tarfile.open(fileobj=stream, mode="r|") as tree:
                extract(tree, target, wanted)
    except (zstandard.ZstdError, tarfile.TarError) as error:
        raise DamagedError(f"{archive} is not a valid archive: {error}") from error


def _above(path: str) -> Iterator[str]:
    while path := os.path.dirname(path):
        yield path


def extract_source(archive: Path, target: Path) -> None:
    """Unpack a tar that git wrote below a target. Raise DamagedError."""
    with tarfile.open(archive) as source:
        extract(source, target)


def _inside(tar: tarfile.TarFile, target: Path) -> Iterator[tarfile.TarInfo]:
    """Yield members that stay below the target. Raise DamagedError for other ones.

    Absolute names, `..`, links out of the target, paths through a link and devices are refused. tarfile's own `data`
    filter does the same, but only from Python 3.11.4 on.
    """
    root = os.path.normpath(target)
    links: set[str] = set()
    for member in tar:
        path = os.path.normpath(os.path.join(root, member.name))
        aim = path
        if member.issym():
            aim = os.path.normpath(os.path.join(os.path.dirname(path), member.linkname))
        elif member.islnk():
            aim = os.path.normpath(os.path.join(root, member.linkname))
        above = path
        while len(above) > len(root):
            above = os.path.dirname(above)
            if above in links:
                raise DamagedError(f"archive member {member.name!r} is behind a link")
        if member.isdir() and path in links:
            raise DamagedError(f"archive member {member.name!r} is a folder where a link is already")
        climbs = member.linkname.split("/").count("..") if member.issym() else 0
        if (
            climbs
            and [part for part in member.linkname.split("/") if part not in ("", ".")][:climbs] != [".."] * climbs
        ):
            raise DamagedError(f"archive member {member.name!r} is a link that climbs behind a name")
        outside = any(place != root and not place.startswith(root + os.sep) for place in (path, aim))
        if outside or os.path.isabs(member.name) or os.path.isabs(member.linkname):
            link = f": it is a link to {member.linkname}" if member.linkname else ""
            raise DamagedError(
                f"archive member {member.name!r} leaves its target{link}",
                next_step="If the repository has this link on purpose, replace it by what it leads to, or name its"
                " path in `source.shared`.",
            )
        if not (member.isreg() or member.isdir() or member.issym() or member.islnk()):
            raise DamagedError(f"archive member {member.name!r} is neither file, directory nor link")
        if member.issym():
            links.add(path)
        member.mode = (member.mode & 0o755) | (0o700 if member.isdir() else 0o600)
        member.uid, member.gid, member.uname, member.gname = os.geteuid(), os.getegid(), "", ""
        yield member


def extract(tar: tarfile.TarFile, target: Path, wanted: Collection[str] | None = None) -> None:
    """Unpack an archive below a target, checked member by member. Raise DamagedError.

    `wanted`: leave out other files and folders, but no link.
    """
    if hasattr(tarfile, "data_filter"):
        # tarfile's own filter would only warn about or change members that are refused here.
        tar.extraction_filter = staticmethod(tarfile.fully_trusted_filter)
    members = _inside(tar, target)
    tar.extractall(
        target,
        members=members
        if wanted is None
        else (one for one in members if one.issym() or os.path.normpath(one.name) in wanted),
    )


def _plain(member: tarfile.TarInfo, tree: str) -> tarfile.TarInfo:
    """Return a member without the builder's name and number, and without the place of the tree in a link.

    Raise RefusedError for a link that leaves the tree, because the release would depend on what is not in it.
    """
    if member.issym():
        place = os.path.dirname(os.path.join(tree, member.name))
        aim = os.path.normpath(os.path.join(place, member.linkname))
        if aim != tree and not aim.startswith(tree + os.sep):
            raise RefusedError(
                f"{member.name} is a link to {member.linkname}, which is not part of the release",
                next_step="Let the build copy the file, or name the path in `source.shared`. A virtual environment of"
                " Python is made by `source.python`, not by `source.build`.",
            )
        if os.path.isabs(member.linkname):
            member.linkname = os.path.relpath(aim, place)
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


class _Hashed:
    """A file that is written, with the digest of what was written."""

    def __init__(self, file: zstandard.ZstdCompressionWriter) -> None:
        self._file = file
        self.digest = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        return self._file.write(data)


def pack(tree: Path, archive: Path) -> tuple[int, str]:
    """Write the tree as `.tar.zst`; return the size of its files, and the SHA-256 of the archive before compression.

    Raise RefusedError for a link that leaves the tree.
    """
    root = os.path.normpath(tree)
    descriptor = os.open(archive, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with (
        os.fdopen(descriptor, "wb") as file,
        zstandard.ZstdCompressor(level=3, threads=-1).stream_writer(file) as stream,
    ):
        hashed = _Hashed(stream)
        with tarfile.open(fileobj=cast(BinaryIO, hashed), mode="w|", format=tarfile.PAX_FORMAT) as tar:
            for name in sorted(os.listdir(tree)):
                tar.add(tree / name, arcname=name, filter=lambda member: _plain(member, root))
            size = sum(_BLOCK_BYTES + member.size for member in tar.getmembers())
    return size, hashed.digest.hexdigest()


# --- times, which are the same in each build of a commit ------------------------------------------------


def times(tree: Path) -> dict[str, int]:
    """Return the time of each file of a tree, in nanoseconds."""
    return {path: os.lstat(tree / path).st_mtime_ns for path, is_file in _entries(tree) if is_file}


def settle(tree: Path, committed_at: int, before: Mapping[str, int], patched: Mapping[str, int] | None = None) -> None:
    """Give a built tree times that do not depend on the time of the build.

    Files whose time is still the one from `before` keep it. What the build changed or made is one second younger than
    the commit, and patched files have times of their own: a compiled copy of the earlier content, which is recognised
    by the time of its source, must not seem to fit.
    """
    for path, is_file in _entries(tree):
        at = (patched or {}).get(path)
        if at is None and is_file and os.lstat(tree / path).st_mtime_ns == before.get(path):
            continue
        set_time(tree / path, committed_at + 1 if at is None and is_file else at or committed_at)


def settle_folders(tree: Path, committed_at: int) -> None:
    """Give folders and links the time of the commit."""
    for path, is_file in _entries(tree):
        if not is_file:
            set_time(tree / path, committed_at)


def set_time(path: Path, seconds: int) -> None:
    os.utime(path, (seconds, seconds), follow_symlinks=False)


def _entries(tree: Path) -> Iterator[tuple[str, bool]]:
    """Yield the path of each entry below a tree, contents before their folder, and whether it is a file."""
    for place, folders, names in os.walk(tree, topdown=False):
        for name in (*names, *folders):
            path = os.path.join(place, name)
            yield os.path.relpath(path, tree), stat.S_ISREG(os.lstat(path).st_mode)
