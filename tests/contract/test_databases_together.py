"""Several databases of one server dumped by one transaction: their rows agree, and each comes back by itself."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pymysql
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.drivers.databases.mariadb.driver import MariadbDatabase
from holdfast.drivers.databases.mariadb.dump_output import Splitter
from holdfast.drivers.databases.mariadb.mysql import MysqlDatabase
from holdfast.drivers.databases.sqlite.driver import SqliteDatabase
from holdfast.model import Facts, Server, Snapshot
from holdfast.system.host import Host
from tests.servers import mariadb, mysql
from tests.servers.mariadb import USER, MariadbServer

OPERATION = "20260101-000000-backup-ab12"
DRIVERS = {"MariaDB": MariadbDatabase, "MySQL": MysqlDatabase}
# What a dump shows of a table besides its rows, with what would look like the beginning of another database.
ODD = "a\\nUSE `x`;\\n-- b"
NAMES = ("first", "sec`ond")


@pytest.fixture(
    params=[pytest.param(mariadb, id="mariadb"), pytest.param(mysql, id="mysql", marks=pytest.mark.variant("mysql"))]
)
def server(request: pytest.FixtureRequest) -> Iterator[MariadbServer]:
    with request.param.shared() as running:
        yield running


def driver(server: MariadbServer, name: str, user: str = USER) -> MariadbDatabase:
    reached = Server(host=server.socket, user=user)
    return DRIVERS[server.product]("main", name, reached, Host(operation=OPERATION))


@pytest.fixture
def names(server: MariadbServer) -> Iterator[list[str]]:
    """Three databases: the ledger's two sides, and one with odd definitions."""
    with server.own_database() as left, server.own_database() as right, server.own_database() as odd:
        for name in (left, right, odd):
            server.create_if_missing(name)
        for name in (left, right):
            server.run(name, "CREATE TABLE booked (id INT PRIMARY KEY, text VARCHAR(200))", user=USER)
        server.run(
            odd,
            f"CREATE TABLE odd (a INT DEFAULT 1 COMMENT '{ODD}', b VARCHAR(50) DEFAULT '{ODD}', e ENUM('{ODD}', 'z'),"
            f" c VARCHAR(50) CHECK (c <> '{ODD}'), g VARCHAR(50) AS (CONCAT(c, '{ODD}')) VIRTUAL) COMMENT '{ODD}';"
            f" INSERT INTO odd (c, e) VALUES ('{ODD}x', '{ODD}'), ('y', 'z');"
            " CREATE VIEW seen AS SELECT 1 AS a; CREATE TRIGGER kept BEFORE INSERT ON odd FOR EACH ROW SET NEW.a = 2",
            user=USER,
        )
        yield [left, right, odd]


@contextmanager
def bookkeeper(server: MariadbServer, left: str, right: str) -> Iterator[None]:
    """Books on both sides in one transaction, all the time."""
    stop = threading.Event()

    def book() -> None:
        connection = pymysql.connect(unix_socket=server.socket, user=USER, database=left)
        with connection.cursor() as cursor:
            number = 0
            while not stop.is_set():
                number += 1
                cursor.execute("BEGIN")
                for name in (left, right):
                    cursor.execute(f"INSERT INTO `{name}`.booked VALUES ({number}, 'it\\'s ({number}),(2)')")
                cursor.execute("COMMIT")
        connection.close()

    thread = threading.Thread(target=book)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def dumped(databases: list[MariadbDatabase], folder: Path, queries: list[str]) -> list[Snapshot]:
    first, *others = databases
    together = first.joint_snapshot(others)
    assert together is not None
    with together as fix:
        orders = [(folder / str(number), queries if number == 0 else []) for number in range(len(databases))]
        return [finish() for finish in fix(orders, 60)]


def facts_of(taken: Snapshot) -> Facts:
    return {**taken.facts, "rows": {table: facts["rows"] for table, facts in taken.tables.items()}}


def whole(server: MariadbServer, name: str) -> bytes:
    own = ["--set-gtid-purged=OFF"] if server.product == "MySQL" else []
    return server.dumped(name, "--skip-comments", "--skip-dump-date", *own)


@pytest.mark.parametrize("asked", [False, True], ids=["held by nothing", "held for a query"])
def test_databases_of_one_server_agree(
    server: MariadbServer, names: list[str], quick_folder: Path, asked: bool
) -> None:
    databases = [driver(server, name) for name in names]
    queries = ["SELECT COUNT(*) FROM booked"] if asked else []
    before = whole(server, names[2])
    with bookkeeper(server, names[0], names[1]):
        rounds = [dumped(databases, quick_folder, queries) for _ in range(8)]
    for left, right, odd in rounds:
        counted = left.tables["booked"]["rows"]
        assert counted == right.tables["booked"]["rows"]
        assert left.answers == ([[(str(counted),)]] if asked else [])
        assert [facts["rows"] for facts in odd.tables.values()] == [2]
    assert rounds[0][0].tables != rounds[-1][0].tables, "nothing was booked meanwhile"
    for number, (database, taken) in enumerate(zip(databases, rounds[-1], strict=True)):
        point = database.prepare(OPERATION, quick_folder / str(number), facts_of(taken))
        database.swap(OPERATION, point, f"{OPERATION}.replaced")
    for name in names[:2]:
        assert server.run(name, "SELECT COUNT(*) FROM booked", user=USER) == str(counted)
    assert whole(server, names[2]) == before


def test_what_no_transaction_sees_is_taken_alone(server: MariadbServer, names: list[str], quick_folder: Path) -> None:
    database = driver(server, names[0])
    assert database.joint_snapshot([driver(server, names[1], "root")]) is None
    assert database.joint_snapshot([driver(server, names[1]), SqliteDatabase("more", quick_folder / "db")]) is None
    assert SqliteDatabase("main", quick_folder / "db").joint_snapshot([database]) is None


_LINES = st.lists(
    st.sampled_from([b"x\n", b"(1,'USE `first`;'),\n", b"\n", b"-- USE `first`;\n", b"USE me;\n"]), max_size=6
)


@given(
    head=_LINES,
    parts=st.lists(st.tuples(st.sampled_from(NAMES), _LINES), max_size=6),
    tail=st.sampled_from([b"", b"end"]),
    size=st.integers(1, 40),
)
def test_each_database_gets_its_own_whatever_the_pieces(
    head: list[bytes], parts: list[tuple[str, list[bytes]]], tail: bytes, size: int
) -> None:
    got = dict.fromkeys(NAMES, b"")

    def sink(name: str, piece: bytes) -> None:
        got[name] += piece

    splitter = Splitter({name: lambda piece, name=name: sink(name, piece) for name in NAMES})
    text = b"".join(head) + b"".join(
        b"USE `" + name.replace("`", "``").encode() + b"`;\n" + b"".join(lines) for name, lines in parts
    )
    text += tail
    for start in range(0, len(text), size):
        splitter.feed(text[start : start + size])
    splitter.end()
    for name in NAMES:
        wanted = b"".join(head) + b"".join(b"".join(lines) for owner, lines in parts if owner == name)
        assert got[name] == wanted + (tail if not parts or parts[-1][0] == name else b"")
