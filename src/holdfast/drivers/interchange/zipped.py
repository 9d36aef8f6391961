"""A listing with its contents as one zip, which other tools unpack with modes and links."""

from __future__ import annotations

import os
import stat
import time
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

from holdfast.model import Entry

_BLOCK_BYTES = 1 << 20
_EARLIEST = (1980, 1, 1, 0, 0, 0)  # a zip knows no time before it
_UNIX = 3


def write_zip(target: Path, entries: Iterable[Entry], content: Callable[[Entry], int]) -> int:
    """Write a new zip; return the number of files in it. `content` opens an entry. Raise FileExistsError."""
    files = 0
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for entry in entries:
                name = os.fsdecode(entry.raw_path())
                info = zipfile.ZipInfo(name + "/" * (entry.kind == "directory"), _time_of(entry))
                info.create_system = _UNIX
                info.external_attr = (_KINDS[entry.kind] | int(entry.mode, 8)) << 16
                info.compress_type = zipfile.ZIP_DEFLATED
                if entry.kind == "file":
                    _add(archive, info, content(entry))
                    files += 1
                else:
                    archive.writestr(info, entry.raw_target() if entry.kind == "symlink" else b"")
        file.flush()
        os.fsync(file.fileno())
    return files


def _add(archive: zipfile.ZipFile, info: zipfile.ZipInfo, source: int) -> None:
    with os.fdopen(source, "rb") as content, archive.open(info, "w", force_zip64=True) as target:
        while block := content.read(_BLOCK_BYTES):
            target.write(block)


def _time_of(entry: Entry) -> tuple[int, int, int, int, int, int]:
    return max(_EARLIEST, time.localtime(entry.mtime_ns // 10**9)[:6])


_KINDS = {"file": stat.S_IFREG, "directory": stat.S_IFDIR, "symlink": stat.S_IFLNK}
