"""`files.<name>.jsonl.zst`: one JSON object per entry, in the order of the scan, compressed by zstd."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType

import msgspec
import zstandard

from holdfast.drivers.entries import PathFilter
from holdfast.errors import DamagedError
from holdfast.model import Entry


class _Digest(msgspec.Struct):
    """The part of an entry that deduplication needs; the rest of a line is not decoded."""

    sha256: str = ""


class _Name(msgspec.Struct, gc=False):
    """The part of an entry by which it is chosen."""

    path: str
    path_base64: str = ""

    def raw_path(self) -> bytes:
        return base64.b64decode(self.path_base64) if self.path_base64 else self.path.encode()


_decoder = msgspec.json.Decoder(Entry)
_name_decoder = msgspec.json.Decoder(_Name)
_digest_decoder = msgspec.json.Decoder(_Digest)
_encoder = msgspec.json.Encoder()
_CHUNK_BYTES = 1 << 18


class ListingWriter:
    """A writer of entries in order; the file is complete once closed without an error."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = open(path, "wb")
        os.fchmod(self._file.fileno(), 0o600)
        # `threads` lets zstd compress in a thread of its own while the next files are read.
        self._stream = zstandard.ZstdCompressor(level=1, threads=1).stream_writer(self._file, closefd=False)

    def write(self, entries: Sequence[Entry]) -> None:
        self.write_lines(lines_of(entries))

    def write_lines(self, lines: bytes) -> None:
        """Write lines that `lines_of` returned, perhaps in another process."""
        self._stream.write(lines)

    def close(self) -> None:
        if not self._file.closed:
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


def lines_of(entries: Sequence[Entry]) -> bytes:
    return _encoder.encode_lines(entries)


def entries_of(lines: bytes) -> list[Entry]:
    return _decoder.decode_lines(lines)


def read_listing(path: Path) -> Iterator[Entry]:
    """Yield the entries in order, some hundred decoded at a time. Raise DamagedError for a damaged listing."""
    try:
        for lines in _lines(path):
            yield from _decoder.decode_lines(lines)
    except (msgspec.DecodeError, zstandard.ZstdError) as error:
        raise DamagedError(f"the listing {path} is damaged: {error}") from error


def read_chosen(path: Path, chosen: PathFilter) -> Iterator[Entry]:
    """Yield the chosen entries in order. Read no further than necessary, and decode only what must be known.

    Raise DamagedError for a damaged listing.
    """
    after = b""
    try:
        for lines in _lines(path):
            until = _name_decoder.decode(lines[lines.rfind(b"\n", 0, -1) + 1 :]).raw_path()
            if chosen.may_choose(after, until):
                yield from _choose(lines, chosen)
            if chosen.is_past(until):
                return
            after = until
    except (msgspec.DecodeError, zstandard.ZstdError) as error:
        raise DamagedError(f"the listing {path} is damaged: {error}") from error


def _choose(lines: bytes, chosen: PathFilter) -> Iterator[Entry]:
    if not chosen.literal:
        for name, line in zip(_name_decoder.decode_lines(lines), lines.split(b"\n"), strict=False):
            if chosen.wants(name.raw_path()):
                yield _decoder.decode(line)
        return
    literal = chosen.literal.encode()
    found = lines.find(literal)
    while found >= 0:
        end = lines.index(b"\n", found)
        line = lines[lines.rfind(b"\n", 0, found) + 1 : end]
        if chosen.wants(_name_decoder.decode(line).raw_path()):
            yield _decoder.decode(line)
        found = lines.find(literal, end)


def read_digests(path: Path) -> Iterator[str]:
    """Yield the digests that a listing names, one for each file. Raise DamagedError for a damaged listing."""
    try:
        for lines in _lines(path):
            for line in _digest_decoder.decode_lines(lines):
                if line.sha256:
                    yield line.sha256
    except (msgspec.DecodeError, zstandard.ZstdError) as error:
        raise DamagedError(f"the listing {path} is damaged: {error}") from error


def _lines(path: Path) -> Iterator[bytes]:
    """Yield a listing's text in pieces of complete lines."""
    rest = b""
    decompressor = zstandard.ZstdDecompressor().decompressobj()
    with open(path, "rb") as file:
        while not decompressor.eof and (chunk := file.read(_CHUNK_BYTES)):
            text = rest + decompressor.decompress(chunk)
            end = text.rfind(b"\n") + 1
            rest = text[end:]
            if end:
                yield text[:end]
        if rest or not decompressor.eof or decompressor.unused_data or file.read(1):
            raise zstandard.ZstdError("it is truncated, or data follows its end")
