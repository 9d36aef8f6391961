"""MariaDB and MySQL: a copy begun while visitors are served is, in the window, exactly the live database."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pymysql
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.drivers.databases.mariadb import comparing, evidence
from holdfast.drivers.databases.mariadb.client import literal
from holdfast.drivers.databases.mariadb.driver import MariadbDatabase
from holdfast.drivers.databases.sql.session import Session
from holdfast.errors import HoldfastError, StepError
from holdfast.model import Facts, Server
from holdfast.system.host import Host
from tests.contract.test_databases_mariadb import on_both
from tests.contract.test_databases_mariadb_whole import DRIVERS, LENIENT, OF_BOTH, OF_ONE, everything
from tests.proof import patience
from tests.servers import mariadb, mysql
from tests.servers.mariadb import ADMINISTRATOR, MariadbServer, numbers

OPERATION = "20260101-000000-upgrade-ab12"
KNOWING = "knowing"  # may see the transactions of others and InnoDB's own catalogue (PROCESS)
SIMPLE = "(id INT PRIMARY KEY AUTO_INCREMENT, a VARCHAR(20), b INT)"
ROWS = "(1, 'one', 1), (2, 'two', 2), (3, 'three', 3)"
# For each table what is done to it after its copy; every one of them exists before, unless it is made here.
CHANGES = {
    "updated": "UPDATE updated SET a = 'other' WHERE id = 2",
    "upper": "UPDATE upper SET a = 'ONE' WHERE id = 1",
    "spaced": "UPDATE spaced SET a = 'one ' WHERE id = 1",
    "nulled": "UPDATE nulled SET a = NULL, b = 0 WHERE id = 1",
    "inserted": "INSERT INTO inserted (a) VALUES ('new')",
    "first_deleted": "DELETE FROM first_deleted WHERE id = 1",
    "same_number": "DELETE FROM same_number WHERE id = 1; INSERT INTO same_number (a) VALUES ('instead')",
    "emptied": "DELETE FROM emptied",
    "truncated": "TRUNCATE truncated",
    "truncated_and_filled": f"TRUNCATE truncated_and_filled; INSERT INTO truncated_and_filled VALUES {ROWS}",
    "widened": "ALTER TABLE widened ADD c INT NOT NULL DEFAULT 5",
    "narrowed": "ALTER TABLE narrowed DROP b",
    "column_again": "ALTER TABLE column_again DROP b; ALTER TABLE column_again ADD b INT",
    "indexed": "CREATE INDEX by_a ON indexed (a)",
    "commented": "ALTER TABLE commented COMMENT = 'AUTO_INCREMENT=5'",
    "dropped": "DROP TABLE dropped",
    "made_again": f"DROP TABLE made_again; CREATE TABLE made_again {SIMPLE}; INSERT INTO made_again (b) VALUES (9)",
    "renamed": "RENAME TABLE renamed TO renamed_now",
    "left": "RENAME TABLE `left` TO middle, `right` TO `left`, middle TO `right`",
    "added": f"CREATE TABLE added {SIMPLE}; INSERT INTO added VALUES {ROWS}",
    "counted": "INSERT INTO counted (a) VALUES ('gone'); DELETE FROM counted WHERE a = 'gone'",
    "counted_back": "DELETE FROM counted_back WHERE id = 3; ALTER TABLE counted_back AUTO_INCREMENT = 3",
    "taken_back": "BEGIN; INSERT INTO taken_back (a) VALUES ('never'); UPDATE taken_back SET a = 'never'; ROLLBACK",
    "of_texts": "UPDATE of_texts SET k = 'B', v = 'x' WHERE k = 'b'; INSERT INTO of_texts VALUES ('d', '')",
    "of_two": "UPDATE of_two SET v = 5 WHERE a = 1 AND b = 'y'",
    "exchanged": "UPDATE exchanged SET u = 9 WHERE id = 1; UPDATE exchanged SET u = 1 WHERE id = 2;"
    " UPDATE exchanged SET u = 2 WHERE id = 1; DELETE FROM exchanged WHERE id = 3; INSERT INTO exchanged VALUES (4, 3)",
    "keyless": "UPDATE keyless SET n = 7 WHERE n = 2 LIMIT 1",
    "keyed_in_part": "UPDATE keyed_in_part SET k = 'abcX' WHERE k = 'abc'",
    "split": "UPDATE split SET n = n + 1 WHERE n = 1; ALTER TABLE split EXCHANGE PARTITION low WITH TABLE apart",
    "old_engine": "UPDATE old_engine SET a = 'other' WHERE id = 2",
    "moved_engine": "ALTER TABLE moved_engine ENGINE = MyISAM",
    "cascading": "DELETE FROM cascading WHERE id = 1",
    "fathers": "ALTER TABLE fathers ADD c INT NOT NULL DEFAULT 5",
    "of_fathers": "ALTER TABLE of_fathers ADD c INT",
    "floats": "UPDATE floats SET f = 0, d = 0 WHERE id = 1",
    "small_floats": "UPDATE small_floats SET f = 1677721.25 WHERE id = 1",
    "chosen": "UPDATE chosen SET e = '' WHERE id = 1",
    "sets": "UPDATE sets SET s = 'x' WHERE id = 1",
    "documents": "UPDATE documents SET j = '1.0' WHERE id = 1",
    "bits": "UPDATE bits SET b = b'11', y = x'00' WHERE id = 1",
    "instants": "UPDATE instants SET t = FROM_UNIXTIME(1761442200) WHERE id = 1",
    "dates": "UPDATE dates SET d = '2026-02-31' WHERE id = 1; INSERT INTO dates VALUES ('0000-00-00', 3, NULL)",
    "wide": "UPDATE wide SET b = CONCAT(LEFT(b, 69999), 'z') WHERE id = 1",
    "computed": "UPDATE computed SET a = 5 WHERE id = 1",
    "points": "UPDATE points SET p = POINT(2, 1) WHERE id = 1",
    "strange-name": "UPDATE `strange-name` SET a = 'other' WHERE id = 2",
    "naïve": "UPDATE `naïve` SET a = 'other' WHERE id = 2",
    "it's": "DELETE FROM `it's` WHERE id = 2",
}
OTHER_TABLES = """
CREATE TABLE `right` (id INT PRIMARY KEY AUTO_INCREMENT, a VARCHAR(20), b INT);
INSERT INTO `right` VALUES (1, 'one', 1), (2, 'TWO', 2), (3, 'three', 3);
CREATE TABLE resting (id INT PRIMARY KEY AUTO_INCREMENT, a VARCHAR(20), b INT);
INSERT INTO resting VALUES (1, 'one', 1), (2, 'two', 2);
CREATE TABLE of_texts (k VARCHAR(9) PRIMARY KEY, v TEXT);
INSERT INTO of_texts VALUES ('a', ''), ('b', 'X'), ('c', NULL);
CREATE TABLE of_two (a INT, b CHAR(3), v INT, PRIMARY KEY (b, a));
INSERT INTO of_two VALUES (1, 'x', 1), (1, 'y', 2), (2, 'x', 3);
CREATE TABLE exchanged (id INT PRIMARY KEY, u INT UNIQUE);
INSERT INTO exchanged VALUES (1, 1), (2, 2), (3, 3);
CREATE TABLE keyless (n INT); INSERT INTO keyless VALUES (1), (2), (2), (3);
CREATE TABLE keyed_in_part (k TEXT, PRIMARY KEY (k(3))); INSERT INTO keyed_in_part VALUES ('abc'), ('abd');
CREATE TABLE apart (n INT PRIMARY KEY, m INT); INSERT INTO apart VALUES (4, 4);
CREATE TABLE split (n INT PRIMARY KEY, m INT) PARTITION BY RANGE (n) (PARTITION low VALUES LESS THAN (10),
  PARTITION high VALUES LESS THAN MAXVALUE); INSERT INTO split VALUES (1, 1), (30, 1), (31, 2);
CREATE TABLE old_engine (id INT PRIMARY KEY, a TEXT) ENGINE=MyISAM; INSERT INTO old_engine VALUES (1, 'a'), (2, 'b');
CREATE TABLE cascading (id INT PRIMARY KEY); INSERT INTO cascading VALUES (1), (2);
CREATE TABLE cascaded (id INT PRIMARY KEY, p INT, q INT, FOREIGN KEY (p) REFERENCES cascading (id) ON DELETE CASCADE,
  FOREIGN KEY (q) REFERENCES cascading (id) ON DELETE SET NULL);
INSERT INTO cascaded VALUES (1, 1, 2), (2, 2, 1), (3, NULL, NULL);
CREATE TABLE fathers (id INT PRIMARY KEY); INSERT INTO fathers VALUES (1), (2);
CREATE TABLE sons (id INT PRIMARY KEY, f INT, CONSTRAINT of_father FOREIGN KEY (f) REFERENCES fathers (id));
INSERT INTO sons VALUES (1, 1), (2, 2);
CREATE TABLE of_fathers (id INT PRIMARY KEY, f INT, CONSTRAINT another FOREIGN KEY (f) REFERENCES fathers (id));
INSERT INTO of_fathers VALUES (1, 1), (2, NULL);
CREATE TABLE floats (id INT PRIMARY KEY, f FLOAT, d DOUBLE); INSERT INTO floats VALUES (1, -0.0, -0.0), (2, 0.1, 0.1);
CREATE TABLE small_floats (id INT PRIMARY KEY, f FLOAT); INSERT INTO small_floats VALUES (1, 1677721);
CREATE TABLE chosen (id INT PRIMARY KEY, e ENUM('', 'a')); INSERT INTO chosen VALUES (1, 0), (2, 'a');
CREATE TABLE sets (id INT PRIMARY KEY, s SET('x', 'X ', 'y') COLLATE utf8mb4_bin); INSERT INTO sets VALUES (1, 'y');
CREATE TABLE documents (id INT PRIMARY KEY, j JSON); INSERT INTO documents VALUES (1, '1'), (2, NULL);
CREATE TABLE bits (id INT PRIMARY KEY, b BIT(9), y VARBINARY(9)); INSERT INTO bits VALUES (1, b'1', x'0000');
CREATE TABLE instants (id INT PRIMARY KEY, t TIMESTAMP(6) NULL);
INSERT INTO instants VALUES (1, FROM_UNIXTIME(1761438600)), (2, NULL);
CREATE TABLE dates (d DATE PRIMARY KEY, id INT, e DATETIME); INSERT INTO dates VALUES ('2026-02-30', 1, '2026-00-00');
CREATE TABLE wide (id INT PRIMARY KEY, b LONGBLOB); INSERT INTO wide VALUES (1, REPEAT('w', 70000)), (2, '');
CREATE TABLE computed (id INT PRIMARY KEY, a INT, twice INT AS (a * 2) STORED, half INT AS (a / 2) VIRTUAL, KEY (a));
INSERT INTO computed (id, a) VALUES (1, 1), (2, 2);
CREATE TABLE points (id INT PRIMARY KEY, p POINT); INSERT INTO points VALUES (1, POINT(1, 2));
CREATE TABLE `naïve` (id INT PRIMARY KEY, a TEXT); INSERT INTO `naïve` VALUES (1, 'a'), (2, 'b')
"""
# After the copy, of what is in the database besides: see `OF_BOTH` and `OF_ONE` of the other module.
OF_THE_REST = (
    "INSERT INTO parent VALUES (11, 4)",
    "UPDATE every SET txt = 'other', st = 'x' WHERE id = 0",
    "UPDATE unordered SET b = 0.0 WHERE a = 'b'",
    "DELETE FROM parts WHERE n = 3",
    "INSERT INTO packed VALUES (5, 'five')",
    "UPDATE sought SET t = 'other words'",
    "INSERT INTO log (said) VALUES ('later')",
    "DROP VIEW ansi",
    "CREATE TRIGGER late AFTER DELETE ON parent FOR EACH ROW SET @late = 1",
)
OF_THE_REST_OF_ONE = {
    "MariaDB": (
        "SELECT NEXTVAL(tickets)",
        "UPDATE versioned SET a = 3",
        "INSERT INTO squeezed VALUES (2, 'y', '123e4567-e89b-12d3-a456-426655440001', '::2')",
        "UPDATE squeezed SET i = '::3' WHERE id = 1",
        "INSERT INTO turn (s, e) VALUES ('2026-01-01', '2026-01-02')",
    ),
    "MySQL": ("UPDATE mine SET doc = JSON_OBJECT('t', JSON_ARRAY(1, 3))",),
}


@pytest.fixture(
    params=[pytest.param(mariadb, id="mariadb"), pytest.param(mysql, id="mysql", marks=pytest.mark.variant("mysql"))]
)
def server(request: pytest.FixtureRequest) -> Iterator[MariadbServer]:
    with request.param.shared() as running:
        yield running


@pytest.fixture
def name(server: MariadbServer) -> Iterator[str]:
    with server.own_database() as made:
        server.create_if_missing(made)
        yield made


@contextmanager
def connected(server: MariadbServer, name: str) -> Iterator[pymysql.Connection]:
    connection = pymysql.connect(
        unix_socket=server.socket, user=ADMINISTRATOR, database=name, charset="utf8mb4", autocommit=True
    )
    with connection:
        yield connection


def run(server: MariadbServer, name: str, *scripts: str) -> None:
    run_each(server, name, [sql for script in scripts for sql in re.split(r";\s+(?=[A-Z])", script)])


def run_each(server: MariadbServer, name: str, statements: Sequence[str]) -> None:
    with connected(server, name) as connection, connection.cursor() as cursor:
        cursor.execute(LENIENT)
        for sql in statements:
            cursor.execute(sql)


def simple(table: str) -> str:
    quoted = "`" + table.replace("`", "``") + "`"
    return f"CREATE TABLE {quoted} {SIMPLE}; INSERT INTO {quoted} VALUES {ROWS}"


def opened(server: MariadbServer, name: str, *, knowing: bool, say: Callable[[str], None]) -> MariadbDatabase:
    """A driver for an account with the rights on its databases, and with the right to know of transactions or not."""
    user = KNOWING if knowing else "unknowing"
    grants = [f"GRANT ALL ON `{place}`.* TO {user}@localhost" for place in (name, f"{name}other", "hf-%")]
    grants += [f"GRANT PROCESS ON *.* TO {user}@localhost"] if knowing else []
    definers = "SET USER ON *.*" if server.product == "MariaDB" else "SET_ANY_DEFINER, SYSTEM_USER, SHOW_ROUTINE ON *.*"
    grants.append(f"GRANT {definers} TO {user}@localhost")
    if server.product == "MariaDB":
        grants.append(f"GRANT SELECT ON mysql.proc TO {user}@localhost")
    server.run("mysql", "; ".join([f"CREATE USER IF NOT EXISTS {user}@localhost", *grants]))
    host = Host(operation=OPERATION, warn=say)
    return DRIVERS[server.product]("main", name, Server(host=server.socket, user=user, jobs=2), host)


@pytest.fixture
def without_margin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence, "_MARGIN_SECONDS", 0)


def until_the_next_second(server: MariadbServer) -> None:
    """Wait until what was written is of an earlier second; with its margin, Holdfast knows that much later."""
    now = server.run("mysql", "SELECT NOW()")
    deadline = patience.deadline(10)
    while server.run("mysql", "SELECT NOW()") == now:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def all_of(server: MariadbServer, name: str) -> dict[str, list[dict[str, bytes]]]:
    """Everything of a database. MySQL shows no first number of a truncated table until that is opened again."""
    found = everything(server, name)
    for row in found["TABLES"]:
        if row["AUTO_INCREMENT"] is None:
            row["AUTO_INCREMENT"] = b"1"
    return found


def candidate_of(server: MariadbServer) -> str:
    found = [place for place in server._all() if place.endswith(f"{OPERATION}.new")]
    return found[0]


def put_back(database: MariadbDatabase, point: str) -> None:
    database.swap(OPERATION, point, f"{OPERATION}.failed")


@pytest.mark.usefixtures("without_margin")
@pytest.mark.parametrize("knowing", [False, True], ids=["compared", "known"])
def test_whatever_was_written_since_is_in_the_copy(server: MariadbServer, name: str, knowing: bool) -> None:
    made_later = {"added"}
    own = [table for table in CHANGES if f"TABLE {table} " not in OTHER_TABLES and table not in {*made_later, "naïve"}]
    run(server, name, OTHER_TABLES, *map(simple, own))
    run_each(server, name, [*OF_BOTH.split(";\n"), *OF_ONE[server.product].split(";\n")])
    run(server, name, "CREATE TABLE late_one (id INT PRIMARY KEY, a INT)", "INSERT INTO late_one VALUES (1, 1), (2, 2)")
    said: list[str] = []
    database = opened(server, name, knowing=knowing, say=said.append)
    with connected(server, name) as late:
        cursor = late.cursor()
        cursor.execute("BEGIN")
        cursor.execute("UPDATE late_one SET a = 5 WHERE id = 1")
        until_the_next_second(server)
        facts = database.copy_ahead(OPERATION)
        late.commit()
    run(server, name, *CHANGES.values(), *OF_THE_REST, *OF_THE_REST_OF_ONE[server.product])
    before = all_of(server, name)
    point = database.prepare(OPERATION, None, facts)
    run(server, name, "DROP TABLE resting; DELETE FROM updated; TRUNCATE log")
    put_back(database, point)
    after = all_of(server, name)
    for what, wanted in before.items():
        assert after.get(what) == wanted, what
    assert after.keys() == before.keys()
    assert said == []
    database.discard(OPERATION)


@pytest.mark.usefixtures("without_margin")
@pytest.mark.parametrize("knowing", [False, True], ids=["compared", "known"])
def test_a_table_at_rest_is_left_as_it_is_where_that_is_known(server: MariadbServer, name: str, knowing: bool) -> None:
    run(server, name, simple("resting"), simple("busy"))
    database = opened(server, name, knowing=knowing, say=pytest.fail)
    until_the_next_second(server)
    facts = database.copy_ahead(OPERATION)
    assert {table: bool(mark) for table, mark in facts["marks"].items()} == {"resting": knowing, "busy": knowing}
    run(server, candidate_of(server), "UPDATE resting SET a = 'changed in the copy'", "UPDATE busy SET a = 'changed'")
    run(server, name, "UPDATE busy SET b = 5 WHERE id = 3")
    busy = server.run(name, "SELECT * FROM busy")
    put_back(database, database.prepare(OPERATION, None, facts))
    assert server.run(name, "SELECT DISTINCT a FROM resting WHERE id = 1") == (
        "changed in the copy" if knowing else "one"
    ), "it is looked at where it may have been written, and only there"
    assert server.run(name, "SELECT * FROM busy") == busy
    database.discard(OPERATION)


def test_what_was_written_a_moment_before_proves_nothing(server: MariadbServer, name: str) -> None:
    run(server, name, simple("entry"))
    facts = opened(server, name, knowing=True, say=pytest.fail).copy_ahead(OPERATION)
    assert facts["marks"] == {"entry": ""}


def test_a_transaction_that_began_with_the_last_commit_and_ends_after_the_copy(
    server: MariadbServer, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MariaDB shows the second in which a transaction began, so both commits leave the same time."""
    run(server, name, simple("entry"))
    database = opened(server, name, knowing=True, say=pytest.fail)
    monkeypatch.setattr(evidence, "_MARGIN_SECONDS", -60)  # nothing but the open transaction is against it
    with connected(server, name) as first, connected(server, name) as second:
        for number, connection in enumerate((first, second), 1):
            connection.cursor().execute("BEGIN")
            connection.cursor().execute(f"UPDATE entry SET b = 9 WHERE id = {number}")
        first.commit()
        until_the_next_second(server)
        facts = database.copy_ahead(OPERATION)
        second.commit()
    put_back(database, database.prepare(OPERATION, None, facts))
    assert server.run(name, "SELECT b FROM entry ORDER BY id").split("\n") == ["9", "9", "3"]
    database.discard(OPERATION)


@on_both
@pytest.mark.usefixtures("without_margin")
def test_a_server_elsewhere_that_was_started_again_meanwhile(
    product: type[MariadbServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    own = product()
    try:
        own.create_if_missing("app")
        run(own, "app", simple("entry"), simple("resting"))
        database = opened(own, "app", knowing=True, say=pytest.fail)
        until_the_next_second(own)
        check_the_time_zone(own, database)
        facts = database.copy_ahead(OPERATION)
        assert all(facts["marks"].values())
        run(own, "app", "UPDATE entry SET b = 5")
        own.kill()
        own.start()
        run(own, candidate_of(own), "DELETE FROM resting")
        before = [own.run("app", f"SELECT * FROM {table}") for table in ("entry", "resting")]
        put_back(database, database.prepare(OPERATION, None, facts))
        assert [own.run("app", f"SELECT * FROM {table}") for table in ("entry", "resting")] == before
    finally:
        own.remove()


def check_the_time_zone(server: MariadbServer, database: MariadbDatabase) -> None:
    """InnoDB shows the start of a transaction in the server's time zone, and the rest of the catalogue in another."""
    with database._clients.session() as session, connected(server, "app") as visitor:
        session.run(evidence.UTC)
        began = evidence.now(session)
        visitor.cursor().execute("BEGIN")
        visitor.cursor().execute("SELECT * FROM entry")
        until_the_next_second(server)
        assert began <= evidence.bound(session) < evidence.now(session)
        for local, utc in (
            ("2026-07-01 12:00:00", "2026-07-01 10:00:00"),
            ("2026-10-25 02:30:00", "2026-10-25 00:30:00"),
            ("2026-10-25 03:30:00", "2026-10-25 02:30:00"),
            ("2026-12-01 12:00:00", "2026-12-01 11:00:00"),
        ):
            found = session.value(f"SELECT {evidence.in_utc(f'CAST({literal(local)} AS DATETIME)')}")
            assert found == utc


def test_writers_do_not_wait_while_tables_are_copied(
    server: MariadbServer, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row that is read stays free: the statement that copies it is under way, and waits for nobody."""
    run(server, name, f"CREATE TABLE entry AS SELECT seq AS id, REPEAT('x', 100) AS a FROM {numbers(100_000)}")
    run(server, name, "ALTER TABLE entry ADD PRIMARY KEY (id)")
    database = opened(server, name, knowing=False, say=pytest.fail)
    monkeypatch.setattr("holdfast.drivers.databases.mariadb.live_copy._PIECE_BYTES", 1 << 40)
    waits = f"{LENIENT}, innodb_lock_wait_timeout = 1, lock_wait_timeout = 1"
    sent = Session.send

    def send(session: Session, sql: str) -> None:
        sent(session, sql)
        if sql.startswith("INSERT INTO `hf-"):
            with connected(server, name) as connection, connection.cursor() as cursor:
                cursor.execute(waits)
                for number in range(1, 100_000, 5_000):
                    cursor.execute(f"UPDATE entry SET a = 'y' WHERE id = {number}")
                written.append(cursor.rowcount)

    written: list[int] = []
    with monkeypatch.context() as patched:
        patched.setattr(Session, "send", send)
        facts = database.copy_ahead(OPERATION)
    assert written == [1]
    put_back(database, database.prepare(OPERATION, None, facts))
    assert server.run(name, "SELECT COUNT(*) FROM entry WHERE a = 'y'") == "20"
    database.discard(OPERATION)


@pytest.mark.parametrize("key", ["KEY (a)", "UNIQUE (a)"], ids=["shared", "by one session"])
def test_a_large_table_is_copied_in_pieces_and_compared_in_parts(
    server: MariadbServer, name: str, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    run(server, name, f"CREATE TABLE entry (id BIGINT PRIMARY KEY, a INT, {key})")
    run(server, name, f"INSERT INTO entry SELECT seq * 3 - 9000, seq FROM {numbers(5000)}")
    run(server, name, "ANALYZE TABLE entry")
    monkeypatch.setattr("holdfast.drivers.databases.mariadb.live_copy._PIECE_BYTES", 20_000)
    monkeypatch.setattr("holdfast.drivers.databases.mariadb.live_copy._SPLIT_BYTES", 1)
    database = opened(server, name, knowing=False, say=pytest.fail)
    facts = database.copy_ahead(OPERATION)
    assert server.run(candidate_of(server), "SELECT COUNT(*) FROM entry") == "5000"
    run(server, name, "UPDATE entry SET a = -a WHERE id % 7 = 0", "DELETE FROM entry WHERE id % 11 = 0")
    run(server, name, "INSERT INTO entry VALUES (-99999, 10001), (99999, 10002)")
    wanted = server.run(name, "SELECT * FROM entry ORDER BY id")
    put_back(database, database.prepare(OPERATION, None, facts))
    assert server.run(name, "SELECT * FROM entry ORDER BY id") == wanted
    database.discard(OPERATION)


def test_a_table_of_which_most_was_written_is_copied_again(
    server: MariadbServer, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(server, name, "CREATE TABLE entry (id BIGINT PRIMARY KEY, a INT)")
    run(server, name, f"INSERT INTO entry SELECT seq, seq FROM {numbers(20_000)}", "ANALYZE TABLE entry")
    monkeypatch.setattr("holdfast.drivers.databases.mariadb.live_copy._SPLIT_BYTES", 1)
    monkeypatch.setattr("holdfast.drivers.databases.mariadb.live_copy._PIECE_BYTES", 50_000)
    database = opened(server, name, knowing=False, say=pytest.fail)
    facts = database.copy_ahead(OPERATION)
    run(server, name, "UPDATE entry SET a = a + 1")
    compared: list[str] = []
    replace = comparing.replace
    monkeypatch.setattr(comparing, "replace", lambda *what: compared.append(what[3]) or replace(*what))
    put_back(database, database.prepare(OPERATION, None, facts))
    assert 1 <= len(compared) < 20, "not all of its some thirty pieces"
    assert server.run(name, "SELECT COUNT(*), SUM(a - id), MAX(id) FROM entry") == "20000\t20000\t20000"
    database.discard(OPERATION)


@pytest.mark.usefixtures("without_margin")
@pytest.mark.parametrize("seed", range(3))
def test_after_changes_at_random_the_copy_is_equal(server: MariadbServer, name: str, seed: int) -> None:
    chance = random.Random(seed)
    kinds = {
        "plain": "(id INT PRIMARY KEY AUTO_INCREMENT, a VARCHAR(9), u INT UNIQUE)",
        "texts": "(k VARCHAR(9) PRIMARY KEY, a VARCHAR(9), id INT, u INT UNIQUE)",
        "none": "(id INT, a VARCHAR(9), u INT)",
        "parts": "(id INT PRIMARY KEY, a VARCHAR(9), u INT) PARTITION BY HASH (id) PARTITIONS 3",
        "still": "(id INT PRIMARY KEY, a VARCHAR(9), u INT)",
    }
    for table, columns in kinds.items():
        keys = ("k, id", "CONCAT('k', seq), seq") if table == "texts" else ("id", "seq")
        run(
            server,
            name,
            f"CREATE TABLE {table} {columns}",
            f"INSERT INTO {table} ({keys[0]}, a, u) SELECT {keys[1]}, 'a', seq FROM {numbers(40)}",
        )
    database = opened(server, name, knowing=bool(seed % 2), say=pytest.fail)
    until_the_next_second(server)
    facts = database.copy_ahead(OPERATION)
    with connected(server, name) as connection, connection.cursor() as cursor:
        cursor.execute(LENIENT)
        for _ in range(120):
            table, number = chance.choice([*kinds][:-1]), chance.randrange(60)
            text = chance.choice("aAbBäÄ \0")
            added = "k, id, a" if table == "texts" else "id, a"
            values = f"'{chance.choice('kK')}{number}', {number}" if table == "texts" else f"{number}"
            sql = chance.choice(
                [
                    f"UPDATE {table} SET a = '{text}' WHERE id = {number}",
                    f"UPDATE IGNORE {table} SET u = {chance.randrange(60)} WHERE id = {number}",
                    f"DELETE FROM {table} WHERE id = {number} OR u = {chance.randrange(60)}",
                    f"INSERT IGNORE INTO {table} ({added}) VALUES ({values}, '{text}')",
                    f"REPLACE INTO {table} ({added}, u) VALUES ({values}, '{text}', {chance.randrange(60)})",
                ]
            )
            cursor.execute("BEGIN")
            cursor.execute(sql)
            cursor.execute(chance.choice(["COMMIT", "COMMIT", "ROLLBACK"]))
    before = everything_of(server, name, kinds)
    put_back(database, database.prepare(OPERATION, None, facts))
    assert everything_of(server, name, kinds) == before
    database.discard(OPERATION)


def everything_of(server: MariadbServer, name: str, tables: Facts) -> list[str]:
    return [server.run(name, f"SHOW CREATE TABLE {table}; SELECT * FROM {table} ORDER BY 1, 2, 3") for table in tables]


# --- where it cannot be done --------------------------------------------------------------------------------


def test_a_table_that_cannot_be_copied_ahead_is_copied_in_the_window(
    server: MariadbServer, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(server, name, simple("entry"), simple("other"))
    said: list[str] = []
    database = opened(server, name, knowing=False, say=said.append)
    shapes = comparing.shapes

    def without_entry(*arguments: object) -> dict[str, comparing.Shape]:
        run(server, name, "RENAME TABLE entry TO entry_now")  # after the tables were listed
        monkeypatch.setattr(comparing, "shapes", shapes)
        return {**shapes(*arguments), "entry": comparing.Shape([("id", "int")], ["id"])}  # type: ignore[arg-type]

    monkeypatch.setattr(comparing, "shapes", without_entry)
    facts = database.copy_ahead(OPERATION)
    assert facts["marks"] == {"other": ""}
    assert len(said) == 1 and "not copied ahead" in said[0]
    before = everything_of(server, name, {"entry_now": 0, "other": 0})
    put_back(database, database.prepare(OPERATION, None, facts))
    assert everything_of(server, name, {"entry_now": 0, "other": 0}) == before
    database.discard(OPERATION)


def test_a_copy_that_cannot_be_completed_is_made_again(
    server: MariadbServer, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(server, name, simple("entry"))
    said: list[str] = []
    database = opened(server, name, knowing=False, say=said.append)
    facts = database.copy_ahead(OPERATION)
    run(server, name, "DELETE FROM entry WHERE id = 1")
    monkeypatch.setattr(comparing, "remove", lambda *_: "DO 1")
    put_back(database, database.prepare(OPERATION, None, facts))
    assert server.run(name, "SELECT id FROM entry ORDER BY id").split("\n") == ["2", "3"]
    assert len(said) == 1 and "made again" in said[0]
    database.discard(OPERATION)


def test_a_candidate_that_is_gone_is_made_again(server: MariadbServer, name: str) -> None:
    run(server, name, simple("entry"))
    database = opened(server, name, knowing=False, say=pytest.fail)
    facts = database.copy_ahead(OPERATION)
    database.discard(OPERATION)
    assert database.tokens() == []
    put_back(database, database.prepare(OPERATION, None, facts))
    assert server.run(name, "SELECT COUNT(*) FROM entry") == "3"
    database.discard(OPERATION)


@pytest.mark.parametrize("server", [pytest.param(mysql, id="mysql", marks=pytest.mark.variant("mysql"))], indirect=True)
def test_a_binary_log_of_statements_leaves_everything_to_the_window(server: MariadbServer, name: str) -> None:
    """MySQL writes a binary log by default, and MariaDB does not."""
    assert server.run("mysql", "SELECT @@log_bin") == "1"
    run(server, name, simple("entry"))
    database = opened(server, name, knowing=False, say=pytest.fail)
    before = server.run("mysql", "SELECT @@GLOBAL.binlog_format")
    server.run("mysql", "SET GLOBAL binlog_format = 'STATEMENT'")
    try:
        with pytest.raises(StepError, match="STATEMENT"):
            database.copy_ahead(OPERATION)
        put_back(database, database.prepare(OPERATION, None, {}))
    finally:
        server.run("mysql", f"SET GLOBAL binlog_format = '{before}'")
    database.discard(OPERATION)


def test_names_that_differ_in_case_alone_are_left_to_the_window(server: MariadbServer, name: str) -> None:
    run(server, name, simple("entry"), simple("ENTRY"), "UPDATE ENTRY SET a = 'upper'")
    database = opened(server, name, knowing=False, say=pytest.fail)
    assert database.copy_ahead(OPERATION) == {}
    before = everything_of(server, name, {"entry": 0, "ENTRY": 0})
    put_back(database, database.prepare(OPERATION, None, {}))
    assert everything_of(server, name, {"entry": 0, "ENTRY": 0}) == before
    database.discard(OPERATION)


def test_a_server_that_is_down_fails_the_copy_ahead(server: MariadbServer, name: str) -> None:
    reached = Server(host=f"{server.folder}/nobody", user=KNOWING)
    with pytest.raises(HoldfastError):
        DRIVERS[server.product]("main", name, reached, Host(operation=OPERATION)).copy_ahead(OPERATION)


# --- parts --------------------------------------------------------------------------------------------------


def test_names_as_innodb_writes_them() -> None:
    assert evidence.encoded("my-app_1") == "my@002dapp_1"
    assert evidence.encoded("a`b.c") == "a@0060b@002ec"
    assert evidence.encoded("naïve") is None


@given(st.integers(-(2**63), 2**63), st.integers(0, 2**40), st.integers(1, 9))
def test_every_number_is_in_one_range(least: int, more: int, parts: int) -> None:
    greatest = least + more
    found = comparing.ranges(least, greatest, parts)
    for number in (least - 1, least, (least + greatest) // 2, greatest, greatest + 1):
        inside = [1 for low, high in found if (low is None or low <= number) and (high is None or number < high)]
        assert inside == [1]
