"""Dumps of MariaDB and MySQL in one file: the tables with their rows from one transaction, then stored objects.

Both dump programs escape newlines inside values. MariaDB's begins a line with every row, MySQL's one with every
statement (measured on 9.7), of at most a megabyte or one row. So rows are counted as they pass. The parts after the
tables (routines and triggers, views, events) are kept apart when the dump is loaded: in a candidate database no trigger
may fire and no event start.
"""

from __future__ import annotations

import os
import re
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO

import zstandard

from holdfast.drivers.databases.mariadb import catalogue, rewriting
from holdfast.drivers.databases.mariadb.client import Clients, identifier
from holdfast.drivers.databases.mariadb.parallel import Share, tables_of
from holdfast.drivers.interchange.compressed import CHUNK_BYTES, ERRORS, peeled
from holdfast.errors import CancelledError, DamagedError, StepError

_LEVEL = 1  # keeps pace with the dump program on one core
_COPY_BYTES = 1 << 20
_SANDBOX = re.compile(rb"\A/\*M?!999999\\- [^\n]*\n")  # a line that older clients do not know
# A table with hidden columns is dumped with a list of columns, and then its first row is on the same line.
_BEGINNING = re.compile(
    rb"\n(?:INSERT INTO `((?:[^`]|``)+)` (?:\((?:(?:`(?:[^`]|``)+`|\w+)(?:, )?)+\) )?VALUES( \()?"
    rb"|CREATE TABLE `((?:[^`]|``)+)` )"
)
_CHANGED = re.compile(rb"^ALTER DATABASE `(?:[^`]|``)+` CHARACTER SET", re.MULTILINE)
_USE = re.compile(rb"^USE `((?:[^`]|``)+)`;\n", re.MULTILINE)
_STATEMENT_END = b");\n"
_PROGRAMS, _VIEWS, _EVENTS, _END = (
    b"-- Holdfast: routines and triggers\n",
    b"-- Holdfast: views\n",
    b"-- Holdfast: events\n",
    b"-- Holdfast: end\n",
)
_TABLES_ONLY = ("--single-transaction", "--quick", "--no-autocommit", "--skip-triggers", "--skip-add-locks")
_NO_TABLES = ("--no-data", "--no-create-info", "--skip-opt", "--quick", "--create-options", "--set-charset")


class RowCounter:
    """The tables of a dump and their rows, counted while the dump passes in pieces."""

    def __init__(self, rows_on_lines: bool = True, begun: threading.Event | None = None) -> None:
        """Set `begun` at the first table."""
        self._rows_on_lines = rows_on_lines
        self.rows: dict[str, int] = {}
        self.begun = begun or threading.Event()
        self._pieces = [b"\n"]
        self._inside: str | None = None

    def feed(self, chunk: bytes) -> None:
        self._pieces.append(chunk)
        if b"\n" not in chunk:
            return
        data = b"".join(self._pieces)
        # The last line is kept until it is complete.
        cut = data.rfind(b"\n")
        self._lines(data, cut + 1)
        self._pieces = [data[cut:]]

    def _lines(self, data: bytes, size: int) -> None:
        """Count the rows of complete lines.

        `data` begins with a newline and has one at the end of `size`; the next piece begins with that same one.
        """
        position = 0
        while True:
            if self._inside is not None:
                end = data.find(_STATEMENT_END, position, size)
                stop = size - 1 if end < 0 else end + len(_STATEMENT_END) - 1
                self.rows[self._inside] += data.count(b"\n", position, stop)  # within a statement, each begins a row
                if end < 0:
                    return
                self._inside, position = None, stop
            found = _BEGINNING.search(data, position, size)
            if found is None:
                return
            name = (found[1] or found[3]).decode().replace("``", "`")
            self.begun.set()
            position = found.end()
            if self._rows_on_lines or found[1] is None:
                self.rows[name] = self.rows.get(name, 0) + (found[2] is not None)
                self._inside = name if found[1] is not None else None
            else:
                end = data.index(b"\n", position)  # there is one, because the last line is complete
                self.rows[name] = self.rows.get(name, 0) + rows_in(data[position:end])
                position = end


def outside_quotes(values: bytes) -> bytes:
    """Return the parts outside of quotes, of text whose quoted quotes are escaped by a backslash."""
    unescaped = values.replace(b"\\\\", b"").replace(b"\\'", b"")
    return b"'".join(unescaped.split(b"'")[::2])


def rows_in(values: bytes) -> int:
    """Return the number of rows in one statement of MySQL's dump program: rows touch only outside of quotes."""
    return outside_quotes(values).count(b"),(") + 1


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


class Splitter:
    """A splitter of a dump of several databases into one for each; the text before the first is for all of them.

    A line `USE` begins each. No value and no definition looks like one: newlines in them are escaped.
    """

    def __init__(self, sinks: Mapping[str, Callable[[bytes], None]]) -> None:
        self._sinks = sinks
        self._inside: str | None = None
        self._pieces: list[bytes] = []

    def feed(self, chunk: bytes) -> None:
        self._pieces.append(chunk)
        if b"\n" not in chunk:
            return
        data = b"".join(self._pieces)
        cut = data.rfind(b"\n") + 1  # the last line is kept until it is complete
        self._pieces = [data[cut:]]
        position = 0
        for found in _USE.finditer(data, 0, cut):
            self._give(data[position : found.start()])
            self._inside, position = found[1].decode().replace("``", "`"), found.end()
        self._give(data[position:cut])

    def end(self) -> None:
        self._give(b"".join(self._pieces))

    def _give(self, piece: bytes) -> None:
        for name, sink in self._sinks.items():
            if piece and self._inside in (None, name):
                sink(piece)


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
                *one.share.words,
                names=[one.database, *one.share.tables],
                stopped=self._stopped.is_set,
            )

    def _programs(self, part: Part) -> bytes:
        if part.script is not None:
            return part.script
        return programs(self._clients, part.database, part.left_out, self._stopped.is_set)

    def _sink(
        self, part: Part, counter: RowCounter, packed: zstandard.ZstdCompressionWriter
    ) -> Callable[[bytes], None]:
        first = True
        rest = b""

        def sink(chunk: bytes) -> None:
            nonlocal first, rest
            if first:
                chunk, first = (
                    _SANDBOX.sub(b"", chunk).replace(rewriting.MODE, rewriting.WIDER_MODE),
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
        words = [
            f"--ignore-table={part.database}.{name}"
            for part in self._parts
            for name in (*part.left_out, *tables_of(part.beside))
        ]
        words += ["--dump-history"] if self._history else []
        sinks = {
            part.database: self._sink(part, self._counters[part.database], writer)
            for part, writer in zip(self._parts, packed, strict=True)
        }
        splitter = Splitter(sinks)
        if len(names) > 1:
            words += ["--databases", "--no-create-db"]
        self._clients.dump(
            splitter.feed if len(names) > 1 else sinks[names[0]],
            *_TABLES_ONLY,
            *words,
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
    lines = _SANDBOX.sub(b"", b"".join(pieces)).split(b"\n")
    return [b"\n".join(rewriting.of_own_sequences(line, database) for line in lines)]


def _is_strict(clients: Clients) -> bool:
    """Return whether sessions of the server are strict unless they say otherwise."""
    with clients.session() as session:
        return "STRICT_" in (session.value("SELECT @@GLOBAL.sql_mode") or "")


def _sequence_defaults(clients: Clients, database: str) -> bytes:
    """Return statements that bind defaults to sequences of the database in which they run.

    So tables may be moved to another database.
    """
    with clients.session() as session:
        found = catalogue.sequence_defaults(session, database)
    if not found:
        return b""
    lines = ["SET system_versioning_alter_history = 'KEEP';"]
    for table, column, default in found:
        unbound = default.replace(f"val({identifier(database)}.", "val(")
        lines.append(f"ALTER TABLE {identifier(table)} ALTER COLUMN {identifier(column)} SET DEFAULT {unbound};")
    return ("\n".join(lines) + "\n").encode()


def programs(
    clients: Clients,
    database: str,
    views: Sequence[str],
    stopped: Callable[[], bool] = lambda: False,
    broken: Sequence[str] = (),
) -> bytes:
    """Return defaults by sequences, routines and triggers, then views, then events, each after its heading.

    MySQL's dump program looks at views in every call, and ends at a broken one.
    """
    found: list[bytes] = []
    no_views = [f"--ignore-table={database}.{view}" for view in (*views, *broken)]

    def part(heading: bytes, *words: str, only: Sequence[str] = (), first: bytes = b"") -> None:
        pieces: list[bytes] = []
        clients.dump(pieces.append, "--skip-lock-tables", *words, names=[database, *only], stopped=stopped)
        text = _SANDBOX.sub(b"", b"".join(pieces))
        # The dump changes its database's collation, by name, around objects that were created under another one.
        text = rewriting.of_own_tables(text, database)
        found.append(b"\n" + heading + first + _CHANGED.sub(b"ALTER DATABASE CHARACTER SET", text))

    # A MariaDB server that crashes while a trigger is created or dropped can leave its name taken but in no catalogue.
    part(
        _PROGRAMS,
        *_NO_TABLES,
        "--routines",
        "--triggers",
        "--add-drop-trigger",
        *no_views,
        first=_sequence_defaults(clients, database),
    )
    if views:
        part(_VIEWS, "--no-data", "--skip-triggers", only=views)
        if _is_strict(clients):
            found[-1] = found[-1].replace(rewriting.MODE, rewriting.STRICT_MODE)
    part(_EVENTS, *_NO_TABLES, "--events", "--skip-triggers", *no_views)
    return b"".join(found) + b"\n" + _END


class Reading:
    """A dump of Holdfast's, read once: first the tables; then `programs` holds the script of stored objects."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.programs = b""

    def tables(self) -> Iterator[bytes]:
        """Yield the tables. Raise DamagedError where the file is not a complete dump."""
        heading = b"\n" + _PROGRAMS
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
        if not self.programs.endswith(_END):
            raise DamagedError(f"{self._path.name} is not a complete dump: its end is missing")

    def _chunks(self) -> Iterator[bytes]:
        try:
            with peeled(str(self._path)) as (stream, _):
                while chunk := stream.read(CHUNK_BYTES):
                    yield chunk
        except ERRORS as error:
            raise DamagedError(f"{self._path.name} is damaged or truncated: {error}") from error


_DEFINER = re.compile(
    rb"^((?:CREATE |/\*!\d{5} )[^\n'\"]*?)DEFINER=`(?:[^`]|``)*`(?:@`(?:[^`]|``)*`)?", re.MULTILINE
)  # a role has no host


def definers(script: bytes) -> set[str]:
    """Return the definers of the objects that a script creates, quoted."""
    found = (match[0].rpartition(b"DEFINER=")[2] for match in _DEFINER.finditer(script))
    return {account.decode(errors="replace") for account in found}


def without_definers(script: bytes) -> bytes:
    """Return the script without definers; its objects belong to the account that runs it."""
    return _DEFINER.sub(rb"\1", script)


_GAP = rb"(?:\s|/\*(?!M?!).*?\*/|/\*M?!\d*|\*/)+"
_NAME = rb"(?:`(?:[^`]|``)+`|[\w$\x80-\xff]+)"
_KIND = rb"\b(?:TRIGGER|PROCEDURE|FUNCTION|EVENT|VIEW)\b"
_BEGIN = rb"^((?:/\*M?!\d* ?)?CREATE\b(?:(?!" + _KIND + rb")[^\n'\"();])*"
_UNLESS = rb"(?:IF" + _GAP + rb"NOT" + _GAP + rb"EXISTS" + _GAP + rb")?"
_QUALIFIER = rb")" + _NAME + rb"\s*\.\s*(?=" + _NAME + rb")"
_HEAD = re.compile(_BEGIN + _KIND + _GAP + _UNLESS + _QUALIFIER, re.MULTILINE | re.IGNORECASE)
_TRIGGER_ON = re.compile(
    _BEGIN
    + rb"TRIGGER"
    + _GAP
    + _UNLESS
    + _NAME
    + _GAP
    + rb"(?:BEFORE|AFTER)"
    + _GAP
    + rb"(?:INSERT|UPDATE|DELETE)"
    + _GAP
    + rb"ON"
    + _GAP
    + _QUALIFIER,
    re.MULTILINE | re.IGNORECASE,
)


def in_no_database(script: bytes) -> bytes:
    """Return the script without database names where objects are created, and in the table of a trigger.

    The dump programs repeat a trigger as it was typed, with `shop.t` in it: a candidate's trigger would be created in
    the live database. A trigger is always in the database of its table, so the name is not needed.
    """
    return _TRIGGER_ON.sub(rb"\1", _HEAD.sub(rb"\1", script))


def without_events(script: bytes) -> bytes:
    return script.partition(b"\n" + _EVENTS)[0]
