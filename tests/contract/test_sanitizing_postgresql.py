"""Sanitized dumps of PostgreSQL: hazards of real schemas, loaded by psql alone, and nothing raw anywhere."""

from __future__ import annotations

import re
import secrets
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from holdfast.config.schema import Database as DatabaseSettings
from holdfast.drivers.databases.postgresql.sanitizing import PostgresqlSanitizer
from holdfast.drivers.protocols.sanitizing import SanitizedDump
from holdfast.errors import RefusedError
from holdfast.model import Server
from holdfast.sanitize.deciding import DatabasePlan, Decided
from holdfast.sanitize.values import Values
from holdfast.system.host import Host
from tests.contract import sanitizing
from tests.proof import patience
from tests.servers import postgresql
from tests.servers.postgresql import ROLE, SUPERUSER, PostgresqlServer

KEY = "c0ffee" * 10
HAZARDS = """
CREATE SCHEMA crm;
CREATE DOMAIN public.mail AS varchar(254) CHECK (VALUE ~ '^[^@]+@[^@]+$');
CREATE TYPE public.plan AS ENUM ('free', 'paid');
CREATE TABLE public.users (
  id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  email public.mail UNIQUE NOT NULL,
  first_name text, last_name varchar(30), phone varchar(20), password text,
  full_name text GENERATED ALWAYS AS (first_name || ' ' || last_name) STORED,
  born date, seen timestamptz, ip inet, meta jsonb, tags text[], plan public.plan, avatar bytea, token uuid,
  search tsvector, boss integer REFERENCES public.users, note char(12), salary numeric(10, 2), "Odd ""name" text,
  CHECK (phone IS NULL OR length(phone) >= 8));
CREATE TABLE crm.orders (
  id bigserial PRIMARY KEY, buyer text REFERENCES public.users (email), amount numeric, comment text);
CREATE TABLE crm."Strange Table" (a integer PRIMARY KEY, "select" text, t varchar(10)[]);
CREATE TABLE events (id integer, at date NOT NULL, who text, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
CREATE TABLE events_old PARTITION OF events FOR VALUES FROM (MINVALUE) TO ('2020-01-01');
CREATE TABLE events_new PARTITION OF events FOR VALUES FROM ('2020-01-01') TO (MAXVALUE);
CREATE TABLE chicken (id integer PRIMARY KEY, egg integer);
CREATE TABLE egg (id integer PRIMARY KEY, chicken integer REFERENCES chicken);
ALTER TABLE chicken ADD FOREIGN KEY (egg) REFERENCES egg DEFERRABLE INITIALLY DEFERRED;
CREATE TABLE logbook (line text);
CREATE TABLE secret_rows (id integer, owner text);
CREATE TABLE sessions (id text PRIMARY KEY, data text);
ALTER TABLE secret_rows ENABLE ROW LEVEL SECURITY;
CREATE POLICY mine ON secret_rows USING (owner = current_user);
CREATE FUNCTION noted() RETURNS trigger LANGUAGE plpgsql AS
  $$ BEGIN INSERT INTO public.logbook VALUES ('fired'); RETURN NEW; END $$;
CREATE TRIGGER noted BEFORE INSERT ON crm.orders FOR EACH ROW EXECUTE FUNCTION noted();
CREATE FUNCTION indexed() RETURNS trigger LANGUAGE plpgsql AS
  $$ BEGIN NEW.search := to_tsvector('simple', coalesce(NEW.first_name, '')); RETURN NEW; END $$;
CREATE TRIGGER indexed BEFORE INSERT OR UPDATE ON users FOR EACH ROW EXECUTE FUNCTION indexed();
INSERT INTO users (email, first_name, last_name, phone, password, born, seen, ip, meta, tags, plan, avatar, token, boss,
    note, salary, "Odd ""name")
  SELECT 'Person' || i || '@Company.example', 'First' || i, 'Last' || i, '+49 30 1234' || lpad(i::text, 4, '0'),
    'pbkdf2_' || md5(i::text), date '1970-02-03' + i, timestamptz '2024-05-06 07:08:09+02' + i * interval '1 hour',
    ('192.0.2.' || i % 250)::inet,
    jsonb_build_object('email', 'Person' || i || '@Company.example',
      'address', jsonb_build_object('street', i || ' Real St'), 'level', i),
    ARRAY['Tag' || i, NULL, 'it''s'], (ARRAY['free', 'paid'])[1 + i % 2]::plan, decode(md5(i::text), 'hex'),
    md5(i::text)::uuid, CASE WHEN i > 1 THEN i / 2 END, 'Note' || i, 1000 + i, E'tab\\tline\\nback\\\\slash' || i
  FROM generate_series(1, 300) i;
INSERT INTO users (email) VALUES ('nulls@company.example');
INSERT INTO crm.orders (buyer, amount, comment) SELECT 'Person' || i || '@Company.example', i, 'Comment of ' || i
  FROM generate_series(1, 300) i;
INSERT INTO crm."Strange Table" VALUES (1, 'Raw Value', ARRAY['a', 'b']);
INSERT INTO events SELECT i, date '2019-12-01' + i, 'Person' || i || '@Company.example' FROM generate_series(1, 90) i;
INSERT INTO chicken VALUES (1, NULL); INSERT INTO egg VALUES (1, 1); UPDATE chicken SET egg = 1;
INSERT INTO secret_rows VALUES (1, 'somebody'), (2, current_user);
INSERT INTO sessions VALUES ('Session-Id-Of-Somebody', 'pickled');
CREATE MATERIALIZED VIEW names AS SELECT first_name || last_name AS whole FROM users;
CREATE VIEW buyers AS SELECT u.id FROM users u JOIN crm.orders o ON o.buyer = u.email;
CREATE INDEX ON users (lower(email::text));
"""
RULES = """
email_domain = "sane.test"

[columns]
"*email*" = "email"

[tables.users.columns]
first_name = "first_name"
last_name = "last_name"
phone = "phone"
password = { set = "!" }
born = { date = "year" }
seen = { date = { shift = 30 } }
ip = "ip"
meta = { json = { "email" = "email", "address.street" = "street" }, other = "drop" }
tags = "hash"
plan = { choice = ["free"] }
avatar = { file = "png" }
token = "uuid"
search = "null"
note = { mask = { left = 1, right = 1 } }
salary = { number = { bucket = 100 } }
'Odd "name' = "text"

[tables."crm.orders".columns]
comment = "text"

[tables.'crm.Strange Table'.columns]
select = { sql = "'it''s ' || a" }
t = "hash"

[tables.events.columns]
who = { email = "kept apart", domain = "email" }

[tables.chicken]
[tables.egg]

[tables.logbook]
rows = "none"

[tables.secret_rows.columns]
owner = { keep = "roles are no persons" }

[tables.sessions]
rows = "none"
""".replace('{ email = "kept apart", domain = "email" }', '"email"')


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresqlServer]:
    with postgresql.shared() as running:
        yield running


@pytest.fixture(scope="module")
def name(server: PostgresqlServer) -> Iterator[str]:
    """One database for all tests of this module; what a test adds it takes away again."""
    with server.own_database() as made:
        server.create_if_missing(made)
        server.run(made, HAZARDS, user=ROLE)
        yield made


@contextmanager
def added(server: PostgresqlServer, name: str, sql: str, back: str) -> Iterator[None]:
    server.run(name, sql, user=ROLE)
    try:
        yield
    finally:
        server.run(name, back, user=ROLE)


def sanitizer(server: PostgresqlServer, name: str, user: str = ROLE) -> PostgresqlSanitizer:
    return PostgresqlSanitizer("main", *address(server, name, user), Host())


def address(server: PostgresqlServer, name: str, user: str = ROLE) -> tuple[DatabaseSettings, Server]:
    settings = DatabaseSettings(kind="postgresql", name=name)
    return settings, Server(host=str(server.folder), port=server.port, user=user)


def decided(found: PostgresqlSanitizer, text: str = RULES) -> Decided:
    return sanitizing.decided(found, text)


def plan_of(found: PostgresqlSanitizer, text: str = RULES) -> DatabasePlan:
    return sanitizing.plan_of(found, text)


def written(found: PostgresqlSanitizer, plan: DatabasePlan, folder: Path) -> tuple[str, SanitizedDump]:
    dumped, dump = sanitizing.written(found, plan, KEY, folder, jobs=2)
    return dumped.decode(), dump


def load(server: PostgresqlServer, name: str, text: str) -> None:
    server.create_if_missing(name)
    subprocess.run(
        [
            *("psql", "-X", "-q", "-h", str(server.folder), "-p", str(server.port), "-U", ROLE, "-d", name),
            *("--set", "ON_ERROR_STOP=1", "--single-transaction"),
        ],
        input=text.encode(),
        check=True,
        timeout=patience.limit(60),
        stdout=subprocess.DEVNULL,
    )


def test_every_hazard_is_loaded_by_psql_alone_and_joins_stay(
    server: PostgresqlServer, name: str, tmp_path: Path
) -> None:
    server.run(name, "ALTER TABLE secret_rows DISABLE ROW LEVEL SECURITY", user=ROLE)
    server.run(name, "ALTER TABLE secret_rows ENABLE ROW LEVEL SECURITY", user=ROLE)
    found = sanitizer(server, name)
    text, dump = written(found, plan_of(found), tmp_path)
    assert dump.rows["users"] == 301 and dump.rows["crm.orders"] == 300 and dump.rows["events"] == 90
    assert "Company" not in text and "First" not in text and "Real St" not in text and "Raw Value" not in text
    with server.own_database() as other:
        load(server, other, text)

        def ask(sql: str, database: str = other) -> str:
            return server.run(database, sql, user=ROLE).strip()

        for sql in (
            "SELECT count(*) FROM users u JOIN crm.orders o ON o.buyer = u.email",
            "SELECT count(*) FROM users u JOIN events e ON e.who = u.email",
            "SELECT count(*) FROM users u JOIN users b ON b.id = u.boss",
            "SELECT count(*), count(email), count(first_name), count(tags), count(meta), count(avatar) FROM users",
            "SELECT count(*) FROM events_old",
            "SELECT last_value, is_called FROM users_id_seq",
            "SELECT count(*) FROM names",
            "SELECT count(*) FROM buyers",
            "SELECT relrowsecurity FROM pg_class WHERE relname = 'secret_rows'",
            "SELECT count(*) FROM pg_constraint WHERE connamespace IN ('public'::regnamespace, 'crm'::regnamespace)",
            "SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal",
            'SELECT sum(length("Odd ""name")) FROM users',
        ):
            assert ask(sql) == ask(sql, name), sql
        assert ask("SELECT bool_and(convalidated) FROM pg_constraint WHERE contype IN ('c', 'f')") == "t"
        assert ask("SELECT count(*) FROM users WHERE full_name <> first_name || ' ' || last_name") == "0"
        assert ask("SELECT count(*) FROM logbook") == ask("SELECT count(*) FROM sessions") == "0"
        assert ask("SELECT count(DISTINCT email) FROM users WHERE email LIKE 'user_%@sane.test'") == "301"
        assert ask("SELECT DISTINCT to_char(born, 'MM-DD') FROM users WHERE born IS NOT NULL") == "01-01"
        assert ask("SELECT count(*) FROM users WHERE meta ->> 'email' <> email") == "0"
        assert ask("SELECT DISTINCT meta ? 'level' FROM users WHERE meta IS NOT NULL") == "f"
        assert ask("SELECT DISTINCT tags[2] IS NULL AND array_length(tags, 1) = 3 FROM users WHERE tags <> '{}'") == "t"
        assert ask('SELECT "select" FROM crm."Strange Table"') == "it's 1"
        assert ask("INSERT INTO users (email) VALUES ('x@y.z') RETURNING id").startswith("302")


def test_the_server_makes_the_same_values_as_python(server: PostgresqlServer, name: str) -> None:
    found = sanitizer(server, name)
    plan = plan_of(found)
    made = found.preview(plan, "users", 1000, KEY)
    names = ("email", "first_name", "last_name", "phone", "ip", "token", "note", "born")
    columns = ", ".join(names).replace("note", "trim(note)").replace("ip", "host(ip)")
    asked = f"SELECT concat_ws(E'\\x1f', id, {columns}) FROM users WHERE ip IS NOT NULL"
    lines = [line.split("\x1f") for line in server.run(name, asked, user=ROLE).splitlines()]
    raw = {line[0]: line for line in lines}
    users = next(one for one in plan.tables if one.table.name == "users")
    places = {one.column.name: number for number, one in enumerate(users.columns)}
    functions = {one.column.name: Values(plan, KEY).function(one.column, one.method) for one in users.columns}
    checked = 0
    for row in made:
        if str(row[0]) in raw:
            source = raw[str(row[0])]
            for number, column in enumerate(names, 1):
                expected = functions[column](source[number])
                assert str(row[places[column]]).strip() == expected, column
                checked += 1
    assert checked == 300 * 8


def test_nothing_raw_is_in_the_output_or_in_the_sight_of_others(
    server: PostgresqlServer, name: str, tmp_path: Path
) -> None:
    sentinels = [secrets.token_hex(8).upper() for _ in range(2000)]
    made = (
        "CREATE TABLE sentinels (id integer PRIMARY KEY, a text, b varchar(50), c jsonb, d bytea, e text[], f jsonb);"
        "INSERT INTO sentinels SELECT i, v, v, jsonb_build_object('a', v, v, 1), v::bytea, ARRAY[v],"
        " jsonb_build_object('a', v) FROM unnest(ARRAY['" + "','".join(sentinels) + "']) WITH ORDINALITY AS u(v, i)"
    )
    with added(server, name, made, "DROP TABLE sentinels"):
        _sentinels(server, name, tmp_path, sentinels)


def _sentinels(server: PostgresqlServer, name: str, tmp_path: Path, sentinels: list[str]) -> None:
    found = sanitizer(server, name)
    text = RULES + (
        '[tables.sentinels.columns]\na = "hash"\nb = "text"\nc = { json = { a = "hash" } }\nd = "file"\ne = "hash"\n'
        'f = { json = { a = "text" }, other = "keep" }\n'
    )
    plan = plan_of(found, text)
    seen: list[str] = []
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(0.1):
            seen.append(server.run("postgres", "SELECT query FROM pg_stat_activity", user=SUPERUSER))
            seen.append(subprocess.run(["ps", "axww"], capture_output=True, text=True, check=True).stdout)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        dumped, _ = written(found, plan, tmp_path)
    finally:
        stop.set()
        watcher.join()
    assert {*re.findall("[0-9A-F]{16}", dumped)}.isdisjoint(sentinels)
    for place in (*seen, (server.folder / "log").read_text()):
        assert KEY not in place
    make = partial(PostgresqlSanitizer, "main", *address(server, name))
    memory = sanitizing.memory_of_a_dump(make, text, KEY, tmp_path)
    found_there = {*re.findall(rb"[0-9A-F]{16}", memory), *re.findall(rb"[0-9a-f]{32}", memory)}
    assert found_there.isdisjoint(form for one in sentinels for form in (one.encode(), one.encode().hex().encode()))


def test_a_value_that_leaves_by_another_column_ends_the_dump(
    server: PostgresqlServer, name: str, tmp_path: Path
) -> None:
    with added(server, name, "CREATE TABLE copied AS SELECT password AS label FROM users", "DROP TABLE copied"):
        _copied(server, name, tmp_path)


def _copied(server: PostgresqlServer, name: str, tmp_path: Path) -> None:
    text = RULES.replace('password = { set = "!" }', 'password = "hash"')
    found = sanitizer(server, name)
    plan = plan_of(found, text + '[tables.copied.columns]\nlabel = { keep = "it is only a label" }\n')
    with pytest.raises(RefusedError, match=r"copied has a value of users\.password"):
        found.write(plan, KEY, tmp_path, "gz", lambda _: None, 1)


def test_an_address_of_another_domain_ends_the_dump(server: PostgresqlServer, name: str, tmp_path: Path) -> None:
    more = "INSERT INTO secret_rows VALUES (3, 'me@elsewhere.example')"
    found = sanitizer(server, name)
    plan = plan_of(found)
    with (
        added(server, name, more, "DELETE FROM secret_rows WHERE id = 3"),
        pytest.raises(RefusedError, match="secret_rows has an e-mail address of another domain"),
    ):
        found.write(plan, KEY, tmp_path, "gz", lambda _: None, 1)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ('first_name = "first_name"', "users.first_name: no rule, and its name, first_name may mean personal data"),
        ("[tables.chicken]", "chicken: no rules for this table"),
        ('born = { date = "year" }', "users.born: no rule"),
        ('meta = { json = { "email" = "email", "address.street" = "street" }, other = "drop" }', "users.meta: no rule"),
    ],
)
def test_what_no_rule_covers_is_named(server: PostgresqlServer, name: str, change: str, problem: str) -> None:
    found = decided(sanitizer(server, name), RULES.replace(change, ""))
    assert any(one.startswith(problem) for one in found.problems), found.problems


def test_the_server_refuses_an_expression_of_another_type_without_reading_a_row(
    server: PostgresqlServer, name: str
) -> None:
    found = sanitizer(server, name)
    made = decided(found, RULES.replace('born = { date = "year" }', "born = { sql = \"'no date'\" }"))
    assert made.problems == ()
    (problem,) = found.problems(made.plan)
    assert problem.startswith("users: ") and "no date" in problem


def test_rows_that_are_left_out_take_those_along_that_refer_to_them(
    server: PostgresqlServer, name: str, tmp_path: Path
) -> None:
    text = RULES.replace("[tables.users.columns]", '[tables.users]\nlast = 50\nby = "id"\n[tables.users.columns]')
    found = sanitizer(server, name)
    dumped, dump = written(found, plan_of(found, text), tmp_path)
    assert dump.rows["users"] == 50 and dump.rows["crm.orders"] == 49
    with server.own_database() as other:
        load(server, other, dumped)


def test_the_source_is_left_as_it_was(server: PostgresqlServer, name: str, tmp_path: Path) -> None:
    before = _digest(server, name)
    found = sanitizer(server, name)
    written(found, plan_of(found), tmp_path)
    assert _digest(server, name) == before


def _digest(server: PostgresqlServer, name: str) -> str:
    return server.run(
        name,
        "SELECT md5(string_agg(t::text, '|' ORDER BY id)) FROM users t UNION ALL"
        " SELECT md5(string_agg(t::text, '|' ORDER BY id)) FROM crm.orders t UNION ALL"
        " SELECT count(*)::text FROM pg_class UNION ALL SELECT last_value::text FROM users_id_seq",
        user=ROLE,
    )


def test_a_large_table_is_read_in_pieces_without_loss_or_repetition(
    server: PostgresqlServer, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("holdfast.drivers.databases.postgresql.sanitizing._SPLIT_BYTES", 0)
    found = sanitizer(server, name)
    text, dump = written(found, plan_of(found), tmp_path)
    assert text.count('COPY "public"."users" (') == 2, "two sessions read it"
    assert dump.rows["users"] == 301 and dump.rows["crm.orders"] == 300
    with server.own_database() as other:
        load(server, other, text)
        for sql in ("SELECT count(*), sum(id) FROM users", "SELECT count(*), sum(id) FROM crm.orders"):
            assert server.run(other, sql, user=ROLE) == server.run(name, sql, user=ROLE)


def test_a_database_in_another_encoding_gets_the_same_values(server: PostgresqlServer, tmp_path: Path) -> None:
    raw = "Änne-Größe"
    with server.own_database() as name:
        server.run("postgres", f"CREATE DATABASE {name} ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0 OWNER {ROLE}")
        letters = " || ".join(f"chr({ord(letter)})" for letter in raw)
        server.run(name, f"CREATE TABLE t AS SELECT {letters} AS a, 'label' AS b", user=ROLE)
        found = sanitizer(server, name)
        plan = plan_of(found, '[tables.t.columns]\na = "hash"\nb = { keep = "a label" }\n')
        (column, _) = plan.tables[0].columns
        dumped, _ = written(found, plan, tmp_path / "first")
        assert f"\n{Values(plan, KEY).function(column.column, column.method)(raw)}\tlabel\n" in dumped
        server.run(name, "UPDATE t SET b = a", user=ROLE)
        with pytest.raises(RefusedError, match=r"t has a value of t\.a"):
            written(found, plan, tmp_path / "second")


def test_values_that_repeat_are_made_once_and_are_the_same(
    server: PostgresqlServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("holdfast.drivers.databases.postgresql.sanitizing._SPLIT_BYTES", 0)
    words = "ARRAY['Anna', 'ANNA', 'anna', 'Anna ', ' Anna', 'Änne', '', NULL]"
    made = (
        "CREATE COLLATION loose (provider = icu, locale = 'und-u-ks-level2', deterministic = false);"
        'CREATE TABLE "a b" (id integer, ctidx integer, name text, short varchar(20), fixed char(12),'
        f' "Loose" text COLLATE loose); INSERT INTO "a b" SELECT i, i, w, w, w, w FROM generate_series(1, 2000) i,'
        f" LATERAL (SELECT ({words})[1 + i % 8]) AS words(w); ANALYZE"
    )
    text = (
        "[tables.'a b']\nexempt = \"name = 'Anna' AND id > 1900\"\n[tables.'a b'.columns]\n"
        'name = "first_name"\nshort = "email"\nfixed = "phone"\nLoose = "hash"\nctidx = { keep = "a number" }\n'
    )
    with server.own_database() as name:
        server.create_if_missing(name)
        server.run(name, made, user=ROLE)
        found = sanitizer(server, name)
        plan = plan_of(found, text)
        assert found.queries(plan)[0].sql.count("LEFT JOIN") == 4
        joined, dump = written(found, plan, tmp_path / "joined")
        monkeypatch.setattr(PostgresqlSanitizer, "_repeated", staticmethod(lambda _: frozenset()))
        alone, _ = written(found, plan, tmp_path / "alone")
    assert dump.rows == {"a b": 2000}
    assert _rows(joined) == _rows(alone)
    assert len({row.split("\t")[5] for row in _rows(joined)}) == 9, (
        "each its own digest, the missing ones, and those that are exempt"
    )


def _rows(dump: str) -> list[str]:
    return sorted(line for line in dump.splitlines() if re.match(r"\d+\t", line))
