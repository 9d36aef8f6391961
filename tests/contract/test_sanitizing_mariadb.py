"""Sanitized dumps of MariaDB: hazards of real schemas, loaded by its client alone, and nothing raw anywhere."""

from __future__ import annotations

import gzip
import hashlib
import json
import random
import re
import secrets
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Literal

import pytest

from holdfast.drivers.databases.mariadb.dialect import Dialect
from holdfast.drivers.databases.mariadb.driver import MARIADB
from holdfast.drivers.databases.mariadb.mysql import MYSQL
from holdfast.drivers.databases.mariadb.sanitizing import Inserts, MariadbSanitizer
from holdfast.drivers.protocols.sanitizing import SanitizedDump
from holdfast.errors import RefusedError, StepError
from holdfast.model import Server
from holdfast.sanitize.deciding import DatabasePlan, Decided
from holdfast.sanitize.values import Values
from holdfast.system.host import Host
from tests.contract import sanitizing
from tests.proof import patience
from tests.servers import mariadb, mysql
from tests.servers.mariadb import USER, MariadbServer
from tests.servers.mysql import MysqlServer

KEY = "c0ffee" * 10
HAZARDS = r"""
SET sql_mode = '';
CREATE TABLE users (
  id INT AUTO_INCREMENT PRIMARY KEY, email VARCHAR(190) NOT NULL UNIQUE, first_name VARCHAR(40) CHARACTER SET latin1,
  phone VARCHAR(20), password VARCHAR(100), born DATE, seen DATETIME(3), meta JSON, plan ENUM('free','paid'),
  flags SET('a','b'), avatar BLOB, token CHAR(36), boss INT, ratio DOUBLE, bits BIT(5), `Odd ``name` TEXT,
  `whole` VARCHAR(80) GENERATED ALWAYS AS (CONCAT(first_name, '!')) STORED,
  CONSTRAINT long_enough CHECK (phone IS NULL OR CHAR_LENGTH(phone) >= 8), FOREIGN KEY (boss) REFERENCES users (id));
CREATE TABLE orders (id BIGINT AUTO_INCREMENT PRIMARY KEY, buyer VARCHAR(190), amount DECIMAL(10,2), comment TEXT,
  FOREIGN KEY (buyer) REFERENCES users (email));
CREATE TABLE events (id INT, day DATE, who VARCHAR(190), PRIMARY KEY (id, day))
  PARTITION BY RANGE (YEAR(day)) (PARTITION p0 VALUES LESS THAN (2020), PARTITION p1 VALUES LESS THAN MAXVALUE);
CREATE TABLE chicken (id INT PRIMARY KEY, egg INT);
CREATE TABLE egg (id INT PRIMARY KEY, chicken INT, FOREIGN KEY (chicken) REFERENCES chicken (id));
ALTER TABLE chicken ADD FOREIGN KEY (egg) REFERENCES egg (id);
CREATE TABLE logbook (line TEXT);
INSERT INTO users (email, first_name, phone, password, born, seen, meta, plan, flags, avatar, token, boss, ratio, bits,
    `Odd ``name`)
  SELECT CONCAT('Person', n, '@Company.example'), CONCAT('First', n, 'ä'), CONCAT('+49 30 12', LPAD(n, 6, '0')),
    CONCAT('Pbkdf2_', LEFT(SHA2(n, 256), 32)), IF(n = 7, '0000-00-00', DATE_ADD('1970-02-03', INTERVAL n DAY)),
    '2024-05-06 07:08:09.123', JSON_OBJECT('email', CONCAT('Person', n, '@Company.example'),
      'address', JSON_OBJECT('street', 'Real St'), 'level', n),
    'paid', 'a,b', UNHEX(LEFT(SHA2(n, 256), 32)), UUID(), IF(n > 1, n DIV 2, NULL), n / 7, b'101',
    CONCAT('tab\t line\n quote\' back\\ 😀 Raw', CHAR(13), CHAR(0), n) FROM (SELECT @n := @n + 1 AS n FROM
    information_schema.columns, (SELECT @n := 0) AS zero LIMIT 300) AS numbers ORDER BY n;
INSERT INTO users (email) VALUES ('nulls@company.example');
INSERT INTO orders (buyer, amount, comment) SELECT email, id, CONCAT('Raw ', id) FROM users;
INSERT INTO events SELECT id, DATE_ADD('2019-12-01', INTERVAL id DAY), email FROM users;
INSERT INTO chicken VALUES (1, NULL); INSERT INTO egg VALUES (1, 1); UPDATE chicken SET egg = 1;
CREATE TRIGGER noted BEFORE INSERT ON orders FOR EACH ROW INSERT INTO logbook VALUES ('fired');
CREATE VIEW buyers AS SELECT u.id FROM users u JOIN orders o ON o.buyer = u.email;
CREATE PROCEDURE nothing() SELECT 1;
"""
RULES = """
email_domain = "sane.test"

[columns]
"*email*" = "email"

[tables.users.columns]
first_name = "first_name"
phone = "phone"
password = "hash"
born = { date = "year" }
seen = { date = { shift = 30 } }
meta = { json = { "email" = "email", "address.street" = "street" } }
plan = { choice = ["free"] }
avatar = { file = "png" }
token = "uuid"
ratio = { number = { noise = 10 } }
'Odd `name' = "text"

[tables.orders.columns]
comment = { mask = { left = 1 } }

[tables.events.columns]
who = "email"

[tables.chicken]
[tables.egg]
[tables.logbook]
rows = "none"
"""


@pytest.fixture(scope="module", params=["mariadb", pytest.param("mysql", marks=pytest.mark.variant("mysql"))])
def server(request: pytest.FixtureRequest) -> Iterator[MariadbServer]:
    with (mysql if request.param == "mysql" else mariadb).shared() as running:
        yield running


@pytest.fixture(scope="module")
def name(server: MariadbServer) -> Iterator[str]:
    """One database for all tests of this module; what a test adds it takes away again."""
    with database(server, HAZARDS) as made:
        yield made


@contextmanager
def database(server: MariadbServer, sql: str) -> Iterator[str]:
    with server.own_database() as made:
        server.create_if_missing(made)
        server.run(made, sql, user=USER)
        yield made


@contextmanager
def added(server: MariadbServer, name: str, sql: str, back: str) -> Iterator[None]:
    server.run(name, sql, user=USER)
    try:
        yield
    finally:
        server.run(name, back, user=USER)


def sanitizer(server: MariadbServer, name: str) -> MariadbSanitizer:
    return MariadbSanitizer("main", name, address(server), Host(), dialect(server))


def address(server: MariadbServer) -> Server:
    return Server(host=str(server.place / "socket"), user=USER)


def dialect(server: MariadbServer) -> Dialect:
    return MYSQL if isinstance(server, MysqlServer) else MARIADB


def decided(found: MariadbSanitizer, text: str = RULES) -> Decided:
    return sanitizing.decided(found, text)


def plan_of(found: MariadbSanitizer, text: str = RULES) -> DatabasePlan:
    return sanitizing.plan_of(found, text)


def written(found: MariadbSanitizer, plan: DatabasePlan, folder: Path) -> tuple[bytes, SanitizedDump]:
    return sanitizing.written(found, plan, KEY, folder)


def load(server: MariadbServer, name: str, dump: bytes) -> None:
    server.create_if_missing(name)
    argv = [dialect(server).client, "--no-defaults", f"--socket={server.place}/socket", f"--user={USER}", name]
    subprocess.run(argv, input=dump, check=True, timeout=patience.limit(60), stdout=subprocess.DEVNULL)


def test_every_hazard_is_loaded_by_the_client_alone_and_joins_stay(
    server: MariadbServer, name: str, tmp_path: Path
) -> None:
    before = server.run(name, "CHECKSUM TABLE users, orders, events", user=USER)
    found = sanitizer(server, name)
    dumped, dump = written(found, plan_of(found), tmp_path)
    assert server.run(name, "CHECKSUM TABLE users, orders, events", user=USER) == before
    assert dump.rows == {"users": 301, "orders": 301, "events": 301, "chicken": 1, "egg": 1}
    assert re.findall(rb"Company|First[0-9]|Real St|Raw|Pbkdf2", dumped) == []
    with server.own_database() as other:
        load(server, other, dumped)

        def ask(sql: str, database: str = other) -> str:
            return server.run(database, sql, user=USER).strip()

        for sql in (
            "SELECT COUNT(*) FROM users u JOIN orders o ON o.buyer = u.email",
            "SELECT COUNT(*) FROM users u JOIN events e ON e.who = u.email",
            "SELECT COUNT(*) FROM users u JOIN users b ON b.id = u.boss",
            "SELECT COUNT(*), COUNT(first_name), COUNT(meta), COUNT(avatar), COUNT(born), SUM(bits), SUM(flags)"
            " FROM users",
            "SELECT SUM(CHAR_LENGTH(`Odd ``name`)) FROM users",
            "SELECT COUNT(*) FROM events PARTITION (p0)",
            "SELECT COUNT(*) FROM buyers",
            "SELECT AUTO_INCREMENT FROM information_schema.tables WHERE table_schema = DATABASE()"
            " AND table_name = 'users'",
            "SELECT COUNT(*) FROM information_schema.table_constraints WHERE table_schema = DATABASE()",
            "SELECT COUNT(*) FROM information_schema.triggers WHERE trigger_schema = DATABASE()",
            "SELECT COUNT(*) FROM information_schema.routines WHERE routine_schema = DATABASE()",
            "SELECT SUM(amount) FROM orders",
        ):
            assert ask(sql) == ask(sql, name), sql
        assert ask("SELECT COUNT(*) FROM orders o LEFT JOIN users u ON u.email = o.buyer WHERE u.id IS NULL") == "0"
        assert ask("SELECT COUNT(*) FROM users WHERE `whole` <> CONCAT(first_name, '!')") == "0"
        assert ask("SELECT COUNT(*) FROM logbook") == "0"
        assert ask("SELECT COUNT(DISTINCT email) FROM users WHERE email LIKE 'user\\_%@sane.test'") == "301"
        assert ask("SELECT COUNT(*) FROM users WHERE JSON_VALUE(meta, '$.email') <> email") == "0"
        assert ask("SELECT COUNT(*) FROM users WHERE JSON_CONTAINS_PATH(meta, 'one', '$.level')") == "0"
        assert ask("SELECT DISTINCT plan FROM users WHERE plan IS NOT NULL") == "free"


def test_the_server_makes_the_same_values_as_python(server: MariadbServer, name: str) -> None:
    found = sanitizer(server, name)
    plan = plan_of(found)
    made = found.preview(plan, "users", 1000, KEY)
    names = ("email", "first_name", "phone", "password", "token")
    lines = server.run(
        name, f"SELECT id, {', '.join(names)} FROM users WHERE token IS NOT NULL", user=USER
    ).splitlines()
    raw = {line.split("\t")[0]: line.split("\t")[1:] for line in lines}
    users = next(one for one in plan.tables if one.table.name == "users")
    places = {one.column.name: number for number, one in enumerate(users.columns)}
    functions = {one.column.name: Values(plan, KEY).function(one.column, one.method) for one in users.columns}
    checked = 0
    for row in made:
        for column, source in zip(names, raw.get(str(row[0]), ()), strict=False):
            assert row[places[column]] == functions[column](source), (column, source)
            checked += 1
    assert checked == 300 * len(names)


SIGNS = "aZ09 \t\n\r\0\x1a'\"`\\\\%_äßЖ漢\u0301😀\u200d\u00a0"
METHODS = ("hash", "email", "name", "street", "text", "phone", "uuid", "ip", "{ mask = { left = 2, right = 1 } }")
METHODS += ('{ phone = "+49 (0) ### ## -" }', '{ choice = ["it\'s", "a\\\\b", "c"] }', "keep")


def test_any_text_becomes_what_python_makes_of_it(server: MariadbServer, tmp_path: Path) -> None:
    chance = random.Random(7)
    raw = ["", "x" * 1036, "ä" * 1037, *("".join(chance.choices(SIGNS, k=chance.randrange(60))) for _ in range(120))]
    columns = [f"c{number}" for number in range(len(METHODS))]
    given = ", ".join(f"({number}, CONVERT(x'{one.encode().hex()}' USING utf8mb4))" for number, one in enumerate(raw))
    made = f"CREATE TABLE t (id INT PRIMARY KEY, {', '.join(f'{one} TEXT' for one in columns)})"
    made += f"; INSERT INTO t (id, c0) VALUES {given}; UPDATE t SET {', '.join(f'{one} = c0' for one in columns[1:])}"
    text = "\n".join(
        f"{column} = {method if method[0] == '{' else repr(method)}"
        for column, method in zip(columns, METHODS, strict=True)
    )
    with database(server, made) as place, server.own_database() as other:
        found = sanitizer(server, place)
        plan = plan_of(found, f"[tables.t.columns]\n{text}\n".replace("'keep'", '{ keep = "as it is" }'))
        dumped, _ = written(found, plan, tmp_path)
        load(server, other, dumped)
        functions = [Values(plan, KEY).function(one.column, one.method) for one in plan.tables[0].columns[1:]]
        shown = server.run(other, f"SELECT {', '.join(f'HEX({one})' for one in columns)} FROM t ORDER BY id", user=USER)
        for source, line in zip(raw, shown.split("\n"), strict=True):
            loaded = [bytes.fromhex(one).decode() for one in line.split("\t")]
            assert loaded == [function(source) for function in functions], ascii(source)


def test_nothing_raw_is_in_the_output_and_the_key_is_in_no_log(
    server: MariadbServer, name: str, tmp_path: Path
) -> None:
    sentinels = [secrets.token_hex(8).upper() for _ in range(2000)]
    values = ", ".join(f"('{one}', '{one}', JSON_OBJECT('a', '{one}', '{one}', 1), '{one}')" for one in sentinels)
    made = f"CREATE TABLE sentinels (a TEXT, b VARCHAR(50), c JSON, d BLOB); INSERT INTO sentinels VALUES {values}"
    text = RULES + '[tables.sentinels.columns]\na = "hash"\nb = "text"\nc = { json = { a = "hash" } }\nd = "file"\n'
    with added(server, name, made, "DROP TABLE sentinels"):
        server.run("mysql", "SET GLOBAL log_output = 'TABLE', GLOBAL general_log = 1; TRUNCATE general_log")
        make = partial(MariadbSanitizer, "main", name, address(server), dialect=dialect(server))
        memory = sanitizing.memory_of_a_dump(make, text, KEY, tmp_path)
        log = server.run("mysql", "SET GLOBAL general_log = 0; SELECT argument FROM general_log")
    assert "@holdfast_key" in log and KEY not in log
    raw = {one.encode() for one in sentinels}
    assert {*re.findall(rb"[0-9A-F]{16}", memory)}.isdisjoint(raw)
    dumped = b"".join(gzip.decompress(part.read_bytes()) for part in tmp_path.iterdir())
    assert {*re.findall(rb"[0-9A-F]{16}", dumped)}.isdisjoint(raw)
    assert {*re.findall(rb"[0-9A-F]{32}", dumped)}.isdisjoint(one.hex().upper().encode() for one in raw)


def test_a_value_that_leaves_by_another_column_ends_the_dump(server: MariadbServer, name: str, tmp_path: Path) -> None:
    with added(server, name, "CREATE TABLE copied AS SELECT password AS label FROM users", "DROP TABLE copied"):
        found = sanitizer(server, name)
        plan = plan_of(found, RULES + '[tables.copied.columns]\nlabel = { keep = "a label" }\n')
        with pytest.raises(RefusedError, match=r"copied has a value of users\.password"):
            found.write(plan, KEY, tmp_path, "gz", lambda _: None, 1)


def test_a_wrong_expression_is_found_before_a_row_is_read(server: MariadbServer, name: str) -> None:
    found = sanitizer(server, name)
    made = decided(found, RULES.replace('born = { date = "year" }', 'born = { sql = "nowhere + 1" }'))
    (problem,) = found.problems(made.plan)
    assert problem.startswith("users: ") and "Unknown column 'nowhere'" in problem


def test_rows_that_are_left_out_take_those_along_that_refer_to_them(
    server: MariadbServer, name: str, tmp_path: Path
) -> None:
    text = RULES.replace("[tables.users.columns]", '[tables.users]\nlast = 50\nby = "id"\n[tables.users.columns]')
    found = sanitizer(server, name)
    dumped, dump = written(found, plan_of(found, text), tmp_path)
    assert (dump.rows["users"], dump.rows["orders"]) == (50, 50)
    with server.own_database() as other:
        load(server, other, dumped)
        assert (
            server.run(
                other,
                "SELECT COUNT(*) FROM users u LEFT JOIN users b ON b.id = u.boss"
                " WHERE u.boss IS NOT NULL AND b.id IS NULL",
                user=USER,
            ).strip()
            == "0"
        )


LIKE_AND_UNLIKE = r"""
SET sql_mode = 'NO_BACKSLASH_ESCAPES,ALLOW_INVALID_DATES';
CREATE TABLE member (email VARCHAR(100) PRIMARY KEY, town VARCHAR(20) CHARACTER SET latin1, since DATE NOT NULL,
  until DATETIME NOT NULL, kept DATE NOT NULL, doc JSON, more JSON, `path` VARCHAR(50), `select` VARCHAR(9),
  nick VARCHAR(20) CHARACTER SET latin1);
CREATE TABLE visit (id INT PRIMARY KEY, email VARCHAR(100), FOREIGN KEY (email) REFERENCES member (email));
CREATE TABLE hint (id INT PRIMARY KEY, email VARCHAR(100), FOREIGN KEY (id) REFERENCES visit (id),
  FOREIGN KEY (email) REFERENCES member (email));
INSERT INTO member VALUES
  ('Ann@Raw.example', 'Köln', '0000-00-00', '9999-12-31', '2024-02-31',
   '{"mail":"Ann@Raw.example","n":null,"deep":{"er":"Raw-Ä\ud83d\ude00\n"},"left":"raw"}',
   '{"mail":"Ann@Raw.example","n":null,"deep":{"er":"Raw-Ä\ud83d\ude00\n","x":[1]},"left":[true]}',
   'c:\new', 'a''\', 'Ännchen'),
  ('bob@raw.example', NULL, '2024-05-06', '0000-00-00', '0000-00-00', '{"mail":17,"deep":"flat"}', '{"deep":{}}',
   '\\server\', '😀', ''),
  ('cyd@raw.example', '', '2024-12-31', '2024-05-06 07:08:09', '2024-05-06', '[]', '"word"', '', '', NULL);
INSERT INTO visit VALUES (1, 'ANN@raw.EXAMPLE'), (2, 'BOB@raw.example'), (3, NULL), (4, 'cyd@raw.example');
INSERT INTO hint SELECT * FROM visit;
"""
OF_THESE = """
email_domain = "sane.test"
unlisted_columns = "keep"
[tables.member.columns]
email = "email"
town = { hash = 12 }
nick = "text"
since = { date = "year" }
until = { date = { shift = 3 } }
doc = { json = { "mail" = "email", "n" = "hash", "deep.er" = "hash" } }
more = { json = { "mail" = "email", "n" = "hash", "deep.er" = "text" }, other = "keep" }
[tables.visit]
[tables.hint]
"""


def test_what_only_a_collation_holds_equal_stays_joined(server: MariadbServer, tmp_path: Path) -> None:
    with database(server, LIKE_AND_UNLIKE) as unlike, server.own_database() as other:
        found = sanitizer(server, unlike)
        plan = plan_of(found, OF_THESE)
        dumped, _ = written(found, plan, tmp_path)
        assert b"raw.example" not in dumped.lower()
        server.run("mysql", "SET GLOBAL sql_mode = 'NO_BACKSLASH_ESCAPES,STRICT_TRANS_TABLES,ANSI_QUOTES'")
        try:
            load(server, other, dumped)
        finally:
            server.run("mysql", "SET GLOBAL sql_mode = DEFAULT")
        for table in ("visit", "hint"):
            sql = f"SELECT {table}.id FROM {table} JOIN member ON BINARY member.email = BINARY {table}.email ORDER BY 1"
            assert server.run(other, sql, user=USER).split() == ["1", "2", "4"], "by their bytes, now"
        sql = "SELECT HEX(path), HEX(`select`), kept, town IS NULL FROM member ORDER BY 1"
        assert server.run(other, sql, user=USER) == server.run(unlike, sql, user=USER)
        members = next(one for one in plan.tables if one.table.name == "member")
        functions = {one.column.name: Values(plan, KEY).function(one.column, one.method) for one in members.changed}
        before, after = (_texts(server, place, list(functions)) for place in (unlike, other))
        by_email = {row[0]: row for row in after}
        for row in before:
            made = [None if text is None else functions[one](text) for one, text in zip(functions, row, strict=True)]
            assert [_comparable(one) for one in by_email[str(made[0])]] == [_comparable(one) for one in made]


def _texts(server: MariadbServer, place: str, names: list[str]) -> list[list[str | None]]:
    texts = ", ".join(f"IFNULL(HEX(CONVERT({one} USING utf8mb4)), 'NULL')" for one in names)
    lines = server.run(place, f"SELECT CONCAT_WS('|', {texts}) FROM member", user=USER).split()
    return [[None if one == "NULL" else bytes.fromhex(one).decode() for one in line.split("|")] for line in lines]


def _comparable(value: object) -> object:
    """A value without what engines write otherwise: order and spaces of JSON, and what has no value in it."""
    if value is None or str(value).startswith("0000-00-00"):
        return None
    try:
        return _filled(json.loads(str(value)))
    except ValueError:
        return value


def _filled(value: object) -> object:
    if not isinstance(value, dict):
        return value
    return {name: _filled(one) for name, one in value.items() if one is not None and one != {}}


def test_a_name_that_json_has_twice_hides_no_value(server: MariadbServer, name: str) -> None:
    documents = (
        '{"email": "Raw 1", "email": "Raw 2"}',
        r'{"email": "Raw 1", "\\u0065mail": "Raw 2"}',
        r'{"\\u0065mail": "Raw 1", "\\u0065mail": "Raw 2"}',
        '{"a": {"b": "Raw 1"}, "a": {"b": "Raw 2"}}',
        '{"a": {}, "a": {"b": "Raw 2"}}',
        '{"a": 1, "a": {"b": "Raw 2"}}',
        '{"a": {"b": "Raw 1", "c": 2, "b": "Raw 2"}}',
        r'{"\\u0061": {}, "\\u0061": {"b": "Raw 2"}}',
        r'{"\\u0061": {"\\u0062": "Raw 1"}}',
        '{"email": "Raw 1", "a": {"b": "Raw 2"}, "kept": "yes"}',
    )
    made = "CREATE TABLE twice (id INT AUTO_INCREMENT PRIMARY KEY, doc JSON); INSERT INTO twice (doc) VALUES "
    rules_of = '[tables.twice.columns]\ndoc = { json = { email = "hash", "a.b" = "hash" }, other = "keep" }\n'
    with added(server, name, made + ", ".join(f"('{one}')" for one in documents), "DROP TABLE twice"):
        found = sanitizer(server, name)
        shown = found.preview(plan_of(found, RULES + rules_of), "twice", 100, KEY)
    assert len(shown) == len(documents) and all("Raw" not in str(doc) for _, doc in shown)
    assert json.loads(str(shown[-1][1]))["kept"] == "yes"


def test_a_row_that_the_server_cannot_write_ends_the_dump(server: MariadbServer, name: str, tmp_path: Path) -> None:
    packet = int(server.run("mysql", "SELECT @@max_allowed_packet"))
    made = "CREATE TABLE heavy (id INT PRIMARY KEY, a LONGBLOB, b LONGBLOB); INSERT INTO heavy VALUES (1, 'x', NULL)"
    fill = f"INSERT INTO heavy VALUES (2, REPEAT('x', {packet // 2 - 1000}), 'y'); UPDATE heavy SET b = a WHERE id = 2"
    keep = '[tables.heavy.columns]\na = { keep = "short" }\nb = { keep = "short" }\n'
    with added(server, name, f"{made}; {fill}", "DROP TABLE heavy"):
        found = sanitizer(server, name)
        with pytest.raises(StepError, match="heavy: a row is longer than the server can write"):
            found.write(plan_of(found, RULES + keep), KEY, tmp_path, "gz", lambda _: None, 1)
        found.write(plan_of(found, RULES + '[tables.heavy.columns]\na = "file"\nb = "null"\n'), KEY, *into(tmp_path))


BEGINNING = "CREATE TABLE t (a VARCHAR(99), UNIQUE (a(8)))", r"t\.a: the first 8 characters are unique .* 3 digits"
ONLY_MARIADB = (
    ("CREATE SEQUENCE t_sequence", "t_sequence: sequence tables cannot be sanitized yet"),
    ("CREATE TABLE t (a VARCHAR(99)) WITH SYSTEM VERSIONING", "t: system versioned tables cannot be sanitized yet"),
)


def test_what_cannot_be_sanitized_is_named(server: MariadbServer) -> None:
    for made, problem in (BEGINNING, *(() if isinstance(server, MysqlServer) else ONLY_MARIADB)):
        with database(server, made) as other:
            found = sanitizer(server, other)
            plan = decided(found, '[columns]\n"*" = "email"\n').plan
            assert [one for one in found.problems(plan) if re.match(problem, one)], found.problems(plan)


def test_an_index_over_the_values_or_over_an_expression_needs_those_that_stay_apart(server: MariadbServer) -> None:
    unique = "UNIQUE ((LOWER(`a``b`)))" if isinstance(server, MysqlServer) else "UNIQUE (`a``b`)"
    with database(server, f"CREATE TABLE t (`a``b` VARCHAR(99), {unique})") as other:
        (column,) = sanitizer(server, other).schema().tables[0].columns
        assert (column.name, column.unique, column.in_key) == ("a`b", True, False)


def test_long_words_do_not_end_the_counting(server: MariadbServer, name: str) -> None:
    made = "CREATE TABLE words (a LONGTEXT); INSERT INTO words VALUES (REPEAT('a', 300000)), ('x@y.example')"
    with added(server, name, made, "DROP TABLE words"):
        found = sanitizer(server, name)
        assert found.contents(found.schema())["words.a"].matching["email"] == 1


def test_the_key_is_in_no_file_of_a_server_that_logs_everything(server: MariadbServer, tmp_path: Path) -> None:
    logs = {"log-bin": "binary", "server-id": "1", "binlog-format": "STATEMENT", "performance-schema": "ON"}
    logs |= {"general-log": "ON", "slow-query-log": "ON", "long-query-time": "0", "log-output": "FILE,TABLE"}
    logging = type(server)(**logs)
    try:
        logging.create_if_missing("app")
        logging.run("app", "CREATE TABLE t (a VARCHAR(99)); INSERT INTO t VALUES ('Raw value')")
        logging.run("mysql", "UPDATE performance_schema.setup_consumers SET enabled = 'YES'")
        found = sanitizer(logging, "app")
        plan = plan_of(found, '[tables.t.columns]\na = "hash"\n')
        for key in (KEY, "k" * 33):
            dump = found.write(plan, key, *into(tmp_path))
            text = b"".join(gzip.decompress(part.read_bytes()) for part in dump.parts)
            assert hashlib.sha256(f"{key}:hash:Raw value".encode()).hexdigest()[:20].encode() in text
        views = logging.run("performance_schema", "SHOW TABLES").split()
        seen = [logging.run("performance_schema", "".join(f"SELECT * FROM {one};" for one in views))]
        seen.append(logging.run("mysql", "FLUSH LOGS; SELECT argument FROM general_log"))
        assert "@holdfast_key = CONVERT" in seen[-1]
        assert KEY not in "".join(seen) and "k" * 33 not in "".join(seen)
        for path in (logging.folder / "data").rglob("*"):
            if path.is_file():
                content = path.read_bytes()
                assert KEY.encode() not in content and b"k" * 33 not in content, path
    finally:
        logging.remove()


def into(folder: Path) -> tuple[Path, Literal["gz"], Callable[[int], None], int]:
    return folder, "gz", lambda _: None, 1


@pytest.mark.parametrize("size", [1, 7, 100])
def test_rows_are_joined_to_statements_wherever_the_pieces_end(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdfast.drivers.databases.mariadb.sanitizing._STATEMENT_BYTES", 20)
    rows = b"".join(b"(%d)\n" % number for number in range(30))
    out: list[bytes] = []
    inserts = Inserts(b"INSERT INTO t VALUES ", out.append, "t")
    for start in range(0, len(rows), size):
        inserts.feed(rows[start : start + size])
    inserts.end()
    text = b"".join(out)
    assert text.count(b"\n") == 30 and text.endswith(b");\n")
    found = [
        row for line in text.split(b";\n")[:-1] for row in line.removeprefix(b"INSERT INTO t VALUES ").split(b",\n")
    ]
    assert found == rows.splitlines()
