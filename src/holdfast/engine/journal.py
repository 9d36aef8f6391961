"""The journal: what happened, and what has to happen next if this process dies.

It is one SQLite database in the state directory (WAL, synchronous=FULL, both read back). Every write is durable when it
returns: the intent before a step acts, the outcome after it. A marker file per open operation is next to it, so that an
unfinished operation can be seen even without SQLite.
"""

from __future__ import annotations

import json
import os
import secrets
import sqlite3
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import asdict

from holdfast import VERSION
from holdfast.engine.lock import Owner
from holdfast.engine.records import OperationRecord, StepRecord
from holdfast.errors import DamagedError, NoSpaceError, RefusedError
from holdfast.model import Facts, Outcome, Plan, StepState
from holdfast.system import durable, fault_points

FORMAT = 1
RESERVE_BYTES = 4 << 20

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS operation (
    id TEXT PRIMARY KEY, sequence INTEGER NOT NULL UNIQUE, kind TEXT NOT NULL, title TEXT NOT NULL,
    lock TEXT NOT NULL, command TEXT NOT NULL, plan TEXT NOT NULL, configuration TEXT NOT NULL,
    user TEXT NOT NULL, version TEXT NOT NULL, owner TEXT NOT NULL, outcome TEXT NOT NULL,
    committed INTEGER NOT NULL DEFAULT 0, commit_facts TEXT NOT NULL DEFAULT '{}', error TEXT NOT NULL DEFAULT '',
    started_at TEXT NOT NULL, ended_at TEXT NOT NULL DEFAULT '', seconds REAL NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS step (
    operation TEXT NOT NULL REFERENCES operation (id), position INTEGER NOT NULL, name TEXT NOT NULL,
    title TEXT NOT NULL, parameters TEXT NOT NULL, after_commit INTEGER NOT NULL, state TEXT NOT NULL,
    facts TEXT NOT NULL DEFAULT '{}', error TEXT NOT NULL DEFAULT '', attempts INTEGER NOT NULL DEFAULT 0,
    seconds REAL NOT NULL DEFAULT 0, PRIMARY KEY (operation, position));
"""


def _lacks_space(error: sqlite3.OperationalError) -> bool:
    """Return whether SQLite reports a full disk.

    That is FULL or one of many IOERR codes, or CANTOPEN for a side file that cannot be created.
    """
    return error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN)


def utc_now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


class Journal:
    """The journal of one application in one environment. Threads must not share it."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.path = state / "journal.sqlite3"
        self._reserve = state / "reserve"
        self._markers = state / "open"
        self._refuse_network_filesystem()
        try:
            durable.make_directory(state)
            durable.make_directory(self._markers)
            os.chmod(state, 0o700)
        except PermissionError as error:
            raise RefusedError(
                f"the state directory {state} cannot be used: {error.strerror}",
                next_step="Run Holdfast as root, or set `application.state` to a folder of this user.",
            ) from error
        try:
            self._connection = self._open()
        except sqlite3.OperationalError as error:
            if not _lacks_space(error):
                raise
            # Even reading needs room for the `-shm` file: `recover` and `status` must work on a full disk.
            self.release_reserve()
            self._connection = self._open()
        except sqlite3.DatabaseError as error:
            raise self._damaged(error) from error
        try:
            durable.preallocate(self._reserve, RESERVE_BYTES)
        except OSError:
            pass  # a disk that is full already: `check` reports the missing reserve

    def _damaged(self, error: Exception) -> DamagedError:
        open_ones = sorted(name for name in os.listdir(self._markers) if not name.startswith("."))
        unfinished = f" Unfinished: {', '.join(open_ones)}." if open_ones else " No operation was unfinished."
        return DamagedError(
            f"the journal {self.path} is damaged: {error}",
            state=f"Nothing was examined or changed.{unfinished}",
            next_step="Check that disk, and restore the journal from a copy of the state directory. Without"
            " one, see docs/howto/restore-by-hand.md",
        )

    def _refuse_network_filesystem(self) -> None:
        name = durable.network_filesystem(self.state)
        if name is not None:
            raise RefusedError(
                f"the state directory {self.state} is on a network filesystem ({name})",
                next_step="Set `application.state` to a folder on a local disk: locks and fsync are not reliable on a"
                " network.",
            )

    def _open(self) -> sqlite3.Connection:
        fresh = not self.path.exists()
        connection = sqlite3.connect(self.path, isolation_level=None, timeout=30)
        try:
            self._prepare(connection)
        except BaseException:
            connection.close()
            raise
        if fresh:
            durable.sync_directory(self.state)
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        """Make the database durable, create missing tables, and refuse those of a newer Holdfast."""
        os.chmod(self.path, 0o600)
        mode = connection.execute("PRAGMA journal_mode=WAL").fetchone()[0]
        connection.execute("PRAGMA synchronous=FULL")
        level = connection.execute("PRAGMA synchronous").fetchone()[0]
        if mode != "wal" or level != 2:
            raise RefusedError(
                f"the journal {self.path} cannot be made durable (journal_mode={mode}, synchronous={level})",
                next_step="Put the state directory on a local ext4, xfs or btrfs filesystem.",
            )
        connection.executescript(_SCHEMA)
        connection.execute("INSERT OR IGNORE INTO meta VALUES ('format', ?)", (str(FORMAT),))
        connection.execute(
            "INSERT OR REPLACE INTO meta SELECT 'written_by', ? WHERE (SELECT CAST(value AS INTEGER) FROM meta WHERE"
            " key='format') <= ?",
            (VERSION, FORMAT),
        )
        found = dict(connection.execute("SELECT key, value FROM meta"))
        if int(found["format"]) > FORMAT:
            raise RefusedError(
                f"the journal {self.path} has format {found['format']}; this Holdfast {VERSION} knows up to {FORMAT}",
                next_step=f"Install Holdfast {found.get('written_by', 'a newer version')} or later.",
            )

    def close(self) -> None:
        self._connection.close()

    # --- writing -----------------------------------------------------------------------------------

    def _write(self, what: str, statements: Sequence[tuple[str, Sequence[Any]]]) -> None:
        """Write one durable transaction; on a full disk, release the reserve and repeat the write."""
        fault_points.reach(f"before journal {what}")
        try:
            self._transact(statements)
        except sqlite3.OperationalError as error:
            if not _lacks_space(error):
                raise
            self.release_reserve()
            self._transact(statements)
        fault_points.reach(f"journal {what}")

    def _transact(self, statements: Sequence[tuple[str, Sequence[Any]]]) -> None:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            for sql, values in statements:
                self._connection.execute(sql, values)
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    def release_reserve(self) -> None:
        """Return the preallocated space to the filesystem, so that an undo can be written on a full disk."""
        durable.unlink(self._reserve)

    def _new_id(self, kind: str, suffix: str) -> str:
        """Return an id that no other operation has, not even one of the same second."""
        while True:
            stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
            operation = f"{stamp}-{kind.replace('.', '-')}-{suffix or secrets.token_hex(2)}"
            if suffix or self.operation(operation) is None:
                return operation

    def begin(self, plan: Plan, *, command: str, configuration: Mapping[str, Any], user: str, suffix: str = "") -> str:
        """Store the whole plan before its first step runs; return the operation's id."""
        operation = self._new_id(plan.kind, suffix)
        owner = Owner.of_this_process(plan.title)
        try:
            durable.write_file(self._markers / operation, json.dumps(asdict(owner)))
        except OSError as error:
            raise NoSpaceError(
                f"the state directory {self.state} cannot be written: {error.strerror}",
                next_step="Free space there, then run the command again.",
            ) from error
        statements: list[tuple[str, Sequence[Any]]] = [
            (
                "INSERT INTO operation (id, sequence, kind, title, lock, command, plan, configuration, user, version,"
                " owner, outcome, started_at) SELECT ?, COALESCE(MAX(sequence), 0) + 1, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?"
                " FROM operation",
                (
                    operation,
                    plan.kind,
                    plan.title,
                    plan.lock,
                    command,
                    json.dumps(
                        {
                            "parameters": msgspec.to_builtins(plan.parameters),
                            "notes": plan.notes,
                            "also_locks": plan.also_locks,
                            "barrier_paths": plan.barrier_paths,
                        }
                    ),
                    json.dumps(configuration),
                    user,
                    VERSION,
                    json.dumps(asdict(owner)),
                    Outcome.OPEN,
                    utc_now(),
                ),
            )
        ]
        after = len(plan.steps)
        for position, step in enumerate(plan.all_steps):
            values = (
                operation,
                position,
                step.name,
                step.title,
                json.dumps(dict(step.parameters)),
                int(position >= after),
                StepState.PENDING,
            )
            statements.append(
                (
                    "INSERT INTO step (operation, position, name, title, parameters, after_commit, state)"
                    " VALUES (?, ?, ?, ?, ?, ?, ?)",
                    values,
                )
            )
        self._write("begin", statements)
        return operation

    def step(self, operation: str, position: int, state: StepState, *, error: str = "", seconds: float = 0) -> None:
        """Record the intent (`doing`, `undoing`) or the outcome of one step."""
        attempt = 1 if state in (StepState.DOING, StepState.UNDOING) else 0
        self._write(
            f"step {position} {state}",
            [
                (
                    "UPDATE step SET state=?, error=CASE WHEN ?='' THEN error ELSE ? END, attempts=attempts+?,"
                    " seconds=CASE WHEN ?>0 THEN ? ELSE seconds END WHERE operation=? AND position=?",
                    (state, error, error, attempt, seconds, seconds, operation, position),
                )
            ],
        )

    def facts(self, operation: str, position: int, facts: Facts) -> None:
        """Record all facts of a step so far, durably, before the step goes on."""
        self._write(
            f"facts {position}",
            [("UPDATE step SET facts=? WHERE operation=? AND position=?", (json.dumps(facts), operation, position))],
        )

    def commit(self, operation: str, facts: Facts) -> None:
        """Write the commit record: from here recovery only goes forward."""
        self._write(
            "commit",
            [("UPDATE operation SET committed=1, commit_facts=? WHERE id=?", (json.dumps(facts), operation))],
        )

    def adopt(self, operation: str, what: str) -> None:
        """Make this process the owner of a dead operation."""
        owner = json.dumps(asdict(Owner.of_this_process(what)))
        self._write("adopt", [("UPDATE operation SET owner=? WHERE id=?", (owner, operation))])

    def finish(self, operation: str, outcome: Outcome, *, error: str = "", seconds: float = 0) -> None:
        """Record the operation's end; a stuck one keeps its marker and stays open for `recover`."""
        self._write(
            f"finish {outcome}",
            [
                (
                    "UPDATE operation SET outcome=?, error=CASE WHEN ?='' THEN error ELSE ? END, ended_at=?,"
                    " seconds=CASE WHEN ?>0 THEN ? ELSE seconds END WHERE id=?",
                    (outcome, error, error, utc_now(), seconds, seconds, operation),
                )
            ],
        )
        if outcome is not Outcome.STUCK:
            durable.unlink(self._markers / operation)
            self.record_of_processes(operation).unlink(missing_ok=True)

    def record_of_processes(self, operation: str) -> Path:
        """Return the file that lists the processes that an open operation started."""
        return self.state / "processes" / operation

    def drop_orphan_markers(self) -> None:
        """Remove markers whose operation was never stored or has ended. The caller holds the change lock."""
        still_open = {record.id for record in self.unfinished()}
        for name in os.listdir(self._markers):
            if name not in still_open and not name.startswith("."):
                owner = self._marker_owner(name)
                if owner is None or not owner.alive():
                    durable.unlink(self._markers / name)

    def _marker_owner(self, name: str) -> Owner | None:
        try:
            return Owner(**json.loads((self._markers / name).read_text()))
        except (OSError, ValueError, TypeError):
            return None

    # --- reading -----------------------------------------------------------------------------------

    _COLUMNS = (
        "id, sequence, kind, title, lock, command, configuration, plan, user, version, owner, outcome, committed,"
        " commit_facts, error, started_at, ended_at, seconds"
    )

    def _operations(self, where: str, values: Sequence[Any]) -> list[OperationRecord]:
        rows = self._read(f"SELECT {self._COLUMNS} FROM operation {where}", values)
        try:
            return self._records(rows)
        except (ValueError, TypeError) as error:
            raise self._damaged(error) from error

    def _read(self, query: str, values: Sequence[Any]) -> list[Any]:
        try:
            return self._connection.execute(query, values).fetchall()
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError as error:
            raise self._damaged(error) from error

    @staticmethod
    def _records(rows: Sequence[Any]) -> list[OperationRecord]:
        return [
            OperationRecord(
                id=row[0],
                sequence=row[1],
                kind=row[2],
                title=row[3],
                lock=row[4],
                command=row[5],
                configuration=json.loads(row[6]),
                plan=json.loads(row[7]),
                user=row[8],
                version=row[9],
                owner=Owner(**json.loads(row[10])),
                outcome=Outcome(row[11]),
                committed=bool(row[12]),
                commit_facts=json.loads(row[13]),
                error=row[14],
                started_at=row[15],
                ended_at=row[16],
                seconds=row[17],
            )
            for row in rows
        ]

    def unfinished(self) -> list[OperationRecord]:
        """Return open and stuck operations, newest first."""
        return self._operations("WHERE outcome IN (?, ?) ORDER BY sequence DESC", (Outcome.OPEN, Outcome.STUCK))

    def interrupted(self) -> list[OperationRecord]:
        """Return unfinished operations whose process is gone, newest first, and stuck ones."""
        return [record for record in self.unfinished() if record.outcome is Outcome.STUCK or not record.owner.alive()]

    def operation(self, operation: str) -> OperationRecord | None:
        found = self._operations("WHERE id=?", (operation,))
        return found[0] if found else None

    def operations(self, limit: int = 50) -> list[OperationRecord]:
        """Return the newest operations, newest first."""
        return self._operations("ORDER BY sequence DESC LIMIT ?", (limit,))

    def committed(self, kinds: Sequence[str] = ()) -> list[OperationRecord]:
        """Return operations with a commit record, newest first, even while their closing steps still run."""
        marks = ",".join("?" * len(kinds))
        where = f"WHERE committed=1 {f'AND kind IN ({marks})' if kinds else ''} ORDER BY sequence DESC"
        return self._operations(where, list(kinds))

    def newest_change(self) -> int:
        """Return the sequence of the newest committed operation that changed the application; 0 without one."""
        query = "SELECT COALESCE(MAX(sequence), 0) FROM operation WHERE committed=1 AND lock='change'"
        return int(self._connection.execute(query).fetchone()[0])

    def steps(self, operation: str) -> list[StepRecord]:
        rows = self._read(
            "SELECT position, name, title, parameters, after_commit, state, facts, error, seconds FROM step"
            " WHERE operation=? ORDER BY position",
            (operation,),
        )
        return [
            StepRecord(
                row[0],
                row[1],
                row[2],
                json.loads(row[3]),
                bool(row[4]),
                StepState(row[5]),
                json.loads(row[6]),
                row[7],
                row[8],
            )
            for row in rows
        ]

    def typical_seconds(self, name: str, title: str = "") -> float | None:
        """Return the median duration of the last runs of a step, or None without history.

        Runs with the same title count alone if there are some: it names the task that a step runs.
        """
        for more, named in ((" AND title=?", [title]), ("", [])):
            rows = self._connection.execute(
                f"SELECT seconds FROM step WHERE name=? AND state=? AND seconds>0{more} ORDER BY rowid DESC LIMIT 5",
                (name, StepState.DONE, *named),
            ).fetchall()
            if rows:
                values = sorted(float(row[0]) for row in rows)
                return values[len(values) // 2]
        return None
