"""Copies of a live MariaDB or MySQL database: most of it while visitors are served, the rest while nobody writes.

Tables of InnoDB are copied ahead, without locks on rows and so with rows of several instants. Once all tables are
locked against writers, each of them is left as it is if there is evidence that nobody wrote to it since (`evidence`),
else compared by its primary key (`comparing`), else copied again. A table whose definition is no longer that of its
copy is repeated.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import msgspec

from holdfast.drivers.databases.mariadb import catalogue, comparing, dump, evidence, rewriting
from holdfast.drivers.databases.mariadb.client import Clients, Session, SqlError, identifier
from holdfast.drivers.databases.mariadb.comparing import Comparison, Shape
from holdfast.drivers.databases.mariadb.copies import ShadowDatabases
from holdfast.drivers.databases.mariadb.evidence import TableState
from holdfast.errors import CommandFailedError, StepError
from holdfast.model import Facts

_CANNOT_WRITE = re.compile(r"ERROR (3|1021|1026|1030|1114) ")  # error numbers of a full disk
# At the default level, a statement that copies rows locks those that it reads, and writers would wait.
_WITHOUT_LOCKS = "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED"
_PIECE_BYTES = 64 << 20  # of one statement ahead: what the server has to undo at most, should it be ended
_SPLIT_BYTES = 16 << 20  # of a table, from which on several sessions compare it
_NO_TABLE = "42S02"
_COUNTER = re.compile(r"^(\) ENGINE=\w+) AUTO_INCREMENT=\d+", re.MULTILINE)

Task = Callable[[Session], None]


class Ahead(msgspec.Struct, forbid_unknown_fields=True):
    """What was copied ahead: by table, the evidence with which it can be left as it is, or an empty text."""

    server: str
    at: str
    marks: dict[str, str]


@dataclass
class _Work:
    """What is left to do for a copy while the original is locked."""

    states: dict[str, TableState] = field(default_factory=dict)
    shapes: dict[str, Shape] = field(default_factory=dict)
    keep: list[str] = field(default_factory=list)
    compare: list[str] = field(default_factory=list)
    """Those of `keep` that may have been written since."""
    make: list[str] = field(default_factory=list)


class LiveCopy:
    def __init__(self, name: str, database: str, clients: Clients, shadows: ShadowDatabases) -> None:
        """Take `name`, the dataset's, for messages."""
        self._name = name
        self._database = database
        self._clients = clients
        self._shadows = shadows

    def _place(self, table: str, database: str = "") -> str:
        return f"{identifier(database or self._database)}.{identifier(table)}"

    # --- ahead -------------------------------------------------------------------------------------------

    def ahead(self, token: str) -> Facts:
        """Copy what can be copied while visitors are served, largest tables first; return what is known of it.

        Raise StepError where the server cannot copy without locks on rows.
        """
        with self._clients.session() as session:
            session.run(evidence.UTC)
            self._refuse_statements(session)
            knowing = evidence.may_know(session)
            properties = self._shadows.properties(session, self._database)
            views = catalogue.names(session, self._database, "VIEW")
            versioned = set(catalogue.versioned(session, self._database))
            states = evidence.states(session, self._database, self._clients.dialect, knowing=knowing)
            shapes = comparing.shapes(session, self._database)
            tables = [
                table
                for table, state in sorted(states.items(), key=lambda item: -item[1].size_bytes)
                if state.is_transactional and table not in versioned and shapes[table].columns
            ]
            ahead = Ahead(evidence.server(session), evidence.now(session), {})
            named_apart = not _differ_in_case(catalogue.movable(session, self._database))
        if not tables or not named_apart:
            return {}
        candidate = self._shadows.empty(token, properties)
        self._clients.feed(candidate, dump.structure(self._clients, self._database, views))

        def copy(table: str) -> Task:
            def act(session: Session) -> None:
                ahead.marks[table] = self._copy_ahead(session, candidate, table, shapes[table], knowing)

            return act

        with _full_disk_as_such(self._name):
            self._do([copy(table) for table in tables], candidate, without_locks=True, tolerant=True)
        return dict(msgspec.to_builtins(ahead))

    def _refuse_statements(self, session: Session) -> None:
        settings = session.rows("SHOW VARIABLES WHERE variable_name IN ('log_bin', 'binlog_format')")
        if {("log_bin", "ON"), ("binlog_format", "STATEMENT")} <= set(settings):
            raise StepError(
                "the server's binary log has statements (binlog_format = STATEMENT), which need locks on rows"
            )

    def _copy_ahead(self, session: Session, candidate: str, table: str, shape: Shape, knowing: bool) -> str:
        """Copy one table; return the evidence that was there before."""
        bound = evidence.bound(session) if knowing else ""
        found = evidence.states(session, self._database, self._clients.dialect, knowing=knowing, table=table)
        if table not in found:
            raise SqlError(f"table {table} is gone", _NO_TABLE)
        state = found[table]
        for where in self._pieces(session, table, shape, state.row_bytes):
            session.run(
                f"INSERT INTO {self._place(table, candidate)} ({shape.listed})"
                f" SELECT {shape.listed} FROM {self._place(table)}{where}"
            )
        return state.mark_before(bound)

    def _pieces(self, session: Session, table: str, shape: Shape, row_bytes: int) -> Iterator[str]:
        """Yield conditions that together select every row, each about as many as fit into one statement."""
        key = shape.number_key
        if key is None:
            yield ""
            return
        rows = max(1000, _PIECE_BYTES // max(row_bytes, 100))
        low: int | None = None
        while True:
            after = f" WHERE {comparing.between(key, low, None)}" if low is not None else ""
            found = session.value(
                f"SELECT {identifier(key)} FROM {self._place(table)}{after}"
                f" ORDER BY {identifier(key)} LIMIT 1 OFFSET {rows}"
            )
            high = int(found) if found is not None else None
            condition = comparing.between(key, low, high)
            yield f" WHERE {condition}" if condition else ""
            if high is None:
                return
            low = high

    # --- while nobody writes -----------------------------------------------------------------------------

    def copy(self, token: str, facts: Facts) -> str:
        """Make the copy equal to the live database; return its identity.

        No session may be on the live one. Raise RefusedError where one stays.
        """
        with self._clients.session() as session:
            self._shadows.await_no_sessions(session)
            properties = self._shadows.properties(session, self._database)
            tables = catalogue.base_tables(session, self._database)
            versioned = catalogue.versioned(session, self._database)
            for table in versioned:
                catalogue.copying(session, self._database, table, True)  # refuses history that cannot be copied
        with self._clients.session() as holder:
            # Locked, because an event of the database or a session without a default database could write meanwhile.
            if tables:
                holder.run(f"LOCK TABLES {', '.join(f'{self._place(table)} READ' for table in tables)}")
            with _full_disk_as_such(self._name):
                if not facts or not self._is_completed(token, facts, tables, versioned, properties):
                    self._shadows.empty(token, properties)
                    self._make(token, _Work(make=tables), versioned)
        return self._shadows.settle(self._shadows.candidate(token), self._shadows.script(self._database))

    def _is_completed(
        self, token: str, facts: Facts, tables: list[str], versioned: Sequence[str], properties: str
    ) -> bool:
        """Complete a copy that was begun ahead; return whether that could be done."""
        try:
            self._complete(token, msgspec.convert(facts, Ahead), tables, versioned, properties)
        except (SqlError, CommandFailedError) as error:
            if _CANNOT_WRITE.search(error.what):
                raise
            self._clients.host.warn(
                f"database {self._name}: its copy could not be completed, so all of it is made again: {error.what}"
            )
            return False
        return True

    def _complete(
        self, token: str, ahead: Ahead, tables: Sequence[str], versioned: Sequence[str], properties: str
    ) -> None:
        """Bring a copy that was begun ahead up to the live database, whose tables are locked."""
        candidate = self._shadows.candidate(token)
        with self._clients.session() as session:
            session.run(evidence.UTC)
            named_apart = not _differ_in_case(catalogue.movable(session, self._database))
            if self._shadows.properties(session, candidate) != properties or not named_apart:
                self._shadows.empty(token, properties)
                ahead.marks.clear()
            work = self._work(session, candidate, ahead, tables)
            for table in sorted(set(catalogue.movable(session, candidate)) - set(work.keep)):
                session.run(f"DROP TABLE {self._place(table, candidate)}")
            tasks: list[Task] = []
            for table in work.compare:
                state, places = work.states[table], (self._place(table), self._place(table, candidate))
                comparison = Comparison(work.shapes[table], *places, rows=state.rows)
                if state.size_bytes >= _SPLIT_BYTES:
                    comparison.split(session, max(self._clients.server.jobs, state.size_bytes // _PIECE_BYTES))
                tasks += [comparison.run] * comparison.sessions
        self._make(token, work, versioned, tasks)
        self._set_counters(candidate, work)

    def _work(self, session: Session, candidate: str, ahead: Ahead, tables: Sequence[str]) -> _Work:
        """Decide for each table what is left to do."""
        knowing = evidence.may_know(session)
        here = evidence.states(session, self._database, self._clients.dialect, knowing=knowing)
        there = set(catalogue.base_tables(session, candidate))
        shapes = comparing.shapes(session, self._database)
        is_same_server = evidence.server(session) == ahead.server and evidence.now(session) >= ahead.at
        work = _Work(here, shapes)
        for table in tables:
            mark = ahead.marks.get(table)
            if mark is None or table not in there or not self._is_defined_alike(session, candidate, table):
                work.make.append(table)
            elif is_same_server and mark and mark == here[table].mark:
                work.keep.append(table)
            elif shapes[table].is_comparable:
                work.keep.append(table)
                work.compare.append(table)
            else:
                work.make.append(table)
        # The largest first, so that no session begins with it when the others end.
        work.compare.sort(key=lambda table: -here[table].size_bytes)
        return work

    def _is_defined_alike(self, session: Session, candidate: str, table: str) -> bool:
        return self._definition(session, self._database, table) == self._definition(session, candidate, table)

    def _definition(self, session: Session, database: str, table: str) -> bytes:
        """Return a table's definition without its next number, and without the name of its own database."""
        text = session.rows(f"SHOW CREATE TABLE {self._place(table, database)}")[0][1] or ""
        lines = _COUNTER.sub(r"\1", text).encode(errors="surrogateescape").split(b"\n")
        return b"\n".join(rewriting.of_own_sequences(line, database) for line in lines)

    def _make(self, token: str, work: _Work, versioned: Sequence[str], tasks: Sequence[Task] = ()) -> None:
        """Create tables and sequences that are not kept, copy the rows of the former, and do other tasks meanwhile."""
        candidate = self._shadows.candidate(token)
        with self._clients.session() as session:
            views = catalogue.names(session, self._database, "VIEW")
            missing = set(catalogue.movable(session, self._database)) - set(work.keep)
            copying = [
                (table, *catalogue.copying(session, self._database, table, table in versioned)) for table in work.make
            ]
        if missing:
            self._clients.feed(candidate, dump.structure(self._clients, self._database, [*views, *work.keep]))

        def copy(table: str, columns: str, history: str) -> Task:
            return lambda session: self._copy_rows(session, candidate, table, columns, history)

        self._do([*tasks, *(copy(*one) for one in copying)], candidate, without_locks=bool(tasks))

    def _copy_rows(self, session: Session, candidate: str, table: str, columns: str, history: str) -> None:
        if history:
            session.run("SET system_versioning_insert_history = 1")
        session.run(
            f"INSERT INTO {self._place(table, candidate)} ({columns})"
            f" SELECT {columns} FROM {self._place(table)} {history}"
        )

    def _set_counters(self, candidate: str, work: _Work) -> None:
        """Set the next number of each kept table to that of its original."""
        with self._clients.session() as session:
            there = evidence.states(session, candidate, self._clients.dialect, knowing=False)
            for table in work.keep:
                number = work.states[table].auto_increment
                if number is not None and number != there[table].auto_increment:
                    session.run(f"ALTER TABLE {self._place(table, candidate)} AUTO_INCREMENT = {int(number)}")

    # --- sessions ----------------------------------------------------------------------------------------

    def _do(self, tasks: Sequence[Task], candidate: str, *, without_locks: bool, tolerant: bool = False) -> None:
        """Do tasks in several sessions; the candidate is their database, by which they are found if this process dies.

        `tolerant`: go on without a task that fails, unless the server cannot write or is not reached.
        """
        left = deque(tasks)
        opening = f"{evidence.UTC}; {_WITHOUT_LOCKS}" if without_locks else ""

        def next_one() -> Task | None:
            with suppress(IndexError):  # another session took the last one
                return left.popleft()
            return None

        def work() -> None:
            while left:
                try:
                    with self._clients.session(candidate) as session:
                        if opening:
                            session.run(opening)
                        while task := next_one():
                            task(session)
                except SqlError as error:
                    if not tolerant or not error.sql_state or _CANNOT_WRITE.search(error.what):
                        left.clear()
                        raise
                    self._clients.host.warn(f"database {self._name}: a table is not copied ahead: {error.what}")
                except BaseException:
                    left.clear()
                    raise

        with ThreadPoolExecutor(self._clients.server.jobs) as pool:
            for done in [pool.submit(work) for _ in range(min(self._clients.server.jobs, len(tasks)))]:
                done.result()


def _differ_in_case(names: Collection[str]) -> bool:
    """Return whether names differ in case alone, which the dump programs ignore in what they are to leave out."""
    return len({name.casefold() for name in names}) < len(names)


@contextmanager
def _full_disk_as_such(name: str) -> Iterator[None]:
    """Raise StepError in words of its own where the server's disk is full, which it calls an unknown error."""
    try:
        yield
    except SqlError as error:
        if not _CANNOT_WRITE.search(error.what):
            raise
        raise StepError(
            f"database {name}: the server could not write a copy: {error.what}",
            next_step="Check whether the server's disk is full; its log says more.",
        ) from error
