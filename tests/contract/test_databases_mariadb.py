"""MariaDB and MySQL: obstacles to renames, rights, other clients' sessions, dead clients, a crashing server."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pymysql
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from holdfast.drivers.databases.mariadb import catalogue, copies, dump, parallel, snapshots
from holdfast.drivers.databases.mariadb.client import Clients, identifier
from holdfast.drivers.databases.mariadb.driver import MariadbDatabase
from holdfast.drivers.databases.mariadb.dump_output import RowCounter
from holdfast.drivers.databases.mariadb.mysql import MysqlDatabase
from holdfast.drivers.databases.mariadb.parallel import Key
from holdfast.drivers.interchange import dump_source
from holdfast.errors import DamagedError, HoldfastError, RefusedError, StepError
from holdfast.model import Facts, Server, Snapshot
from holdfast.system.host import Host
from tests.contract.dumps import snapshot
from tests.proof import patience
from tests.servers import mariadb, mysql
from tests.servers.mariadb import ADMINISTRATOR, USER, MariadbServer, numbers
from tests.servers.mysql import MysqlServer

OPERATION = "20260101-000000-upgrade-ab12"
PROGRAMS = """
CREATE TABLE child (id INT PRIMARY KEY, entry INT, size INT, twice INT GENERATED ALWAYS AS (size * 2) STORED, half INT
  AS (size / 2) VIRTUAL, hidden INT INVISIBLE DEFAULT 7, FOREIGN KEY (entry) REFERENCES entry (id) ON DELETE CASCADE);
INSERT INTO child (id, entry, size) VALUES (1, 1, 10), (2, 2, 20);
CREATE VIEW shouted AS SELECT shout(text) AS text FROM entry;
CREATE TRIGGER counted AFTER INSERT ON entry FOR EACH ROW INSERT INTO child (id, entry) VALUES (NEW.id + 1000, NEW.id);
CREATE EVENT yearly ON SCHEDULE EVERY 1 YEAR STARTS '2035-01-01 00:00:00' DO DELETE FROM child WHERE id < 0;
CREATE TABLE parts (n INT) PARTITION BY RANGE (n) (PARTITION low VALUES LESS THAN (10), PARTITION high VALUES LESS THAN
  MAXVALUE);
INSERT INTO parts VALUES (3), (30)
"""
OF_ONE = {
    "MariaDB": ["CREATE SEQUENCE tickets START WITH 40; DO NEXTVAL(tickets)"],
    "MySQL": [
        "CREATE TABLE mine (id BINARY(16) PRIMARY KEY DEFAULT (UUID_TO_BIN(UUID())), said VARCHAR(200) COLLATE"
        " utf8mb4_0900_as_cs CHECK (said <> ''), doc JSON DEFAULT (JSON_OBJECT('a', 1)), at POINT SRID 4326,"
        " bits BIT(9), FULLTEXT (said), KEY odd ((LOWER(said)) DESC) INVISIBLE)",
        "INSERT INTO mine (said, at, bits) VALUES ('it''s \\\\ (1),(2)', ST_SRID(POINT(1, 2), 4326), b'101')",
    ],
}
DRIVERS = {"MariaDB": MariadbDatabase, "MySQL": MysqlDatabase}
mariadb_alone = pytest.mark.parametrize("server", [mariadb], ids=["mariadb"], indirect=True)
mysql_alone = pytest.mark.parametrize("server", [mysql], ids=["mysql"], indirect=True)
on_both = pytest.mark.parametrize(
    "product",
    [
        pytest.param(MariadbServer, id="mariadb"),
        pytest.param(MysqlServer, id="mysql", marks=pytest.mark.variant("mysql")),
    ],
)
FUNCTION = "CREATE FUNCTION shout(said TEXT) RETURNS TEXT DETERMINISTIC RETURN CONCAT(UPPER(said), '!; --')"


@pytest.fixture(
    params=[pytest.param(mariadb, id="mariadb"), pytest.param(mysql, id="mysql", marks=pytest.mark.variant("mysql"))]
)
def server(request: pytest.FixtureRequest) -> Iterator[MariadbServer]:
    with request.param.shared() as running:
        yield running


def fill(server: MariadbServer, name: str) -> None:
    server.create_if_missing(name)
    server.run(name, "CREATE TABLE entry (id INT PRIMARY KEY AUTO_INCREMENT, text TEXT)", user=USER)
    server.run(name, "INSERT INTO entry (text) SELECT CONCAT('row ', seq) FROM " + numbers(500), user=USER)


@pytest.fixture
def name(server: MariadbServer) -> Iterator[str]:
    with server.own_database() as made:
        fill(server, made)
        yield made


def driver(server: MariadbServer, name: str, host: Host | None = None, **changes: object) -> MariadbDatabase:
    reached = replace(Server(host=server.socket, user=USER), **changes)
    return DRIVERS[server.product]("main", name, reached, host or Host(operation=OPERATION))


@pytest.fixture
def database(server: MariadbServer, name: str) -> MariadbDatabase:
    return driver(server, name)


def facts_of(taken: Snapshot) -> Facts:
    return {**taken.facts, "rows": {table: facts["rows"] for table, facts in taken.tables.items()}}


def whole(server: MariadbServer, name: str) -> str:
    """Everything that the dump program finds in a database."""
    own = ["--dump-history"] if server.product == "MariaDB" else ["--set-gtid-purged=OFF"]
    return server.dumped(
        name, "--skip-comments", "--order-by-primary", "--routines", "--events", "--hex-blob", *own
    ).decode()


@contextmanager
def visitor(server: MariadbServer, name: str, sql: str = "", user: str = USER) -> Iterator[pymysql.Connection]:
    """A session that stays open and has done `sql`."""
    connection = pymysql.connect(unix_socket=server.socket, user=user, database=name)
    try:
        if sql:
            connection.cursor().execute(sql)
        yield connection
    finally:
        with contextlib.suppress(pymysql.Error):
            connection.close()


@mariadb_alone
def test_the_name_of_a_trigger_that_a_dying_server_left_is_in_nobodys_way(
    server: MariadbServer, name: str, database: MariadbDatabase, quick_folder: Path
) -> None:
    """Met once: killed in a CREATE TRIGGER, it left the file of the name, which no catalogue knows."""
    trigger = "CREATE TRIGGER kept BEFORE INSERT ON entry FOR EACH ROW SET NEW.text = 'kept'"
    server.run(name, trigger, user=USER)

    def leave(pattern: str) -> None:
        (folder,) = (server.folder / "data").glob(pattern)
        left = folder / "kept.TRN"
        left.write_text("TYPE=TRIGGERNAME\ntrigger_table=entry\n")
        shutil.chown(left, folder.owner(), folder.group())

    taken = snapshot(database, quick_folder / "dump")
    point = database.prepare(OPERATION, quick_folder / "dump", facts_of(taken))
    server.run(name, "DROP TRIGGER kept", user=USER)
    leave(name)
    database.swap(OPERATION, point, f"{OPERATION}.failed")
    server.run(name, "INSERT INTO entry (text) VALUES ('said')", user=USER)
    assert server.run(name, "SELECT text FROM entry ORDER BY id DESC LIMIT 1") == "kept"
    database.prepare(OPERATION, None, {})
    leave(f"hf@002d{hashlib.sha256(name.encode()).hexdigest()[:6]}*new")  # other sites have theirs on this server
    database.discard(OPERATION)
    assert database.tokens() == []


# --- what belongs to a database beside its rows -----------------------------------------------------------


@pytest.fixture
def of_small_ones_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Further dump programs take their shares of every database."""
    monkeypatch.setattr(parallel, "_LEAST_BYTES", 0)


@pytest.mark.usefixtures("of_small_ones_too")
@pytest.mark.parametrize(
    "by", ["restore point", "dump", "dump by tables", "dump by halves of a table", "dump of a restore point"]
)
def test_everything_comes_back(
    server: MariadbServer,
    name: str,
    database: MariadbDatabase,
    quick_folder: Path,
    by: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(snapshots, "largest", lambda sizes: "entry" if "halves" in by else None)
    for sql in (FUNCTION, *PROGRAMS.split(";\n"), *OF_ONE[server.product]):
        server.run(name, sql, user=USER)
    server.run(name, f"ALTER DATABASE `{name}` CHARACTER SET latin1 COLLATE latin1_german1_ci", user=USER)
    before = whole(server, name)
    if by != "restore point":
        taken = taken_by(database, quick_folder / "dump", by)
        more = {"mine": 1} if server.product == "MySQL" else {}
        counted = {table: facts["rows"] for table, facts in taken.tables.items()}
        assert counted == {"entry": 500, "child": 2, "parts": 2, **more}
        point = database.prepare(OPERATION, quick_folder / "dump", facts_of(taken))
    else:
        point = database.prepare(OPERATION, None, {})
    assert whole(server, name) == before, "the live database is as it was"
    server.run(name, "DROP VIEW shouted; DROP TRIGGER counted; ALTER TABLE entry ADD COLUMN more INT", user=USER)
    server.run(name, f"DELETE FROM child; ALTER DATABASE `{name}` CHARACTER SET utf8mb4", user=USER)
    changed = whole(server, name)
    first = database.inspect()["identity"]
    database.swap(OPERATION, point, f"{OPERATION}.failed")
    assert whole(server, name) == before
    assert "latin1_german1_ci" in server.run(name, f"SHOW CREATE DATABASE `{name}`")
    with pytest.raises(AssertionError, match="foreign key"):
        server.run(name, "INSERT INTO child (id, entry) VALUES (9, 9999)", user=USER)
    database.swap(OPERATION, first, f"{OPERATION}.undone")
    assert whole(server, name) == changed


def taken_by(database: MariadbDatabase, target: Path, by: str) -> Snapshot:
    if by == "dump":
        return snapshot(database, target)
    if by.startswith("dump by"):
        return held_snapshot(database, target)
    return database.dump(f"{OPERATION}0", database.prepare(f"{OPERATION}0", None, {}), target, 10)


def held_snapshot(database: MariadbDatabase, target: Path) -> Snapshot:
    with database.freeze_writes(5) as fix:
        return fix(target, [], 10)()


@pytest.mark.usefixtures("of_small_ones_too")
@pytest.mark.parametrize("parted", [None, "entry"], ids=["by tables", "by halves of a table"])
def test_several_dump_programs_see_one_instant(
    server: MariadbServer,
    name: str,
    database: MariadbDatabase,
    quick_folder: Path,
    parted: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Rows that come to both tables by one transaction are in both shares or in none."""
    monkeypatch.setattr(snapshots, "largest", lambda sizes: parted)
    odd = "odd_%`-name"
    server.run(name, f"CREATE TABLE {identifier(odd)} (id INT PRIMARY KEY AUTO_INCREMENT, text TEXT)", user=USER)
    stop = threading.Event()

    def write() -> None:
        with pymysql.connect(unix_socket=server.socket, user=USER, database=name) as connection:
            with connection.cursor() as cursor:
                while not stop.is_set():
                    cursor.execute("INSERT INTO entry (text) VALUES ('both')")
                    cursor.execute(f"INSERT INTO {identifier(odd)} (text) VALUES ('both')")
                    connection.commit()

    announced: list[str] = []
    told = driver(server, name, Host(operation=OPERATION, announce=announced.append))
    writer = threading.Thread(target=write)
    writer.start()
    try:
        for number in range(6):
            taken = held_snapshot(told, quick_folder / f"dump{number}")
            counted = {table: facts["rows"] for table, facts in taken.tables.items()}
            assert counted[odd] == counted["entry"] - 500
            assert taken.held_seconds > 0
    finally:
        stop.set()
        writer.join()
    assert counted[odd] > 0
    beside = [line for line in announced if line.endswith(f"-- {name} {parted or odd}")]
    assert len(beside) == (12 if parted else 6), "another program took nothing"
    assert sorted(path.name for path in quick_folder.iterdir()) == [f"dump{number}" for number in range(6)]
    point = database.prepare(OPERATION, quick_folder / "dump5", facts_of(taken))
    database.swap(OPERATION, point, f"{OPERATION}.failed")
    assert server.run(name, f"SELECT COUNT(*) FROM {identifier(odd)}") == str(counted[odd])


@pytest.mark.usefixtures("of_small_ones_too")
def test_a_second_dump_program_that_fails_fails_the_dump(
    server: MariadbServer, name: str, database: MariadbDatabase, quick_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.run(name, "CREATE TABLE second (a INT)", user=USER)
    own = Clients.dump

    def dump(self: Clients, sink: Any, *arguments: str, names: Sequence[str], **options: Any) -> None:
        own(self, sink, *arguments, names=names, **options)
        if len(names) > 1:
            raise StepError("the second ended badly")

    monkeypatch.setattr(Clients, "dump", dump)
    with pytest.raises(StepError, match="the second ended badly"):
        held_snapshot(database, quick_folder / "dump")
    assert [path.name for path in quick_folder.iterdir()] == ["dump"]


@pytest.mark.usefixtures("of_small_ones_too")
def test_writers_of_a_single_table_go_on_once_its_dump_has_begun(
    server: MariadbServer, name: str, database: MariadbDatabase, quick_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first program has no table then; that the dump is far from its end is seen to by a lock."""
    allowed = threading.Event()
    own = dump._Beside.append_to

    def append_to(self: dump._Beside, *arguments: Any) -> None:
        assert allowed.wait(patience.limit(30))
        own(self, *arguments)

    monkeypatch.setattr(dump._Beside, "append_to", append_to)
    with database.freeze_writes(5) as fix:
        finish = fix(quick_folder / "dump", [], 10)
        server.run(name, "SET lock_wait_timeout = 2; INSERT INTO entry (text) VALUES ('afterwards')", user=USER)
        allowed.set()
        assert finish().tables["entry"]["rows"] == 500


@pytest.mark.usefixtures("of_small_ones_too")
def test_a_change_of_a_table_that_waits_fails_the_dump_and_not_the_visitors(
    server: MariadbServer, name: str, database: MariadbDatabase, quick_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits for the lock that holds writers, and whoever reads waits behind it, as the dump programs do."""
    monkeypatch.setattr(snapshots, "_BEGIN_SECONDS", 1.0)
    change = threading.Thread(target=server.run, args=(name, "ALTER TABLE entry ADD COLUMN more INT"))
    waiting = f"SELECT COUNT(*) FROM information_schema.processlist WHERE db = '{name}' AND info LIKE 'ALTER TABLE%'"
    with contextlib.ExitStack() as stack:
        fix = stack.enter_context(database.freeze_writes(5))
        change.start()
        while server.run("mysql", waiting) != "1":
            time.sleep(0.01)
        time.sleep(0.2)
        with pytest.raises(StepError):  # MySQL's program gives up by itself
            fix(quick_folder / "dump", [], 10)
    change.join(patience.limit(30))
    assert not change.is_alive()
    assert held_snapshot(database, quick_folder / "dump").tables["entry"]["rows"] == 500


@pytest.mark.usefixtures("of_small_ones_too")
def test_tables_whose_names_differ_in_case_alone_are_dumped_by_one_program(
    server: MariadbServer, name: str, database: MariadbDatabase, quick_folder: Path
) -> None:
    server.run(name, "CREATE TABLE Entry (a INT); INSERT INTO Entry VALUES (1)", user=USER)
    taken = held_snapshot(database, quick_folder / "dump")
    assert {table: facts["rows"] for table, facts in taken.tables.items()} == {"entry": 500, "Entry": 1}


@given(sizes=st.dictionaries(st.text(max_size=3), st.integers(0, 1 << 40)))
def test_a_second_dump_program_has_about_as_much_to_do(sizes: dict[str, int]) -> None:
    second = parallel.tables_of(parallel.half(sizes))
    assert set(second) <= set(sizes)
    loads = [sum(size for name, size in sizes.items() if (name in second) == beside) for beside in (False, True)]
    if second:
        assert loads[1] >= 16 << 20
        assert abs(loads[0] - loads[1]) <= max(sizes.values())


@pytest.mark.parametrize(
    ("definition", "key"),
    [
        ("(id INT PRIMARY KEY, n INT)", Key("id", 3, 9)),
        ("(n INT, id BIGINT UNSIGNED NOT NULL UNIQUE)", Key("id", 3, 9)),
        ("(id VARCHAR(9) PRIMARY KEY, n INT)", None),
        ("(id INT, n INT, PRIMARY KEY (id, n))", None),
        ("(id INT, n INT)", None),
        ("(id DECIMAL(9, 1) PRIMARY KEY, n INT)", None),
        ("(id INT PRIMARY KEY, n INT) ENGINE = MyISAM", None),
    ],
)
def test_a_table_is_parted_by_one_key_of_whole_numbers(
    server: MariadbServer, name: str, database: MariadbDatabase, definition: str, key: Key | None
) -> None:
    server.run(name, f"CREATE TABLE parted {definition}", user=USER)
    with database._clients.session() as session:
        assert catalogue.number_key(session, name, "parted") is None, "it has no row"
    server.run(name, "INSERT INTO parted (id, n) VALUES (3, 0), (9, 0), (4, 0)", user=USER)
    with database._clients.session() as session:
        assert catalogue.number_key(session, name, "parted") == key


@given(least=st.integers(-(1 << 63), 1 << 63), more=st.integers(0, 1 << 63))
def test_every_row_is_in_one_half(least: int, more: int) -> None:
    lower, upper = parallel.split_by_key("entry", Key("id", least, least + more))
    middle = int(lower.where.removeprefix("`id` < "))
    assert upper.where == f"`id` >= {middle}" and least <= middle <= least + more + 1
    assert (lower.defines, upper.defines) == (True, False)


def test_of_two_that_were_never_swapped_an_operations_own_comes_back(
    server: MariadbServer, name: str, database: MariadbDatabase
) -> None:
    """The marker's place was dropped by hand, so both have the identity of a database that has none."""
    second = OPERATION.replace("-", "-9", 1)
    for operation, text in ((OPERATION, "earlier"), (second, "later")):
        server.run(
            name, f"CREATE TABLE IF NOT EXISTS told (text TEXT); DELETE FROM told; INSERT INTO told VALUES ('{text}')"
        )
        live = database.inspect()["identity"]
        point = database.prepare(operation, None, {})
        database.swap(operation, point, f"{operation}.replaced")
        if operation == OPERATION:
            own = f"hf-{hashlib.sha256(name.encode()).hexdigest()[:6]}"
            server.run("mysql", f"DROP DATABASE `{own}`")
    database.swap(second, live, f"{second}.undone")
    assert server.run(name, "SELECT text FROM told") == "later"


@mariadb_alone
@pytest.mark.parametrize("by", ["dump", "dump of a restore point"])
def test_history_of_versioned_tables_comes_back(
    server: MariadbServer, name: str, database: MariadbDatabase, quick_folder: Path, by: str
) -> None:
    server.run(
        name,
        "CREATE TABLE told (a INT) WITH SYSTEM VERSIONING; INSERT INTO told VALUES (1); UPDATE told SET a = 2;"
        " CREATE TABLE dated (a INT, began TIMESTAMP(6) GENERATED ALWAYS AS ROW START, ended TIMESTAMP(6) GENERATED"
        " ALWAYS AS ROW END, PERIOD FOR SYSTEM_TIME (began, ended)) WITH SYSTEM VERSIONING;"
        " INSERT INTO dated (a) VALUES (1); DELETE FROM dated",
        user=USER,
    )
    history = (
        "SELECT a, ROW_START, ROW_END FROM told FOR SYSTEM_TIME ALL ORDER BY 2; SELECT * FROM dated FOR SYSTEM_TIME ALL"
    )
    before = server.run(name, history)
    assert before.count("\n") == 2
    taken = taken_by(database, quick_folder / "dump", by)
    assert taken.facts["history"] == {"told": 2, "dated": 1}
    for source, facts in ((None, {}), (quick_folder / "dump", facts_of(taken))):
        point = database.prepare(OPERATION, source, facts)
        database.swap(OPERATION, point, f"{OPERATION}.failed")
        assert server.run(name, history) == before


def test_rows_are_counted_as_they_pass_whatever_the_pieces() -> None:
    text = (
        b"CREATE TABLE `a` (\n  `x` int\n)\n PARTITION BY RANGE (`x`)\n(PARTITION `p` VALUES LESS THAN (1));\n"
        b"INSERT INTO `a` VALUES\n(1,'(\\n(');\n\nCREATE TABLE `odd``name` (\n`y` int\n);\n"
        b"INSERT INTO `odd``name` (`y`, `z`) VALUES (1,2),\n(2,3),\n(3,4);\nINSERT INTO `odd``name` VALUES\n(4);\n"
        b"/*!50003 CREATE PROCEDURE `p`()\n(SELECT 1) */;;\n"
    )
    for size in (1, 2, 3, 7, 64, len(text)):
        counter = RowCounter()
        for start in range(0, len(text), size):
            counter.feed(text[start : start + size])
        assert counter.rows == {"a": 1, "odd`name": 4}, size


def test_a_database_dropped_by_hand_is_restored(
    server: MariadbServer, name: str, database: MariadbDatabase, quick_folder: Path
) -> None:
    """Its marker is left; what it says is true no more."""
    taken = snapshot(database, quick_folder / "dump")
    before = whole(server, name)
    for again in range(2):
        point = database.prepare(f"{OPERATION}.{again}", quick_folder / "dump", facts_of(taken))
        database.swap(OPERATION, point, f"{OPERATION}.replaced")
        assert whole(server, name) == before
        server.run("mysql", f"DROP DATABASE `{name}`")
        assert database.inspect()["exists"] is False


def test_comments_in_programs_and_names_that_look_like_options_come_back(
    server: MariadbServer, name: str, database: MariadbDatabase, quick_folder: Path
) -> None:
    server.run(name, f"CREATE VIEW `--result-file={quick_folder}/pwned` AS SELECT 1 AS a", user=USER)
    with visitor(server, name) as session:  # whose library leaves comments in
        session.cursor().execute(
            "CREATE TRIGGER noted BEFORE INSERT ON entry FOR EACH ROW\nBEGIN\n  -- it's a 'comment'; # ; /* \n"
            "  # another one\n  SET NEW.text = /* inner; */ TRIM(NEW.text);\nEND"
        )
    before = whole(server, name)
    assert "it's a 'comment'" in before
    taken = snapshot(database, quick_folder / "dump")
    for source, facts in ((None, {}), (quick_folder / "dump", facts_of(taken))):
        point = database.prepare(OPERATION, source, facts)
        database.swap(OPERATION, point, f"{OPERATION}.failed")
        assert whole(server, name) == before
    assert not (quick_folder / "pwned").exists()


def test_a_trigger_typed_with_its_database_is_made_where_its_table_is(
    server: MariadbServer, name: str, database: MariadbDatabase, quick_folder: Path
) -> None:
    """The dump programs repeat it as it was typed; made beside the live database it must not come up in that."""

    def triggers() -> list[tuple[str, str]]:
        with visitor(server, name) as session:
            cursor = session.cursor()
            cursor.execute(
                "SELECT trigger_name, event_object_table FROM information_schema.triggers"
                f" WHERE trigger_schema = '{name}' ORDER BY 1"
            )
            return [(str(row[0]), str(row[1])) for row in cursor.fetchall()]

    with visitor(server, name) as session:
        session.cursor().execute(
            f"CREATE TRIGGER `{name}`.noted BEFORE INSERT ON `{name}`.entry FOR EACH ROW SET NEW.text = 'noted'"
        )
    both = triggers()
    assert ("noted", "entry") in both
    point = database.prepare(OPERATION, None, {})
    database.swap(OPERATION, point, f"{OPERATION}.copied")
    assert triggers() == both
    taken = snapshot(database, quick_folder / "dump")
    server.run(name, "DROP TRIGGER noted", user=USER)
    point = database.prepare(f"{OPERATION}.again", quick_folder / "dump", facts_of(taken))
    assert ("noted", "entry") not in triggers(), "the live database is not touched by what is made beside it"
    database.swap(f"{OPERATION}.again", point, f"{OPERATION}.again.replaced")
    assert triggers() == both


def test_programs_made_under_another_collation_change_no_database(
    server: MariadbServer, name: str, database: MariadbDatabase, quick_folder: Path
) -> None:
    server.run("mysql", f"ALTER DATABASE `{name}` CHARACTER SET latin1")
    server.run(name, FUNCTION, user=USER)
    server.run("mysql", f"ALTER DATABASE `{name}` CHARACTER SET utf8mb4")
    taken = snapshot(database, quick_folder / "dump")
    charset = server.run("mysql", f"SHOW CREATE DATABASE `{name}`")
    candidate = database.prepare(OPERATION, quick_folder / "dump", facts_of(taken))
    assert server.run("mysql", f"SHOW CREATE DATABASE `{name}`") == charset
    server.run("mysql", f"DROP DATABASE `{name}`")
    database.swap(OPERATION, candidate, f"{OPERATION}.replaced")
    assert server.run("mysql", f"SHOW CREATE DATABASE `{name}`") == charset
    assert server.run(name, "SELECT shout('a')", user=USER) == "A!; --"


def test_a_migration_that_broke_a_view_is_taken_back(
    server: MariadbServer, name: str, database: MariadbDatabase
) -> None:
    server.run(name, "CREATE VIEW texts AS SELECT text FROM entry; CREATE VIEW ids AS SELECT id FROM entry", user=USER)
    before = whole(server, name)
    point = database.prepare(OPERATION, None, {})
    server.run(name, "ALTER TABLE entry DROP COLUMN text", user=USER)
    database.swap(OPERATION, point, f"{OPERATION}.failed")
    assert whole(server, name) == before


def test_programs_of_another_account_are_made_as_this_one_rather_than_left_out(
    server: MariadbServer, name: str, database: MariadbDatabase, quick_folder: Path
) -> None:
    """`check` refuses to begin; an undo must not stop there."""
    taken = snapshot(database, quick_folder / "dump")
    candidate = database.prepare(OPERATION, quick_folder / "dump", facts_of(taken))
    server.run(name, "CREATE TRIGGER noted BEFORE INSERT ON entry FOR EACH ROW SET NEW.text = 'noted'")
    live = database.inspect()["identity"]
    database.swap(OPERATION, candidate, f"{OPERATION}.replaced")
    database.swap(OPERATION, live, f"{OPERATION}.undone")
    server.run(name, "INSERT INTO entry (text) VALUES ('x')", user=USER)
    assert server.run(name, "SELECT text FROM entry ORDER BY id DESC LIMIT 1", user=USER) == "noted"


def test_content_made_after_a_wipe_is_never_taken_for_the_first_one(
    server: MariadbServer, name: str, database: MariadbDatabase
) -> None:
    kept = database.prepare("op1", None, {})
    database.swap("op1", kept, "op1.replaced")
    database.swap("op2", None, "op2.wiped")
    assert database.inspect()["exists"] is False
    server.run(
        name, "CREATE TABLE entry (id INT PRIMARY KEY, text TEXT); INSERT INTO entry VALUES (1, 'new')", user=USER
    )
    live = database.inspect()["identity"]
    other = database.prepare("op3", None, {})
    database.swap("op3", other, "op3.replaced")
    database.swap("op3", live, "op3.undone")
    assert server.run(name, "SELECT text FROM entry", user=USER) == "new"


def test_a_copy_is_of_one_instant(server: MariadbServer, name: str, database: MariadbDatabase) -> None:
    """A session without a default database is seen by nobody."""
    server.run(name, "CREATE TABLE a_first (n INT); CREATE TABLE z_last (n INT)", user=USER)
    server.run(name, "CREATE TABLE middle AS SELECT seq FROM " + numbers(200000), user=USER)
    stop = threading.Event()

    def write() -> None:
        connection = pymysql.connect(unix_socket=server.socket, user=USER, autocommit=True)
        while not stop.is_set():
            for table in ("a_first", "z_last"):
                connection.cursor().execute(f"INSERT INTO `{name}`.{table} VALUES (1)")
        connection.close()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        point = database.prepare(OPERATION, None, {})
    finally:
        stop.set()
        writer.join()
    database.swap(OPERATION, point, f"{OPERATION}.failed")
    first, last = (int(server.run(name, f"SELECT COUNT(*) FROM {table}")) for table in ("a_first", "z_last"))
    assert first - last in (0, 1)


def test_a_large_value_that_the_server_takes_comes_back(
    server: MariadbServer, name: str, database: MariadbDatabase, quick_folder: Path
) -> None:
    server.run(name, "CREATE TABLE large (a LONGBLOB)", user=USER)
    with visitor(server, name) as session:
        session.cursor().execute("INSERT INTO large VALUES (REPEAT(CHAR(7, 0, 39, 92, 255, 10), 1500000))")
        session.commit()
    before = server.run(name, "SELECT LENGTH(a), SHA2(a, 256) FROM large")
    taken = snapshot(database, quick_folder / "dump")
    candidate = database.prepare(OPERATION, quick_folder / "dump", facts_of(taken))
    database.swap(OPERATION, candidate, f"{OPERATION}.replaced")
    assert server.run(name, "SELECT LENGTH(a), SHA2(a, 256) FROM large") == before


@mariadb_alone
def test_packages_come_back(server: MariadbServer, name: str, database: MariadbDatabase) -> None:
    server.run(
        name,
        "SET sql_mode = 'ORACLE';\nDELIMITER //\nCREATE PACKAGE tools AS FUNCTION one RETURN INT; END//\n"
        "CREATE PACKAGE BODY tools AS FUNCTION one RETURN INT AS BEGIN RETURN 1; END; END//\n",
        user=USER,
    )
    before = whole(server, name)
    point = database.prepare(OPERATION, None, {})
    database.swap(OPERATION, point, f"{OPERATION}.failed")
    assert whole(server, name) == before
    assert server.run(name, "SET sql_mode = 'ORACLE'; SELECT tools.one()") == "1"


def test_a_database_that_holds_only_programs_is_not_free(
    server: MariadbServer, name: str, database: MariadbDatabase
) -> None:
    server.run("mysql", f"CREATE DATABASE `{name}other`")
    server.run(f"{name}other", FUNCTION)
    database.prepare(OPERATION, None, {})
    for rehearsal in (True, False):
        with pytest.raises(RefusedError, match="already"):
            database.hand_over(OPERATION, f"{name}other", rehearsal=rehearsal)
    assert server.run(f"{name}other", "SELECT shout('a')") == "A!; --"


@pytest.mark.parametrize(
    ("product", "settings"),
    [
        pytest.param(MariadbServer, {"innodb-force-primary-key": "ON"}, id="mariadb"),
        pytest.param(
            MysqlServer,
            {"sql-require-primary-key": "ON", "sql-generate-invisible-primary-key": "ON"},
            id="mysql",
            marks=pytest.mark.variant("mysql"),
        ),
    ],
)
def test_settings_of_a_server_that_change_what_statements_do(
    product: type[MariadbServer], settings: dict[str, str], quick_folder: Path
) -> None:
    own = product(**{"autocommit": "OFF", "log-bin": "log", "binlog-format": "STATEMENT", **settings})
    try:
        fill(own, "app")
        own.run("app", "INSERT INTO entry (text) VALUES ('committed'); COMMIT", user=USER)
        own.run(
            "app", "INSERT INTO entry (text) SELECT CONCAT('row ', seq) FROM " + numbers(500) + "; COMMIT", user=USER
        )
        rows = own.run("app", "SELECT COUNT(*) FROM entry")
        database = driver(own, "app")
        taken = snapshot(database, quick_folder / "dump")
        for source, facts in ((None, {}), (quick_folder / "dump", facts_of(taken))):
            point = database.prepare(OPERATION, source, facts)
            database.swap(OPERATION, point, f"{OPERATION}.failed")
            assert own.run("app", "SELECT COUNT(*) FROM entry") == rows
        (quick_folder / "sql").write_text("CREATE TABLE t (a INT PRIMARY KEY);\nINSERT INTO t VALUES (1), (2);\n")
        with dump_source.opened(str(quick_folder / "sql")) as dump:
            candidate = database.load(OPERATION, dump)
        database.swap(OPERATION, candidate, f"{OPERATION}.replaced")
        assert own.run("app", "SELECT COUNT(*) FROM t") == "2"
    finally:
        own.remove()


# --- what is refused --------------------------------------------------------------------------------------


def test_a_strangers_session_is_named_and_refuses(
    server: MariadbServer, name: str, database: MariadbDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copies, "_LEAVE_SECONDS", 0.2)
    with visitor(server, name), pytest.raises(RefusedError, match=f"session .*{USER}"):
        database.prepare(OPERATION, None, {})
    assert database.tokens() == []
    database.prepare(OPERATION, None, {})


def test_a_strangers_session_is_ended_where_that_is_configured(server: MariadbServer, name: str) -> None:
    with visitor(server, name):
        driver(server, name, end_sessions=True).prepare(OPERATION, None, {})


def test_a_swap_ends_sessions_on_both_databases(server: MariadbServer, name: str, database: MariadbDatabase) -> None:
    point = database.prepare(OPERATION, None, {})
    with visitor(server, name, "DELETE FROM entry"):
        database.swap(OPERATION, point, f"{OPERATION}.failed")
    assert server.run(name, "SELECT COUNT(*) FROM entry") == "500"


def test_another_accounts_session_is_named_where_it_cannot_be_ended(
    server: MariadbServer, name: str, database: MariadbDatabase
) -> None:
    """An account that may see sessions, and not end them."""
    server.run(name, f"GRANT PROCESS ON *.* TO {USER}@localhost")
    try:
        point = database.prepare(OPERATION, None, {})
        before = whole(server, name)
        with visitor(server, name, "SELECT 1", user=ADMINISTRATOR), pytest.raises(StepError, match="of root cannot"):
            database.swap(OPERATION, point, f"{OPERATION}.failed")
        assert whole(server, name) == before
        database.swap(OPERATION, point, f"{OPERATION}.failed")
        assert database.inspect()["identity"] == point
    finally:
        server.run(name, f"REVOKE PROCESS ON *.* FROM {USER}@localhost")


def test_a_writer_in_its_transaction_keeps_pause_from_being_reached(
    server: MariadbServer, name: str, database: MariadbDatabase
) -> None:
    with visitor(server, name, "INSERT INTO entry (text) VALUES ('open')"):
        with pytest.raises(StepError, match="cannot be held"), database.freeze_writes(0.3):
            pass  # pragma: no cover
        server.run(name, "SET lock_wait_timeout = 0; INSERT INTO entry (text) VALUES ('x')", user=USER)


def test_it_is_known_which_tables_are_small(server: MariadbServer, name: str, database: MariadbDatabase) -> None:
    server.run(name, "CREATE TABLE small (a INTEGER); INSERT INTO small VALUES (1)", user=USER)
    server.run(
        name,
        "INSERT INTO entry (text) SELECT REPEAT('x', 200) FROM " + numbers(2000) + "; ANALYZE TABLE entry",
        user=USER,
    )
    with database._session() as session:
        sizes = catalogue.sizes_bytes(session, name)
    assert sizes["entry"] > sizes["small"]
    assert database.tables()["entry"]["rows"] == 2500


def test_missing_rights_are_named(server: MariadbServer, name: str) -> None:
    server.run(name, f"CREATE USER poor@localhost; GRANT SELECT, TRIGGER, SHOW VIEW ON `{name}`.* TO poor@localhost")
    try:
        server.run(name, f"CREATE VIEW roots AS SELECT 1 AS a; GRANT ALL ON `{name}`.* TO poor@localhost")
        found = driver(server, name, user="poor").check()
        messages = " ".join(problem.message + problem.advice for problem in found if problem.severity == "error")
        assert "`hf-%`" in messages and "view roots has the definer root@localhost" in messages
        with pytest.raises(RefusedError, match="may not create a database"):
            driver(server, name, user="poor").prepare(OPERATION, None, {})
    finally:
        server.run(name, "DROP USER poor@localhost")


@on_both
def test_what_a_server_would_lose_is_found(product: type[MariadbServer]) -> None:
    own = product(**{"innodb-doublewrite": "0", "innodb-flush-log-at-trx-commit": "2"})
    try:
        fill(own, "app")
        own.run("app", "CREATE TABLE quick (a INT) ENGINE=MyISAM")
        found = {
            problem.message.split()[0 if "table" in problem.message else -3]: problem
            for problem in driver(own, "app").check()
        }
        text = " ".join(f"{problem.severity} {problem.message};" for problem in found.values())
        assert "error the server runs with innodb_doublewrite" in text
        assert "warning innodb_flush_log_at_trx_commit" in text
        assert "warning table quick uses the engine MyISAM" in text
    finally:
        own.remove()


def test_a_query_whose_end_would_be_waited_for_is_refused(database: MariadbDatabase) -> None:
    for query in ("SELECT 'a", "SELECT 1 /* a", 'SELECT "'):
        with pytest.raises(StepError, match="not closed"):
            database.query(query)
    assert database.query("SELECT COUNT(*) FROM entry -- rows") == [("500",)]


def test_a_session_on_a_database_whose_name_differs_in_case_is_anothers(
    server: MariadbServer, name: str, database: MariadbDatabase
) -> None:
    server.run("mysql", f"CREATE DATABASE `{name.upper()}`; CREATE TABLE `{name.upper()}`.entry (a INT)")
    with visitor(server, name.upper(), user=ADMINISTRATOR):
        database.prepare(OPERATION, None, {})
    assert list(database.tables()) == ["entry"]


@mariadb_alone
def test_what_a_rename_cannot_carry_is_found(server: MariadbServer, name: str, database: MariadbDatabase) -> None:
    server.run(name, "CREATE TABLE parts (n INT) PARTITION BY HASH (n) PARTITIONS 2", user=USER)
    server.run(
        name,
        "CREATE TABLE exact (a INT, s BIGINT UNSIGNED GENERATED ALWAYS AS ROW START, e BIGINT UNSIGNED GENERATED ALWAYS"
        " AS ROW END, PERIOD FOR SYSTEM_TIME (s, e)) WITH SYSTEM VERSIONING",
        user=USER,
    )
    found = {
        problem.message.split(":")[0]: problem.severity for problem in driver(server, name, user=ADMINISTRATOR).check()
    }
    assert found["table parts is partitioned"] == "warning"
    assert (
        found["table exact keeps its history by transactions, which neither a dump nor a copy can preserve"] == "error"
    )
    with pytest.raises(RefusedError, match="by transactions"):
        database.prepare(OPERATION, None, {})


def test_a_foreign_key_into_the_database_is_found(server: MariadbServer, name: str) -> None:
    server.run("mysql", f"CREATE DATABASE `{name}other`")
    server.run(f"{name}other", f"CREATE TABLE c (e INT, FOREIGN KEY (e) REFERENCES `{name}`.entry (id))")
    found = driver(server, name, user=ADMINISTRATOR).check()
    assert any(problem.message.startswith("foreign key") and problem.severity == "error" for problem in found)
    server.run(f"{name}other", "DROP TABLE c")


def test_a_dump_of_a_newer_server_or_of_the_other_product_is_refused_before_anything_changes(
    server: MariadbServer, database: MariadbDatabase, quick_folder: Path
) -> None:
    taken = snapshot(database, quick_folder / "dump")
    with pytest.raises(RefusedError, match=f"{server.product} 99"):
        database.prepare(OPERATION, quick_folder / "dump", {**facts_of(taken), "server_version": [99, 1]})
    other = "MySQL" if server.product == "MariaDB" else "MariaDB"
    with pytest.raises(RefusedError, match=f"is of {other} 8.0"):
        database.prepare(
            OPERATION, quick_folder / "dump", {**facts_of(taken), "product": other, "server_version": [8, 0]}
        )
    assert database.tokens() == []


def test_rows_missing_from_a_dump_are_damage(database: MariadbDatabase, quick_folder: Path) -> None:
    taken = snapshot(database, quick_folder / "dump")
    before = database.inspect()["identity"]
    with pytest.raises(DamagedError, match="500 rows instead of 501"):
        database.prepare(OPERATION, quick_folder / "dump", {**taken.facts, "rows": {"entry": 501}})
    with pytest.raises(DamagedError, match="is not in the dump"):
        database.prepare(OPERATION, quick_folder / "dump", {**taken.facts, "rows": {"gone": 1}})
    assert database.inspect()["identity"] == before


def test_a_dump_by_an_administrator_is_loaded_by_another_account(
    server: MariadbServer, name: str, database: MariadbDatabase, quick_folder: Path
) -> None:
    """Definers that the account cannot give become the account itself."""
    for sql in (FUNCTION, *PROGRAMS.split(";\n")):
        server.run(name, sql)
    taken = snapshot(driver(server, name, user=ADMINISTRATOR), quick_folder / "dump")
    candidate = database.prepare(OPERATION, quick_folder / "dump", facts_of(taken))
    server.run(name, "DROP VIEW shouted; DROP TRIGGER counted; DROP FUNCTION shout; DROP EVENT yearly")
    database.swap(OPERATION, candidate, f"{OPERATION}.replaced")
    assert server.run(name, "SELECT text FROM shouted LIMIT 1") == "ROW 1!; --"
    assert {
        row.split("\t")[-1]
        for row in server.run(
            name, "SELECT definer FROM information_schema.triggers WHERE trigger_schema = DATABASE()"
        ).split("\n")
    } == {f"{USER}@localhost"}


def test_a_dump_that_fails_in_its_middle_is_told(
    server: MariadbServer, name: str, database: MariadbDatabase, quick_folder: Path
) -> None:
    server.run(name, "CREATE VIEW broken AS SELECT id FROM entry; RENAME TABLE entry TO other")
    with pytest.raises(StepError, match="exit code"):
        snapshot(database, quick_folder / "dump")


def test_a_server_that_is_down_is_told_as_such(server: MariadbServer, name: str) -> None:
    lost = DRIVERS[server.product]("main", name, Server(host="/nowhere/socket", user=USER), Host())
    with pytest.raises(HoldfastError):
        lost.inspect()
    (problem,) = lost.check()
    assert problem.severity == "error" and problem.advice


@on_both
@pytest.mark.parametrize("what", ["restore point", "restore point begun ahead", "restore"])
def test_a_full_disk_of_the_server_leaves_the_live_database_as_it_is(
    product: type[MariadbServer], small_disk: Path, quick_folder: Path, what: str
) -> None:
    own = product(small_disk / "server")
    try:
        own.create_if_missing("app")
        own.run("app", "CREATE TABLE entry AS SELECT seq AS i, REPEAT('x', 500) AS t FROM " + numbers(40000), user=USER)
        database = driver(own, "app")
        taken = snapshot(database, quick_folder / "dump")
        before = database.inspect()["identity"], database.tables()
        free = os.statvfs(small_disk)
        (small_disk / "filler").write_bytes(bytes(max(0, free.f_bavail * free.f_frsize - (12 << 20))))
        with pytest.raises(HoldfastError) as caught:
            if what == "restore":
                database.prepare(OPERATION, quick_folder / "dump", facts_of(taken))
            database.prepare(OPERATION, None, database.copy_ahead(OPERATION) if "ahead" in what else {})
        assert "full" in str(caught.value).lower() or "space" in str(caught.value).lower()
        (small_disk / "filler").unlink()
        database.discard(OPERATION)
        assert (database.inspect()["identity"], database.tables(), database.tokens()) == (*before, [])
        database.prepare(OPERATION, None, {})
    finally:
        own.remove()


# --- secrets ------------------------------------------------------------------------------------------------


@on_both
def test_a_wrong_password_names_no_password(product: type[MariadbServer], quick_folder: Path) -> None:
    own = product()
    try:
        fill(own, "app")
        own.run("app", f"ALTER USER {USER}@localhost IDENTIFIED BY 'right-horse'")
        secret = quick_folder / "password"
        secret.write_text("wrong-horse\n")
        with pytest.raises(StepError) as caught:
            driver(own, "app", password=f"file:{secret}").inspect()
        assert "Access denied" in str(caught.value) and "wrong-horse" not in str(caught.value)
        secret.write_text("right-horse\n")
        announced: list[str] = []
        host = Host(operation=OPERATION, announce=announced.append)
        snapshot(driver(own, "app", host, password=f"file:{secret}"), quick_folder / "dump")
        assert announced and not any("right-horse" in line for line in announced)
    finally:
        own.remove()


# --- the server dies, or a client ---------------------------------------------------------------------------


@on_both
@pytest.mark.parametrize("outcome", ["copied", "swapped", "loaded"])
def test_an_outcome_survives_the_servers_death_right_after_it(
    product: type[MariadbServer], outcome: str, quick_folder: Path
) -> None:
    """With the log written once a second, as an administrator may have set it."""
    own = product(**{"innodb-flush-log-at-trx-commit": "0", "innodb-flush-log-at-timeout": "1000"})
    try:
        fill(own, "app")
        own.run("app", FUNCTION, user=USER)
        database = driver(own, "app")
        taken = snapshot(database, quick_folder / "dump")
        if outcome == "loaded":
            found = database.prepare(OPERATION, quick_folder / "dump", facts_of(taken))
        else:
            found = database.prepare(OPERATION, None, {})
        if outcome == "swapped":
            own.run("app", "DELETE FROM entry", user=USER)
            database.swap(OPERATION, found, f"{OPERATION}.failed")
        own.kill()
        own.start()
        if outcome != "swapped":
            database.swap(OPERATION, found, f"{OPERATION}.failed")
        assert database.inspect()["identity"] == found
        assert own.run("app", "SELECT COUNT(*), shout('a') FROM entry", user=USER) == "500\tA!; --"
    finally:
        own.remove()


@on_both
def test_without_its_barrier_an_outcome_would_be_lost(product: type[MariadbServer]) -> None:
    """The test above can fail: what was only committed is gone with such a server."""
    own = product(**{"innodb-flush-log-at-trx-commit": "0", "innodb-flush-log-at-timeout": "1000"})
    try:
        fill(own, "app")
        own.run("app", "INSERT INTO entry (text) VALUES ('only committed')", user=USER)
        own.kill()
        own.start()
        assert own.run("app", "SELECT COUNT(*) FROM entry", user=USER) != "501"
    finally:
        own.remove()


def test_what_goes_on_for_a_dead_client_is_ended(server: MariadbServer, name: str, database: MariadbDatabase) -> None:
    """A session with a living client that asks again and again is left alone."""
    client = subprocess.Popen(
        [
            server.client,
            "--no-defaults",
            f"--socket={server.socket}",
            f"--user={USER}",
            name,
            "--execute",
            "DO SLEEP(60)",
        ]
    )
    busy = f"SELECT COUNT(*) FROM information_schema.processlist WHERE db = '{name}' AND info LIKE 'DO SLEEP%'"
    deadline = patience.deadline(10)
    while server.run("mysql", busy) != "1":
        assert time.monotonic() < deadline
    client.kill()
    client.wait()
    assert server.run("mysql", busy) == "1", "the server does not notice"
    with visitor(server, name) as alive:
        database.end_sessions(OPERATION)
        assert server.run("mysql", busy) == "0"
        alive.cursor().execute("SELECT 1")
