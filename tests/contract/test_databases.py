"""What every Database driver promises."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from holdfast.drivers.databases.mariadb.driver import MariadbDatabase
from holdfast.drivers.databases.mariadb.mysql import MysqlDatabase
from holdfast.drivers.databases.postgresql.driver import PostgresqlDatabase
from holdfast.drivers.databases.sqlite.driver import SqliteDatabase
from holdfast.drivers.protocols.databases import Database
from holdfast.errors import HoldfastError, RefusedError, StepError
from holdfast.model import Server, Snapshot
from holdfast.system.host import Host
from tests.contract.dumps import snapshot
from tests.fakes import FakeDatabase
from tests.servers import mariadb, mysql, postgresql
from tests.servers.mariadb import MariadbServer
from tests.servers.postgresql import PostgresqlServer

ROWS = "SELECT text FROM entry ORDER BY id"


class WriterHeldError(Exception):
    """A visitor's write did not come through in the moment that it was given."""


@dataclass
class Engine:
    """A driver, and the application's own way to write into its database."""

    database: Database
    folder: Path
    execute: Callable[[str], Any]
    create: str = "CREATE TABLE entry (id INTEGER PRIMARY KEY, text TEXT)"
    taken: dict[Path, Snapshot] = field(default_factory=dict)
    reached: Server | None = None

    def dump(self, target: Path) -> None:
        self.taken[target] = snapshot(self.database, target, [ROWS])

    def texts(self, dump: Path | None = None) -> list[str]:
        rows = self.taken[dump].answers[0] if dump is not None else self.database.query(ROWS)
        return [row[0] for row in rows]

    def prepare(self, token: str, dump: Path | None) -> str:
        if dump is None:
            return self.database.prepare(token, None, {})
        taken = self.taken[dump]
        rows = {table: facts["rows"] for table, facts in taken.tables.items()}
        return self.database.prepare(token, dump, {**taken.facts, "rows": rows})

    def add(self, text: str) -> None:
        self.execute(f"INSERT INTO entry (text) VALUES ('{text}')")

    def other(self, name: str) -> list[str]:
        """The rows of a database that is not the live one."""
        if self.database.kind == "sqlite":
            return Engine(SqliteDatabase("other", Path(name)), self.folder, self.execute).texts()
        if isinstance(self.database, FakeDatabase):
            return [row[0] for row in FakeDatabase(self.database.given[name]).query(ROWS)]
        assert self.reached is not None
        driver = type(self.database)
        assert driver in (PostgresqlDatabase, MariadbDatabase, MysqlDatabase)
        return Engine(driver("other", name, self.reached, Host()), self.folder, self.execute).texts()

    def identity(self) -> str | None:
        found = self.database.inspect()["identity"]
        assert found is None or isinstance(found, str)
        return found

    def dump_of(self, *texts: str) -> Path:
        """A dump whose table has just these rows; the live database is as before."""
        target = self.folder / f"dump-{'-'.join(texts)}"
        before = self.texts()
        self.execute("DELETE FROM entry")
        for text in texts:
            self.add(text)
        self.dump(target)
        self.execute("DELETE FROM entry")
        for text in before:
            self.add(text)
        return target


@contextmanager
def sqlite_engine(folder: Path, mode: str) -> Iterator[Engine]:
    path = folder / "app.sqlite3"

    def execute(sql: str) -> None:
        try:
            with closing(sqlite3.connect(path, timeout=0.05)) as connection, connection:
                connection.execute(f"PRAGMA journal_mode={mode}")
                connection.execute(sql)
        except sqlite3.OperationalError as error:
            raise WriterHeldError(str(error)) from error

    yield Engine(SqliteDatabase("main", path), folder, execute)


@contextmanager
def fake_engine(folder: Path) -> Iterator[Engine]:
    database = FakeDatabase()

    def execute(sql: str) -> None:
        try:
            database.execute(sql)
        except sqlite3.OperationalError as error:
            raise WriterHeldError(str(error)) from error

    yield Engine(database, folder, execute)


@contextmanager
def postgresql_engine(
    folder: Path, shared: Callable[[], AbstractContextManager[PostgresqlServer]] = postgresql.shared
) -> Iterator[Engine]:
    """The application and Holdfast use one role that owns its database, and is no superuser."""
    with shared() as server, server.own_database() as name:

        def execute(sql: str) -> None:
            server.create_if_missing(name)
            try:
                server.run(name, f"SET lock_timeout = 50; {sql}", user=postgresql.ROLE)
            except postgresql.LockTimeoutError as error:
                raise WriterHeldError(str(error)) from error

        reached = Server(host=str(server.place), port=server.port, user=postgresql.ROLE, container=server.container)
        database = PostgresqlDatabase("main", name, reached, Host(operation="contract"))
        create = "CREATE TABLE entry (id SERIAL PRIMARY KEY, text TEXT)"
        yield Engine(database, folder, execute, create, reached=reached)


@contextmanager
def mariadb_engine(
    folder: Path, shared: Callable[[], AbstractContextManager[MariadbServer]], driver: type[MariadbDatabase]
) -> Iterator[Engine]:
    """The application and Holdfast use one account with every right on its database, and no other."""
    with shared() as server, server.own_database() as name:

        def execute(sql: str) -> None:
            server.create_if_missing(name)
            try:
                server.run(name, f"SET sql_mode = 'ANSI_QUOTES', lock_wait_timeout = 0; {sql}", user=mariadb.USER)
            except mariadb.LockTimeoutError as error:
                raise WriterHeldError(str(error)) from error

        reached = Server(host=str(server.place / "socket"), user=mariadb.USER, container=server.container)
        database = driver("main", name, reached, Host(operation="contract"))
        create = "CREATE TABLE entry (id INTEGER PRIMARY KEY AUTO_INCREMENT, text TEXT)"
        yield Engine(database, folder, execute, create, reached=reached)


ENGINES: dict[str, Callable[[Path], AbstractContextManager[Engine]]] = {
    "sqlite-wal": lambda folder: sqlite_engine(folder, "wal"),
    "sqlite-delete": lambda folder: sqlite_engine(folder, "delete"),
    "fake": fake_engine,
    "postgresql": postgresql_engine,
    "mariadb": lambda folder: mariadb_engine(folder, mariadb.shared, MariadbDatabase),
    "mysql": lambda folder: mariadb_engine(folder, mysql.shared, MysqlDatabase),
}


@pytest.fixture(params=list(ENGINES))
def missing(request: pytest.FixtureRequest, quick_folder: Path) -> Iterator[Engine]:
    """An engine whose database does not exist yet."""
    with ENGINES[request.param](quick_folder) as made:
        yield made


@pytest.fixture
def engine(missing: Engine) -> Engine:
    missing.execute(missing.create)
    for text in ("one", "two"):
        missing.add(text)
    return missing


# --- looking ------------------------------------------------------------------------------------------


def test_inspect_of_a_database_and_of_none(engine: Engine) -> None:
    facts = engine.database.inspect()
    assert facts["exists"] is True
    assert facts["identity"]
    assert facts["size_bytes"] > 0
    assert facts["tool"]
    if isinstance(engine.database, MariadbDatabase):
        inside = engine.reached is not None and engine.reached.container
        assert facts["data_folder"] is None if inside else Path(facts["data_folder"]).is_dir()
    engine.database.swap("op", None, "op")
    facts = engine.database.inspect()
    assert (facts["exists"], facts["identity"], facts["size_bytes"]) == (False, None, 0)


def test_query_reads_and_never_writes(engine: Engine) -> None:
    assert engine.texts() == ["one", "two"]
    with pytest.raises(StepError):
        engine.database.query("DELETE FROM entry")
    with pytest.raises(StepError):
        engine.database.query("SELECT * FROM nothing")
    assert engine.texts() == ["one", "two"]


def test_a_missing_database_cannot_be_queried(missing: Engine) -> None:
    assert missing.database.inspect()["exists"] is False
    with pytest.raises(StepError):
        missing.database.query("SELECT 1")
    assert missing.database.inspect()["exists"] is False, "asking does not create it"


def test_tables_have_columns_and_exact_rows(engine: Engine) -> None:
    engine.execute('CREATE TABLE "odd ""name" (a INTEGER, b INTEGER)')
    assert engine.database.tables() == {
        "entry": {"rows": 2, "columns": ["id", "text"]},
        'odd "name': {"rows": 0, "columns": ["a", "b"]},
    }


def test_rows_beyond_the_budget_are_none(engine: Engine) -> None:
    # Large enough that a count takes more steps than the driver lets pass between two looks at the clock.
    engine.execute(
        "INSERT INTO entry (text) WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300000)"
        " SELECT 'x' FROM n"
    )
    assert engine.database.tables(budget_seconds=0)["entry"] == {"rows": None, "columns": ["id", "text"]}


# --- copies -------------------------------------------------------------------------------------------


def test_a_snapshot_holds_its_instant(engine: Engine) -> None:
    dump = engine.folder / "dump"
    engine.dump(dump)
    engine.add("later")
    assert engine.texts(dump) == ["one", "two"]
    assert engine.taken[dump].tables["entry"] == {"rows": 2, "columns": ["id", "text"]}
    assert engine.texts() == ["one", "two", "later"]


def test_a_dump_is_not_for_others_to_read(engine: Engine) -> None:
    engine.dump(engine.folder / "dump")
    assert (engine.folder / "dump").stat().st_mode & 0o077 == 0


def test_hold_keeps_writers_out_until_the_snapshot_is_taken(engine: Engine) -> None:
    dump = engine.folder / "dump"
    with engine.database.hold(2) as fix:
        with pytest.raises(WriterHeldError):
            engine.add("while held")
        assert engine.texts() == ["one", "two"], "readers go on"
        finish = fix(dump, [ROWS], 10)
        engine.taken[dump] = finish()
        assert engine.taken[dump].held_seconds > 0 or engine.database.kind == "fake"
        engine.add("after")
    assert engine.texts(dump) == ["one", "two"]
    assert engine.texts() == ["one", "two", "after"]


def test_an_instant_is_fixed_while_writers_go_on(engine: Engine) -> None:
    dump = engine.folder / "dump"
    with engine.database.hold(None) as fix:
        engine.add("before")
        finish = fix(dump, [ROWS], 10)
        engine.add("after")
        engine.taken[dump] = finish()
    # Where the dump and the answers are two transactions, writers are held for the moment in which both begin.
    assert engine.taken[dump].held_seconds < (1 if isinstance(engine.database, MariadbDatabase) else 1e-9)
    assert engine.texts(dump) == ["one", "two", "before"]
    assert engine.texts() == ["one", "two", "before", "after"]


def test_hold_lets_writers_go_when_no_snapshot_is_taken(engine: Engine) -> None:
    with pytest.raises(HoldfastError, match="for another reason"), engine.database.hold(2):
        raise HoldfastError("for another reason")
    engine.add("after")
    assert engine.texts() == ["one", "two", "after"]


def test_two_cannot_hold_unless_both_keep_writers_out(engine: Engine) -> None:
    with engine.database.hold(2):
        if engine.database.kind in ("postgresql", "mariadb", "mysql"):  # locks against writers go together
            with engine.database.hold(0.05), pytest.raises(WriterHeldError):
                engine.add("while held")
            return
        with pytest.raises(StepError, match="cannot be held"), engine.database.hold(0.05):
            pass  # pragma: no cover
    engine.add("after")


def test_a_missing_database_cannot_be_held_or_copied(missing: Engine) -> None:
    with pytest.raises(StepError), missing.database.hold(0.05):
        pass  # pragma: no cover
    with pytest.raises(StepError):
        snapshot(missing.database, missing.folder / "dump")


# --- beside and swap ----------------------------------------------------------------------------------


def test_restore_from_a_dump_and_back_by_identity(engine: Engine) -> None:
    dump = engine.dump_of("old")
    engine.add("three")
    live = engine.identity()
    candidate = engine.prepare("op", dump)
    assert engine.identity() == live, "the candidate stands beside"
    engine.database.swap("op", candidate, "op")
    assert (engine.identity(), engine.texts()) == (candidate, ["old"])
    engine.database.swap("op", candidate, "op")
    assert engine.texts() == ["old"], "a swap may be repeated"
    engine.database.swap("op", live, "op.back")
    assert (engine.identity(), engine.texts()) == (live, ["one", "two", "three"])
    engine.database.swap("op", live, "op.back")
    assert engine.texts() == ["one", "two", "three"]


def test_a_candidate_answers_and_the_live_database_does_not_notice(engine: Engine) -> None:
    dump = engine.dump_of("old")
    live = engine.identity()
    identity = engine.prepare("op", dump)
    for _ in range(2):
        with engine.database.candidate("op", identity) as candidate:
            assert [row[0] for row in candidate.query(ROWS)] == ["old"]
            assert "text" in candidate.tables(budget_seconds=0)["entry"]["columns"]
            with pytest.raises(StepError):
                candidate.query("SELECT name FROM nowhere")
    assert (engine.identity(), engine.texts()) == (live, ["one", "two"])
    engine.database.swap("op", identity, "op")
    assert (engine.identity(), engine.texts()) == (identity, ["old"])
    with pytest.raises(StepError), engine.database.candidate("op", identity):
        pass  # pragma: no cover


def test_of_several_beside_the_recorded_identity_comes_never_the_first_of_a_kind(engine: Engine) -> None:
    """As where an earlier operation left a candidate of its own."""
    first, second = engine.dump_of("first"), engine.dump_of("second")
    live = engine.identity()
    left, wanted = engine.prepare("earlier", first), engine.prepare("op", second)
    assert left != wanted
    engine.database.swap("op", wanted, "op")
    assert (engine.identity(), engine.texts()) == (wanted, ["second"])
    engine.database.swap("op", live, "op.back")
    assert engine.identity() == live
    engine.database.swap("earlier", left, "earlier.aside")
    assert (engine.identity(), engine.texts()) == (left, ["first"])


def test_restore_point_from_the_live_database(engine: Engine) -> None:
    point = engine.prepare("op", None)
    live = engine.identity()
    assert point != live
    engine.add("of the migration")
    engine.database.swap("op", point, "op.aside")
    assert (engine.identity(), engine.texts()) == (point, ["one", "two"])
    engine.database.swap("op", live, "op.again")
    assert engine.texts() == ["one", "two", "of the migration"]


def test_a_dump_of_a_restore_point_is_of_the_time_of_the_restore_point(engine: Engine) -> None:
    live = snapshot(engine.database, engine.folder / "live")
    point, target = engine.prepare("op", None), engine.folder / "dump"
    engine.add("of the migration")
    engine.database.dump("op", point, target, 10)
    taken = engine.taken[target] = engine.database.dump("op", point, target, 10)
    assert taken.tables == live.tables
    assert {**taken.facts, "binlog": None} == {**live.facts, "binlog": None}
    assert target.stat().st_mode & 0o777 == 0o600
    assert engine.texts() == ["one", "two", "of the migration"]
    engine.database.swap("op3", engine.prepare("op3", target), "op3.aside")
    assert engine.texts() == ["one", "two"]
    engine.database.swap("op", point, "op.aside")
    assert (engine.identity(), engine.texts()) == (point, ["one", "two"])


def test_a_dump_of_what_was_replaced_is_of_the_time_of_the_swap(engine: Engine) -> None:
    candidate, target = engine.prepare("op", engine.dump_of("new")), engine.folder / "replaced"
    before, live = snapshot(engine.database, engine.folder / "live"), engine.identity()
    assert live is not None
    engine.database.swap("op", candidate, "op.replaced")
    engine.add("written since")
    engine.database.dump("op", live, target, 10)
    taken = engine.taken[target] = engine.database.dump("op", live, target, 10)
    assert taken.tables == before.tables
    assert {**taken.facts, "binlog": None} == {**before.facts, "binlog": None}
    assert engine.texts() == ["new", "written since"]
    engine.database.swap("op2", engine.prepare("op2", target), "op2.aside")
    assert engine.texts() == ["one", "two"]
    engine.database.discard("op")
    with pytest.raises(StepError, match="gone"):
        engine.database.dump("op", live, target, 10)


def test_prepare_may_be_repeated_and_replaces_the_earlier_candidate(engine: Engine) -> None:
    first = engine.prepare("op", engine.dump_of("first"))
    second = engine.prepare("op", engine.dump_of("second"))
    engine.database.swap("op", second, "op")
    assert engine.texts() == ["second"]
    if first != second:
        with pytest.raises(StepError):
            engine.database.swap("op", first, "op")
    assert engine.texts() == ["second"]


def test_an_identity_that_is_gone_changes_nothing(engine: Engine) -> None:
    with pytest.raises(StepError, match="gone"):
        engine.database.swap("op", "0:0", "op")
    assert engine.texts() == ["one", "two"]


def test_swap_to_nothing_and_back(engine: Engine) -> None:
    live = engine.identity()
    engine.database.swap("op", None, "op")
    engine.database.swap("op", None, "op")
    assert engine.identity() is None
    engine.database.swap("op", live, "op")
    assert engine.texts() == ["one", "two"]


def test_what_steps_aside_never_goes_over_an_earlier_entry(engine: Engine) -> None:
    """Every identity that an operation ever had in place can be put back."""
    seen = [engine.identity()]
    expected = [["one", "two"]]
    for text in ("a", "b", "c"):
        candidate = engine.prepare(f"op.{text}", engine.dump_of(text))
        engine.database.swap("op", candidate, "op.aside")
        seen.append(candidate)
        expected.append([text])
    for identity, texts in zip(seen, expected, strict=True):
        engine.database.swap("op", identity, "op.aside")
        assert (engine.identity(), engine.texts()) == (identity, texts)


def test_discard_removes_an_operations_own_and_nothing_else(engine: Engine) -> None:
    dump = engine.dump_of("old")
    mine, other = engine.prepare("op1", dump), engine.prepare("op10", dump)
    engine.database.discard("op1")
    engine.database.discard("op1")
    engine.database.discard("never heard of")
    with pytest.raises(StepError):
        engine.database.swap("op1", mine, "op1")
    engine.database.swap("op10", other, "op10")
    assert engine.texts() == ["old"]


def other_place(engine: Engine) -> str:
    """A name for a database that does not exist, as this engine takes it."""
    if engine.database.kind == "sqlite":
        return str(engine.folder / "other.sqlite3")
    return f"{getattr(engine.database, 'database', 'fake')}other"


def test_a_candidate_is_handed_over_and_the_live_database_stays(engine: Engine) -> None:
    before, name = engine.identity(), other_place(engine)
    engine.prepare("op", engine.dump_of("old"))
    engine.database.hand_over("op", name, rehearsal=True)
    engine.database.hand_over("op", name)
    engine.database.hand_over("op", name)
    engine.database.discard("op")
    assert (engine.identity(), engine.texts(), engine.database.tokens()) == (before, ["one", "two"], [])
    assert engine.other(name) == ["old"]
    engine.prepare("op2", engine.dump_of("newer"))
    for rehearsal in (True, False):
        with pytest.raises(RefusedError):
            engine.database.hand_over("op2", name, rehearsal=rehearsal)
    engine.database.discard("op2")
    assert engine.other(name) == ["old"]


def test_a_damaged_dump_is_refused_and_nothing_changes(engine: Engine) -> None:
    dump = engine.dump_of(*[f"row-{number}" for number in range(30)])
    whole = dump.read_bytes()
    dump.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(HoldfastError):
        engine.prepare("op", dump)
    dump.write_bytes(b"this is no dump at all" * 100)
    with pytest.raises(HoldfastError):
        engine.prepare("op", dump)
    assert engine.texts() == ["one", "two"]
