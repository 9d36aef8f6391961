"""A listing with its contents as a POSIX.1-2001 (pax) tar archive, compressed by gzip, which every tar reads.

It is written header by header, because `tarfile.TarFile` keeps all members of an archive in memory, and a tree may have
millions of files. Extended attributes are `SCHILY.xattr.<name>` records, as GNU tar, bsdtar and star write and read
them.
"""

from __future__ import annotations

import base64
import gzip
import os
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

from holdfast.drivers.entries import inside
from holdfast.drivers.protocols.files import Fetch
from holdfast.model import Entry

_BLOCK_BYTES = 1 << 20
_IN_MEMORY_BYTES = 1 << 20
_LEVEL = 6  # gzip's own default
_TYPES = {
    "file": tarfile.REGTYPE,
    "directory": tarfile.DIRTYPE,
    "symlink": tarfile.SYMTYPE,
    "fifo": tarfile.FIFOTYPE,
}


class Target(Protocol):
    """What an archive is written to."""

    def write(self, data: bytes, /) -> object: ...
    def flush(self) -> object: ...


class _Spool:
    """A buffer for one content at a time, complete and verified before any byte of it is passed on.

    Small contents are in memory, larger ones in a file without a name.
    """

    def __init__(self, folder: Path) -> None:
        self._memory = os.memfd_create("holdfast")
        path = folder / ".content"
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        os.unlink(path)

    def take(self, fetch: Fetch, entry: Entry) -> tuple[int, int]:
        """Return a descriptor at its start and the size in bytes. Raise DamagedError."""
        descriptor = self._memory if entry.size <= _IN_MEMORY_BYTES else self._file
        os.ftruncate(descriptor, 0)
        os.lseek(descriptor, 0, os.SEEK_SET)
        fetch(entry, descriptor)
        os.lseek(descriptor, 0, os.SEEK_SET)
        return descriptor, os.fstat(descriptor).st_size

    def close(self) -> None:
        os.close(self._memory)
        os.close(self._file)


def write_tar(
    target: Target,
    entries: Iterable[Entry],
    fetch: Fetch,
    folder: Path,
    passed: Callable[[int], None],
    mtime: float = 0,
) -> None:
    """Write the archive to `target`. `folder` needs room for the largest content meanwhile.

    `passed` is called with the bytes of content as they are written, and may raise an error to end it. `mtime` is for
    gzip's header. Raise DamagedError for an incomplete content or listing; what was written until then is not a valid
    archive.
    """
    spool = _Spool(folder)
    links: dict[tuple[str, str], str] = {}
    try:
        with gzip.GzipFile("", "wb", _LEVEL, target, mtime) as packed:
            for entry in inside(entries):
                _add(packed, entry, spool, fetch, links, passed)
            packed.write(bytes(2 * tarfile.BLOCKSIZE))
    finally:
        spool.close()


def _add(
    packed: gzip.GzipFile,
    entry: Entry,
    spool: _Spool,
    fetch: Fetch,
    links: dict[tuple[str, str], str],
    passed: Callable[[int], None],
) -> None:
    info = _header(entry)
    group = (entry.hardlink, entry.sha256)
    if entry.hardlink and group in links:
        info.type, info.linkname = tarfile.LNKTYPE, links[group]
    elif entry.kind == "file":
        if entry.hardlink:
            links[group] = info.name
        descriptor, info.size = spool.take(fetch, entry)
        packed.write(_encoded(info))
        while block := os.read(descriptor, _BLOCK_BYTES):
            packed.write(block)
            passed(len(block))
        packed.write(bytes(-info.size % tarfile.BLOCKSIZE))
        return
    packed.write(_encoded(info))
    passed(0)


def _header(entry: Entry) -> tarfile.TarInfo:
    info = tarfile.TarInfo(os.fsdecode(entry.raw_path()))
    info.type = _TYPES[entry.kind]
    info.mode = int(entry.mode, 8)
    info.uid, info.gid = entry.uid, entry.gid
    info.mtime = entry.mtime_ns // 10**9
    records = {
        f"SCHILY.xattr.{name}": base64.b64decode(value).decode("utf-8", "surrogateescape")
        for name, value in entry.xattrs.items()
    }
    if entry.mtime_ns % 10**9:
        sign, whole = ("-", -entry.mtime_ns) if entry.mtime_ns < 0 else ("", entry.mtime_ns)
        records["mtime"] = f"{sign}{whole // 10**9}.{whole % 10**9:09d}"
    info.pax_headers = records
    if entry.kind == "symlink":
        info.linkname = os.fsdecode(entry.raw_target())
    return info


def _encoded(info: tarfile.TarInfo) -> bytes:
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
