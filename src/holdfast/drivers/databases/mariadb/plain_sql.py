"""Plain SQL of mariadb-dump, mysqldump and others, adapted for a database of another name and account.

Statements that switch to another database, need an administrator's rights or name a definer are left out where they are
on a line of their own, and refused where they are not. This keeps a dump from writing elsewhere by accident; one made
to do so has every right of the account that runs it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from holdfast.drivers.databases.mariadb.dump_output import outside_quotes
from holdfast.drivers.databases.mariadb.stored_objects import without_definers
from holdfast.drivers.interchange.dump_source import lines_of
from holdfast.errors import DamagedError, RefusedError

_KNOWN = re.compile(rb"-- (MariaDB|MySQL) dump \d")
_ENDS = (b"-- Dump completed", b"-- Holdfast: end")  # the second ends a dump in a backup
_SERVER = re.compile(rb"^-- Server version\t([\w.]+)(\S*)", re.MULTILINE)
_HEADING_BYTES = 4096
_SANDBOX = re.compile(rb"/\*M?!999999\\- ")  # a line that older clients do not know
_DELIMITER = re.compile(rb"\s*DELIMITER\s+(\S+)", re.IGNORECASE)
_USE = re.compile(rb"\s*(?:/\*M?!\d*\s*)?USE\s+`?((?:[^`;\s]|``)+?)`?\s*(?:\*/)?\s*;\s*$", re.IGNORECASE)
_ELSEWHERE = re.compile(rb"(USE|(CREATE(\s+OR\s+REPLACE)?|ALTER|DROP)\s+(DATABASE|SCHEMA))\b", re.IGNORECASE)
_NAME = rb"(?:`(?:[^`]|``)+`|[\w$]+)"
_QUALIFIED = re.compile(
    rb"(?:CREATE\s+(?:OR\s+REPLACE\s+)?(?:TEMPORARY\s+)?TABLE(?:\s+IF\s+NOT\s+EXISTS)?"
    rb"|DROP\s+(?:TABLE|VIEW)(?:\s+IF\s+EXISTS)?"
    rb"|ALTER\s+TABLE|(?:INSERT|REPLACE)(?:\s+IGNORE)?\s+INTO|TRUNCATE(?:\s+TABLE)?|UPDATE|DELETE\s+FROM|RENAME\s+TABLE"
    rb"|LOCK\s+TABLES)\s+(" + _NAME + rb")\s*\.\s*[`\w]",
    re.IGNORECASE,
)
_ROWS = re.compile(rb"INSERT INTO `(?:[^`]|``)+` (?:\(`[^()']+`\) )?VALUES \(")
_ADMINISTRATOR = re.compile(
    rb"SET (@MYSQLDUMP_TEMP_LOG_BIN\b|@@SESSION\.SQL_LOG_BIN\b|@@GLOBAL\.)|CHANGE (MASTER|REPLICATION SOURCE) TO\b"
)
_TOKENS = re.compile(rb"--(?=[\x00-\x20]|$)|#|/\*M?!\d*|/\*|\*/|['\"`]|\\")


class Origin:
    """The server of a dump, as the dump programs write it at the beginning."""

    def __init__(self) -> None:
        self._heading = b""

    def noted(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """Yield the same chunks, and remember the first ones."""
        for chunk in chunks:
            if len(self._heading) < _HEADING_BYTES:
                self._heading += chunk[:_HEADING_BYTES]
            yield chunk

    def server(self) -> str:
        """Return product and version; empty where the dump does not name them."""
        found = _SERVER.search(self._heading)
        if found is None:
            return ""
        product = "MariaDB" if b"MariaDB" in found[2] else "MySQL"
        return f"{product} {found[1].decode()}"


class Quotes:
    """The state at the end of a line of SQL: inside a value, a quoted name or a comment, or between tokens."""

    def __init__(self) -> None:
        self._inside = b""

    def open(self) -> bool:
        return bool(self._inside)

    def feed(self, line: bytes) -> bytes:
        """Return the line without values and comments; text that a versioned comment executes stays."""
        outside = []
        position = start = 0
        while found := _TOKENS.search(line, position):
            token, position = found[0], found.end()
            if self._inside:
                if token == b"\\" and self._inside in (b"'", b'"'):
                    position += 1  # the next character is escaped
                elif token == self._inside:
                    start = start if token == b"`" else position
                    self._inside = b""
                continue
            if token in (b"--", b"#"):
                outside.append(line[start : found.start()])
                return b"".join(outside)
            if token == b"`":
                self._inside = token
            elif token != b"\\":
                outside.append(line[start : found.start()] + (b"''" if token in (b"'", b'"') else b" "))
                start = position
                if token in (b"'", b'"', b"/*"):
                    self._inside = {b"/*": b"*/"}.get(token, token)
        if self._inside in (b"", b"`"):
            outside.append(line[start:])
        return b"".join(outside)


class _Statements:
    """The beginnings of statements, line by line; `feed` raises RefusedError for one of another database."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._quotes = Quotes()
        self._delimiter = b";"
        self._between = True

    def feed(self, line: bytes) -> None:
        changed = _DELIMITER.match(line) if self._between and not self._quotes.open() else None
        if changed is not None:
            self._delimiter = changed[1]
            return
        for number, text in enumerate(self._quotes.feed(line).split(self._delimiter)):
            self._between = self._between if number == 0 else True
            if self._between and text.strip():
                self._judge(text.strip())
                self._between = False

    def rows_end(self) -> None:
        """Note that a line of rows which was not fed has ended its statement."""
        self._between = True

    def between(self) -> bool:
        """Return whether the next line begins a statement."""
        return self._between and not self._quotes.open()

    def _judge(self, statement: bytes) -> None:
        qualified = _QUALIFIED.match(statement)
        if qualified is None and not _ELSEWHERE.match(statement):
            return
        shown = statement[:60].decode(errors="replace")
        raise RefusedError(
            f"{self._title} has a statement for another database: {shown}",
            next_step="Make a dump that names no database, or remove those names from it.",
        )


def adapted(chunks: Iterable[bytes], title: str) -> Iterator[bytes]:
    """Yield the SQL to run, line by line.

    Raise RefusedError for more than one database, DamagedError for a truncated dump.
    """
    statements = _Statements(title)
    used: bytes | None = None
    known = ended = skipping = False
    for line in lines_of(chunks):
        if skipping:  # until the end of a statement that is left out
            skipping = not line.rstrip().endswith(b";")
            continue
        # The dump programs write no newline inside a value, and begin a line with each row or with each statement.
        if known and b";" not in line[:-2]:
            if line.startswith(b"("):
                if line.endswith(b";\n"):
                    statements.rows_end()
                yield line
                continue
            if statements.between() and _is_whole_insert(line):
                ended = False
                yield line
                continue
        if statements.between():
            known = known or _KNOWN.match(line) is not None
            ended = line.startswith(_ENDS) or (ended and not line.strip())
            use = _USE.match(line)
            if use is not None:
                if used not in (None, use[1]):
                    raise RefusedError(
                        f"{title} holds several databases: {used!r} and {use[1]!r}",
                        next_step="Make a dump of each database, and import them one at a time.",
                    )
                used = use[1]
                continue
            if _SANDBOX.match(line):
                continue
            whole = line.rstrip().endswith(b";")
            if _ADMINISTRATOR.match(line):
                skipping = not whole
                continue
            if whole and _is_one_elsewhere(line):
                continue
        statements.feed(line)
        yield without_definers(line)
    if known and not ended:
        raise DamagedError(f"{title} was cut short: the line that ends a dump is missing")


def _is_whole_insert(line: bytes) -> bool:
    """Return whether a line without an inner `;` is one INSERT, with no quote or comment open at its end."""
    if _ROWS.match(line) is None:
        return False
    outside = outside_quotes(line)
    return outside.endswith(b");\n") and not any(mark in outside for mark in (b'"', b"/*", b"#", b"--"))


def _is_one_elsewhere(line: bytes) -> bool:
    """Return whether a line is one statement that creates, changes or drops a database."""
    text = Quotes().feed(line).strip()
    return _ELSEWHERE.match(text) is not None and text.count(b";") == 1
