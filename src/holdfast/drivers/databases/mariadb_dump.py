"""Dumps of MariaDB and MySQL: the tables with their rows by one transaction, then what runs by itself, in one file.

Both dump programs escape newlines inside values. MariaDB's begins a line with every row, MySQL's one with every
statement (measured on 9.7), of at most a megabyte or one row. So rows are counted as they pass. What stands
after the tables - routines and triggers, views, events - is kept apart when the dump is loaded: beside the live
database no trigger may fire and no event start.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import zstandard

from holdfast.drivers.compressed import CHUNK_BYTES, ERRORS, peeled
from holdfast.drivers.databases.mariadb_client import Clients
from holdfast.errors import DamagedError

_LEVEL = 1  # keeps pace with the dump program on one core
_SANDBOX = re.compile(rb"\A/\*M?!999999\\- [^\n]*\n")  # a line that older clients do not know
# Where columns are listed, which those of a table with hidden ones are, the first row stands on the same line.
_BEGINNING = re.compile(
    rb"\n(?:INSERT INTO `((?:[^`]|``)+)` (?:\((?:(?:`(?:[^`]|``)+`|\w+)(?:, )?)+\) )?VALUES( \()?|CREATE TABLE `((?:[^`]|``)+)` )"
)
_CHANGED = re.compile(rb"^ALTER DATABASE `(?:[^`]|``)+` CHARACTER SET", re.MULTILINE)
_STATEMENT_END = b");\n"
_PROGRAMS, _VIEWS, _EVENTS, _END = (
    b"-- Holdfast: routines and triggers\n", b"-- Holdfast: views\n", b"-- Holdfast: events\n", b"-- Holdfast: end\n",
)  # fmt: skip
_TABLES_ONLY = ("--single-transaction", "--quick", "--no-autocommit", "--skip-triggers",
                "--skip-add-locks")  # fmt: skip
_NO_TABLES = ("--no-data", "--no-create-info", "--skip-opt", "--quick", "--create-options", "--set-charset")


class RowCounter:
    """Tables and rows of a dump that passes by in pieces."""

    def __init__(self, rows_on_lines: bool = True) -> None:
        self._rows_on_lines = rows_on_lines
        self.rows: dict[str, int] = {}
        self.begun = threading.Event()
        self._pieces = [b"\n"]
        self._inside: str | None = None

    def feed(self, chunk: bytes) -> None:
        self._pieces.append(chunk)
        if b"\n" not in chunk:
            return
        data = b"".join(self._pieces)
        # The last line is looked at when it is whole.
        cut = data.rfind(b"\n")
        self._lines(data[: cut + 1])
        self._pieces = [data[cut:]]

    def _lines(self, data: bytes) -> None:
        """`data` begins and ends with a newline; the next piece begins with that same one."""
        position = 0
        while True:
            if self._inside is not None:
                end = data.find(_STATEMENT_END, position)
                stop = len(data) - 1 if end < 0 else end + len(_STATEMENT_END) - 1
                self.rows[self._inside] += data.count(b"\n", position, stop)  # within a statement each begins a row
                if end < 0:
                    return
                self._inside, position = None, stop
            found = _BEGINNING.search(data, position)
            if found is None:
                return
            name = (found[1] or found[3]).decode().replace("``", "`")
            self.begun.set()
            position = found.end()
            if self._rows_on_lines or found[1] is None:
                self.rows[name] = self.rows.get(name, 0) + (found[2] is not None)
                self._inside = name if found[1] is not None else None
            else:
                end = data.index(b"\n", position)  # the last line is whole
                self.rows[name] = self.rows.get(name, 0) + rows_in(data[position:end])
                position = end


def rows_in(values: bytes) -> int:
    """Of one statement's values as MySQL's dump program writes them: quotes inside are escaped by a backslash.

    What is quoted stands between every second pair of quotes that are left; rows touch only outside of them.
    """
    unescaped = values.replace(b"\\\\", b"").replace(b"\\'", b"")
    return b"'".join(unescaped.split(b"'")[::2]).count(b"),(") + 1


class Dump:
    """One that is under way. `start` returns when its instant is fixed, `finish` when the file is whole."""

    def __init__(
        self, clients: Clients, database: str, target: Path, left_out: list[str], *, history: bool,
        script: bytes | None = None,
    ) -> None:  # fmt: skip
        """`left_out`: what is no table of the application, as its views. `script`: what runs by itself, if that is known."""
        self._clients = clients
        self._database = database
        self._target = target
        self._left_out = left_out
        self._history = history
        self._script = script
        self._counter = RowCounter(clients.dialect.rows_on_lines)
        self._stopped = threading.Event()
        self._pool = ThreadPoolExecutor(2)
        self._work: Future[None] | None = None

    def start(self) -> None:
        self._work = self._pool.submit(self._run)
        self._work.add_done_callback(lambda _: self._counter.begun.set())
        self._counter.begun.wait()
        if self._work.done():
            self._work.result()

    def finish(self) -> dict[str, int]:
        """Rows of each table in the dump. Raises what the dump program or the disk had to say."""
        assert self._work is not None
        self._work.result()
        return self._counter.rows

    def close(self) -> None:
        """Ends it where it is not finished. May be repeated."""
        self._stopped.set()
        self._pool.shutdown()

    def _run(self) -> None:
        self._target.unlink(missing_ok=True)  # of an earlier attempt, which may be closed to writing already
        descriptor = os.open(self._target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        compressor = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True)
        with (
            open(descriptor, "wb") as file,
            compressor.stream_writer(file, closefd=False, write_size=CHUNK_BYTES) as packed,
        ):
            # What runs by itself is small, and asked for meanwhile.
            script = self._pool.submit(self._programs)
            self._tables(packed)
            packed.write(script.result())

    def _programs(self) -> bytes:
        if self._script is not None:
            return self._script
        return programs(self._clients, self._database, self._left_out, self._stopped.is_set)

    def _tables(self, packed: BinaryIO) -> None:
        first = True

        def sink(chunk: bytes) -> None:
            nonlocal first
            if first:
                chunk, first = _SANDBOX.sub(b"", chunk), False
            packed.write(chunk)
            self._counter.feed(chunk)

        ignored = [f"--ignore-table={self._database}.{view}" for view in self._left_out]
        history = ["--dump-history"] if self._history else []
        self._clients.dump(
            sink, *_TABLES_ONLY, *history, *ignored, names=[self._database], stopped=self._stopped.is_set,
            spool_folder=self._target.parent,
        )  # fmt: skip


def structure(clients: Clients, database: str, views: list[str]) -> list[bytes]:
    """What makes a database's tables and sequences, without rows."""
    pieces: list[bytes] = []
    ignored = [f"--ignore-table={database}.{view}" for view in views]
    clients.dump(pieces.append, "--no-data", "--skip-triggers", "--skip-lock-tables", *ignored, names=[database])
    return [_SANDBOX.sub(b"", b"".join(pieces))]


def programs(
    clients: Clients, database: str, views: list[str], stopped: Callable[[], bool] = lambda: False,
    broken: Sequence[str] = (),
) -> bytes:  # fmt: skip
    """Routines and triggers, then views, then events, each after its heading.

    MySQL's dump program looks at views for whatever else it is asked, and ends at one that is broken.
    """
    found: list[bytes] = []
    no_views = [f"--ignore-table={database}.{view}" for view in (*views, *broken)]

    def part(heading: bytes, *words: str, only: Sequence[str] = ()) -> None:
        pieces: list[bytes] = []
        clients.dump(pieces.append, "--skip-lock-tables", *words, names=[database, *only], stopped=stopped)
        text = _SANDBOX.sub(b"", b"".join(pieces))
        # Around programs made under another collation the dump changes its database's, by name.
        found.append(b"\n" + heading + _CHANGED.sub(b"ALTER DATABASE CHARACTER SET", text))

    part(_PROGRAMS, *_NO_TABLES, "--routines", "--triggers", *no_views)
    if views:
        part(_VIEWS, "--no-data", "--skip-triggers", only=views)
    part(_EVENTS, *_NO_TABLES, "--events", "--skip-triggers", *no_views)
    return b"".join(found) + b"\n" + _END


class Reading:
    """A dump of Holdfast's, read once: the tables first, then `programs` is what runs by itself."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.programs = b""

    def tables(self) -> Iterator[bytes]:
        """Raises DamagedError where the file is none, or not whole."""
        heading = b"\n" + _PROGRAMS
        rest = b""
        found = False
        for chunk in self._chunks():
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
            raise DamagedError(f"{self._path.name} is no whole dump: its end is missing")

    def _chunks(self) -> Iterator[bytes]:
        try:
            with peeled(str(self._path)) as (stream, _):
                while chunk := stream.read(CHUNK_BYTES):
                    yield chunk
        except ERRORS as error:
            raise DamagedError(f"{self._path.name} is damaged or was cut short: {error}") from error


_DEFINER = re.compile(
    rb"^((?:CREATE |/\*!\d{5} )[^\n'\"]*?)DEFINER=`(?:[^`]|``)*`(?:@`(?:[^`]|``)*`)?", re.MULTILINE
)  # a role has no host


def without_definers(script: bytes) -> bytes:
    """What it makes belongs to the account that runs it."""
    return _DEFINER.sub(rb"\1", script)


def without_events(script: bytes) -> bytes:
    return script.partition(b"\n" + _EVENTS)[0]
