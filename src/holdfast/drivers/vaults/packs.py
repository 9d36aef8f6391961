"""Packs: many small contents in one file, so that durability costs few fsyncs.

`<id>.pack` is the contents one after the other; `<id>.idx` has a line `sha256 offset length` for each, sorted by
digest, fixed in width so that a digest is found by bisection. The id is the SHA-256 of the index, which names every
content with its digest and place: one hash covers all bytes of both files.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import re
from collections.abc import Iterator
from pathlib import Path

from holdfast.errors import DamagedError

SMALL_BYTES = 1 << 20
PACK_BYTES = 64 << 20
_LINE = re.compile(rb"([0-9a-f]{64}) ([0-9]{10}) ([0-9]{10})\n")
_WIDTH = 64 + 1 + 10 + 1 + 10 + 1
_BUFFER_BYTES = 1 << 20


class PackWriter:
    """Appends contents to packs in a run's folder. One writer per thread."""

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
        self._index.append(b"%s %010d %010d\n" % (digest.encode(), self._offset, len(content)))
        self._buffer.append(content)
        self._buffered += len(content)
        self._offset += len(content)
        if self._buffered >= _BUFFER_BYTES:
            self._flush()
        if self._offset >= PACK_BYTES:
            self.close()

    def _path(self) -> Path:
        return self._folder / f"{self._prefix}-{self._count}.part"

    def _flush(self) -> None:
        if self._file is None:
            self._file = os.open(self._path(), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o400)
        view = memoryview(b"".join(self._buffer))
        while view:
            view = view[os.write(self._file, view) :]
        self._buffer.clear()
        self._buffered = 0

    def close(self) -> None:
        """Ends the pack at hand; not synced, the run does that once for all."""
        if not self._index:
            return
        self._flush()
        assert self._file is not None
        os.close(self._file)
        self._file = None
        index = b"".join(sorted(self._index))
        name = hashlib.sha256(index).hexdigest()
        os.rename(self._path(), self._folder / f"{name}.pack")
        descriptor = os.open(self._folder / f"{name}.idx", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o400)
        with os.fdopen(descriptor, "wb") as file:
            file.write(index)
        self.finished.append(name)
        self._index.clear()
        self._offset = 0
        self._count += 1


class PackReader:
    """Random access to one pack. Raises DamagedError where index and pack are not what their name says."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self._path = folder / f"{name}.pack"
        index_path = folder / f"{name}.idx"
        try:
            with open(index_path, "rb") as file:
                size = os.fstat(file.fileno()).st_size
                self._index: mmap.mmap | bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""
            self._descriptor = os.open(self._path, os.O_RDONLY)
        except OSError as error:
            raise DamagedError(f"pack {name} cannot be opened: {error}") from error
        self.count = size // _WIDTH
        if size == 0 or size % _WIDTH:
            raise DamagedError(f"index {index_path} is damaged: {size} bytes")

    def check_index(self) -> None:
        """Reads the index whole against its name. Raises DamagedError."""
        if hashlib.sha256(self._index).hexdigest() != self.name:
            raise DamagedError(f"index packs/{self.name}.idx is damaged: its digest is not its name")
        end = sum(length for _, _, length in self.lines())
        size = os.fstat(self._descriptor).st_size
        if size != end:
            raise DamagedError(f"pack packs/{self.name}.pack has {size} bytes instead of {end}")

    def lines(self) -> Iterator[tuple[str, int, int]]:
        for position in range(self.count):
            yield self._line(position)

    def _line(self, position: int) -> tuple[str, int, int]:
        found = _LINE.fullmatch(self._index[position * _WIDTH : (position + 1) * _WIDTH])
        if found is None:
            raise DamagedError(f"index packs/{self.name}.idx is damaged at line {position + 1}")
        return found[1].decode(), int(found[2]), int(found[3])

    def find(self, digest: str) -> tuple[int, int] | None:
        """Offset and length of a content, or None."""
        low, high = 0, self.count
        wanted = digest.encode()
        while low < high:
            middle = (low + high) // 2
            found = self._index[middle * _WIDTH : middle * _WIDTH + 64]
            if found < wanted:
                low = middle + 1
            else:
                high = middle
        if low < self.count:
            line = self._line(low)
            if line[0] == digest:
                return line[1], line[2]
        return None

    def read(self, offset: int, length: int) -> bytes:
        return os.pread(self._descriptor, length, offset)

    def wrong_contents(self) -> list[str]:
        """Digests whose bytes are not what they should be."""
        wrong = []
        for digest, offset, length in self.lines():
            if hashlib.sha256(self.read(offset, length)).hexdigest() != digest:
                wrong.append(digest)
        return wrong

    def close(self) -> None:
        os.close(self._descriptor)
        if isinstance(self._index, mmap.mmap):
            self._index.close()
