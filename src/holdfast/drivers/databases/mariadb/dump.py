"""Dumps of MariaDB and MySQL in one file: the tables with their rows from one transaction, then stored objects.

Rows are counted as they pass (`dump_output`). When a dump is loaded, the script of stored objects is kept apart.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO

import zstandard

from holdfast.drivers.databases.mariadb import rewriting, stored_objects
from holdfast.drivers.databases.mariadb.client import Clients
from holdfast.drivers.databases.mariadb.dump_output import RowCounter, Splitter
from holdfast.drivers.databases.mariadb.parallel import Share, tables_of
from holdfast.drivers.interchange.compressed import CHUNK_BYTES, ERRORS, peeled
from holdfast.errors import CancelledError, DamagedError, StepError

_LEVEL = 1  # keeps pace with the dump program on one core
_COPY_BYTES = 1 << 20
_TABLES_ONLY = ("--single-transaction", "--quick", "--no-autocommit", "--skip-triggers", "--skip-add-locks")


@dataclass(frozen=True)
class Part:
    """One database of a dump.

    `left_out` names what is not a table of the application, such as its views. `script` creates its stored objects, if
    known. `beside` has the shares of further dump programs at the same time, which see the same data only if nothing is
    written until all have begun. `has_sequence_defaults`: a column's default names a sequence of the database.
    """

    database: str
    target: Path
    left_out: Sequence[str]
    script: bytes | None = None
    beside: Sequence[Share] = ()
    has_sequence_defaults: bool = False


class _Beside:
    """A further dump program's share of one database.

    It is compressed into a file without a name, so that a kill leaves nothing behind.
    """

    def __init__(self, part: Part, share: Share, rows_on_lines: bool) -> None:
        self.database = part.database
        self.part = part
        self.share = share
        self.counter = RowCounter(rows_on_lines)
        self.file: IO[bytes] = tempfile.TemporaryFile(dir=part.target.parent)

    def append_to(self, file: BinaryIO, stopped: Callable[[], bool]) -> None:
        """Append the share as one more frame of the compressed file. Raise CancelledError."""
        file.flush()
        self.file.seek(0)
        while chunk := self.file.read(_COPY_BYTES):
            if stopped():
                raise CancelledError("stopped a dump that is no longer needed")
            file.write(chunk)
        self.file.close()


class Dump:
    """A running dump of databases of one server.

    `start` returns when its instant is fixed, `finish` when all files are complete.
    """

    def __init__(self, clients: Clients, parts: Sequence[Part], *, history: bool) -> None:
        self._clients = clients
        self._parts = parts
        self._history = history
        self._begun = threading.Event()
        rows_on_lines = clients.dialect.rows_on_lines
        self._counters = {part.database: RowCounter(rows_on_lines, self._begun) for part in parts}
        self._beside = [_Beside(part, share, rows_on_lines) for part in parts for share in part.beside]
        self._stopped = threading.Event()
        self._pool = ThreadPoolExecutor(2 + len(self._beside))
        self._work: Future[None] | None = None
        self._failure: BaseException | None = None

    def start(self, limit_seconds: float | None = None) -> None:
        """Start all dump programs. Raise StepError where not all have begun within the limit.

        That happens behind a statement that waits for a lock.
        """
        deadline = None if limit_seconds is None else time.monotonic() + limit_seconds
        beside = [self._submit(one.counter.begun, self._dump_beside, one) for one in self._beside]
        self._work = self._submit(self._begun, self._run, beside)
        for begun in (self._begun, *(one.counter.begun for one in self._beside)):
            if not begun.wait(None if deadline is None else max(0.0, deadline - time.monotonic())):
                raise StepError(f"{self._clients.dialect.dumper} did not begin within {limit_seconds:g} s")
        if self._failure is not None:
            raise self._failure

    def _submit(self, begun: threading.Event, work: Callable[..., None], *arguments: object) -> Future[None]:
        """Submit a task; one that ends without a table sets `begun`, one that fails stops the others."""

        def ended(future: Future[None]) -> None:
            error = future.exception()
            if error is not None:
                self._failure = self._failure or error
                self._stopped.set()
            begun.set()

        future = self._pool.submit(work, *arguments)
        future.add_done_callback(ended)
        return future

    def finish(self) -> dict[str, dict[str, int]]:
        """Return the rows of each table in each database's dump. Raise the error of a dump program or of the disk."""
        assert self._work is not None
        wait([self._work])
        if self._failure is not None:
            raise self._failure
        found = {name: Counter(counter.rows) for name, counter in self._counters.items()}
        for one in self._beside:
            found[one.database].update(one.counter.rows)
        return {name: dict(rows) for name, rows in found.items()}

    def close(self) -> None:
        """End a dump that is not finished. Idempotent."""
        self._stopped.set()
        self._pool.shutdown()
        for one in self._beside:
            one.file.close()

    def _run(self, beside: Sequence[Future[None]]) -> None:
        with ExitStack() as stack:
            files = [stack.enter_context(_created(part.target)) for part in self._parts]
            packed = [stack.enter_context(_packed(file)) for file in files]
            # The scripts of stored objects are small, so they are dumped at the same time.
            scripts = [self._pool.submit(self._programs, part) for part in self._parts]
            self._tables(packed)
            self._begun.set()  # further programs may dump all tables, so this one may see none
            for part, file, writer, script in zip(self._parts, files, packed, scripts, strict=True):
                for one, work in zip(self._beside, beside, strict=True):
                    if one.database == part.database:
                        work.result()
                        writer.flush(zstandard.FLUSH_FRAME)
                        one.append_to(file, self._stopped.is_set)
                writer.write(script.result())

    def _dump_beside(self, one: _Beside) -> None:
        with _packed(one.file) as writer:
            self._clients.dump(
                self._sink(one.part, one.counter, writer),
                *_TABLES_ONLY,
                *one.share.options,
                names=[one.database, *one.share.tables],
                stopped=self._stopped.is_set,
            )

    def _programs(self, part: Part) -> bytes:
        if part.script is not None:
            return part.script
        return stored_objects.programs(self._clients, part.database, part.left_out, self._stopped.is_set)

    def _sink(
        self, part: Part, counter: RowCounter, packed: zstandard.ZstdCompressionWriter
    ) -> Callable[[bytes], None]:
        first = True
        rest = b""

        def sink(chunk: bytes) -> None:
            nonlocal first, rest
            if first:
                chunk, first = (
                    rewriting.SANDBOX.sub(b"", chunk).replace(rewriting.MODE, rewriting.WIDER_MODE),
                    False,
                )
            if part.has_sequence_defaults:
                *lines, rest = (rest + chunk).split(b"\n")
                chunk = b"".join(rewriting.of_own_sequences(line, part.database) + b"\n" for line in lines)
            packed.write(chunk)
            counter.feed(chunk)

        return sink

    def _tables(self, packed: Sequence[zstandard.ZstdCompressionWriter]) -> None:
        names = [part.database for part in self._parts]
        options = [
            f"--ignore-table={part.database}.{name}"
            for part in self._parts
            for name in (*part.left_out, *tables_of(part.beside))
        ]
        options += ["--dump-history"] if self._history else []
        sinks = {
            part.database: self._sink(part, self._counters[part.database], writer)
            for part, writer in zip(self._parts, packed, strict=True)
        }
        splitter = Splitter(sinks)
        if len(names) > 1:
            options += ["--databases", "--no-create-db"]
        self._clients.dump(
            splitter.feed if len(names) > 1 else sinks[names[0]],
            *_TABLES_ONLY,
            *options,
            names=names,
            stopped=self._stopped.is_set,
        )
        splitter.end()


def _created(target: Path) -> BinaryIO:
    """Create a file in place of one of an earlier attempt, which may be read-only already."""
    target.unlink(missing_ok=True)
    return open(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")


def _packed(file: IO[bytes]) -> zstandard.ZstdCompressionWriter:
    compressor = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True)
    return compressor.stream_writer(file, closefd=False, write_size=CHUNK_BYTES)


def structure(clients: Clients, database: str, views: list[str]) -> list[bytes]:
    """Return the statements that create a database's tables and sequences, without rows."""
    pieces: list[bytes] = []
    ignored = [f"--ignore-table={database}.{view}" for view in views]
    clients.dump(pieces.append, "--no-data", "--skip-triggers", "--skip-lock-tables", *ignored, names=[database])
    lines = rewriting.SANDBOX.sub(b"", b"".join(pieces)).split(b"\n")
    return [b"\n".join(rewriting.of_own_sequences(line, database) for line in lines)]


class Reading:
    """A dump of Holdfast's, read once: first the tables; then `programs` holds the script of stored objects."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.programs = b""

    def tables(self) -> Iterator[bytes]:
        """Yield the tables. Raise DamagedError where the file is not a complete dump."""
        heading = b"\n" + stored_objects.HEADING
        rest = b""
        found = False
        for chunk in rewriting.with_all_dates(self._chunks()):  # old backups have the dump program's own mode
            if found:
                self.programs += chunk
                continue
            data = rest + chunk
            position = data.find(heading)
            if position >= 0:
                found = True
                self.programs = data[position + 1 :]
                yield data[: position + 1]
            else:
                keep = max(0, len(data) - len(heading) + 1)
                rest = data[keep:]
                yield data[:keep]
        if not self.programs.endswith(stored_objects.END):
            raise DamagedError(f"{self._path.name} is not a complete dump: its end is missing")

    def _chunks(self) -> Iterator[bytes]:
        try:
            with peeled(str(self._path)) as (stream, _):
                while chunk := stream.read(CHUNK_BYTES):
                    yield chunk
        except ERRORS as error:
            raise DamagedError(f"{self._path.name} is damaged or truncated: {error}") from error
