"""Dumps that other tools made: what they are is told by their content, never by their name; read as a stream.

Magic numbers are those of the formats' own documentation: gzip (RFC 1952), zstd (RFC 8878), bzip2, xz, tar's `ustar`,
`PGDMP` of pg_dump's custom format, and SQLite's file header.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import zstandard

from holdfast.errors import DamagedError, NotFoundError, RefusedError

_HEAD_BYTES = 1 << 12
_CHUNK_BYTES = 1 << 18
_MOST_LAYERS = 3
SQL, CUSTOM, TAR, DIRECTORY, SQLITE = (
    "SQL",
    "PostgreSQL custom",
    "PostgreSQL tar",
    "PostgreSQL directory",
    "SQLite file",
)


@dataclass(frozen=True)
class Foreign:
    """A dump opened for reading. `path` is given where the dump lies there as it is, so that it may be read twice."""

    title: str
    format: str
    stream: BinaryIO
    path: Path | None

    def chunks(self) -> Iterator[bytes]:
        """The content, uncompressed. Raises DamagedError where a compression is cut short or wrong."""
        try:
            while chunk := self.stream.read(_CHUNK_BYTES):
                yield chunk
        except (EOFError, OSError, zlib.error, lzma.LZMAError, zstandard.ZstdError) as error:
            raise DamagedError(f"{self.title} is damaged or was cut short: {error}") from error


class _Zstd(io.RawIOBase):
    """The library's own reader takes a cut stream for its end."""

    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        self._inner = zstandard.ZstdDecompressor().decompressobj()
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer)
        while not self._rest:
            more = self._inner.unused_data if self._inner.eof else b""
            chunk = more or self._source.read(_CHUNK_BYTES)
            if not chunk:
                if not self._inner.eof:
                    raise zstandard.ZstdError("it was cut short")
                return 0
            if self._inner.eof:
                self._inner = zstandard.ZstdDecompressor().decompressobj()
            self._rest = self._inner.decompress(chunk)
        count = min(len(view), len(self._rest))
        view[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count


def _buffered(raw: object) -> io.BufferedReader:
    return io.BufferedReader(cast(io.RawIOBase, raw), _CHUNK_BYTES)


def _peel(stream: io.BufferedReader) -> io.BufferedReader | None:
    """The stream inside a compression; None where there is none."""
    head = stream.peek(_HEAD_BYTES)[:6]
    inner: object
    if head.startswith(b"\x1f\x8b"):
        inner = gzip.GzipFile(fileobj=stream)
    elif head.startswith(b"BZh"):
        inner = bz2.BZ2File(stream)
    elif head.startswith(b"\xfd7zXZ\0"):
        inner = lzma.LZMAFile(stream)
    elif head.startswith(b"\x28\xb5\x2f\xfd"):
        inner = _Zstd(stream)
    else:
        return None
    return _buffered(inner)


def open_foreign(source: str) -> Foreign:
    """Opens a file, a folder of pg_dump, or `-` for the standard input. Raises NotFoundError, RefusedError, DamagedError."""
    if source != "-" and Path(source).is_dir():
        if not (Path(source) / "toc.dat").is_file():
            raise RefusedError(f"{source} is a folder without toc.dat, so none of pg_dump's directory format")
        return Foreign(source, DIRECTORY, io.BytesIO(), Path(source))
    title = "the standard input" if source == "-" else source
    try:
        stream = _buffered(io.FileIO(os.dup(0) if source == "-" else source))
    except OSError as error:
        raise NotFoundError(f"{source} cannot be opened: {error.strerror}") from error
    layers = 0
    try:
        while layers < _MOST_LAYERS and (inner := _peel(stream)) is not None:
            stream, layers = inner, layers + 1
        head = stream.peek(_HEAD_BYTES)[:_HEAD_BYTES]
    except (EOFError, OSError, zlib.error, lzma.LZMAError, zstandard.ZstdError) as error:
        raise DamagedError(f"{title} is damaged or was cut short: {error}") from error
    return Foreign(
        title, _format(head, title), cast(BinaryIO, stream), Path(source) if source != "-" and not layers else None
    )


def _format(head: bytes, title: str) -> str:
    if not head:
        raise DamagedError(f"{title} is empty")
    if head.startswith(b"PGDMP"):
        return CUSTOM
    if head.startswith(b"SQLite format 3\0"):
        return SQLITE
    if head[257:262] == b"ustar":
        return TAR
    if b"\0" in head:
        raise RefusedError(
            f"{title} is no dump that Holdfast knows",
            next_step="Known are plain SQL, PostgreSQL's custom, directory and tar formats, and SQLite files, each also"
            " compressed by gzip, zstd, bzip2 or xz.",
        )
    return SQL
