"""Packs: many small contents in one file, so that durability needs few fsyncs.

`<id>.pack` is the contents one after the other; `<id>.idx` has a line `sha256 offset length` for each, sorted by
digest, with a fixed width so that a digest is found by bisection. The id is the SHA-256 of the index, which names every
content with its digest and position: one hash covers all bytes of both files.
"""

from __future__ import annotations

import binascii
import hashlib
import os
import struct
from collections.abc import Iterator
from operator import itemgetter
from pathlib import Path

from holdfast.errors import DamagedError
from holdfast.system import durable

SMALL_BYTES = 1 << 20
PACK_BYTES = 64 << 20
PACK_CONTENTS = 1 << 16  # with very small files, the index limits the memory
_LINE = struct.Struct("64sx10sx10sx")
_BUFFER_BYTES = 1 << 20
_BUFFER_CONTENTS = 1000  # below IOV_MAX of writev(2)
_WINDOW_BYTES = 4 << 20


class PackWriter:
    """A writer that appends contents to packs in a run's folder. One writer per thread."""

    def __init__(self, folder: Path, prefix: str) -> None:
        self._folder = folder
        self._prefix = prefix
        self._count = 0
        self._file: int | None = None
        self._buffer: list[bytes] = []
        self._buffered = 0
        self._offset = 0
        self._index: list[bytes] = []
        self.finished: list[str] = []

    def append(self, digest: str, content: bytes) -> None:
        length, buffer = len(content), self._buffer
        self._index.append(b"%s %010d %010d\n" % (digest.encode(), self._offset, length))
        buffer.append(content)
        self._buffered += length
        self._offset += length
        if len(buffer) >= _BUFFER_CONTENTS or self._buffered >= _BUFFER_BYTES:
            self._flush()
            if self._offset >= PACK_BYTES or len(self._index) >= PACK_CONTENTS:
                self.close()

    def _path(self) -> Path:
        return self._folder / f"{self._prefix}-{self._count}.part"

    def _flush(self) -> None:
        if self._file is None:
            self._file = os.open(self._path(), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o400)
        written = os.writev(self._file, self._buffer)
        if written < self._buffered:
            view = memoryview(b"".join(self._buffer))[written:]
            while view:
                view = view[os.write(self._file, view) :]
        self._buffer.clear()
        self._buffered = 0

    def close(self) -> None:
        """End the present pack; it is not synced, because the run syncs all of them at once."""
        if not self._index:
            return
        self._flush()
        assert self._file is not None
        write_out(self._file)
        os.close(self._file)
        self._file = None
        index = b"".join(sorted(self._index))
        name = hashlib.sha256(index).hexdigest()
        durable.move(self._path(), self._folder / f"{name}.pack")
        descriptor = os.open(self._folder / f"{name}.idx", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o400)
        with os.fdopen(descriptor, "wb") as file:
            file.write(index)
        self.finished.append(name)
        self._index.clear()
        self._offset = 0
        self._count += 1


def write_out(descriptor: int) -> None:
    """Start writing a file to the disk, so that the sync at the end has little left to do."""
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)


def read_index(folder: Path, name: str) -> bytes:
    """Return the index of a pack, checked completely against its name, and the pack's size against it.

    Raise DamagedError.
    """
    try:
        index = (folder / f"{name}.idx").read_bytes()
        size = (folder / f"{name}.pack").stat().st_size
    except OSError as error:
        raise DamagedError(f"pack {name} cannot be opened: {error}") from error
    if not index or len(index) % _LINE.size:
        raise DamagedError(f"index packs/{name}.idx is damaged: {len(index)} bytes")
    if hashlib.sha256(index).hexdigest() != name:
        raise DamagedError(f"index packs/{name}.idx is damaged: its digest is not its name")
    try:
        end = sum(length for _, _, length in index_lines(index))
    except ValueError as error:
        raise DamagedError(f"index packs/{name}.idx is damaged: {error}") from error
    if size != end:
        raise DamagedError(f"pack packs/{name}.pack has {size} bytes instead of {end}")
    return index


def index_lines(index: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield digest, offset and length of each content, by digest. Raise ValueError for a malformed line."""
    for digest, offset, length in _LINE.iter_unpack(index):
        yield binascii.unhexlify(digest), int(offset), int(length)


def find_in_index(folder: Path, name: str, digest: str) -> tuple[int, int] | None:
    """Return offset and length of a content in a pack, by bisection in its index; None if it is not there.

    Nothing else of the index is read or checked. Raise DamagedError where it cannot be read, or names a place that no
    pack has.
    """
    wanted = digest.encode()
    try:
        descriptor = os.open(folder / f"{name}.idx", os.O_RDONLY)
        try:
            low, high = 0, os.fstat(descriptor).st_size // _LINE.size
            while low < high:
                middle = (low + high) // 2
                found, offset, length = _LINE.unpack(os.pread(descriptor, _LINE.size, middle * _LINE.size))
                if found == wanted:
                    place = int(offset), int(length)
                    if not (0 <= place[0] < 2 * PACK_BYTES and 0 <= place[1] <= SMALL_BYTES):
                        raise ValueError(f"a content at {place[0]} of {place[1]} bytes")
                    return place
                low, high = (middle + 1, high) if found < wanted else (low, middle)
        finally:
            os.close(descriptor)
    except (OSError, ValueError, struct.error) as error:
        raise DamagedError(f"index packs/{name}.idx cannot be read: {error}") from error
    return None


def wrong_contents(folder: Path, name: str) -> list[str]:
    """Return digests of contents whose bytes differ, read in the order of the disk. Raise DamagedError."""
    wrong: list[str] = []
    index = read_index(folder, name)
    descriptor = os.open(folder / f"{name}.pack", os.O_RDONLY)
    try:
        start, window = 0, memoryview(b"")
        for digest, offset, length in sorted(index_lines(index), key=itemgetter(1)):
            if offset < start or offset + length > start + len(window):
                start, window = offset, memoryview(os.pread(descriptor, max(length, _WINDOW_BYTES), offset))
            if hashlib.sha256(window[offset - start : offset - start + length]).digest() != digest:
                wrong.append(digest.hex())
    except OSError as error:
        raise DamagedError(f"pack packs/{name}.pack cannot be read: {error}") from error
    finally:
        os.close(descriptor)
    return wrong
