"""Reading of compressed files, recognized by magic number: gzip (RFC 1952), zstd (RFC 8878), bzip2, xz."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, BinaryIO, cast

import zstandard

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

CHUNK_BYTES = 1 << 18
_MOST_LAYERS = 3
ERRORS = (EOFError, OSError, zlib.error, lzma.LZMAError, zstandard.ZstdError)
"""Errors that reading a damaged or truncated stream raises."""


class _Zstd(io.RawIOBase):
    """A reader of zstd that notices truncation; the library's own one takes it for the end."""

    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        self._inner = zstandard.ZstdDecompressor().decompressobj()
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer)
        while not self._rest:
            more = self._inner.unused_data if self._inner.eof else b""
            chunk = more or self._source.read(CHUNK_BYTES)
            if not chunk:
                if not self._inner.eof:
                    raise zstandard.ZstdError("it is truncated")
                return 0
            if self._inner.eof:
                self._inner = zstandard.ZstdDecompressor().decompressobj()
            self._rest = self._inner.decompress(chunk)
        count = min(len(view), len(self._rest))
        view[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count


def _buffered(raw: object) -> io.BufferedReader:
    return io.BufferedReader(cast(io.RawIOBase, raw), CHUNK_BYTES)


def _peel(stream: io.BufferedReader) -> io.BufferedReader | None:
    """Return the stream inside a compression; None where there is none."""
    head = stream.peek(6)[:6]
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


@contextmanager
def peeled(source: str) -> Iterator[tuple[io.BufferedReader, int]]:
    """Yield a file, or the standard input (`-`), without its compressions, and the number of those.

    Raise FileNotFoundError and the errors in ERRORS.
    """
    with ExitStack() as layers:
        stream = layers.enter_context(_buffered(io.FileIO(os.dup(0) if source == "-" else source)))
        count = 0
        while count < _MOST_LAYERS and (inner := _peel(stream)) is not None:
            stream, count = layers.enter_context(inner), count + 1
        yield stream, count
