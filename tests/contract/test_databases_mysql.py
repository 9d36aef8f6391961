"""MySQL alone: rights by roles and of definers, its binary log, programs of MariaDB under its names."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from msgspec.structs import replace

from holdfast.drivers.databases.mariadb.driver import MariadbDatabase
from holdfast.drivers.databases.mariadb.dump_output import RowCounter
from holdfast.drivers.databases.mariadb.mysql import MysqlDatabase
from holdfast.model import Facts, Server, Snapshot
from holdfast.system.host import Host
from tests.contract.dumps import snapshot
from tests.servers import mariadb, mysql
from tests.servers.mariadb import ADMINISTRATOR, USER, MariadbServer
from tests.servers.mysql import MysqlServer

OPERATION = "20260101-000000-upgrade-ab12"


@pytest.fixture
def server() -> Iterator[MysqlServer]:
    with mysql.shared() as running:
        yield running


@pytest.fixture
def name(server: MysqlServer) -> Iterator[str]:
    with server.own_database() as made:
        server.create_if_missing(made)
        server.run(made, "CREATE TABLE entry (id INT PRIMARY KEY AUTO_INCREMENT, text TEXT)", user=USER)
        server.run(made, "INSERT INTO entry (text) VALUES ('one'), ('two')", user=USER)
        yield made


def driver(server: MysqlServer, name: str, **changes: object) -> MysqlDatabase:
    reached = replace(Server(host=server.socket, user=USER), **changes)
    return MysqlDatabase("main", name, reached, Host(operation=OPERATION))


@pytest.fixture
def database(server: MysqlServer, name: str) -> MysqlDatabase:
    return driver(server, name)


def facts_of(taken: Snapshot) -> Facts:
    return {**taken.facts, "rows": {table: facts["rows"] for table, facts in taken.tables.items()}}


def errors(database: MysqlDatabase) -> str:
    return "; ".join(problem.message for problem in database.check() if problem.severity == "error")


@contextmanager
def account(server: MysqlServer, name: str, *grants: str) -> Iterator[str]:
    """One with every right on the database and beside it, and more."""
    who = "special@localhost"
    server.run("mysql", f"CREATE USER {who}; GRANT ALL ON `{name}`.* TO {who}; GRANT ALL ON `hf-%`.* TO {who}")
    try:
        for grant in grants:
            server.run("mysql", f"GRANT {grant} TO {who}")
        yield "special"
    finally:
        server.run("mysql", f"DROP USER {who}")


def test_rows_of_statements_are_counted_whatever_the_pieces_and_values() -> None:
    text = (
        b"CREATE TABLE `a` (\n  `x` int\n);\nINSERT INTO `a` VALUES (1,'),('),(2,'it\\'s \\\\'),(3,'\\\\\\'),(');\n"
        b"INSERT INTO `a` (`x`, `y`) VALUES (4,_binary '\\0),(\xff'),(5,NULL);\n"
        b"CREATE TABLE `odd``),(` (\n`y` int\n);\n"
        b"INSERT INTO `odd``),(` VALUES (-1.5e3,'');\n/*!50003 CREATE PROCEDURE `p`()\n(SELECT 1) */;;\n"
    )
    for size in (1, 2, 3, 7, 64, len(text)):
        counter = RowCounter(rows_on_lines=False)
        for start in range(0, len(text), size):
            counter.feed(text[start : start + size])
        assert counter.rows == {"a": 5, "odd`),(": 1}, size


def test_the_owners_mark_stands_where_no_swap_and_no_migration_meets_it(
    server: MysqlServer, name: str, database: MysqlDatabase
) -> None:
    assert database.owner() is None
    database.claim("first")
    database.claim("second")
    assert (database.owner(), database.tokens(), list(database.tables())) == ("first", [], ["entry"])
    database.swap("op", database.prepare("op", None, {}), "op.replaced")
    database.discard("op")
    assert database.owner() == "first"
    server.run("mysql", f"DROP DATABASE `{name}`")
    assert database.owner() is None


def test_an_account_that_may_know_tells_where_the_dump_is_in_the_binary_log(
    server: MysqlServer, name: str, database: MysqlDatabase, quick_folder: Path
) -> None:
    def position(found: MysqlDatabase) -> object:
        with found.freeze_writes(5) as fix:
            return fix(quick_folder / "dump", (), 10)().facts["binlog"]

    assert position(database) is None
    with account(server, name, "REPLICATION CLIENT ON *.*") as user:
        told = position(driver(server, name, user=user))
        assert told == ":".join(server.run("mysql", "SHOW BINARY LOG STATUS").split("\t")[:2])


def test_rights_of_roles_count(server: MysqlServer, name: str) -> None:
    server.run("mysql", "CREATE ROLE watcher; GRANT PROCESS, CONNECTION_ADMIN ON *.* TO watcher")
    try:
        with account(server, name, "watcher") as user:
            assert any("sessions" in problem.message for problem in driver(server, name, user=user).check())
            server.run("mysql", f"SET DEFAULT ROLE watcher TO {user}@localhost")
            assert driver(server, name, user=user).check() == []
    finally:
        server.run("mysql", "DROP ROLE watcher")


def test_programs_of_an_administrator_come_back_as_far_as_the_account_may_make_them(
    server: MysqlServer, name: str, quick_folder: Path
) -> None:
    """With the right to define for others, but not for administrators: then all are made as the account's own."""
    server.run(
        name, "CREATE VIEW mine AS SELECT 1 AS a; CREATE DEFINER = 'keeper'@'localhost' VIEW theirs AS SELECT 2 AS a"
    )
    taken = snapshot(driver(server, name, user=ADMINISTRATOR), quick_folder / "dump")
    definers = f"SELECT definer FROM information_schema.views WHERE table_schema = '{name}' ORDER BY table_name"
    cases = {
        "SET_ANY_DEFINER ON *.*": "special@localhost\nspecial@localhost",
        "SET_ANY_DEFINER, SYSTEM_USER ON *.*": "root@localhost\nkeeper@localhost",
    }
    for number, (grant, expected) in enumerate(cases.items()):
        with account(server, name, grant) as user:
            database = driver(server, name, user=user)
            assert ("definer root@localhost" in errors(database)) == ("SYSTEM_USER" not in grant)
            candidate = database.prepare(f"op{number}", quick_folder / "dump", facts_of(taken))
            if "SYSTEM_USER" not in grant:
                server.run(name, "DROP VIEW mine, theirs")  # which this account could not
            database.swap(f"op{number}", candidate, f"op{number}.replaced")
            assert server.run(name, definers) == expected
            assert server.run(name, "SELECT * FROM mine; SELECT * FROM theirs", user=user) == "1\n2"
        server.run(
            name, "DROP VIEW mine, theirs; CREATE VIEW mine AS SELECT 3 AS a; CREATE VIEW theirs AS SELECT 3 AS a"
        )


def test_what_a_server_with_a_binary_log_lets_nobody_make_is_found() -> None:
    own = MysqlServer(**{"log-bin-trust-function-creators": "OFF", "partial-revokes": "ON"})
    try:
        own.create_if_missing("app")
        own.run(
            "app",
            "CREATE TABLE entry (id INT PRIMARY KEY);"
            " CREATE TRIGGER noted BEFORE INSERT ON entry FOR EACH ROW SET @a = 1",
        )
        own.run("app", "CREATE FUNCTION one() RETURNS INT DETERMINISTIC RETURN 1; CREATE PROCEDURE p() SELECT 1")
        found = errors(driver(own, "app"))
        assert (
            "noted cannot be created again" in found
            and "one cannot be created again" in found
            and "p cannot" not in found
        )
        assert "partial_revokes" in found
        assert errors(driver(own, "app", user=ADMINISTRATOR)) == ""
    finally:
        own.remove()


def test_programs_of_mariadb_under_the_same_names_are_told(
    database: MysqlDatabase, quick_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = quick_folder / "mysqldump"
    program.write_text(
        "#!/bin/sh\necho 'mysqldump  Ver 10.19 Distrib 10.11.14-MariaDB, for debian-linux-gnu (x86_64)'\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{quick_folder}:{os.environ['PATH']}")
    assert "mysqldump is MariaDB's" in errors(database)
    monkeypatch.setenv("PATH", str(quick_folder))
    monkeypatch.setattr("holdfast.system.child_environment.STANDARD_PATH", str(quick_folder))
    assert "mysql cannot be run" in errors(database)


def test_a_server_of_the_other_product_is_told(server: MysqlServer, name: str) -> None:
    """MySQL's clients from 9.0 cannot log in at MariaDB by its older passwords; then that is what is told."""
    (problem,) = MariadbDatabase("main", name, Server(host=server.socket, user=USER), Host()).check()
    assert (problem.severity, problem.advice) == ("error", 'Set kind = "mysql".')
    with mariadb.shared() as other:
        assert isinstance(other, MariadbServer)
        (problem,) = MysqlDatabase("main", name, Server(host=other.socket, user=USER), Host()).check()
        assert problem.severity == "error"
        assert problem.advice == 'Set kind = "mariadb".' or "mysql_native_password" in problem.message
