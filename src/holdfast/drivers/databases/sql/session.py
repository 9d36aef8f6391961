"""A session with a database server through a client program that stays. A marker ends each answer."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Protocol

from holdfast.errors import CancelledError, StepError
from holdfast.model import Server
from holdfast.system import fault_points
from holdfast.system.host import Host

CONNECT_SECONDS = 10
NEVER_SECONDS = 1e9
_RETURN_SECONDS = 60.0
_GATHERING_SECONDS = 0.0003
_NOT_AUTHORIZED = "28"  # the class of SQLSTATEs for a user or password that the server does not accept

Row = tuple[str | None, ...]


class SqlError(StepError):
    """The server's own error. `sql_state` is the standard's SQLSTATE of five characters, or empty if there is none.

    Outside of an operation it is a refusal: nothing was begun.
    """

    exit_code = 4

    def __init__(self, what: str, sql_state: str = "", *, state: str = "", next_step: str = "") -> None:
        super().__init__(what, state=state, next_step=next_step)
        self.sql_state = sql_state


class Client(Protocol):
    """The syntax in which one client program is given statements and prints answers."""

    end_marker: bytes
    """Ends every answer, at a position where no value of a row can contain it."""

    def order(self, sql: str) -> bytes:
        """Return the input for one or several statements: they and a command that prints the end marker."""

    def selection(self, sql: str) -> str:
        """Return the statement that prints the rows of a SELECT."""

    def rows(self, answer: bytes) -> list[Row]:
        """Return the rows of an answer without its end marker."""

    def error(self, text: bytes) -> tuple[str, str]:
        """Return message and SQLSTATE of the client's error output; the SQLSTATE is empty where it names none."""


class Session:
    """One connection. Not shared between threads."""

    def __init__(
        self, host: Host, client: Client, orders: int, answers: int, errors: int, interrupt: Callable[[], None]
    ) -> None:
        """Take `interrupt`, which makes the client ask the server to cancel the statement."""
        self._host = host
        self._client = client
        self._orders = orders
        self._answers = answers
        self._errors = errors
        self._interrupt = interrupt
        self._rest = b""
        self._sent: list[str] = []

    def run(self, sql: str, timeout_seconds: float = NEVER_SECONDS) -> None:
        """Run one or several statements. Raise SqlError, CancelledError."""
        self.send(sql)
        self.receive(timeout_seconds)

    def rows(self, sql: str, timeout_seconds: float = NEVER_SECONDS) -> list[Row]:
        """Return the rows of a SELECT, every value as text. Raise SqlError, CancelledError."""
        self.send(self._client.selection(sql))
        return self.receive(timeout_seconds)

    def value(self, sql: str) -> str | None:
        """Return the first value of the first row; None if there is no row."""
        found = self.rows(sql)
        return found[0][0] if found else None

    def send(self, sql: str) -> None:
        """Send a statement whose answer is received later; several may be under way."""
        if _changes(sql):
            fault_points.reach(f"before SQL {sql[:40]}")
        self._sent.append(sql)
        data = self._client.order(sql)
        try:
            while data:
                data = data[os.write(self._orders, data) :]
        except BrokenPipeError:
            pass  # the cause is reported when the answer is received
        if _changes(sql):
            fault_points.reach(f"during SQL {sql[:40]}")

    def receive(self, timeout_seconds: float = NEVER_SECONDS) -> list[Row]:
        """Return the rows of the oldest statement sent."""
        sql = self._sent.pop(0)
        parts = [self._rest]
        seen = self._rest
        deadline = time.monotonic() + timeout_seconds
        while self._client.end_marker not in seen:
            chunk = self._more(sql, deadline, timeout_seconds)
            parts.append(chunk)
            seen = seen[-len(self._client.end_marker) :] + chunk
        answer, _, self._rest = b"".join(parts).partition(self._client.end_marker)
        rows = self._client.rows(answer)
        if _changes(sql):
            fault_points.reach(f"after SQL {sql[:40]}")
        return rows

    def pour(self, sql: str, sink: Callable[[bytes], None]) -> None:
        """Pass on the lines that the client prints for a SELECT, in pieces of bounded size.

        The answer of such a client begins with an empty line, which is left out. Raise SqlError, CancelledError, and
        what `sink` raises; the session is of no use then.
        """
        self.send(self._client.selection(sql))
        sql = self._sent.pop(0)
        marker = self._client.end_marker
        held, begun = self._rest, False
        while (position := held.find(marker)) < 0:
            ready = len(held) - len(marker)
            if ready > 0:
                sink(held[0 if begun else 1 : ready])
                held, begun = held[ready:], True
            held += self._more(sql, NEVER_SECONDS, NEVER_SECONDS, _GATHERING_SECONDS)
        last, self._rest = held[0 if begun else 1 : position], held[position + len(marker) :]
        if begun or last:
            sink(last + b"\n")

    def _more(self, sql: str, deadline: float, timeout_seconds: float, gathering_seconds: float = 0) -> bytes:
        """Return what the client prints next. Raise SqlError at its end or after the deadline, CancelledError.

        A client writes pieces of 8 kB; in `gathering_seconds` some of them become one, which is less work.
        """
        while True:
            if self._host.cancelled():
                self._interrupt()
                raise CancelledError("stopped a statement on request")
            if time.monotonic() > deadline:
                self._interrupt()
                raise SqlError(f"the database server did not answer within {timeout_seconds:g} s: {_short(sql)}")
            if not select.select([self._answers], [], [], 0.1)[0]:
                continue
            if gathering_seconds:
                time.sleep(gathering_seconds)
            chunk = os.read(self._answers, 1 << 20)
            if not chunk:
                raise self._error(sql)
            return chunk

    def _error(self, sql: str) -> SqlError:
        """Return an error with what the client printed before it ended."""
        text = os.pread(self._errors, 1 << 16, 0)
        message, sql_state = self._client.error(text)
        what = self._host.redactor.text(message) or "the client ended without an error message"
        if not sql_state:
            return SqlError(
                what,
                next_step="Check that the server runs and that [databases] says how to reach it: holdfast check",
            )
        return SqlError(f"{what} ({_short(sql)})", sql_state)


def local_folder(server: Server, path: str | None) -> str | None:
    """Return a folder of the server's; None where the server is not on this machine or its disk cannot be read."""
    if not path or server.container or (server.host and not server.host.startswith("/")):
        return None
    try:
        os.statvfs(path)
    except OSError:
        return None
    return path


def retry_until_available(action: Callable[[], None], name: str) -> None:
    """Do something in a server that may be restarting, because the state there must be known.

    Raise StepError when the server is not available in time.
    """
    deadline = time.monotonic() + _RETURN_SECONDS
    while True:
        try:
            return action()
        except SqlError as error:
            refused = error.sql_state.startswith(_NOT_AUTHORIZED)
            if refused or time.monotonic() > deadline:
                final = StepError(f"database {name}: {error.what}", next_step=error.next_step)
                final.may_pass = not refused
                raise final from error
            time.sleep(0.5)


def _short(sql: str) -> str:
    text = " ".join(sql.split())
    return text if len(text) <= 80 else f"{text[:77]}..."


@contextmanager
def open_session(
    host: Host,
    client: Client,
    argv: Sequence[str],
    environment: Mapping[str, str],
    end: Callable[[], None] | None = None,
) -> Iterator[Session]:
    """Yield a session that stays. A connection failure is raised as SqlError at the first use.

    `end` ends a client that Holdfast's signals do not reach.
    """
    with tempfile.TemporaryFile() as errors:
        process = host.start_pipes(argv, environment=environment, errors=errors)
        assert process.stdin is not None and process.stdout is not None
        interrupt = end or partial(os.kill, process.pid, signal.SIGINT)
        session = Session(host, client, process.stdin.fileno(), process.stdout.fileno(), errors.fileno(), interrupt)
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


def _changes(sql: str) -> bool:
    """Return whether a statement changes something, so that an end before, during or after it is worth a test."""
    return not sql.startswith(("SELECT", "COPY", "SET", "BEGIN ISOLATION", "BEGIN READ ONLY", "ROLLBACK"))
