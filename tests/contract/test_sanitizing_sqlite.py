"""Sanitized dumps of SQLite: hazards of real schemas, and nothing raw in the file or in this process."""

from __future__ import annotations

import gzip
import hashlib
import re
import secrets
import sqlite3
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from holdfast.drivers.databases.sqlite.sanitized_copy import Answer, Order, SanitizingJob
from holdfast.drivers.databases.sqlite.sanitizing import SqliteSanitizer
from holdfast.drivers.protocols.sanitizing import SanitizedDump
from holdfast.errors import RefusedError, StepError
from holdfast.sanitize.deciding import DatabasePlan, Decided
from holdfast.system.host import Host
from tests.contract import sanitizing

KEY = "c0ffee" * 10
HAZARDS = """
PRAGMA user_version = 7;
PRAGMA application_id = 12345;
CREATE TABLE users (
  id INTEGER PRIMARY KEY AUTOINCREMENT, email VARCHAR(254) NOT NULL UNIQUE, first_name TEXT, phone VARCHAR(20),
  password TEXT, born DATE, meta JSON, avatar BLOB, boss INTEGER REFERENCES users, "Odd ""name" TEXT,
  full TEXT GENERATED ALWAYS AS (first_name || '!') STORED, CHECK (phone IS NULL OR length(phone) >= 8));
CREATE TABLE orders (buyer TEXT REFERENCES users (email), amount NUMERIC, comment TEXT);
CREATE TABLE keyed (a TEXT, b INTEGER, PRIMARY KEY (a, b)) WITHOUT ROWID;
CREATE TABLE chicken (id INTEGER PRIMARY KEY, egg INTEGER REFERENCES egg);
CREATE TABLE egg (id INTEGER PRIMARY KEY, chicken INTEGER REFERENCES chicken);
CREATE TABLE logbook (line TEXT);
CREATE VIRTUAL TABLE search USING fts5(comment, content='orders');
CREATE VIRTUAL TABLE own_search USING fts5(words);
CREATE TRIGGER noted AFTER INSERT ON orders BEGIN INSERT INTO logbook VALUES ('fired'); END;
CREATE VIEW buyers AS SELECT u.id FROM users u JOIN orders o ON o.buyer = u.email;
CREATE INDEX by_mail ON users (lower(email));
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
meta = { json = { "email" = "email", "deep.er" = "city" } }
avatar = "file"
'Odd "name' = "text"

[tables.orders.columns]
comment = "text"

[tables.keyed.columns]
a = "hash"

[tables.chicken]
[tables.egg]
[tables.logbook]
rows = "none"
"""


@pytest.fixture
def path(quick_folder: Path) -> Path:
    made = quick_folder / "app.sqlite3"
    with closing(sqlite3.connect(made)) as connection, connection:
        connection.executescript(HAZARDS)
        for number in range(1, 301):
            mail = f"Person{number}@Company.example"
            connection.execute(
                'INSERT INTO users (email, first_name, phone, password, born, meta, avatar, boss, "Odd ""name")'
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    *(mail, f"First{number}", f"+49 30 12{number:06}", f"Pbkdf2_{number:09}", "1970-02-03"),
                    f'{{"email": "{mail}", "deep": {{"er": "Town", "x": 1}}, "Raw": 1}}',
                    b"\x00\xffRawBytes",
                    number // 2 or None,
                    f"tab\tline\nRaw {number}",
                ),
            )
            connection.execute("INSERT INTO orders VALUES (?, ?, ?)", (mail, number, f"Raw comment {number}"))
        connection.execute("INSERT INTO users (email) VALUES ('nulls@company.example')")
        connection.execute("DELETE FROM orders WHERE amount = 300")
        connection.execute("INSERT INTO keyed VALUES ('Raw key', 1)")
        connection.execute("INSERT INTO chicken VALUES (1, 1)")
        connection.execute("INSERT INTO egg VALUES (1, 1)")
        connection.execute("INSERT INTO search(search) VALUES ('rebuild')")
        connection.execute("INSERT INTO own_search VALUES ('Raw words')")
    return made


def sanitizer(path: Path) -> SqliteSanitizer:
    return SqliteSanitizer("main", path, Host())


def decided(found: SqliteSanitizer, text: str = RULES) -> Decided:
    return sanitizing.decided(found, text)


def plan_of(found: SqliteSanitizer, text: str = RULES) -> DatabasePlan:
    return sanitizing.plan_of(found, text)


def written(found: SqliteSanitizer, plan: DatabasePlan, folder: Path) -> tuple[Path, SanitizedDump]:
    dumped, dump = sanitizing.written(found, plan, KEY, folder)
    (folder / "new.sqlite3").write_bytes(dumped)
    return folder / "new.sqlite3", dump


def ask(path: Path, sql: str) -> object:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(sql).fetchone()[0]


def test_every_hazard_is_in_the_new_file_and_joins_stay(path: Path, quick_folder: Path) -> None:
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    found = sanitizer(path)
    new, dump = written(found, plan_of(found), quick_folder / "out")
    assert hashlib.sha256(path.read_bytes()).hexdigest() == before
    assert dump.rows == {"users": 301, "orders": 299, "keyed": 1, "chicken": 1, "egg": 1, "own_search": 0}
    content = new.read_bytes()
    assert re.findall(rb"Raw|Company|First\d|Pbkdf2|Town", content) == []
    for sql in (
        "SELECT count(*) FROM users u JOIN orders o ON o.buyer = u.email",
        "SELECT count(*) FROM users u JOIN users b ON b.id = u.boss",
        "SELECT count(email) + count(first_name) + count(phone) + count(meta) + count(avatar) FROM users",
        "SELECT sum(rowid) FROM orders",
        "SELECT seq FROM sqlite_sequence",
        "SELECT count(*) FROM buyers",
        "SELECT count(*) FROM sqlite_master",
        'SELECT sum(length("Odd ""name")) FROM users',
        "PRAGMA user_version",
        "PRAGMA application_id",
    ):
        assert ask(new, sql) == ask(path, sql), sql
    assert ask(new, "PRAGMA integrity_check") == "ok"
    assert ask(new, "SELECT count(*) FROM pragma_foreign_key_check") == 0
    assert ask(new, "SELECT count(*) FROM logbook") == 0, "no trigger fires"
    assert ask(new, "SELECT count(*) FROM users WHERE full <> first_name || '!'") == 0
    assert ask(new, "SELECT count(DISTINCT email) FROM users WHERE email LIKE 'user_%@sane.test'") == 301
    assert ask(new, "SELECT count(*) FROM users WHERE json_extract(meta, '$.email') <> email") == 0
    assert ask(new, "SELECT max(born) FROM users") == "1970-01-01"
    assert ask(new, "SELECT count(*) FROM search WHERE search MATCH 'Raw'") == 0
    assert ask(new, "SELECT count(*) FROM search WHERE search MATCH 'text'") == 299, "it is built from the new rows"
    assert ask(new, "SELECT count(*) FROM own_search") == 0


def test_a_database_with_an_open_writer_is_read_at_one_instant(path: Path, quick_folder: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as writer:
        writer.execute("PRAGMA journal_mode=WAL")
        writer.execute("BEGIN")
        writer.execute("INSERT INTO logbook VALUES ('uncommitted')")
        found = sanitizer(path)
        new, _ = written(found, plan_of(found, RULES.replace('rows = "none"\n', "")), quick_folder / "out")
        assert ask(new, "SELECT count(*) FROM logbook") == 300
        writer.execute("COMMIT")


def test_nothing_raw_is_in_the_file_or_in_this_process(path: Path, quick_folder: Path) -> None:
    sentinels = [secrets.token_hex(8).upper() for _ in range(2000)]
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE sentinels (a TEXT, b VARCHAR(50), c JSON, d BLOB)")
        rows = [(one, one, f'{{"a": "{one}", "{one}": 1}}', one.encode()) for one in sentinels]
        connection.executemany("INSERT INTO sentinels VALUES (?, ?, ?, ?)", rows)
    text = RULES + '[tables.sentinels.columns]\na = "hash"\nb = "text"\nc = { json = { a = "hash" } }\nd = "file"\n'
    target = quick_folder / "out"
    memory = sanitizing.memory_of_a_dump(partial(SqliteSanitizer, "main", path), text, KEY, target, preview="sentinels")
    assert {*re.findall(rb"[0-9A-F]{16}", memory)}.isdisjoint(one.encode() for one in sentinels)
    (part,) = target.iterdir()
    assert {*re.findall(rb"[0-9A-F]{16}", gzip.decompress(part.read_bytes()))}.isdisjoint(
        one.encode() for one in sentinels
    )


def test_a_value_that_leaves_by_another_column_ends_the_dump(path: Path, quick_folder: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE copied AS SELECT password AS label FROM users")
    found = sanitizer(path)
    plan = plan_of(found, RULES + '[tables.copied.columns]\nlabel = { keep = "a label" }\n')
    with pytest.raises(RefusedError, match=r"copied has a value of users\.password"):
        written(found, plan, quick_folder / "out")


@pytest.mark.parametrize(
    ("change", "to", "problem"),
    [
        ('password = "hash"', "", "users.password: no rule, and its name, password may mean"),
        ("[tables.egg]", "", "egg: no rules for this table"),
        ('a = "hash"', 'a = "email"\nc = "hash"', "keyed.c: no such column"),
    ],
)
def test_what_no_rule_covers_is_named(path: Path, change: str, to: str, problem: str) -> None:
    found = decided(sanitizer(path), RULES.replace(change, to))
    assert any(one.startswith(problem) for one in found.problems), found.problems


def test_a_wrong_expression_is_found_before_a_row_is_read(path: Path) -> None:
    found = sanitizer(path)
    made = decided(found, RULES.replace('born = { date = "year" }', 'born = { sql = "nowhere + 1" }'))
    assert found.problems(made.plan) == ["users: no such column: nowhere"]


def test_a_constraint_that_new_values_break_ends_the_dump(path: Path, quick_folder: Path) -> None:
    found = sanitizer(path)
    plan = plan_of(found, RULES.replace('phone = "phone"', 'phone = { set = "1" }'))
    with pytest.raises(StepError, match="CHECK constraint failed"):
        written(found, plan, quick_folder / "out")


def test_the_newest_rows_alone_take_those_along_that_refer_to_them(path: Path, quick_folder: Path) -> None:
    text = RULES.replace("[tables.users.columns]", '[tables.users]\nlast = 50\nby = "id"\n[tables.users.columns]')
    found = sanitizer(path)
    new, dump = written(found, plan_of(found, text), quick_folder / "out")
    assert dump.rows["users"] == 50 and dump.rows["orders"] == 48
    assert ask(new, "SELECT count(*) FROM pragma_foreign_key_check") == 0


class Here(SqliteSanitizer):
    """Does the work in this process, which costs less."""

    def _ask(self, order: Order, meanwhile: Callable[[int], None] | None = None) -> Answer:
        return SanitizingJob(self._path).handle(order)


def make(path: Path, script: str, *rows: tuple[str, tuple[object, ...]]) -> SqliteSanitizer:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executescript(script)
        for sql, values in rows:
            connection.execute(sql, values)
    return Here("main", path, Host())


def test_this_process_never_opens_the_database(path: Path, quick_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise AssertionError("pages with raw values would come into this process")

    with monkeypatch.context() as patched:
        patched.setattr(sqlite3, "connect", refused)
        found = sanitizer(path)
        plan = plan_of(found)
        found.preview(plan, "users", 3, KEY)
        found.queries(plan)
        written(found, plan, quick_folder / "out")


@pytest.mark.parametrize("killed", [False, True])
def test_a_wal_that_a_writer_left_is_read_and_stays(quick_folder: Path, killed: bool) -> None:
    source = quick_folder / "app.sqlite3"
    kept = quick_folder / "kept"
    with closing(sqlite3.connect(source, isolation_level=None)) as writer:
        writer.execute("PRAGMA journal_mode=WAL")
        writer.execute("CREATE TABLE t (id INTEGER PRIMARY KEY)")
        writer.execute("INSERT INTO t VALUES (7)")
        kept.mkdir()
        for name in ("app.sqlite3", "app.sqlite3-wal"):
            (kept / name).write_bytes((quick_folder / name).read_bytes())
    place = kept if killed else quick_folder
    before = {one.name: one.read_bytes() for one in place.glob("app*")}
    assert ("app.sqlite3-wal" in before) is killed
    found = Here("main", place / "app.sqlite3", Host())
    new, _ = written(found, plan_of(found, "[tables.t]"), quick_folder / "out")
    assert ask(new, "SELECT id FROM t") == 7
    after = {one.name: one.read_bytes() for one in place.glob("app*") if not one.name.endswith("-shm")}
    assert after == before


def test_a_declared_type_hides_nothing(quick_folder: Path) -> None:
    found = make(
        quick_folder / "app.sqlite3",
        "CREATE TABLE t (a STRING, b INTEGER, c DATE, contact STRING, d DATETIME, e VARBINARY(9), f BOOLEAN);",
        ("INSERT INTO t VALUES ('x', 1, '2020-02-03', 'y', '2020-02-03 04:05', x'00', 1)", ()),
        ("INSERT INTO t VALUES (?, ?, ?, ?, ?, ?, ?)", ("z", *["bob@company.example"] * 6)),
    )
    assert sorted(decided(found, "[tables.t]").problems) == [
        "t.b: no rule, and 1 of 1 values look like email may mean personal data",
        "t.c: no rule, and 1 of 1 values look like email may mean personal data",
        "t.contact: no rule, and 1 of 2 values look like email may mean personal data",
        "t.d: no rule, and 1 of 1 values look like email may mean personal data",
        "t.e: no rule, and its type, varbinary(9) may mean personal data",
        "t.f: no rule, and 1 of 1 values look like email may mean personal data",
    ]
    text = """
    [tables.t.columns]
    contact = "email"
    b = { number = { bucket = 10 } }
    c = { date = { shift = 3 } }
    d = { date = "year" }
    e = "file"
    f = "null"
    """
    new, _ = written(found, plan_of(found, text), quick_folder / "out")
    assert b"company" not in new.read_bytes()
    assert ask(new, "SELECT group_concat(ifnull(d, '-')) FROM t") == "2020-01-01 00:00,-"


def test_text_behind_a_date_is_no_time(quick_folder: Path) -> None:
    script = "CREATE TABLE t (born DATE); INSERT INTO t VALUES ('2020-02-03 of Bob'), ('2020-02-03T04:05:06.7+02:00');"
    found = make(quick_folder / "app.sqlite3", script)
    new, _ = written(found, plan_of(found, '[tables.t.columns]\nborn = { date = "month" }'), quick_folder / "out")
    assert ask(new, "SELECT group_concat(ifnull(born, '-')) FROM t") == "-,2020-02-01T00:00:00.0"


def test_names_of_a_reference_may_be_in_other_letters(quick_folder: Path) -> None:
    found = make(
        quick_folder / "app.sqlite3",
        "CREATE TABLE Users (Email TEXT PRIMARY KEY, kind TEXT);"
        "CREATE TABLE orders (Buyer TEXT NOT NULL, FOREIGN KEY (BUYER) REFERENCES USERS (EMAIL));"
        "INSERT INTO Users VALUES ('a@x.example', 'old'), ('b@x.example', 'new');"
        "INSERT INTO orders VALUES ('a@x.example'), ('b@x.example'), ('b@x.example');",
    )
    text = "[tables.Users]\nwhere = \"kind = 'new'\"\ncolumns = { Email = 'email' }\n[tables.orders]"
    new, dump = written(found, plan_of(found, text), quick_folder / "out")
    assert dump.rows == {"Users": 1, "orders": 2}
    assert ask(new, "SELECT count(*) FROM orders JOIN Users ON Buyer = Email") == 2


def test_unusual_tables_are_whole(quick_folder: Path) -> None:
    script = """
    PRAGMA page_size = 8192; PRAGMA encoding = 'UTF-16le';
    CREATE VIRTUAL TABLE search USING fts5(words);
    CREATE TABLE search_history (rowid TEXT, n INT); -- is not part of `search`
    CREATE TABLE strict (id INTEGER PRIMARY KEY, a ANY, b INT, c TEXT) STRICT;
    CREATE TABLE plain (a); CREATE TABLE late (a REFERENCES plain);
    CREATE INDEX by_part ON plain (a) WHERE a > 3;
    INSERT INTO search_history (_rowid_, rowid, n) VALUES (77, 'Raw', 1);
    INSERT INTO strict VALUES (-5, 1.5, 2, 'RawText');
    INSERT INTO plain (rowid, a) VALUES (9007199254740993, 5), (-3, NULL);
    ANALYZE;
    """
    rules_of = """
    [tables.search_history.columns]
    rowid = "hash"
    [tables.strict.columns]
    a = { set = 1 }
    c = "mask"
    [tables.plain.columns]
    a = { keep = "numbers" }
    [tables.late.columns]
    a = "null"
    """
    source = quick_folder / "app.sqlite3"
    found = make(source, script)
    new, dump = written(found, plan_of(found, rules_of), quick_folder / "out")
    assert dump.rows == {"late": 0, "plain": 2, "search": 0, "search_history": 1, "strict": 1}
    for sql in ("SELECT sum(rowid) FROM plain", "SELECT _rowid_ FROM search_history", "SELECT id FROM strict"):
        assert ask(new, sql) == ask(source, sql), sql
    for pragma in ("page_size", "encoding"):
        assert ask(new, f"PRAGMA {pragma}") == ask(source, f"PRAGMA {pragma}")
    assert ask(new, "SELECT c FROM strict") == "*******"
    assert ask(new, "SELECT count(*) FROM sqlite_master WHERE name LIKE 'sqlite_stat%'") == 0
    assert "Raw".encode("utf-16le") not in new.read_bytes()


def test_an_unknown_module_is_refused(quick_folder: Path) -> None:
    found = make(quick_folder / "app.sqlite3", "CREATE VIRTUAL TABLE boxes USING rtree(id, a, b);")
    assert found.problems(decided(found, 'unlisted_tables = "empty"').plan) == [
        "boxes: Holdfast does not know the module rtree of this virtual table"
    ]


def test_bytes_of_images_are_no_addresses_and_broken_text_ends_nothing(quick_folder: Path) -> None:
    image = b"\xff\xd8 bob@company.example "
    found = make(
        quick_folder / "app.sqlite3",
        "CREATE TABLE t (a BLOB, b TEXT); INSERT INTO t (b) VALUES (CAST(x'61ff62' AS TEXT));",
        ("INSERT INTO t (a) VALUES (?)", (image,)),
    )
    text = '[tables.t.columns]\na = { keep = "images" }\nb = { keep = "codes" }'
    written(found, plan_of(found, text), quick_folder / "out")
    with pytest.raises(StepError, match="t: a rule met a value that it cannot read"):
        written(found, plan_of(found, text.replace('b = { keep = "codes" }', 'b = "hash"')), quick_folder / "out1")
    make(quick_folder / "app.sqlite3", "", ("INSERT INTO t (a) VALUES (?)", (b"bob@company.example",)))
    with pytest.raises(RefusedError, match="the output of t has an e-mail address of another domain"):
        written(found, plan_of(found, text), quick_folder / "out2")


def test_exempt_rows_expressions_and_references_to_rows_that_are_left_out(quick_folder: Path) -> None:
    found = make(
        quick_folder / "app.sqlite3",
        "CREATE TABLE t (id INTEGER PRIMARY KEY, boss INT REFERENCES t, name TEXT, code TEXT);"
        "INSERT INTO t VALUES (1, NULL, 'Bob', 'abc'), (2, 1, 'Staff', 'def'), (3, 2, 'Eve', 'ghi');",
    )
    text = """
    [tables.t]
    where = "id > 1"
    exempt = "name = 'Staff'"
    [tables.t.columns]
    name = "mask"
    code = { sql = "upper(code) || id" }
    """
    new, _ = written(found, plan_of(found, text), quick_folder / "out")
    with closing(sqlite3.connect(new)) as connection:
        assert connection.execute("SELECT * FROM t").fetchall() == [(2, None, "Staff", "def"), (3, 2, "***", "GHI3")]
