"""A PostgreSQL server's own client programs, run on this machine or inside a container.

Facts from the documentation of psql and libpq: with ON_ERROR_STOP psql exits with code 3 at the first error; VERBOSITY
`verbose` prints the SQLSTATE before the text, in any language; COPY (query) TO STDOUT prints a row per line,
tab-separated, NULL as \\N, with backslash escapes; PGAPPNAME, PGOPTIONS and PGPASSWORD reach every client of libpq.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import IO

from holdfast.drivers.databases.sql.container_exec import Container, running
from holdfast.drivers.databases.sql.kept_sessions import KeptSessions
from holdfast.drivers.databases.sql.session import CONNECT_SECONDS, Row, Session, SqlError, open_session
from holdfast.model import Server
from holdfast.system.host import Host

__all__ = ["Clients", "Session", "SqlError", "application_name", "identifier", "literal", "quoted", "table_name"]

_END_MARKER = b"\\.holdfast"
_STATE = re.compile(rb":\s+([0-9A-Z]{5}):\s")
_ESCAPES = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "\\": "\\"}


def identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def application_name(operation: str) -> str:
    """Return the name that marks the sessions of an operation inside the server."""
    return f"holdfast:{operation}"


class _Psql:
    """Syntax of psql. The end marker is a line of its own, which no row can be: there a backslash would be doubled."""

    end_marker = b"\n" + _END_MARKER + b"\n"

    def order(self, sql: str) -> bytes:
        # The empty line before it makes even an answer without rows end with the marker.
        return f"\\echo ''\n{sql.rstrip().rstrip(';')};\n\\echo '\\{_END_MARKER.decode()}'\n".encode()

    def selection(self, sql: str) -> str:
        return f"COPY (\n{sql.rstrip().rstrip(';')}\n) TO STDOUT"

    def rows(self, answer: bytes) -> list[Row]:
        return [_values(line) for line in answer.decode()[1:].split("\n")] if answer else []

    def error(self, text: bytes) -> tuple[str, str]:
        found = _STATE.search(text)
        lines = [line for line in text.decode(errors="replace").splitlines() if line.strip()]
        return lines[0] if lines else "", found[1].decode() if found is not None else ""


class Clients:
    """The client programs of one server."""

    def __init__(self, server: Server, host: Host) -> None:
        self.server = server
        self.host = host
        self.container = Container.of(server)
        self.kept = KeptSessions(host, self.session)

    def argv(self, program: str, *arguments: str, user: str = "") -> list[str]:
        """Return the argv of a client; `user` is another account of the container than its own."""
        if self.container is None:
            return [program, *arguments]
        password = ["PGPASSWORD"] if self.server.password else []
        return self.container.argv([program, *arguments], [*self._settings(), *password], user=user)

    def environment(self, **settings: str) -> dict[str, str]:
        """Return the variables that say where the server is and who connects.

        The password reaches a client only by its environment, never in its argv. `settings` apply to the sessions that
        the client opens.
        """
        found = self._settings()
        for key, value in settings.items():
            found["PGOPTIONS"] += f" -c {key}=" + re.sub(r"([\\\s])", r"\\\1", value)
        if self.server.password:
            found["PGPASSWORD"] = self.host.resolve_secret(self.server.password)
        return found

    def _settings(self) -> dict[str, str]:
        server = self.server
        found = {
            "PGCONNECT_TIMEOUT": str(CONNECT_SECONDS),
            "PGCLIENTENCODING": "UTF8",
            "PGAPPNAME": application_name(self.host.operation) if self.host.operation else "holdfast",
            # The journal relies on outcomes, so they must survive a crash of the server, whatever its own setting.
            "PGOPTIONS": "-c synchronous_commit=on -c client_min_messages=warning -c lock_timeout=0"
            " -c statement_timeout=0 -c idle_in_transaction_session_timeout=0",
        }
        for name, value in (("PGHOST", server.host), ("PGUSER", server.user)):
            if value:
                found[name] = value
        if server.port:
            found["PGPORT"] = str(server.port)
        return found

    def run(
        self,
        program: str,
        *arguments: str,
        stdin: IO[bytes] | None = None,
        output: IO[bytes] | None = None,
        environment: Mapping[str, str] | None = None,
        user: str = "",
    ) -> str:
        """Run a client to its end; return the end of its output. Raise CommandFailedError, CancelledError."""
        argv = self.argv(program, *arguments, user=user)
        with running(self.container, environment or self.environment(), self.host) as run:
            return self.host.run(argv, environment=run.environment, stdin=stdin, output=output).output_tail

    def feed(self, program: str, *arguments: str, chunks: Iterable[bytes], environment: Mapping[str, str]) -> None:
        """Run a client with a stream as its input. Raise what `run` and `chunks` raise."""
        with running(self.container, environment, self.host) as run:
            self.host.feed(self.argv(program, *arguments), chunks, environment=run.environment)

    @contextmanager
    def session(self, database: str, **settings: str) -> Iterator[Session]:
        """Yield a session that stays, with settings. Raise SqlError at the first use if the connection failed."""
        argv = self.argv(
            "psql",
            "-X",
            "-q",
            "-A",
            "-t",
            "-w",
            "-v",
            "ON_ERROR_STOP=1",
            "-v",
            "VERBOSITY=verbose",
            "-v",
            "SHOW_CONTEXT=never",
            "-d",
            database,
        )
        with (
            running(self.container, self.environment(**settings), self.host) as run,
            open_session(self.host, _Psql(), argv, run.environment, run.end) as session,
        ):
            yield session


def _values(line: str) -> tuple[str | None, ...]:
    return tuple(None if value == "\\N" else _unescape(value) for value in line.split("\t"))


def _unescape(value: str) -> str:
    if "\\" not in value:
        return value
    return re.sub(r"\\(.)", lambda match: _ESCAPES.get(match[1], match[1]), value)


def table_name(schema: str, name: str) -> str:
    """Return the name as people write it: with the schema only where it is not `public`."""
    return name if schema == "public" else f"{schema}.{name}"


def quoted(names: Sequence[tuple[str, str]]) -> str:
    return ", ".join(f"{identifier(schema)}.{identifier(name)}" for schema, name in names)
