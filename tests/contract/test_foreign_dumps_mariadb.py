"""Dumps of mariadb-dump, mysqldump and others on their way into MariaDB and MySQL: whole, cut and hostile."""

from __future__ import annotations

import contextlib
import gzip
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import zstandard

from holdfast.drivers.databases.mariadb.driver import MariadbDatabase
from holdfast.drivers.databases.mariadb.mysql import MysqlDatabase
from holdfast.drivers.databases.mariadb.plain_sql import adapted
from holdfast.drivers.databases.mariadb.stored_objects import without_definers
from holdfast.drivers.interchange import dump_source
from holdfast.errors import HoldfastError, RefusedError
from holdfast.model import Server
from holdfast.system.host import Host
from tests.servers import mariadb, mysql
from tests.servers.mariadb import USER, MariadbServer, numbers

OPERATION = "20260101-000000-import-database-ab12"
TRICKY = "USE elsewhere;\nCREATE DATABASE x;\nCREATE DEFINER=`a`@`b` it's -- /* \\! # `"


@pytest.fixture(
    params=[pytest.param(mariadb, id="mariadb"), pytest.param(mysql, id="mysql", marks=pytest.mark.variant("mysql"))]
)
def server(request: pytest.FixtureRequest) -> Iterator[MariadbServer]:
    with request.param.shared() as running:
        yield running


@pytest.fixture
def name(server: MariadbServer) -> Iterator[str]:
    """A database of an administrator's tool: definers of another account, values that look like statements."""
    with server.own_database() as made:
        server.create_if_missing(made)
        server.run(made, "CREATE TABLE entry (id INT PRIMARY KEY AUTO_INCREMENT, text TEXT, raw BLOB)")
        server.run(
            made, "INSERT INTO entry (text, raw) SELECT CONCAT('row ', seq), CHAR(seq, 0, 255) FROM " + numbers(300)
        )
        quoted = TRICKY.replace("\\", "\\\\").replace("'", "''")
        server.run(made, f"INSERT INTO entry (text) VALUES ('{quoted}')")
        server.run(made, "CREATE VIEW some AS SELECT text FROM entry WHERE id < 3")
        server.run(made, "CREATE TRIGGER noted BEFORE INSERT ON entry FOR EACH ROW SET NEW.raw = 'noted'")
        server.run(made, "DELIMITER //\nCREATE PROCEDURE p()\nBEGIN\n SELECT 'USE x;';\nEND//\n")
        server.run(made, "CREATE EVENT yearly ON SCHEDULE EVERY 1 YEAR STARTS '2035-01-01 00:00:00' DO DO 1")
        yield made


@pytest.fixture
def database(server: MariadbServer, name: str) -> MariadbDatabase:
    driver = MariadbDatabase if server.product == "MariaDB" else MysqlDatabase
    return driver("main", name, Server(host=server.socket, user=USER), Host(operation=OPERATION))


def own_dump(server: MariadbServer, name: str, *arguments: str) -> bytes:
    return server.dumped(name, "--routines", "--events", *arguments)


def bring(database: MariadbDatabase, source: Path) -> None:
    with dump_source.opened(str(source)) as dump:
        candidate = database.load(OPERATION, dump)
    database.swap(OPERATION, candidate, f"{OPERATION}.replaced")


def check_content(server: MariadbServer, name: str) -> None:
    assert server.run(name, "SELECT COUNT(*), SUM(LENGTH(raw)) FROM entry", user=USER) == "301\t945"
    assert server.run(name, "SELECT HEX(text) FROM entry WHERE raw IS NULL", user=USER) == TRICKY.encode().hex().upper()
    server.run(name, "INSERT INTO entry (text) VALUES ('of the application')", user=USER)
    assert server.run(
        name, "SELECT raw FROM entry ORDER BY id DESC LIMIT 1; SELECT * FROM some; CALL p()", user=USER
    ) == ("noted\nrow 1\nrow 2\nUSE x;")
    definers = (
        f"SELECT definer FROM information_schema.triggers WHERE trigger_schema = '{name}' UNION SELECT definer FROM"
        f" information_schema.views WHERE table_schema = '{name}' UNION SELECT definer FROM information_schema.routines"
        f" WHERE routine_schema = '{name}' UNION SELECT definer FROM information_schema.events"
        f" WHERE event_schema = '{name}'"
    )
    assert server.run(name, definers) == f"{USER}@localhost"


ARGUMENTS = [
    (),
    ("--databases",),
    ("--skip-extended-insert", "--complete-insert"),
    ("--skip-opt", "--create-options"),
    ("--hex-blob", "--tz-utc"),
]


@pytest.mark.parametrize("arguments", ARGUMENTS, ids=" ".join)
@pytest.mark.parametrize("packed", [gzip.compress, zstandard.ZstdCompressor().compress], ids=["gzip", "zstd"])
def test_a_dump_of_the_engines_own_tool(
    server: MariadbServer,
    name: str,
    database: MariadbDatabase,
    quick_folder: Path,
    arguments: tuple[str, ...],
    packed: object,
) -> None:
    path = quick_folder / "misleading.jpg"
    path.write_bytes(packed(own_dump(server, name, *arguments)))
    # An account cannot read a routine of another one's; `check` says so.
    server.run(
        name, "DROP TABLE entry; DROP VIEW some; DROP PROCEDURE p; DROP EVENT yearly; CREATE TABLE later (a INT)"
    )
    bring(database, path)
    check_content(server, name)
    assert "later" not in database.tables()


def test_sql_that_no_dump_program_wrote(
    server: MariadbServer, name: str, database: MariadbDatabase, quick_folder: Path
) -> None:
    (quick_folder / "sql").write_text(
        "-- from a web interface\nCREATE DATABASE IF NOT EXISTS `shop`;\nUSE `shop`;\nCREATE TABLE t (a TEXT);\n"
        "INSERT INTO t VALUES ('one\nUSE other;\n''-- it\\'s\n'), (\"CREATE DATABASE y;\n\");\n"
    )
    server.run(name, "DROP VIEW some; DROP PROCEDURE p; DROP EVENT yearly; DROP TRIGGER noted")
    bring(database, quick_folder / "sql")
    assert server.run(name, "SELECT COUNT(*), MAX(LENGTH(a)) FROM t", user=USER) == "2\t24"
    assert list(database.tables()) == ["t"]


@pytest.mark.parametrize("packed", [bytes, gzip.compress], ids=["plain", "gzip"])
@pytest.mark.parametrize("part", [0.3, 0.6, 0.99])
def test_a_dump_that_was_cut_changes_nothing(
    server: MariadbServer, name: str, database: MariadbDatabase, quick_folder: Path, packed: object, part: float
) -> None:
    whole = packed(own_dump(server, name))
    (quick_folder / "dump").write_bytes(whole[: int(len(whole) * part)])
    before = database.inspect()["identity"], database.tables()
    with pytest.raises(HoldfastError):
        bring(database, quick_folder / "dump")
    database.discard(OPERATION)
    assert (database.inspect()["identity"], database.tables()) == before
    assert database.tokens() == []


@pytest.mark.parametrize(
    "line",
    [
        "\\! touch {mark}",
        "system touch {mark}",
        "SELECT 1 \\! touch {mark}",
        "SELECT 1 INTO OUTFILE '{mark}';",
        "pager touch {mark}\nSELECT 1;",
        "tee {mark}\nSELECT 1;",
        "\\T {mark}\nSELECT 1;",
        "LOAD DATA LOCAL INFILE '/etc/passwd' INTO TABLE entry (text);\nSELECT text INTO OUTFILE '{mark}' FROM entry;",
    ],
)
def test_a_dump_runs_no_command_and_reads_no_file_of_this_machine(
    server: MariadbServer, name: str, database: MariadbDatabase, quick_folder: Path, line: str
) -> None:
    mark = quick_folder / "pwned"
    quick_folder.chmod(0o777)
    text = own_dump(server, name).decode("latin-1")
    hostile = text.replace("CREATE TABLE", f"{line.format(mark=mark)}\nCREATE TABLE", 1)
    (quick_folder / "dump").write_text(hostile, encoding="latin-1")
    with pytest.raises(HoldfastError):
        bring(database, quick_folder / "dump")
    assert not mark.exists()
    assert server.run(name, "SELECT COUNT(*) FROM entry") == "301"


def test_a_dump_of_several_databases_is_refused(
    server: MariadbServer, name: str, database: MariadbDatabase, quick_folder: Path
) -> None:
    with server.own_database() as second:
        server.create_if_missing(second)
        server.run(second, "CREATE TABLE t (a INT)")
        (quick_folder / "dump").write_bytes(own_dump(server, second, "--databases", name))
    with pytest.raises(RefusedError, match="several databases"):
        bring(database, quick_folder / "dump")


@pytest.mark.parametrize(
    "line",
    [
        " USE {live};",
        "USE {live}; DROP TABLE t;",
        "/*!40000 USE {live} */;",
        "--\tit's the shop\nUSE {live};",
        "DROP DATABASE IF EXISTS\n {live};",
        "DROP TABLE IF EXISTS {live}.entry;",
        "CREATE TABLE `{live}`.`t` (a INT);",
        "SELECT 1; USE {live};",
        "INSERT INTO `{live}` . entry (text) VALUES ('x');",
        "/* a */ USE {live}; -- b",
    ],
)
@pytest.mark.parametrize("heading", ["", "-- MariaDB dump 10.19\n"])
def test_what_leads_into_the_live_database_never_gets_there(
    server: MariadbServer, name: str, database: MariadbDatabase, quick_folder: Path, line: str, heading: str
) -> None:
    end = "-- Dump completed\n" if heading else ""
    (quick_folder / "sql").write_text(
        f"{heading}{line.format(live=name)}\nDROP TABLE IF EXISTS entry;\nCREATE TABLE entry (a INT);\n{end}"
    )
    before = server.run(name, "SELECT COUNT(*) FROM entry; SHOW TABLES")
    with contextlib.suppress(HoldfastError), dump_source.opened(str(quick_folder / "sql")) as dump:
        database.load(OPERATION, dump)
    assert server.run(name, "SELECT COUNT(*) FROM entry; SHOW TABLES") == before


def test_an_administrators_statement_over_two_lines_is_left_out_whole() -> None:
    text = b"SET @@GLOBAL.GTID_PURGED=/*!80000 '+'*/ 'a:1-23,\nb:1-5';\nSELECT 1;\n"
    assert b"".join(adapted([text], "it")) == b"SELECT 1;\n"


def test_a_role_as_definer_is_left_out() -> None:
    view = b"/*!50001 CREATE ALGORITHM=UNDEFINED DEFINER=`boss` SQL SECURITY DEFINER VIEW `v` AS select 1 AS `a` */;\n"
    assert b"DEFINER=" not in without_definers(view)
    assert (
        without_definers(b"INSERT INTO t VALUES ('DEFINER=`a`@`b`');") == b"INSERT INTO t VALUES ('DEFINER=`a`@`b`');"
    )


def test_statements_inside_values_are_left_alone() -> None:
    text = b"INSERT INTO t VALUES ('a\nUSE x;\n\\'\n'), (`b\nUSE y;\n`), /* \nUSE z;\n */ (1);\n"
    assert b"".join(adapted([text[:20], text[20:]], "it")) == text
    assert b"".join(adapted([b"USE only;\nSELECT 1;\n"], "it")) == b"SELECT 1;\n"


def test_other_engines_formats_are_refused(database: MariadbDatabase, quick_folder: Path) -> None:
    (quick_folder / "dump").write_bytes(b"PGDMP" + bytes(100))
    with pytest.raises(RefusedError, match="does not read"):
        bring(database, quick_folder / "dump")


def test_what_an_insert_hides_on_its_line_is_found() -> None:
    """A quote or a comment that stays open would hide what follows."""
    heading = b"-- MySQL dump 10.13\n"
    for application in (b"'a);\n');", b'"a);\n");', b"/* );\n*/ 1);", b"# );\n1);", b"-- );\n1);"):
        text = heading + b"INSERT INTO `t` VALUES (" + application + b" USE live; DROP TABLE t;\n-- Dump completed\n"
        with pytest.raises(RefusedError):
            list(adapted([text], "it"))
    whole = heading + b"INSERT INTO `t` (`a`, `b`) VALUES (1,'it\\'s # -- /* \"'),(-2,NULL);\n-- Dump completed\n"
    assert b"".join(adapted([whole], "it")) == whole


def test_a_dump_that_cannot_be_loaded_is_named_with_its_server(database: MariadbDatabase, quick_folder: Path) -> None:
    for version, named in (("99.1.0", "MySQL 99.1.0"), ("98.4.2-MariaDB-ubu2404-log", "MariaDB 98.4.2")):
        (quick_folder / "sql").write_text(
            f"-- MySQL dump 10.13  Distrib 1, for Linux (x86_64)\n--\n-- Server version\t{version}\n"
            "CREATE TABLE t (a NOT_YET_KNOWN);\n-- Dump completed\n"
        )
        with pytest.raises(HoldfastError, match=named):
            bring(database, quick_folder / "sql")


@pytest.mark.parametrize("source", [mariadb, mysql], ids=["from mariadb", "from mysql"])
def test_a_dump_of_the_other_product_comes_in_where_its_words_are_known(
    server: MariadbServer, database: MariadbDatabase, name: str, quick_folder: Path, source: ModuleType
) -> None:
    with source.shared() as other, other.own_database() as theirs:
        other.create_if_missing(theirs)
        other.run(theirs, "CREATE TABLE t (a INT PRIMARY KEY, b TEXT) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin")
        other.run(theirs, "INSERT INTO t VALUES (1, 'x'), (2, 'it''s')")
        (quick_folder / "dump").write_bytes(own_dump(other, theirs))
        strange = {"MySQL": "b VARCHAR(9) COLLATE utf8mb4_0900_as_ci", "MariaDB": "a UUID"}[other.product]
        other.run(theirs, f"CREATE TABLE u ({strange})")
        (quick_folder / "strange").write_bytes(own_dump(other, theirs))
    server.run(name, "DROP VIEW some; DROP PROCEDURE p; DROP EVENT yearly; DROP TRIGGER noted")
    if other.product != server.product:
        with pytest.raises(HoldfastError, match=f"which {other.product} .* could not be loaded"):
            bring(database, quick_folder / "strange")
    bring(database, quick_folder / "dump")
    assert server.run(name, "SELECT COUNT(*), MAX(b) FROM t", user=USER) == "2\tx"
