"""MariaDB and MySQL: what an undo, a restore or a clone brings back is the same database, to the last property."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pymysql
import pytest

from holdfast.drivers.databases.mariadb import rewriting
from holdfast.drivers.databases.mariadb.driver import MariadbDatabase
from holdfast.drivers.databases.mariadb.mysql import MysqlDatabase
from holdfast.model import Facts, Server, Snapshot
from holdfast.system.host import Host
from tests.contract.dumps import snapshot
from tests.servers import mariadb, mysql
from tests.servers.mariadb import ADMINISTRATOR, USER, MariadbServer

OPERATION = "20260101-000000-upgrade-ab12"
DRIVERS = {"MariaDB": MariadbDatabase, "MySQL": MysqlDatabase}
LENIENT = "SET sql_mode = 'ALLOW_INVALID_DATES,NO_AUTO_VALUE_ON_ZERO', time_zone = '+00:00', foreign_key_checks = 0"
# What no server can be asked to keep: when a thing was made or last looked at, and what it takes on the disk.
VOLATILE = {
    "AVG_ROW_LENGTH",
    "CARDINALITY",
    "CHECK_TIME",
    "CREATED",
    "CREATE_TIME",
    "DATA_FREE",
    "DATA_LENGTH",
    "INDEX_LENGTH",
    "LAST_ALTERED",
    "LAST_EXECUTED",
    "MAX_DATA_LENGTH",
    "MAX_INDEX_LENGTH",
    "TABLE_ROWS",
    "UPDATE_TIME",
}
CATALOGUE = {
    "SCHEMATA": "SCHEMA_NAME",
    "TABLES": "TABLE_SCHEMA",
    "COLUMNS": "TABLE_SCHEMA",
    "STATISTICS": "TABLE_SCHEMA",
    "TRIGGERS": "TRIGGER_SCHEMA",
    "ROUTINES": "ROUTINE_SCHEMA",
    "PARAMETERS": "SPECIFIC_SCHEMA",
    "EVENTS": "EVENT_SCHEMA",
    "VIEWS": "TABLE_SCHEMA",
    "PARTITIONS": "TABLE_SCHEMA",
    "CHECK_CONSTRAINTS": "CONSTRAINT_SCHEMA",
    "REFERENTIAL_CONSTRAINTS": "CONSTRAINT_SCHEMA",
    "KEY_COLUMN_USAGE": "TABLE_SCHEMA",
    "TABLE_CONSTRAINTS": "TABLE_SCHEMA",
}
CATALOGUE_OF_ONE: dict[str, dict[str, str]] = {
    "MariaDB": {},
    "MySQL": {
        "SCHEMATA_EXTENSIONS": "SCHEMA_NAME",
        "COLUMNS_EXTENSIONS": "TABLE_SCHEMA",
        "ST_GEOMETRY_COLUMNS": "TABLE_SCHEMA",
        "TABLE_CONSTRAINTS_EXTENSIONS": "CONSTRAINT_SCHEMA",
        "TABLES_EXTENSIONS": "TABLE_SCHEMA",
    },
}
OF_BOTH = """
CREATE TABLE parent (id INT UNSIGNED PRIMARY KEY AUTO_INCREMENT COMMENT 'it''s a key; -- or not', n INT) ENGINE=InnoDB
  AUTO_INCREMENT=4711 ROW_FORMAT=COMPACT COMMENT='of \\\\ \\'parents\\'' STATS_PERSISTENT=1 DEFAULT CHARSET=latin1;
INSERT INTO parent VALUES (0, 1), (7, 2), (9, 3);
CREATE TABLE child (id INT PRIMARY KEY, p INT UNSIGNED, q INT UNSIGNED, size INT,
  twice INT GENERATED ALWAYS AS (size * 2) STORED,
  half INT AS (size / 2) VIRTUAL, hidden INT INVISIBLE DEFAULT 7, KEY odd (q DESC, p), UNIQUE one (size),
  CONSTRAINT del FOREIGN KEY (p) REFERENCES parent (id) ON DELETE SET NULL ON UPDATE CASCADE,
  CONSTRAINT res FOREIGN KEY (q) REFERENCES parent (id) ON DELETE RESTRICT, CONSTRAINT big CHECK (size > 0));
INSERT INTO child (id, p, q, size, hidden) VALUES (1, 0, 7, 10, 1), (2, 9, NULL, 20, 2), (3, 77777, NULL, 30, NULL);
CREATE TABLE every (
  id BIGINT PRIMARY KEY, d DATE, dt DATETIME(6), ts TIMESTAMP(6) NULL, y YEAR, t TIME(3), f FLOAT, db DOUBLE,
  de DECIMAL(38, 10),
  b BIT(9), bin BINARY(4), vb VARBINARY(20), bl BLOB, txt TEXT CHARACTER SET utf8mb4,
  lat VARCHAR(20) CHARACTER SET latin1,
  ucs CHAR(3) CHARACTER SET ucs2, sjis VARCHAR(9) CHARACTER SET sjis, en ENUM('', 'a', 'it''s'),
  st SET('x', 'y'), js JSON,
  g GEOMETRY, fu TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP);
INSERT INTO every VALUES
  (0, '0000-00-00', '0000-00-00 00:00:00', '2026-03-29 00:59:59.999999', 0, '-838:59:59', 1.17549e-38,
   2.2250738585072014e-308,
   -9999999999999999999999999999.9999999999, b'101', x'00ff0000', x'', x'0027005c0a0d1a22',
   '\U0001f600 \u00e9', '\u00e9\u20ac',
   '\u00e9', '\u8868', '', 'x,y', '{"a": [1, 2.50, null, "\u00e9"]}', ST_GeomFromText('POINT(1 2)', 4326),
   '2026-10-25 00:30:00'),
  (1, '2026-02-31', '2026-00-00 00:00:00', '1970-01-01 00:00:01', 2155, '00:00:00.001', 3.40282e38,
   1.7976931348623157e308, 0.1,
   b'0', x'', NULL, '', '', '', '', '', 'it''s', '', '"text"', ST_GeomFromText('LINESTRING(0 0, 1.1 1e10)'),
   '2026-10-25 01:30:00'),
  (-9223372036854775808, NULL, NULL, NULL, NULL, NULL, -0.0, -0.0, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
   NULL, NULL,
   NULL, NULL, NULL, '2026-03-29 01:00:00'),
  (2, NULL, NULL, '0000-00-00 00:00:00', NULL, NULL, 0.1, 0.1, 1, NULL, NULL, NULL, NULL, 'NULL', '\\\\N', NULL, NULL,
   NULL, NULL,
   'null', NULL, '2038-01-19 03:14:07'), (3, NULL, NULL, NULL, NULL, NULL, 1677720, 123456789.123456789, 1,
   NULL, NULL, NULL,
   NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'true', NULL, '2026-03-29 02:00:00');
CREATE TABLE unordered (a VARCHAR(9), b FLOAT) DEFAULT CHARSET=utf8mb4 COLLATE utf8mb4_bin;
INSERT INTO unordered VALUES ('c', 16384), ('a', 0.3125), ('b', -0.0), ('a', 0.25), ('a', 0.3125);
CREATE TABLE parts (n INT, m INT, KEY (m)) PARTITION BY RANGE (n) SUBPARTITION BY HASH (m) SUBPARTITIONS 2
  (PARTITION low VALUES LESS THAN (10) COMMENT = 'few', PARTITION high VALUES LESS THAN MAXVALUE);
INSERT INTO parts VALUES (30, 1), (3, 2), (31, 2);
CREATE TABLE packed (id INT PRIMARY KEY, t TEXT) ROW_FORMAT=COMPRESSED KEY_BLOCK_SIZE=4;
CREATE TABLE sought (id INT PRIMARY KEY, t TEXT, s VARCHAR(9), g POINT NOT NULL, FULLTEXT words (t, s),
  SPATIAL KEY place (g),
  KEY part (s(3)) COMMENT 'short');
INSERT INTO sought VALUES (1, 'some words', 'x', ST_GeomFromText('POINT(1 1)'));
CREATE TABLE log (n INT PRIMARY KEY AUTO_INCREMENT, said VARCHAR(99)) ENGINE=MyISAM;
CREATE VIEW checked AS SELECT id, n FROM parent WHERE n > 0 WITH LOCAL CHECK OPTION;
CREATE SQL SECURITY INVOKER VIEW abc (first, second) AS SELECT z.id, 'x' FROM checked z ORDER BY 1;
CREATE ALGORITHM=TEMPTABLE VIEW named AS SELECT id AS `it's; a \\ "name"` FROM parent;
SET sql_mode = 'ANSI_QUOTES,PIPES_AS_CONCAT,STRICT_TRANS_TABLES', collation_connection = utf8mb4_unicode_ci;
CREATE TRIGGER t_second BEFORE INSERT ON parent FOR EACH ROW SET NEW."n" = NEW.n + 1;
CREATE VIEW ansi AS SELECT 'a' || "id" AS "both" FROM parent;
SET sql_mode = '', NAMES latin1;
CREATE TRIGGER a_first BEFORE INSERT ON parent FOR EACH ROW PRECEDES t_second
  SET NEW.n = IF(NEW.n = 5, '2026-02-31', NEW.n);
SET NAMES utf8mb4, sql_mode = 'NO_BACKSLASH_ESCAPES';
CREATE TRIGGER middle BEFORE INSERT ON parent FOR EACH ROW FOLLOWS a_first SET @said = '\\';
SET sql_mode = 'ANSI';
CREATE FUNCTION asked(said VARCHAR(9) CHARACTER SET latin1) RETURNS TEXT CHARSET utf8mb4 DETERMINISTIC
  READS SQL DATA COMMENT 'it''s'
  RETURN 'a' || said || '\U0001f600';
CREATE PROCEDURE done(IN a INT, OUT b DECIMAL(5, 2), INOUT c TEXT) MODIFIES SQL DATA SQL SECURITY INVOKER SET b = a;
SET sql_mode = 'NO_ZERO_DATE', time_zone = '+05:30';
CREATE EVENT off ON SCHEDULE EVERY 3 DAY STARTS '2035-03-25 01:30:00' ENDS '2036-10-26 02:30:00'
  ON COMPLETION PRESERVE DISABLE
  COMMENT 'rests' DO DELETE FROM log;
SET time_zone = 'SYSTEM';
CREATE EVENT later ON SCHEDULE AT '2035-01-01 00:00:00' ON COMPLETION PRESERVE
  DO INSERT INTO log (said) VALUES ('it''s')
"""
OF_ONE = {
    "MariaDB": """
CREATE SEQUENCE tickets START WITH 40 INCREMENT BY 3 MINVALUE 10 MAXVALUE 1000 CACHE 5 CYCLE;
SELECT NEXTVAL(tickets);
CREATE SEQUENCE waiting;
CREATE TABLE versioned (a INT, b INT WITHOUT SYSTEM VERSIONING) WITH SYSTEM VERSIONING;
INSERT INTO versioned VALUES (1, 1);
UPDATE versioned SET a = 2;
CREATE TABLE squeezed (id INT PRIMARY KEY, t TEXT COMPRESSED, u UUID, i INET6)
  PAGE_COMPRESSED=1 PAGE_COMPRESSION_LEVEL=9;
INSERT INTO squeezed VALUES (1, REPEAT('x', 500), '123e4567-e89b-12d3-a456-426655440000', '::1');
CREATE TABLE turn (id INT NOT NULL DEFAULT NEXTVAL(tickets) PRIMARY KEY, s DATE, e DATE, PERIOD FOR app (s, e));
CREATE TABLE crashsafe (a INT, b TEXT, KEY (a)) ENGINE=Aria TRANSACTIONAL=1 PAGE_CHECKSUM=1 CHECKSUM=1;
CREATE TABLE ignored (a INT, KEY k (a) IGNORED);
SET sql_mode = 'ORACLE';
CREATE PACKAGE kit AS FUNCTION one RETURN INT; END;
CREATE PACKAGE BODY kit AS FUNCTION one RETURN INT AS BEGIN RETURN 1; END; END
""",
    "MySQL": """
CREATE TABLE mine (id BINARY(16) PRIMARY KEY DEFAULT (UUID_TO_BIN(UUID())),
  said VARCHAR(200) COLLATE utf8mb4_0900_as_cs,
  doc JSON DEFAULT (JSON_OBJECT('a', 1)), at POINT NOT NULL SRID 4326, KEY fn ((LOWER(said)) DESC) INVISIBLE,
  KEY arr ((CAST(doc->'$.t' AS UNSIGNED ARRAY))), SPATIAL KEY (at), CONSTRAINT lax CHECK (said <> '') NOT ENFORCED)
  AUTOEXTEND_SIZE=4M;
INSERT INTO mine (id, said, doc, at) VALUES (x'00', '', '{"t": [1, 2]}', ST_SRID(POINT(1, 2), 4326));
CREATE TABLE sealed (id INT PRIMARY KEY, my_row_id INT) COMPRESSION='zlib'
""",
}
OF_THE_DATABASE = {
    "MariaDB": "ALTER DATABASE `{name}` CHARACTER SET latin1 COLLATE latin1_german1_ci COMMENT 'it''s; \\\\ a comment'",
    "MySQL": "ALTER DATABASE `{name}` CHARACTER SET latin1 COLLATE latin1_german1_ci",
}
OTHER_PROPERTIES = {
    "MariaDB": "ALTER DATABASE `{name}` CHARACTER SET utf8mb4 COMMENT 'another\\n[holdfast owner: whose]'",
    "MySQL": "ALTER DATABASE `{name}` CHARACTER SET utf8mb4 DEFAULT ENCRYPTION 'Y'",
}
MARK = b"\n[holdfast owner: whose]"


@pytest.fixture(
    params=[pytest.param(mariadb, id="mariadb"), pytest.param(mysql, id="mysql", marks=pytest.mark.variant("mysql"))]
)
def server(request: pytest.FixtureRequest) -> Iterator[MariadbServer]:
    with request.param.shared() as running:
        yield running


def everything(server: MariadbServer, name: str) -> dict[str, list[dict[str, bytes]]]:
    """Return what the catalogue says of a database and what its tables hold, in the order in which it comes."""
    found: dict[str, list[dict[str, bytes]]] = {}
    connection = pymysql.connect(
        unix_socket=server.socket,
        user=ADMINISTRATOR,
        database=name,
        use_unicode=False,
        conv=dict(pymysql.converters.encoders),
        cursorclass=pymysql.cursors.DictCursor,
    )
    with connection, connection.cursor() as cursor:

        def rows(sql: str) -> list[dict[str, bytes]]:
            cursor.execute(sql)
            return [
                {
                    key: value.replace(name.encode(), b"NAME") if isinstance(value, bytes) else value
                    for key, value in row.items()
                    if key not in VOLATILE
                }
                for row in cursor.fetchall()
            ]

        cursor.execute("SET time_zone = '+00:00'")
        if server.product == "MySQL":
            cursor.execute("SET information_schema_stats_expiry = 0")
        for table, column in {**CATALOGUE, **CATALOGUE_OF_ONE[server.product]}.items():
            lines = rows(f"SELECT * FROM information_schema.{table} WHERE {column} = '{name}'")
            found[table] = sorted(lines, key=repr)
        for table in [row["TABLE_NAME"].decode() for row in found["TABLES"]]:
            numbers = [
                f", CAST({row['COLUMN_NAME'].decode()} AS DOUBLE)"
                for row in found["COLUMNS"]
                if row["TABLE_NAME"].decode() == table and row["DATA_TYPE"] in (b"float", b"double")
            ]
            found[f"rows of {table}"] = rows(f"SELECT *{''.join(numbers)} FROM `{table}`")
            found[f"definition of {table}"] = [
                # Of a column's collation MySQL remembers whether it was given with its character set.
                {key: re.sub(rb" CHARACTER SET \w+ COLLATE", b" COLLATE", value) for key, value in row.items()}
                for row in rows(f"SHOW CREATE TABLE `{table}`")
            ]
        if server.product == "MariaDB":
            found["history"] = rows(
                "SELECT *, ROW_START, ROW_END FROM versioned FOR SYSTEM_TIME ALL ORDER BY ROW_START"
            )
    return found


def facts_of(taken: Snapshot) -> Facts:
    return {**taken.facts, "rows": {table: facts["rows"] for table, facts in taken.tables.items()}}


@pytest.fixture
def name(server: MariadbServer) -> Iterator[str]:
    """A database with something of every kind, made by the account that Holdfast has."""
    with server.own_database() as made:
        server.create_if_missing(made)
        connection = pymysql.connect(unix_socket=server.socket, user=USER, database=made, charset="utf8mb4")
        with connection, connection.cursor() as cursor:
            cursor.execute(OF_THE_DATABASE[server.product].format(name=made))
            cursor.execute(LENIENT)
            for sql in (*OF_BOTH.split(";\n"), *OF_ONE[server.product].split(";\n")):
                cursor.execute(sql)
            connection.commit()
        yield made


def test_what_comes_back_is_the_same_database_to_the_last_property(
    server: MariadbServer, name: str, quick_folder: Path
) -> None:
    said: list[str] = []
    host = Host(operation=OPERATION, warn=said.append)
    database = DRIVERS[server.product]("main", name, Server(host=server.socket, user=USER), host)
    database.claim("whose")
    before = everything(server, name)
    assert database.owner() == "whose"

    def check(found: dict[str, list[dict[str, bytes]]]) -> None:
        for what, wanted in before.items():
            assert found.get(what) == wanted, what
        assert found.keys() == before.keys()

    def put_back(candidate: str, token: str) -> None:
        server.run(name, "DROP TRIGGER middle; DROP VIEW abc; DROP EVENT off; TRUNCATE unordered")
        server.run(name, OTHER_PROPERTIES[server.product].format(name=name))
        database.swap(token, candidate, f"{token}.replaced")
        check(everything(server, name))
        assert database.owner() == "whose"

    put_back(database.prepare(f"{OPERATION}1", None, {}), f"{OPERATION}1")
    point = database.prepare(f"{OPERATION}2", None, {})
    of_point = database.dump(f"{OPERATION}2", point, quick_folder / "of a point", 10)
    database.discard(f"{OPERATION}2")
    taken = snapshot(database, quick_folder / "dump")
    put_back(database.prepare(f"{OPERATION}3", quick_folder / "of a point", facts_of(of_point)), f"{OPERATION}3")
    put_back(database.prepare(f"{OPERATION}4", quick_folder / "dump", facts_of(taken)), f"{OPERATION}4")
    other = DRIVERS[server.product]("main", f"{name}other", Server(host=server.socket, user=USER), host)
    clone = other.prepare(OPERATION, quick_folder / "dump", {**facts_of(taken), "elsewhere": True})
    other.swap(OPERATION, clone, f"{OPERATION}.replaced")
    assert other.owner() is None
    cloned = everything(server, f"{name}other")
    cloned["SCHEMATA"] = [
        {key: value + MARK if key == "SCHEMA_COMMENT" else value for key, value in row.items()}
        for row in cloned["SCHEMATA"]
    ]
    check(cloned)
    assert said == []


def test_check_names_what_a_dump_cannot_keep(server: MariadbServer, name: str) -> None:
    database = DRIVERS[server.product]("main", name, Server(host=server.socket, user=USER), Host(operation=OPERATION))
    (found,) = [problem for problem in database.check() if "FLOAT" in problem.message]
    assert found.severity == "warning"
    assert "every.f, unordered.b" in found.message and "MODIFY f DOUBLE" in found.advice
    if server.product == "MySQL":
        server.run("mysql", f"ALTER DATABASE `{name}` DEFAULT ENCRYPTION 'Y'; ALTER DATABASE `{name}` READ ONLY = 1")
        server.run("mysql", "SET GLOBAL table_encryption_privilege_check = 1")
        try:
            errors = [problem.message for problem in database.check() if problem.severity == "error"]
        finally:
            server.run(
                "mysql", f"ALTER DATABASE `{name}` READ ONLY = 0; SET GLOBAL table_encryption_privilege_check = 0"
            )
        assert "read only" in errors[0] and "default encryption" in errors[1]


def test_a_default_by_a_sequence_is_restored_where_its_database_is_gone(quick_folder: Path) -> None:
    """As on a new server: a dump of MariaDB's own names the database of the sequence."""
    with mariadb.shared() as server, server.own_database() as made:
        server.create_if_missing(made)
        server.run(made, "CREATE SEQUENCE s START WITH 5; CREATE TABLE t (id INT DEFAULT NEXTVAL(s), a INT)", user=USER)
        database = MariadbDatabase("main", made, Server(host=server.socket, user=USER), Host(operation=OPERATION))
        taken = snapshot(database, quick_folder / "dump")
        server.run("mysql", f"DROP DATABASE `{made}`")
        other = MariadbDatabase(
            "main", f"{made}other", Server(host=server.socket, user=USER), Host(operation=OPERATION)
        )
        other.prepare(OPERATION, quick_folder / "dump", facts_of(taken))
        other.hand_over(OPERATION, f"{made}other")
        assert server.run(f"{made}other", "INSERT INTO t (a) VALUES (1); SELECT id FROM t", user=USER) == "5"


@pytest.mark.parametrize("size", [1, 7, 40, 10**6])
def test_the_mode_that_takes_all_dates_is_set_whatever_the_pieces(size: int) -> None:
    setting = b"/*!40101 SET @OLD_SQL_MODE=@@SQL_MODE, SQL_MODE='NO_AUTO_VALUE_ON_ZERO' */;\n"
    value = b"INSERT INTO `t` VALUES\n('SQL_MODE=\\'NO_AUTO_VALUE_ON_ZERO\\' */');\n"
    text = setting + value + setting
    found = b"".join(rewriting.with_all_dates(text[at : at + size] for at in range(0, len(text), size)))
    assert found == setting.replace(b"ZERO'", b"ZERO,ALLOW_INVALID_DATES'") + value + setting.replace(
        b"ZERO'", b"ZERO,ALLOW_INVALID_DATES'"
    )


def test_a_default_loses_its_database_and_nothing_else_does() -> None:
    def line(text: str) -> bytes:
        return rewriting.of_own_sequences(text.encode(), "a`b")

    assert line("  `id` int(11) DEFAULT nextval(`a``b`.`s`) COMMENT 'it''s nextval(`a``b`.`s`)',") == (
        b"  `id` int(11) DEFAULT nextval(`s`) COMMENT 'it''s nextval(`a``b`.`s`)',"
    )
    for other in ("('nextval(`a``b`.`s`)')", "INSERT INTO `t` VALUES", "  `id` int(11) DEFAULT nextval(`other`.`s`),"):
        assert line(other) == other.encode()


def test_a_view_over_two_databases_belongs_to_its_own(server: MariadbServer, quick_folder: Path) -> None:
    """MariaDB writes all its tables with their databases; the table is gone when the dump is loaded."""
    with server.own_database() as made:
        server.create_if_missing(made)
        server.run("mysql", f"CREATE DATABASE `{made}other`")
        server.run(made, f"CREATE TABLE t (a INT); INSERT INTO t VALUES (1), (2); CREATE TABLE `{made}other`.o (a INT)")
        server.run(made, f"INSERT INTO `{made}other`.o VALUES (2); CREATE TABLE `{made}` (x INT)", user=USER)
        server.run(
            made,
            f"CREATE VIEW v AS SELECT o.a, '`{made}`.`t`' AS s FROM `{made}other`.o JOIN t ON t.a = o.a",
            user=USER,
        )
        server.run(made, f"CREATE VIEW odd AS SELECT `{made}`.x FROM `{made}`", user=USER)
        database = DRIVERS[server.product](
            "main", made, Server(host=server.socket, user=USER), Host(operation=OPERATION)
        )
        taken = snapshot(database, quick_folder / "dump")
        before = server.run(made, "SHOW CREATE VIEW v; SHOW CREATE VIEW odd")
        server.run(made, "DROP VIEW v; DROP TABLE t", user=USER)
        candidate = database.prepare(OPERATION, quick_folder / "dump", facts_of(taken))
        database.swap(OPERATION, candidate, f"{OPERATION}.replaced")
        assert server.run(made, "SHOW CREATE VIEW v; SHOW CREATE VIEW odd") == before
        assert server.run(made, "SELECT * FROM v", user=USER) == f"2\t`{made}`.`t`"


def test_what_an_account_that_is_gone_defined_comes_back_by_an_administrator(
    server: MariadbServer, quick_folder: Path
) -> None:
    with server.own_database() as made:
        server.create_if_missing(made)
        server.run("mysql", f"CREATE USER gone@'10.%'; GRANT ALL ON `{made}`.* TO gone@'10.%'")
        server.run(
            made,
            "CREATE TABLE t (a INT); INSERT INTO t VALUES (1); CREATE VIEW fine AS SELECT a FROM t;"
            " CREATE DEFINER=gone@'10.%' VIEW v AS SELECT a FROM t WHERE a IN (SELECT a FROM fine);"
            " CREATE DEFINER=gone@'10.%' TRIGGER tr BEFORE INSERT ON t FOR EACH ROW SET NEW.a = NEW.a;"
            " CREATE DEFINER=gone@'10.%' EVENT e ON SCHEDULE EVERY 1 YEAR DO SELECT 1; DROP USER gone@'10.%'",
        )
        where = Server(host=server.socket, user=ADMINISTRATOR)
        database = DRIVERS[server.product]("main", made, where, Host(operation=OPERATION))
        assert [problem for problem in database.check() if problem.severity == "error"] == []
        before = server.run(made, "SHOW CREATE VIEW v")
        taken = snapshot(database, quick_folder / "dump")
        for source, facts in ((None, {}), (quick_folder / "dump", facts_of(taken))):
            candidate = database.prepare(OPERATION, source, facts)
            database.swap(OPERATION, candidate, f"{OPERATION}.replaced")
            assert server.run(made, "SHOW CREATE VIEW v") == before


def test_a_view_that_refers_to_what_is_gone_is_named_with_what_to_type(server: MariadbServer) -> None:
    with server.own_database() as made:
        server.create_if_missing(made)
        server.run(made, "CREATE TABLE t (a INT, b INT); CREATE VIEW fine AS SELECT a FROM t", user=USER)
        server.run(made, "CREATE VIEW `old ``one` AS SELECT b FROM t; ALTER TABLE t DROP COLUMN b", user=USER)
        database = DRIVERS[server.product](
            "main", made, Server(host=server.socket, user=USER), Host(operation=OPERATION)
        )
        (found,) = [problem for problem in database.check() if problem.severity == "error"]
        assert "view old `one" in found.message and found.in_content
        server.run(made, found.advice.partition("Run in SQL: ")[2].partition("; or")[0], user=USER)
        assert [problem for problem in database.check() if problem.severity == "error"] == []


def test_a_restore_by_an_account_with_too_few_rights_says_what_to_type(
    server: MariadbServer, quick_folder: Path
) -> None:
    with server.own_database() as made:
        server.create_if_missing(made)
        server.run("mysql", f"CREATE USER few@localhost; GRANT ALL ON `{made}`.* TO few@localhost")
        server.run("mysql", "GRANT ALL ON `hf-%`.* TO few@localhost")
        server.run(made, "CREATE TABLE t (a INT); CREATE TRIGGER tr BEFORE INSERT ON t FOR EACH ROW SET NEW.a = 1")
        server.run(made, "CREATE VIEW v AS SELECT a FROM t; CREATE VIEW own AS SELECT a FROM t", user="few")
        try:
            said: list[str] = []
            where = Server(host=server.socket, user="few")
            host = Host(operation=OPERATION, warn=said.append)
            database = DRIVERS[server.product]("main", made, where, host)
            administrator = DRIVERS[server.product](
                "main", made, Server(host=server.socket, user=ADMINISTRATOR), Host(operation=OPERATION)
            )
            server.run(made, "ALTER DEFINER=root@localhost VIEW v AS SELECT a FROM t")
            taken = snapshot(administrator, quick_folder / "dump")
            definers = (
                "SELECT definer FROM information_schema.views WHERE table_schema = DATABASE() ORDER BY table_name"
            )
            before = server.run(made, definers)
            database.prepare(OPERATION, quick_folder / "dump", facts_of(taken))
            (line,) = said
            assert "`root`@`localhost`" in line and "few" not in line.partition(" created with the definer ")[0]
            server.run("mysql", line.partition("administrator: ")[2].partition("; then")[0])
            candidate = database.prepare(OPERATION, quick_folder / "dump", facts_of(taken))
            server.run(made, "DROP TRIGGER tr; DROP VIEW v")
            database.swap(OPERATION, candidate, f"{OPERATION}.replaced")
            assert len(said) == 1, "nothing more is lost"
            assert server.run(made, definers) == before
            assert "root@localhost" in server.run(
                made, "SELECT definer FROM information_schema.triggers WHERE trigger_name = 'tr'"
            )
        finally:
            server.run("mysql", "DROP USER few@localhost")


def test_rights_on_single_routines_are_granted_again_or_named(server: MariadbServer) -> None:
    with server.own_database() as made:
        server.create_if_missing(made)
        server.run(
            "mysql",
            "CREATE USER reporter@'10.%'; CREATE USER reader@localhost;"
            " GRANT SELECT ON mysql.procs_priv TO reader@localhost",
        )
        server.run("mysql", f"GRANT ALL ON `{made}`.* TO reader@localhost; GRANT ALL ON `hf-%`.* TO reader@localhost")
        server.run(made, "CREATE TABLE t (a INT); CREATE PROCEDURE `odd ``one`() SELECT 1", user="reader")
        grant = f"GRANT EXECUTE ON PROCEDURE `{made}`.`odd ``one` TO `reporter`@`10.%` WITH GRANT OPTION"
        server.run("mysql", grant)
        shown = "SHOW GRANTS FOR reporter@'10.%'"
        before = server.run("mysql", shown)
        try:
            said: list[str] = []
            for number, user in enumerate((ADMINISTRATOR, "reader")):
                host = Host(operation=OPERATION, warn=said.append)
                database = DRIVERS[server.product]("main", made, Server(host=server.socket, user=user), host)
                point = database.prepare(f"{OPERATION}{number}", None, {})
                database.swap(f"{OPERATION}{number}", point, f"{OPERATION}{number}.failed")
                if user != ADMINISTRATOR:
                    assert "reporter" in said[-1] and len([line for line in said if "routine" in line]) == 1
                    server.run("mysql", said[-1].partition("administrator: ")[2])
                assert server.run("mysql", shown) == before
        finally:
            server.run("mysql", "DROP USER reporter@'10.%'; DROP USER reader@localhost")
