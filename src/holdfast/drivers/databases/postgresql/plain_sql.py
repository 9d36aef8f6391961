"""Plain SQL of pg_dump, adapted for a database of another name and role.

Owners and grants are left out, and so is everything that switches to another database. A line counts only where a
statement may begin, so that text inside values is never touched.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from holdfast.drivers.interchange.dump_source import lines_of
from holdfast.errors import DamagedError, RefusedError

_COPY = re.compile(rb"COPY .* FROM stdin;\s*$", re.IGNORECASE)
_OWNER = re.compile(rb"ALTER [^;]* OWNER TO [^;]*;\s*$", re.IGNORECASE)
_RIGHTS = re.compile(rb"(GRANT|REVOKE|ALTER DEFAULT PRIVILEGES|SET SESSION AUTHORIZATION)\b[^;]*;\s*$", re.IGNORECASE)
_DATABASE = re.compile(rb"(CREATE|ALTER|DROP) DATABASE\b|COMMENT ON (DATABASE|EXTENSION)\b", re.IGNORECASE)
_CONNECT = re.compile(rb"\\connect\s+(?:-\S+\s+)*(.+?)\s*$")
_RESTRICT = re.compile(rb"\\(un)?restrict\b")
_BEGINNING, _END = b"-- PostgreSQL database dump", b"-- PostgreSQL database dump complete"
_TOKENS = re.compile(rb"--|/\*|\*/|[eE]?'|\"|\$[A-Za-z_0-9\x80-\xff]*\$|\\")


class Quotes:
    """The state at the end of a line of SQL: inside a value, a quoted name, a body or a comment, or between tokens."""

    def __init__(self) -> None:
        self._inside = b""

    def open(self) -> bool:
        return bool(self._inside)

    def feed(self, line: bytes) -> None:
        position = 0
        while found := _TOKENS.search(line, position):
            token, position = found[0], found.end()
            if not self._inside:
                if token == b"--":
                    return
                if token == b"/*" or token == b'"' or token[-1:] in b"'$":
                    self._inside = {b"/*": b"*/"}.get(token, token)
            elif self._inside in (b"e'", b"E'") and token == b"\\":
                position += 1  # the next character is escaped
            elif token == self._inside or (self._inside[-1:] == b"'" and token[-1:] == b"'"):
                if token[:1] in b"eE" and self._inside == b"'":
                    pass  # an `e` that ends a value
                self._inside = b""


def adapted(chunks: Iterable[bytes], title: str) -> Iterator[bytes]:
    """Yield the SQL to run, line by line.

    Raise RefusedError for more than one database, DamagedError for a truncated dump.
    """
    quotes = Quotes()
    in_copy = False
    connected: bytes | None = None
    begun = ended = False
    for line in lines_of(chunks):
        if in_copy:
            in_copy = line.rstrip(b"\r\n") != b"\\."
            yield line
            continue
        if quotes.open():
            quotes.feed(line)
            yield line
            continue
        text = line.rstrip()
        begun = begun or text == _BEGINNING
        ended = ended or text == _END
        connect = _CONNECT.match(text)
        if connect is not None:
            if connected not in (None, connect[1]):
                raise RefusedError(
                    f"{title} holds several databases: {connected!r} and {connect[1]!r}",
                    next_step="Make a dump of each database, and import them one at a time.",
                )
            connected = connect[1]
            continue
        if _RESTRICT.match(text) or _OWNER.match(text) or _RIGHTS.match(text):
            continue
        if _DATABASE.match(text) and text.endswith(b";"):
            continue
        in_copy = _COPY.match(text) is not None
        quotes.feed(line)
        yield line
    if begun and not ended:
        raise DamagedError(f"{title} was cut short: the line that ends a dump of pg_dump is missing")
    if in_copy:
        raise DamagedError(f"{title} was cut short within the rows of a table")
