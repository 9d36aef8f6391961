"""`files.<name>.jsonl.zst`: one JSON object per entry, in the order of the scan, compressed by zstd."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import msgspec
import zstandard

from holdfast.errors import DamagedError
from holdfast.model import Entry

_decoder = msgspec.json.Decoder(Entry)
_encoder = msgspec.json.Encoder()
_FLUSH_BYTES = 1 << 18


class ListingWriter:
    """Writes entries in order; the file is complete once closed without an error."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = open(path, "wb")
        os.fchmod(self._file.fileno(), 0o600)
        self._stream = zstandard.ZstdCompressor(level=1).stream_writer(self._file, closefd=False)
        self._buffer = bytearray()

    def write(self, entry: Entry) -> None:
        _encoder.encode_into(entry, self._buffer, -1)
        self._buffer += b"\n"
        if len(self._buffer) > _FLUSH_BYTES:
            self._stream.write(bytes(self._buffer))
            self._buffer.clear()

    def close(self) -> None:
        if not self._file.closed:
            self._stream.write(bytes(self._buffer))
            self._stream.close()  # type: ignore[no-untyped-call]  # zstandard's stub leaves it untyped
            self._file.close()

    def __enter__(self) -> ListingWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self._file.close()


def read_listing(path: Path) -> Iterator[Entry]:
    """Entries in order, one at a time. Raises DamagedError for what is no listing."""
    try:
        with open(path, "rb") as file:
            reader = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)
            for line in io.BufferedReader(_Readable(reader), 1 << 18):
                yield _decoder.decode(line)
    except (msgspec.DecodeError, zstandard.ZstdError) as error:
        raise DamagedError(f"the listing {path} is damaged: {error}") from error


class _Readable(io.RawIOBase):
    """zstandard's reader as the raw stream that io.BufferedReader wants."""

    def __init__(self, reader: zstandard.ZstdDecompressionReader) -> None:
        self._reader = reader

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # typeshed's WriteableBuffer is wider
        data = self._reader.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)
