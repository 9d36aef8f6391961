"""Dumps of MariaDB's and MySQL's dump programs, changed so that they load the same under any database name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from holdfast.drivers.databases.mariadb.client import identifier

# Every dump sets this mode first. An application whose own mode allows invalid dates may have stored some; without
# ALLOW_INVALID_DATES they would be loaded as zero, without an error.
MODE = b"SQL_MODE='NO_AUTO_VALUE_ON_ZERO' */"
WIDER_MODE = b"SQL_MODE='NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES' */"
# MySQL decides by the mode at creation which columns of a view may be NULL, and keeps no record of that mode.
STRICT_MODE = b"SQL_MODE='NO_AUTO_VALUE_ON_ZERO,STRICT_TRANS_TABLES' */"
SANDBOX = re.compile(rb"\A/\*M?!999999\\- [^\n]*\n")  # a line that older clients do not know


def with_all_dates(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield a dump that accepts every date. Quotes in values are escaped, so no value looks like the statement."""
    rest = b""
    for chunk in chunks:
        data = (rest + chunk).replace(MODE, WIDER_MODE)
        keep = max(0, len(data) - len(MODE) + 1)
        rest = data[keep:]
        yield data[:keep]
    yield rest


def of_own_sequences(line: bytes, database: str) -> bytes:
    """Return a line of a dump in which a column's default names its sequence without the database.

    Only the definition of a column begins with two spaces and a quoted name, in which quotes are doubled.
    """
    if not line.startswith(b"  `"):
        return line
    call = re.compile(rb"(?<=val\()" + re.escape(identifier(database).encode()) + rb"\.")
    return b"'".join(piece if number % 2 else call.sub(b"", piece) for number, piece in enumerate(line.split(b"'")))


_TOKEN = re.compile(rb"'(?:[^'\\]|\\.|'')*'|`(?:[^`]|``)+`", re.DOTALL)
_VIEW = re.compile(rb"^/\*!50001 VIEW `.*$", re.MULTILINE)


def of_own_tables(script: bytes, database: str) -> bytes:
    """Return definitions of views that name tables of their own database without its name.

    So they can be created in another database. MariaDB's dump program qualifies a view's tables where one of them is
    another database's, and its columns where the definer is gone. Views are written on one line, in the server's own
    words: every name is quoted.
    """
    return _VIEW.sub(lambda found: _of_own_tables(found[0], identifier(database).encode()), script)


def _of_own_tables(view: bytes, quoted: bytes) -> bytes:
    places = [found.span() for found in _TOKEN.finditer(view) if found[0] == quoted]
    # Where a table or an alias has the database's name, `name.x` is a column of it; then only `name.x.y` is certain.
    is_table = any(view[end : end + 1] not in (b".", b"@") for _, end in places)
    pieces, position = [], 0
    for start, end in places:
        following = _TOKEN.match(view, end + 1)
        is_first = view[start - 1 : start] != b"." and view[end : end + 1] == b"." and following is not None
        if is_first and following is not None and (not is_table or view[following.end() :].startswith(b".")):
            pieces.append(view[position:start])
            position = end + 1
    return b"".join((*pieces, view[position:]))
