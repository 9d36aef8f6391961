"""Sessions that stay open between two uses within one operation, because each start of a client takes its time.

A client inside a container takes a tenth of a second to start, and a window has eight of them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass

from holdfast.drivers.databases.sql.session import Session, SqlError
from holdfast.system.host import Host


@dataclass
class _Open:
    session: Session
    operation: str
    stack: ExitStack


class KeptSessions:
    """Idle sessions of one server by their database. A session is used by one at a time, outside of a transaction."""

    def __init__(self, host: Host, open_session: Callable[[str], AbstractContextManager[Session]]) -> None:
        self._host = host
        self._open_session = open_session
        self._idle: dict[str, _Open] = {}
        self._lock = threading.Lock()

    @contextmanager
    def session(self, database: str) -> Iterator[Session]:
        """Yield a session, an idle one where there is one that still answers.

        It is kept for the next use unless the body fails; outside of an operation it is closed.
        """
        used = self._reused(database) or self._opened(database)
        try:
            yield used.session
        except BaseException:
            used.stack.close()
            raise
        with self._lock:
            keep = bool(used.operation) and used.operation == self._host.operation and database not in self._idle
            if keep:
                if not self._idle:
                    self._host.at_leave(self.release)
                self._idle[database] = used
        if not keep:
            used.stack.close()

    def _opened(self, database: str) -> _Open:
        with ExitStack() as stack:
            session = stack.enter_context(self._open_session(database))
            return _Open(session, self._host.operation or "", stack.pop_all())

    def _reused(self, database: str) -> _Open | None:
        with self._lock:
            found = self._idle.pop(database, None)
        if found is None:
            return None
        try:
            if found.operation == self._host.operation and found.session.value("SELECT 1") == "1":
                return found
        except SqlError:
            pass  # the fence ended its client, or the server was restarted
        found.stack.close()
        return None

    def release(self, database: str | None = None) -> None:
        """Close idle sessions: those of one database, which is to have none, or all."""
        with self._lock:
            names = [database] if database is not None else list(self._idle)
            closed = [self._idle.pop(name) for name in names if name in self._idle]
        for each in closed:
            each.stack.close()
