"""The output of a dump program as it passes: rows are counted, and a dump of several databases is split.

Both dump programs escape newlines inside values. MariaDB's begins a line with every row, MySQL's one with every
statement (measured on 9.7), of at most a megabyte or one row.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping

# A table with hidden columns is dumped with a list of columns, and then its first row is on the same line.
_BEGINNING = re.compile(
    rb"\n(?:INSERT INTO `((?:[^`]|``)+)` (?:\((?:(?:`(?:[^`]|``)+`|\w+)(?:, )?)+\) )?VALUES( \()?"
    rb"|CREATE TABLE `((?:[^`]|``)+)` )"
)
_USE = re.compile(rb"^USE `((?:[^`]|``)+)`;\n", re.MULTILINE)
_STATEMENT_END = b");\n"


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
