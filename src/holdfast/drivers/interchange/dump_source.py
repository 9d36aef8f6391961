"""Dumps of other tools: recognized by their content, never by their name, and read as a stream.

Magic numbers are those of the formats' own documentation: tar's `ustar`, `PGDMP` of pg_dump's custom format, and
SQLite's file header.
"""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, cast

from holdfast.drivers.interchange.compressed import CHUNK_BYTES, ERRORS, peeled
from holdfast.errors import DamagedError, NotFoundError, RefusedError

_HEAD_BYTES = 1 << 12
_MOST_MEMBERS = 5000  # a small database has some thousand files
SQL, CUSTOM, TAR, DIRECTORY, SQLITE = (
    "SQL",
    "PostgreSQL custom",
    "PostgreSQL tar",
    "PostgreSQL directory",
    "SQLite file",
)


@dataclass(frozen=True)
class DumpSource:
    """A dump opened for reading. `path` is set where the dump is uncompressed, so that it may be read twice."""

    title: str
    format: str
    stream: BinaryIO
    path: Path | None

    def chunks(self) -> Iterator[bytes]:
        """Yield the uncompressed content. Raise DamagedError where a compression is truncated or wrong."""
        try:
            while chunk := self.stream.read(CHUNK_BYTES):
                yield chunk
        except ERRORS as error:
            raise DamagedError(f"{self.title} is damaged or truncated: {error}") from error


@contextmanager
def opened(source: str) -> Iterator[DumpSource]:
    """Open a file, a folder of pg_dump, or the standard input (`-`).

    Raise NotFoundError, RefusedError, DamagedError.
    """
    if source != "-" and Path(source).is_dir():
        if not (Path(source) / "toc.dat").is_file():
            raise RefusedError(f"{source} is a folder without toc.dat, so it is not in pg_dump's directory format")
        yield DumpSource(source, DIRECTORY, io.BytesIO(), Path(source))
        return
    title = "the standard input" if source == "-" else source
    with ExitStack() as layers:
        try:
            stream, count = layers.enter_context(peeled(source))
            head = stream.peek(_HEAD_BYTES)[:_HEAD_BYTES]
        except (FileNotFoundError, PermissionError) as error:
            raise NotFoundError(f"{source} cannot be opened: {error.strerror}") from error
        except ERRORS as error:
            raise DamagedError(f"{title} is damaged or truncated: {error}") from error
        path = Path(source) if source != "-" and not count else None
        yield DumpSource(title, _format(head, title), cast(BinaryIO, stream), path)


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
            f"{title} is not a dump of a known format",
            next_step="Use plain SQL, PostgreSQL's custom, directory or tar format, or an SQLite file; each may be"
            " compressed by gzip, zstd, bzip2 or xz.",
        )
    return SQL


def is_data_directory(source: str) -> bool:
    """Return whether a folder or a tar, however compressed, looks like a server's data directory.

    Never raise an error for the content.
    """
    if Path(source).is_dir():
        places = (Path(source), *(path for path in Path(source).iterdir() if path.is_dir()))
        return any((path / "PG_VERSION").is_file() and (path / "global").is_dir() for path in places)
    try:
        with peeled(source) as (stream, _):
            if stream.peek(_HEAD_BYTES)[257:262] != b"ustar":
                return False
            with tarfile.open(fileobj=stream, mode="r|") as archive:
                for number, member in enumerate(archive):
                    name = PurePosixPath(member.name).name
                    if name in ("PG_VERSION", "pg_control") or number > _MOST_MEMBERS:
                        return number <= _MOST_MEMBERS
                    if number == 0 and name == "toc.dat":  # every tar of pg_dump begins with it
                        return False
    except (tarfile.TarError, *ERRORS):
        pass
    return False


def unpacked_bytes(source: str) -> int:
    """Return the unpacked size of an archive or folder where it is known without reading it; else its own size."""
    if not Path(source).is_dir():
        return Path(source).stat().st_size
    return sum(
        os.lstat(os.path.join(here, name)).st_blocks * 512 for here, _, names in os.walk(source) for name in names
    )


def lines_of(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield complete lines with their ends; the last one may have none."""
    pieces: list[bytes] = []
    for chunk in chunks:
        pieces.append(chunk)
        if b"\n" not in chunk:
            continue
        lines = b"".join(pieces).split(b"\n")
        pieces = [lines.pop()]
        for line in lines:
            yield line + b"\n"
    if rest := b"".join(pieces):
        yield rest
