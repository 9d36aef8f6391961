"""A replication slot that keeps a server's log from its start, as long as one session of Holdfast's is open.

Fact from the documentation: a temporary slot is dropped at the end of its session, also by an error or a crash of the
server. So nothing is left behind that would fill the disk, however Holdfast ends.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack

from holdfast.drivers.databases.postgresql.client import Session, SqlError, literal
from holdfast.errors import HoldfastError, StepError

LEAST_KEPT_BYTES, MOST_KEPT_BYTES = 256 << 20, 16 << 30
_WATCH_SECONDS = 1.0
_SAFE = ("reserved", "extended")


def kept_bytes(free_bytes: int, data_bytes: int) -> int:
    """Return how much of its log a server may be made to keep, by the free space of its disk; with more, the slot ends.

    The base backup takes as much as the data. Of what is left then, a third is for the log, and one for its copy.
    """
    return min((free_bytes - data_bytes - data_bytes // 20) // 3, MOST_KEPT_BYTES)


def needed_bytes(data_bytes: int) -> int:
    """Return the free space without which a slot would often end too early.

    After a checkpoint each page that is changed is written to the log as a whole.
    """
    return data_bytes + data_bytes // 20 + 3 * max(LEAST_KEPT_BYTES, min(data_bytes // 2, MOST_KEPT_BYTES))


class LogSlot:
    """An open slot. Its session is used by one thread at a time."""

    def __init__(self, name: str, session: Session, stack: ExitStack, most_bytes: int) -> None:
        """Make a slot that keeps at most so much on a session that `stack` closes. Raise SqlError."""
        self.name = name
        self.why_lost = ""
        self._session = session
        self._stack = stack
        self._most_bytes = most_bytes
        self._lock = threading.Lock()
        self._end = threading.Event()
        created = session.rows(f"SELECT lsn FROM pg_create_physical_replication_slot({literal(name)}, true, true)")
        self.start = str(created[0][0])
        self._watcher = threading.Thread(target=self._watch, name="slot", daemon=True)
        self._watcher.start()

    def use(self, action: Callable[[Session], None]) -> None:
        """Do something with the slot's session while the slot keeps the whole log. Raise StepError if it does not.

        Whether it still does is looked at before and afterwards.
        """
        with self._lock:
            self._require()
            action(self._session)
            self._require()

    def close(self) -> None:
        """End the session, and with it the slot. Idempotent."""
        self._end.set()
        if threading.current_thread() is not self._watcher:
            self._watcher.join()
        with self._lock:
            self._stack.close()

    def _require(self) -> None:
        if self.why_lost:
            raise StepError(self.why_lost)
        try:
            kept = self._session.rows(
                f"SELECT wal_status, pg_wal_lsn_diff(pg_current_wal_lsn(), {literal(self.start)})"
                f" FROM pg_replication_slots WHERE slot_name = {literal(self.name)}"
            )
        except SqlError as error:
            self.why_lost = f"the session that kept the server's log was ended: {error.what}"
            raise StepError(self.why_lost) from error
        if not kept or kept[0][0] not in _SAFE:
            self.why_lost = "the server no longer keeps all of its log since the copy"
        elif int(kept[0][1] or 0) > self._most_bytes:
            self.why_lost = (
                f"since the copy began, more than {self._most_bytes >> 20} MiB were written to the server's log"
            )
        if self.why_lost:
            self._stack.close()
            raise StepError(self.why_lost)

    def _watch(self) -> None:
        while not self._end.wait(_WATCH_SECONDS):
            if not self._lock.acquire(blocking=False):
                continue
            try:
                self._require()
            except HoldfastError:
                return
            finally:
                self._lock.release()
