"""SQLite: online copies by the backup API, restore points and restores by rename of the whole file.

Facts from sqlite.org (wal.html, lockingv3.html, backup.html): a reader's transaction in WAL mode keeps its snapshot
while writers go on; BEGIN IMMEDIATE keeps other writers out; a `-wal` or `-journal` next to a file belongs to that
file's content, so a restored file next to the `-wal` of another file is corrupt. Measured: such a file can pass
integrity_check and miss half its rows.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from msgspec.structs import replace

from holdfast.drivers.databases.opening import Opening
from holdfast.drivers.databases.shadows import WithShadows
from holdfast.drivers.databases.sqlite import copies, plain_sql
from holdfast.drivers.databases.sqlite.copies import SIDE_FILES, ShadowDatabases, side_files
from holdfast.drivers.interchange import dump_source
from holdfast.drivers.interchange.dump_source import DumpSource
from holdfast.drivers.protocols.databases import Queryable
from holdfast.drivers.protocols.datasets import Dataset, SnapshotFn
from holdfast.errors import DamagedError, RefusedError, StepError
from holdfast.model import Copying, Facts, Problem, Snapshot
from holdfast.system import durable

_BUSY_SECONDS = 30.0
_PAGES = 4096


class SqliteDatabase(WithShadows[ShadowDatabases]):
    kind = "sqlite"
    extension = "sqlite3"
    candidate_has_views = True

    def __init__(self, name: str, path: Path, *, at_rest: bool = False) -> None:
        """Read without a lock and side files if `at_rest` says that nothing writes to the file."""
        self.name = name
        self._mode = "immutable=1" if at_rest else "rw"
        # The real path, because SQLite keeps its side files next to the real file and a rename would move only a link.
        self.path = Path(os.path.realpath(path))
        super().__init__(ShadowDatabases(name, self.path))
        self.private_folder = self._shadows.folder

    # --- looking -----------------------------------------------------------------------------------

    def _connect(self, path: Path, *, mode: str = "rw") -> sqlite3.Connection:
        try:
            return sqlite3.connect(
                f"file:{quote(str(path))}?{mode if '=' in mode else f'mode={mode}'}",
                uri=True,
                isolation_level=None,
                timeout=_BUSY_SECONDS,
            )
        except sqlite3.OperationalError as error:
            raise StepError(f"database {self.name} ({path}) cannot be opened: {error}") from error

    def inspect(self) -> Facts:
        identity = copies.identity(self.path)
        size = sum(_size_bytes(f"{self.path}{ending}") for ending in ("", *SIDE_FILES))
        return {
            "exists": identity is not None,
            "identity": identity,
            "size_bytes": size,
            "tool": f"SQLite {sqlite3.sqlite_version}",
        }

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        return self._query(self._connect(self.path, mode=self._mode), sql)

    def change(self, sql: str) -> None:
        with closing(self._connect(self.path)) as connection, connection:
            try:
                connection.execute(sql)
            except sqlite3.DatabaseError as error:
                raise StepError(f"database {self.name}: {error} (statement: {sql[:80]})") from error

    def _query(self, connection: sqlite3.Connection, sql: str) -> list[tuple[Any, ...]]:
        with closing(connection):
            connection.execute("PRAGMA query_only=1")
            try:
                return connection.execute(sql).fetchall()
            except sqlite3.DatabaseError as error:
                raise StepError(f"database {self.name}: {error} (query: {sql[:80]})") from error

    def tables(self, *, budget_seconds: float = 10) -> dict[str, Facts]:
        with self._readable(self.path):
            return self._tables(self._connect(self.path, mode=self._mode), budget_seconds)

    @contextmanager
    def _readable(self, path: Path) -> Iterator[None]:
        """Raise StepError where SQLite finds the file damaged, or not a database."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            raise StepError(f"database {self.name} ({path}) cannot be read: {error}") from error

    @staticmethod
    def _tables(application: sqlite3.Connection, budget_seconds: float) -> dict[str, Facts]:
        deadline = time.monotonic() + budget_seconds
        found: dict[str, Facts] = {}
        with closing(application) as connection:
            connection.execute("PRAGMA query_only=1")
            names = connection.execute(
                "SELECT name FROM sqlite_master WHERE type='table'"
                " AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY name"
            ).fetchall()
            for (table,) in names:
                found[table] = {"rows": None, "columns": _columns(connection, table) or []}
            connection.set_progress_handler(lambda: int(time.monotonic() > deadline), 100_000)
            for table, facts in found.items():
                quoted = '"' + table.replace('"', '""') + '"'
                try:  # count(1), because SQLite answers count(*) in one step, in which the budget is not checked
                    facts["rows"] = connection.execute(f"SELECT count(1) FROM {quoted}").fetchone()[0]
                except sqlite3.OperationalError as error:
                    if error.sqlite_errorcode == sqlite3.SQLITE_INTERRUPT:
                        break
                    if not _lacks_code(error):
                        raise
        return found

    # --- copies ------------------------------------------------------------------------------------

    def _copy(self, source: sqlite3.Connection, target: Path) -> None:
        """Copy the snapshot of a connection that is inside a transaction, and check the copy."""
        target.unlink(missing_ok=True)
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        os.close(descriptor)
        with closing(sqlite3.connect(target, isolation_level=None)) as copy:
            copy.execute("PRAGMA synchronous=OFF")
            copy.execute("PRAGMA journal_mode=OFF")
            source.backup(copy, pages=_PAGES)
        self._verify(target, "quick_check")

    def _verify(self, path: Path, pragma: str) -> None:
        """Raise DamagedError for a file that is not a complete database.

        An index over a collation or function that the application brings, or a table of a module that it loads, cannot
        be checked here. That is not damage: the other tables are then checked one by one.
        """
        with closing(self._connect(path, mode="immutable=1")) as connection:
            answer = self._checked(connection, path, f"PRAGMA {pragma}(5)")
            if answer is None:
                answer = self._checked_by_table(connection, path, pragma)
        if answer != [("ok",)]:
            raise DamagedError(f"database {self.name}: {path.name} fails {pragma}: {answer[0][0]}")

    def _checked(self, connection: sqlite3.Connection, path: Path, sql: str) -> list[tuple[Any, ...]] | None:
        """Return the answer; None where it needs code of the application. Raise DamagedError."""
        try:
            return connection.execute(sql).fetchall()
        except sqlite3.DatabaseError as error:
            if _lacks_code(error):
                return None
            raise DamagedError(
                f"database {self.name}: {path.name} is not a complete SQLite database: {error}"
            ) from error

    def _checked_by_table(self, connection: sqlite3.Connection, path: Path, pragma: str) -> list[tuple[Any, ...]]:
        names = connection.execute("SELECT name FROM sqlite_master WHERE type='table' AND rootpage > 0").fetchall()
        for (name,) in names:
            quoted = str(name).replace("'", "''")
            answer = self._checked(connection, path, f"PRAGMA {pragma}('{quoted}')")
            if answer not in (None, [("ok",)]):
                assert answer is not None
                return answer
        return [("ok",)]

    def _fix(
        self, target: Path, queries: Sequence[str], budget_seconds: float, source: Path | None = None
    ) -> Callable[[], Snapshot]:
        """Make the whole copy at once, because except in WAL mode a waiting reader would keep writers out."""
        with closing(self._connect(source or self.path)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM sqlite_master").fetchone()
            self._copy(reader, target)
            reader.execute("ROLLBACK")
        return lambda: self._look(target, queries, budget_seconds)

    def _look(self, dump: Path, queries: Sequence[str], budget_seconds: float) -> Snapshot:
        """Return the facts about a dump's content."""
        answers = [self._query(self._connect(dump, mode="immutable=1"), sql) for sql in queries]
        tables = self._tables(self._connect(dump, mode="immutable=1"), budget_seconds)
        version = self._user_version(self._connect(dump, mode="immutable=1"))
        return Snapshot(tables, answers=answers, schema_version=version)

    def schema_version(self) -> str:
        return self._user_version(self._connect(self.path, mode=self._mode))

    def _user_version(self, connection: sqlite3.Connection) -> str:
        """Return the number that an application keeps in the file's header; empty for 0, which every file has."""
        number = self._query(connection, "PRAGMA user_version")[0][0]
        return str(number) if number else ""

    @contextmanager
    def freeze_writes(self, limit_seconds: float | None) -> Iterator[SnapshotFn]:
        if limit_seconds is None:
            yield self._fix
            return
        with closing(self._connect(self.path)) as holder, closing(self._connect(self.path)) as reader:
            holder.execute(f"PRAGMA busy_timeout={int(limit_seconds * 1000)}")
            try:
                holder.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                raise StepError(
                    f"database {self.name}: writers cannot be held within {limit_seconds:g} s: {error}"
                ) from error
            began = time.monotonic()
            wal = holder.execute("PRAGMA journal_mode").fetchone()[0] == "wal"

            def fix(target: Path, queries: Sequence[str], budget_seconds: float) -> Callable[[], Snapshot]:
                reader.execute("BEGIN")
                reader.execute("SELECT count(*) FROM sqlite_master").fetchone()
                if wal:  # the reader keeps this instant; in the other modes a reader alone keeps writers out
                    holder.execute("ROLLBACK")
                held = time.monotonic() - began

                def finish() -> Snapshot:
                    self._copy(reader, target)
                    reader.execute("ROLLBACK")
                    if not wal:
                        holder.execute("ROLLBACK")
                    seconds = held if wal else time.monotonic() - began
                    return replace(self._look(target, queries, budget_seconds), held_seconds=seconds)

                return finish

            try:
                yield fix
            finally:
                if holder.in_transaction:
                    holder.execute("ROLLBACK")

    def joint_snapshot(self, others: Sequence[Dataset]) -> None:
        """Return None: no transaction is durable over several files, and none reads them at one instant."""

    # --- candidates and swap -----------------------------------------------------------------------

    def _fold(self) -> None:
        """Write a `-wal` or hot `-journal` back into the file, with exclusive access. Raise StepError."""
        with closing(self._connect(self.path)) as connection:
            try:
                connection.execute("PRAGMA locking_mode=EXCLUSIVE")
                connection.execute("BEGIN EXCLUSIVE")
                connection.execute("COMMIT")
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            except sqlite3.DatabaseError as error:
                raise StepError(f"database {self.name} cannot be closed cleanly: {error}") from error

    def copying(self) -> Copying:
        return Copying(made="a copy of the file")

    def copy_ahead(self, token: str) -> Facts:
        """Do nothing: a file is cloned or copied in less time than a comparison would take."""
        return {}

    def prepare(self, token: str, source: Path | None, facts: Facts) -> str:
        folder = self.private_folder / token
        durable.make_directory(folder)
        candidate, part = folder / "candidate", folder / "part"
        if source is None:
            self._shadows.refuse_open()
            self._fold()
            durable.clone_or_copy(self.path, part)
            self._verify(part, "quick_check")
        else:
            durable.clone_or_copy(source, part)
            self._verify(part, "integrity_check")
        like = self.path if self.path.exists() else self.path.parent
        status = like.stat()
        os.chmod(part, status.st_mode & 0o666)
        try:
            os.chown(part, status.st_uid, status.st_gid)
        except PermissionError:
            pass  # an unprivileged user owns what it writes
        durable.sync_file(part)
        durable.rename(part, candidate)
        identity = copies.identity(candidate)
        assert identity is not None
        return identity

    @contextmanager
    def candidate(self, token: str, identity: str) -> Iterator[Queryable]:
        yield SqliteDatabase(self.name, self._shadows.find(identity), at_rest=True)

    def dump(self, token: str, identity: str, target: Path, budget_seconds: float) -> Snapshot:
        found = self._shadows.find(identity)
        with self._readable(found):
            if side_files(found):
                return self._fix(target, [], budget_seconds, source=found)()
            target.unlink(missing_ok=True)
            durable.clone_or_copy(found, target)
            os.chmod(target, 0o600)
            self._verify(target, "quick_check")
            return self._look(target, [], budget_seconds)

    def load(self, token: str, source: DumpSource) -> str:
        """Make a candidate of a database file, or of the statements of `.dump`."""
        if source.format not in (dump_source.SQLITE, dump_source.SQL):
            raise RefusedError(f"{source.title} is of the format {source.format}, which SQLite does not read")
        folder = self.private_folder / token
        durable.make_directory(folder)
        raw = folder / "loaded"
        raw.unlink(missing_ok=True)
        if source.format == dump_source.SQLITE:
            with open(raw, "wb") as file:
                for chunk in source.chunks():
                    file.write(chunk)
        else:
            plain_sql.execute(raw, source)
        try:
            return self.prepare(token, raw, {})
        finally:
            raw.unlink()

    def swap(self, token: str, identity: str | None, aside: str) -> None:
        self._shadows.swap(identity, aside)

    def check(self) -> list[Problem]:
        subject = f"databases.{self.name}"
        if copies.identity(self.path) is None:
            return [
                Problem(
                    subject,
                    "warning",
                    f"{self.path} does not exist",
                    "Run `holdfast install REF` or `holdfast backup restore latest`.",
                )
            ]
        if not os.access(self.path, os.R_OK | os.W_OK):
            return [
                Problem(
                    subject,
                    "error",
                    f"{self.path} cannot be read and written by this user",
                    "Run Holdfast as its owner or as root.",
                )
            ]
        found = []
        try:
            mode = self.query("PRAGMA journal_mode")[0][0]
            unknown = self._of_unknown_modules()
        except StepError as error:  # only a warning, because a restore replaces the file
            return [Problem(subject, "warning", error.what, "Run `holdfast backup restore latest` to restore it.")]
        if mode in ("off", "memory"):
            found.append(
                Problem(
                    subject,
                    "error",
                    f"journal_mode is {mode}: a crash of the application can destroy {self.path}",
                    f"Run: sqlite3 {self.path} 'PRAGMA journal_mode=WAL'",
                )
            )
        if unknown:
            found.append(
                Problem(
                    subject,
                    "note",
                    f"only the application can read {', '.join(unknown)}: Holdfast copies the table's data but does not"
                    " count its rows",
                )
            )
        if durable.network_filesystem(self.path) is not None:
            found.append(
                Problem(
                    subject,
                    "error",
                    f"{self.path} is on a network filesystem, where SQLite's locks do not work",
                    "Move it to a local disk.",
                )
            )
        return found

    def _of_unknown_modules(self) -> list[str]:
        """Return the virtual tables whose module only the application loads."""
        virtual = "SELECT name FROM sqlite_master WHERE type = 'table' AND rootpage = 0 ORDER BY name"
        with self._readable(self.path), closing(self._connect(self.path, mode=self._mode)) as connection:
            names = [str(name) for (name,) in connection.execute(virtual)]
            return [name for name in names if _columns(connection, name) is None]

    def owner(self) -> str | None:
        """Return None: the marker in the private folder names the owner."""
        return None

    def claim(self, owner: str) -> None:
        pass

    def session_environment(self, operation: str) -> dict[str, str]:
        return {}

    def end_sessions(self, operation: str) -> None:
        """Do nothing: a session is in a process of the application, and ended with it."""


def _size_bytes(path: str) -> int:
    """Return the size, 0 for a missing file: the last connection to close removes the `-wal` at any moment."""
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0


def _columns(connection: sqlite3.Connection, table: str) -> list[str] | None:
    """Return the columns of a table; None for a virtual one of a module that only the application loads."""
    try:
        return [row[0] for row in connection.execute("SELECT name FROM pragma_table_info(?)", (table,))]
    except sqlite3.OperationalError as error:
        if not _lacks_code(error):
            raise
        return None


def _lacks_code(error: sqlite3.DatabaseError) -> bool:
    """Return whether a statement could not be prepared, for example because a collation or function is missing."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_ERROR


def open_dataset(opening: Opening) -> SqliteDatabase:
    return SqliteDatabase(opening.name, opening.path)
