"""Plain SQL of mariadb-dump, mysqldump and others on its way into a database of another name and account.

What leads into another database, needs rights of an administrator or names a definer is left out; a line counts only
where a statement may begin, so that text inside values is never touched.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from holdfast.drivers.databases.mariadb_dump import without_definers
from holdfast.drivers.foreign import lines_of
from holdfast.errors import DamagedError, RefusedError

_KNOWN = re.compile(rb"-- (MariaDB|MySQL) dump \d")
_END = b"-- Dump completed"
_SANDBOX = re.compile(rb"/\*M?!999999\\- ")  # a line that older clients do not know
_USE = re.compile(rb"USE\s+`?((?:[^`;]|``)+?)`?\s*;\s*$", re.IGNORECASE)
_DATABASE = re.compile(rb"(?:/\*!\d+ )?(CREATE|ALTER|DROP) (DATABASE|SCHEMA)\b", re.IGNORECASE)
_ADMINISTRATOR = re.compile(
    rb"SET (@MYSQLDUMP_TEMP_LOG_BIN\b|@@SESSION\.SQL_LOG_BIN\b|@@GLOBAL\.)|CHANGE (MASTER|REPLICATION SOURCE) TO\b"
)
_TOKENS = re.compile(rb"-- |#|/\*|\*/|['\"`]|\\")


class Quotes:
    """Where a line of SQL ends: inside a value, a quoted name or a comment, or between tokens."""

    def __init__(self) -> None:
        self._inside = b""

    def open(self) -> bool:
        return bool(self._inside)

    def feed(self, line: bytes) -> None:
        position = 0
        while found := _TOKENS.search(line, position):
            token, position = found[0], found.end()
            if not self._inside:
                if token in (b"-- ", b"#"):
                    return
                if token != b"*/" and token != b"\\":
                    self._inside = {b"/*": b"*/"}.get(token, token)
            elif token == b"\\" and self._inside in (b"'", b'"'):
                position += 1  # the next character is escaped
            elif token == self._inside:
                self._inside = b""


def adapted(chunks: Iterable[bytes], title: str) -> Iterator[bytes]:
    """The SQL to run, line by line. Raises RefusedError for more than one database, DamagedError for a cut dump."""
    quotes = Quotes()
    used: bytes | None = None
    known = ended = False
    for line in lines_of(chunks):
        if line.startswith((b"(", b"INSERT INTO ")) and known:  # the dump programs write no newline inside a value
            yield line
            continue
        if not known and quotes.open():
            quotes.feed(line)
            yield line
            continue
        known = known or _KNOWN.match(line) is not None
        ended = line.startswith(_END) or (ended and not line.strip())
        use = _USE.match(line)
        if use is not None:
            if used not in (None, use[1]):
                raise RefusedError(
                    f"{title} holds several databases: {used!r} and {use[1]!r}",
                    next_step="Import one at a time: make a dump of each.",
                )
            used = use[1]
            continue
        if _SANDBOX.match(line) or _ADMINISTRATOR.match(line):
            continue
        if _DATABASE.match(line) and line.rstrip().endswith(b";"):
            continue
        if not known:
            quotes.feed(line)
        yield without_definers(line)
    if known and not ended:
        raise DamagedError(f"{title} was cut short: the line that ends a dump is missing")
