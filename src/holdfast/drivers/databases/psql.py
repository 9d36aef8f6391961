"""Talking to a PostgreSQL server through its own client programs, on this machine or inside a container.

Facts from the documentation of psql and libpq: with ON_ERROR_STOP psql ends with 3 at the first error; VERBOSITY
`verbose` prints the SQLSTATE before the text, whatever the language; COPY (query) TO STDOUT prints a row a line,
tab-separated, NULL as \\N, with backslash escapes; PGAPPNAME, PGOPTIONS and PGPASSWORD reach every client of libpq.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from holdfast.errors import CancelledError, StepError
from holdfast.host import Host
from holdfast.model import Server

CONNECT_SECONDS = 10
_NEVER_SECONDS = 1e9
_MARK = b"\\.holdfast"
_STATE = re.compile(rb":\s+([0-9A-Z]{5}):\s")
_ESCAPES = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "\\": "\\"}


class SqlError(StepError):
    """The server's own error. `sql_state` of the standard, five characters, is empty where none was reached.

    Outside of an operation it is a refusal: nothing was begun.
    """

    exit_code = 4

    def __init__(self, what: str, sql_state: str = "", *, state: str = "", next_step: str = "") -> None:
        super().__init__(what, state=state, next_step=next_step)
        self.sql_state = sql_state


def identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def application_name(operation: str) -> str:
    """What marks the sessions of an operation inside the server."""
    return f"holdfast:{operation}"


class Clients:
    """The client programs of one server."""

    def __init__(self, server: Server, host: Host) -> None:
        self.server = server
        self.host = host

    def argv(self, program: str, *words: str) -> list[str]:
        return [*self.server.wrapper, program, *words]

    def environment(self) -> dict[str, str]:
        """Where the server is and who asks; the password reaches a client only so, never as a word of its command."""
        server = self.server
        found = {
            "PGCONNECT_TIMEOUT": str(CONNECT_SECONDS), "PGCLIENTENCODING": "UTF8",
            "PGAPPNAME": application_name(self.host.operation) if self.host.operation else "holdfast",
            # What an outcome rests on must not be lost with the server's memory, whatever its own setting.
            "PGOPTIONS": "-c synchronous_commit=on -c client_min_messages=warning -c lock_timeout=0"
            " -c statement_timeout=0 -c idle_in_transaction_session_timeout=0",
        }  # fmt: skip
        for name, value in (("PGHOST", server.host), ("PGUSER", server.user)):
            if value:
                found[name] = value
        if server.port:
            found["PGPORT"] = str(server.port)
        if server.password:
            found["PGPASSWORD"] = self.host.resolve_secret(server.password)
        return found

    def run(self, program: str, *words: str) -> str:
        """Runs a client to its end; the end of what it printed. Raises CommandFailedError, CancelledError."""
        return self.host.run(self.argv(program, *words), environment=self.environment()).output_tail

    @contextmanager
    def session(self, database: str) -> Iterator[Session]:
        """A connection that stays. Raises SqlError when it is first used and cannot be made."""
        with tempfile.TemporaryFile() as errors:
            argv = self.argv(
                "psql", "-X", "-q", "-A", "-t", "-w", "-v", "ON_ERROR_STOP=1", "-v", "VERBOSITY=verbose", "-v",
                "SHOW_CONTEXT=never", "-d", database,
            )  # fmt: skip
            process = self.host.start_pipes(argv, environment=self.environment(), errors=errors)
            assert process.stdin is not None and process.stdout is not None
            session = Session(self.host, process.stdin.fileno(), process.stdout.fileno(), errors.fileno(), process.pid)
            try:
                yield session
            finally:
                with contextlib.suppress(BrokenPipeError):
                    process.stdin.close()
                try:
                    process.wait(CONNECT_SECONDS)  # it ends at the end of its input, and the server's session with it
                finally:
                    process.kill()
                    process.wait()
                    process.stdout.close()


class Session:
    """One connection. Not shared between threads."""

    def __init__(self, host: Host, orders: int, answers: int, errors: int, pid: int) -> None:
        self._host = host
        self._orders = orders
        self._answers = answers
        self._errors = errors
        self._pid = pid
        self._rest = b""
        self._sent: list[str] = []

    def run(self, sql: str, timeout_seconds: float = _NEVER_SECONDS) -> None:
        """A statement, or several. Raises SqlError, CancelledError."""
        self.send(sql)
        self.receive(timeout_seconds)

    def rows(self, sql: str, timeout_seconds: float = _NEVER_SECONDS) -> list[tuple[str | None, ...]]:
        """The rows of a SELECT, every value as text. Raises SqlError, CancelledError."""
        self.send(f"COPY (\n{sql.rstrip().rstrip(';')}\n) TO STDOUT")
        return self.receive(timeout_seconds)

    def value(self, sql: str) -> str | None:
        """The first value of the first row; None if there is no row."""
        found = self.rows(sql)
        return found[0][0] if found else None

    def send(self, sql: str) -> None:
        """Gives a statement whose answer is received later; several may be under way."""
        self._sent.append(sql)
        data = f"{sql.rstrip().rstrip(';')};\n\\echo '\\{_MARK.decode()}'\n".encode()
        try:
            while data:
                data = data[os.write(self._orders, data) :]
        except BrokenPipeError:
            pass  # what was wrong is told where the answer is received

    def receive(self, timeout_seconds: float = _NEVER_SECONDS) -> list[tuple[str | None, ...]]:
        """The rows of the oldest statement sent."""
        sql = self._sent.pop(0)
        mark = b"\n" + _MARK + b"\n"
        data = b"\n" + self._rest
        deadline = time.monotonic() + timeout_seconds
        while mark not in data:
            if self._host.cancelled():
                os.kill(self._pid, signal.SIGINT)  # psql asks the server to stop the statement
                raise CancelledError("stopped a statement on request")
            if time.monotonic() > deadline:
                os.kill(self._pid, signal.SIGINT)
                raise SqlError(f"the database server did not answer within {timeout_seconds:g} s: {_short(sql)}")
            if not select.select([self._answers], [], [], 0.1)[0]:
                continue
            chunk = os.read(self._answers, 1 << 16)
            if not chunk:
                raise self._error(sql)
            data += chunk
        answer, _, self._rest = data.partition(mark)
        return [_values(line) for line in answer[1:].decode().split("\n")] if answer else []

    def _error(self, sql: str) -> SqlError:
        """What the client said before it ended."""
        text = os.pread(self._errors, 1 << 16, 0)
        found = _STATE.search(text)
        lines = [line for line in self._host.redactor.text(text.decode(errors="replace")).splitlines() if line.strip()]
        what = lines[0] if lines else "the client ended without a word"
        if found is None:
            return SqlError(
                what, next_step="See that the server runs and that [databases] says how to reach it: holdfast check"
            )
        return SqlError(f"{what} ({_short(sql)})", found[1].decode())


def _short(sql: str) -> str:
    text = " ".join(sql.split())
    return text if len(text) <= 80 else f"{text[:77]}..."


def _values(line: str) -> tuple[str | None, ...]:
    return tuple(None if value == "\\N" else _unescape(value) for value in line.split("\t"))


def _unescape(value: str) -> str:
    if "\\" not in value:
        return value
    return re.sub(r"\\(.)", lambda match: _ESCAPES.get(match[1], match[1]), value)


def table_name(schema: str, name: str) -> str:
    """As people write it: the schema only where it is not `public`."""
    return name if schema == "public" else f"{schema}.{name}"


def quoted(names: Sequence[tuple[str, str]]) -> str:
    return ", ".join(f"{identifier(schema)}.{identifier(name)}" for schema, name in names)
