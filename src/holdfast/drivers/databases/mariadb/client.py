"""A MariaDB or MySQL server's own client programs, run on this machine or inside a container.

Facts from the documentation of the `mariadb` and `mysql` clients: in batch mode they end at the first error, which is
printed with the SQLSTATE in parentheses; `--xml` distinguishes NULL from the text NULL and escapes `<` in values;
`--binary-mode` takes everything but `delimiter` for SQL, so that no statement reaches the shell or a file of this
machine; MYSQL_PWD is the password (measured up to MySQL 9.7, whose documentation discourages it); the dump programs of
both end with a line that says so.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from holdfast.drivers.databases.mariadb.dialect import Dialect
from holdfast.drivers.databases.sql.container_exec import Container, running
from holdfast.drivers.databases.sql.session import CONNECT_SECONDS, Row, Session, SqlError, open_session
from holdfast.errors import CommandFailedError, StepError
from holdfast.model import Server
from holdfast.system.host import Host
from holdfast.system.pouring import pour

__all__ = ["Clients", "Session", "SqlError", "identifier", "literal"]

_LAST_LINE, _LAST_BYTES = b"\n-- Dump completed", 100
ERROR = re.compile(rb"ERROR (\d+) \(([0-9A-Z]{5})\)[^\n]*")
_CLIENT_ERRORS = range(2000, 3000)  # the client's own errors: the server was not reached, or is gone
_ROW = re.compile(rb"<row>(.*?)</row>", re.DOTALL)
_FIELD = re.compile(rb'<field name="[^"]*"(?: xsi:nil="true" />|>(.*?)</field>)', re.DOTALL)
_ENTITIES = {"&lt;": "<", "&gt;": ">", "&quot;": '"', "&amp;": "&"}
# The lock time-out applies to metadata locks: longer than any statement of a stopped application, shorter than a night.
SQL_MODE = "NO_AUTO_VALUE_ON_ZERO"
_OPENING = (
    f"SET SESSION sql_mode = '{SQL_MODE}', lock_wait_timeout = 30, wait_timeout = 28800,"
    " foreign_key_checks = 0, unique_checks = 0, autocommit = 1"
)


def identifier(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"


def literal(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "''") + "'"


class _Xml:
    """Syntax of the clients. The end marker is a row of its own; no value looks like it, its brackets are escaped."""

    end_marker = b'<field name="holdfast_end">1</field>\n  </row>\n</resultset>\n'

    def order(self, sql: str) -> bytes:
        text = sql.rstrip()
        if not text.endswith("DELIMITER ;"):
            text = text.rstrip(";") + "\n;"  # a comment may end the text
        return f"{text}\nSELECT 1 AS holdfast_end;\n".encode()

    def selection(self, sql: str) -> str:
        return sql

    def rows(self, answer: bytes) -> list[Row]:
        found = answer.rpartition(b"<?xml")[0]  # the end marker's own result set is left out
        return [tuple(_text(field) for field in _FIELD.finditer(row[1])) for row in _ROW.finditer(found)]

    def error(self, text: bytes) -> tuple[str, str]:
        """Return message and SQLSTATE; MariaDB's client prints the statement before them."""
        found = ERROR.search(text)
        if found is None:
            return text.decode(errors="replace").strip(), ""
        own = int(found[1]) in _CLIENT_ERRORS
        return found[0].decode(errors="replace"), "" if own else found[2].decode()


def _text(field: re.Match[bytes]) -> str | None:
    if field[1] is None:
        return None
    text = field[1].decode(errors="surrogateescape")
    return re.sub("&(?:lt|gt|quot|amp);", lambda match: _ENTITIES[match[0]], text) if "&" in text else text


class Clients:
    """The client programs of one server."""

    def __init__(self, server: Server, host: Host, dialect: Dialect) -> None:
        self.server = server
        self.host = host
        self.dialect = dialect
        self.container = Container.of(server)

    def started(self, program: str, *arguments: str) -> list[str]:
        """Return the argv of a client program on this machine or inside the container."""
        if self.container is None:
            return [program, *arguments]
        return self.container.argv([program, *arguments], ["MYSQL_PWD"] if self.server.password else [])

    def argv(self, program: str, *arguments: str) -> list[str]:
        """Return the argv with the server's address and the user.

        Option files are not read, because they could contradict it.
        """
        server = self.server
        found = ["--no-defaults", "--default-character-set=utf8mb4"]
        if server.host.startswith("/"):
            found += ["--protocol=socket", f"--socket={server.host}"]
        elif server.host:
            found += ["--protocol=tcp", f"--host={server.host}"]
            found += [f"--port={server.port}"] if server.port else []
        if server.user:
            found.append(f"--user={server.user}")
        return self.started(program, *found, *arguments)

    def environment(self) -> dict[str, str]:
        """Return the variable with the password, which reaches a client only this way and never in its argv."""
        if not self.server.password:
            return {}
        return {"MYSQL_PWD": self.host.resolve_secret(self.server.password)}

    def _batch(self, *arguments: str) -> list[str]:
        return self.argv(
            self.dialect.client,
            "--batch",
            "--binary-mode",
            "--comments",
            "--skip-local-infile",
            f"--connect-timeout={CONNECT_SECONDS}",
            *arguments,
        )

    @contextmanager
    def session(self, database: str = "", *, application: bool = True) -> Iterator[Session]:
        """Yield a session that stays. Raise SqlError at the first use if the connection failed.

        One that is not `opened` has the server's own settings, which suffices to ask for the product.
        """
        argv = self._batch("--xml", "--unbuffered", *([f"--database={database}"] if database else []))
        with (
            running(self.container, self.environment(), self.host) as run,
            open_session(self.host, _Xml(), argv, run.environment, run.end) as session,
        ):
            if application:
                session.run(_OPENING + self.dialect.opening)
            yield session

    def feed(self, database: str, sql: Iterable[bytes], opening: str = "") -> None:
        """Run a script of statements in a database. Raise CommandFailedError, CancelledError and what `sql` raises."""
        arguments = ["--max-allowed-packet=1G", f"--init-command=SET autocommit = 1{opening}", f"--database={database}"]
        with running(self.container, self.environment(), self.host) as run:
            self.host.feed(self._batch(*arguments), sql, environment=run.environment)

    def dump(
        self,
        sink: Callable[[bytes], None],
        *arguments: str,
        names: Sequence[str],
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        """Pass the dump program's output on, for a database or some of its tables and views.

        Raise CommandFailedError, CancelledError, and StepError where its last line is missing.
        """
        end = b""

        def passed(chunk: bytes) -> None:
            nonlocal end
            sink(chunk)
            end = (end + chunk[-_LAST_BYTES:])[-_LAST_BYTES:]

        argv = self.argv(
            self.dialect.dumper, "--max-allowed-packet=1G", *self.dialect.dumper_options, *arguments, "--", *names
        )
        with running(self.container, self.environment(), self.host) as run:
            pour(self.host, argv, passed, environment=run.environment, stopped=stopped)
        if _LAST_LINE not in end:
            raise StepError(f"{self.dialect.dumper} ended without an error, but its last line is missing")


def server_error(error: CommandFailedError) -> str:
    """Return the server's message in a client's output, which has the statement first."""
    found = ERROR.search(error.output_tail.encode())
    return found[0].decode() if found is not None else error.output_tail.strip() or error.what
