"""Restore points by the write-ahead log: a base backup, the log since, and a named point in it, which takes no time.

The base backup is made while visitors are served, in a folder of the data directory that PostgreSQL itself leaves out
everywhere. A temporary slot keeps the log until the point; then the log is copied beside the base backup, so nothing
keeps the log that a migration writes. Only an undo, or the dump after the commit, replays it. An undo exchanges the
data of the whole cluster, so it is for a server in a container that nothing else uses.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress

from msgspec.structs import replace

from holdfast.drivers.databases.postgresql import own_cluster
from holdfast.drivers.databases.postgresql.client import Clients, Session, SqlError, literal
from holdfast.drivers.databases.postgresql.copies import ShadowDatabases
from holdfast.drivers.databases.postgresql.data_volume import (
    BACK,
    FORWARD,
    POINT_FILE,
    PORT,
    PREFIX,
    SOCKET_FOLDER,
    DataVolume,
    Found,
)
from holdfast.drivers.databases.postgresql.log_slot import LogSlot, kept_bytes, needed_bytes
from holdfast.drivers.databases.sql.session import retry_until_available
from holdfast.errors import CommandFailedError, CommandTimeoutError, HoldfastError, StepError
from holdfast.model import Facts, Server

LEAST_BYTES = 2 << 30
"""A smaller database is copied in the window: that takes little longer than a point, and going back no time."""
_REMOVALS = 5
_SEGMENT = "^[0-9A-F]{24}$"
_LOG_FILE_BYTES = 1 << 32  # the middle third of a segment's name counts these


class LogPoints:
    """The restore points of one live database in its container."""

    def __init__(self, name: str, database: str, clients: Clients, shadows: ShadowDatabases, method: str) -> None:
        """Take `name`, the dataset's, for messages. `method` is `auto`, or `log` whatever the size."""
        assert clients.container is not None
        self._name = name
        self._database = database
        self._clients = clients
        self._shadows = shadows
        self._least_bytes = LEAST_BYTES if method == "auto" else 0
        self._volume = DataVolume(name, clients.container, clients.host)
        self._slots: dict[str, LogSlot] = {}

    # --- looking -----------------------------------------------------------------------------------

    def why_not(self, size_bytes: int) -> str:
        """Return why a restore point is not made by the log; empty if it is."""
        if size_bytes < self._least_bytes:
            return f"below {self._least_bytes >> 20} MiB a copy takes about two seconds, and going back no time"
        try:
            with self._shadows.maintenance() as session:
                return self._unfit(session) or self._unfit_outside(session)
        except (CommandFailedError, ValueError) as error:
            return getattr(error, "state", "") or str(error)

    def _unfit(self, session: Session) -> str:
        """Return why the server's contents do not allow it; they may change until the window."""
        maintenance = self._clients.server.maintenance
        if why := own_cluster.why_not(session, maintenance, self._database, self._shadows.prefix):
            return why
        with self._clients.kept.session(self._database) as live:
            return own_cluster.unlogged(live)

    def _unfit_outside(self, session: Session) -> str:
        """Return why the container or its disk do not allow it."""
        data = self._data_directory(session)
        if why := self._volume.why_not(data):
            return why
        needed, free = needed_bytes(_size(session)), self._volume.free_bytes(data)
        if free < needed:
            return f"the disk of the server has {free >> 20} MiB free, and {needed >> 20} are needed"
        return ""

    @staticmethod
    def _data_directory(session: Session) -> str:
        return session.value("SELECT current_setting('data_directory')") or ""

    def present(self, session: Session, oid: str | None) -> str | None:
        """Return the identity of the live database: its OID, with its point if its cluster was recovered to one."""
        if oid is None or not own_cluster.is_superuser(session):
            return oid
        point = self._point_in_place(session)
        return point if point.partition(".")[0] == oid else oid

    def tokens(self) -> list[str]:
        with self._shadows.maintenance() as session:
            return self._tokens(session)

    @staticmethod
    def _tokens(session: Session) -> list[str]:
        if not own_cluster.is_superuser(session):
            return []
        rows = session.rows(f"SELECT name FROM pg_ls_dir('.') found (name) WHERE starts_with(name, {literal(PREFIX)})")
        return [str(name).removeprefix(PREFIX) for (name,) in rows]

    # --- before the window, and in it ----------------------------------------------------------------

    def begin(self, token: str) -> Facts:
        """Make a base backup and keep the log from then on. Raise StepError."""
        self.discard(token)
        slot = self._open_slot()
        self._slots[token] = slot
        self._clients.host.at_leave(self.close)
        with self._shadows.maintenance() as session:
            oid, data, programs, version = session.rows(
                "SELECT (SELECT oid FROM pg_database WHERE datname = "
                f"{literal(self._database)}), current_setting('data_directory'),"
                " (SELECT setting FROM pg_config WHERE name = 'BINDIR'), current_setting('server_version_num')"
            )[0]
            live = self.present(session, oid)
        data = str(data)
        owner, folder = self._volume.owner(data), f"{data}/{PREFIX}{token}"
        point = f"{oid}.holdfast-{secrets.token_hex(6)}"
        self._volume.in_server(owner, "mkdir", folder)
        self._clients.run(
            "pg_basebackup",
            f"--pgdata={folder}/new",
            "--format=plain",
            "--wal-method=fetch",
            "--checkpoint=fast",
            "--no-manifest",
            "--no-password",
            user=owner,
        )
        self._volume.finish_copy(owner, data, token, str(programs), point, str(live), int(version or 0))
        slot.use(lambda _: None)
        return {"method": "log", "point": point, "folder": folder, "owner": owner}

    def _open_slot(self) -> LogSlot:
        with ExitStack() as stack:
            session = stack.enter_context(self._clients.session(self._clients.server.maintenance))
            most = kept_bytes(self._volume.free_bytes(self._data_directory(session)), _size(session))
            return LogSlot(f"holdfast_{secrets.token_hex(6)}", session, stack.pop_all(), most)

    def mark(self, token: str, facts: Facts) -> str:
        """Make the point and keep the log up to it; return its identity. Raise StepError where the log is not whole."""
        slot = self._slots.pop(token, None)
        if slot is None:
            raise StepError("the session that kept the server's log was ended")
        point = str(facts["point"])

        def copy(session: Session) -> None:
            if why := self._unfit(session):
                raise StepError(why)
            reached = session.value(f"SELECT pg_create_restore_point({literal(point.partition('.')[2])})")
            # A transactional message flushes the log up to here.
            session.rows("SELECT pg_logical_emit_message(true, 'holdfast', 'barrier')")
            self._keep_log(session, str(facts["folder"]), str(facts["owner"]), str(reached))

        try:
            slot.use(copy)
        finally:
            slot.close()
        return point

    def _keep_log(self, session: Session, folder: str, owner: str, end: str) -> None:
        """Copy the log since the base backup beside it, durably. Raise StepError where a part of it is gone."""
        target = f"{folder}/new/pg_wal"
        kept = _segments(session, target)
        size = int(session.value("SELECT setting FROM pg_settings WHERE name = 'wal_segment_size'") or 0)
        needed = _names(min(kept), str(session.value(f"SELECT pg_walfile_name({literal(end)})")), size)
        copied = [name for name in needed if name not in kept]
        if not set(copied) <= _segments(session, "pg_wal"):
            raise StepError("the server no longer has all of its log since the copy")
        source = f"{folder.rpartition('/')[0]}/pg_wal"
        if copied:
            self._volume.in_server(owner, "cp", *(f"{source}/{name}" for name in copied), target)
            self._volume.in_server(owner, "sync", *(f"{target}/{name}" for name in copied), target)

    # --- going back ----------------------------------------------------------------------------------

    def put_back(self, token: str, identity: str) -> bool:
        """Put the cluster's data as of a point in place, or those that an operation's point replaced.

        Return False where the identity is neither of this operation. Idempotent. Raise StepError.
        """
        if not (is_point(identity) or self._is_replaced()):
            return False
        found = self._volume.look(token)
        if found is None:
            return False
        if found.unfinished:
            self._volume.recover(found, token)
            self._exchange(found, token)
            found = self._found(token)
        if identity not in (found.point, found.live) or (identity == found.live and found.present != found.point):
            return False
        if identity == found.point and found.present != found.point:
            self._volume.recover(found, token, then=FORWARD)
            self._exchange(found, token)
        elif identity == found.live:
            self._volume.recover(found, token, then=BACK)
            self._exchange(found, token)
        self._volume.start()
        retry_until_available(self._answer, self._name)
        return True

    def _exchange(self, found: Found, token: str) -> None:
        """Exchange the data. With some stop signals a server would wait for its sessions, so they are ended first."""
        self._clients.kept.release()
        with suppress(SqlError), self._clients.session(self._clients.server.maintenance) as session:
            self._shadows.terminate(session, "true")
        self._volume.exchange(found, token)

    def _is_replaced(self) -> bool:
        """Return whether the server's data are those of a point."""
        with self._shadows.maintenance() as session:
            return own_cluster.is_superuser(session) and self._point_in_place(session) != ""

    @staticmethod
    def _point_in_place(session: Session) -> str:
        return (session.value(f"SELECT pg_read_file({literal(POINT_FILE)}, 0, 200, true)") or "").strip()

    def _found(self, token: str) -> Found:
        found = self._volume.look(token)
        if found is None:
            raise StepError(f"database {self._name}: the restore point of {token} is gone")
        return found

    def _answer(self) -> None:
        with self._shadows.maintenance() as session:
            session.value("SELECT 1")

    # --- afterwards ------------------------------------------------------------------------------------

    @contextmanager
    def served(self, token: str, identity: str) -> Iterator[Server]:
        """Serve the data as of a point while the body runs, to nobody else. Raise StepError."""
        found = self._volume.look(token)
        if found is None or found.point != identity or found.present == identity:
            raise StepError(f"database {self._name}: the database {identity} is gone")
        self._volume.recover(found, token)
        container = self._volume.serve(found, token)
        try:
            engine = self._clients.server.container.partition(":")[0]
            yield replace(
                self._clients.server,
                host=SOCKET_FOLDER,
                port=PORT,
                container=f"{engine}:{container}",
                find_container=None,
            )
        finally:
            self._volume.end_served(container)

    def discard(self, token: str) -> None:
        """Remove what operations of a token left. The server runs. Idempotent."""
        slot = self._slots.pop(token, None)
        if slot is not None:
            slot.close()
        with self._shadows.maintenance() as session:
            names = [name for name in self._tokens(session) if name == token or name.startswith(f"{token}.")]
            data = self._data_directory(session) if names else ""
            points = {
                (session.value(f"SELECT pg_read_file({literal(f'{PREFIX}{name}/point')}, 0, 200, true)") or "").strip()
                for name in names
            }
            present = self._point_in_place(session) if names else ""
            kept = self._version_file(session, names) if names else ""
        if not names:
            return
        gone = [f"{data}/{PREFIX}{name}" for name in names]
        if present in points - {""}:
            gone.append(f"{data}/{POINT_FILE}")
        owner = self._volume.owner(data)
        if kept:
            self._volume.in_server(owner, "cp", f"{data}/{kept}", data)
            self._volume.in_server(owner, "sync", f"{data}/PG_VERSION", data)
        for attempt in range(_REMOVALS):  # a base backup that was just ended may still be removing its own files
            try:
                self._volume.in_server(owner, "rm", "-rf", *gone)
            except CommandFailedError:
                if attempt == _REMOVALS - 1:
                    raise
            else:
                return

    @staticmethod
    def _version_file(session: Session, names: Sequence[str]) -> str:
        """Return the file of the running server that an exchange took and did not go on; empty if it is in place."""
        for name in names:
            exchange = session.value(f"SELECT pg_read_file({literal(f'{PREFIX}{name}/exchange')}, 0, 200, true)") or ""
            if exchange.startswith("out ") and session.value("SELECT pg_read_file('PG_VERSION', 0, 9, true)") is None:
                return f"{PREFIX}{name}/{exchange.split()[-1]}/PG_VERSION"
        return ""

    def close(self) -> None:
        """Let the log go that is kept for points. Idempotent."""
        while self._slots:
            _, slot = self._slots.popitem()
            with suppress(HoldfastError, SqlError):
                slot.close()

    # --- the fence -----------------------------------------------------------------------------------

    def fence(self, operation: str) -> bool:
        """End the one-off containers of an operation; return whether the server has no sessions because it is stopped.

        That is so where an exchange of its data was cut short. Raise SqlError where the engine does not answer.
        """
        try:
            self._volume.end_operation(operation)
            if self._volume.is_steady():
                return False
            found = self._volume.look(operation)
            if found is None or not found.exchange:
                return False
            self._volume.halt()  # an engine may be starting it again and again
            return True
        except (CommandFailedError, CommandTimeoutError) as error:
            raise SqlError(
                f"it is not known whether one-off containers still run: {error.state.strip() or error.what}",
                next_step=f"Check that {self._clients.server.container.partition(':')[0]} answers, then run:"
                " holdfast recover",
            ) from error


def is_point(identity: str) -> bool:
    """Return whether an identity is that of a database in a cluster as of a point in its log."""
    return "." in identity


def _size(session: Session) -> int:
    """Return the bytes of all databases."""
    return int(session.value("SELECT sum(pg_database_size(oid)) FROM pg_database") or 0)


def _segments(session: Session, folder: str) -> set[str]:
    rows = session.rows(f"SELECT name FROM pg_ls_dir({literal(folder)}) found (name) WHERE name ~ {literal(_SEGMENT)}")
    return {str(name) for (name,) in rows}


def _names(first: str, last: str, segment_bytes: int) -> list[str]:
    """Return the names of the segments of the log from one to another."""
    of_file = _LOG_FILE_BYTES // segment_bytes
    numbers = [int(name[8:16], 16) * of_file + int(name[16:], 16) for name in (first, last)]
    return [f"{first[:8]}{number // of_file:08X}{number % of_file:08X}" for number in range(numbers[0], numbers[1] + 1)]
