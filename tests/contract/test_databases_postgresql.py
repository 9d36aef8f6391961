"""PostgreSQL alone: rights, roles, settings, strangers' sessions, what blocks a copy, a server that dies."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest
from msgspec.structs import replace

from holdfast.drivers.databases.postgresql import archive, copies
from holdfast.drivers.databases.postgresql.client import Clients
from holdfast.drivers.databases.postgresql.driver import PostgresqlDatabase
from holdfast.drivers.interchange import dump_source
from holdfast.errors import CommandFailedError, DamagedError, HoldfastError, RefusedError, StepError
from holdfast.model import Facts, Server, Snapshot
from holdfast.system.host import Host
from tests.contract.dumps import snapshot
from tests.proof import patience
from tests.servers.postgresql import ROLE, PostgresqlServer

OPERATION = "20260101-000000-upgrade-ab12"


@pytest.fixture
def name(server: PostgresqlServer) -> Iterator[str]:
    with server.own_database() as made:
        server.create_if_missing(made)
        server.run(made, "CREATE TABLE entry (id SERIAL PRIMARY KEY, text TEXT)", user=ROLE)
        server.run(made, "INSERT INTO entry (text) SELECT 'row ' || i FROM generate_series(1, 500) i", user=ROLE)
        yield made


def reach(server: PostgresqlServer, **changes: object) -> Server:
    return replace(Server(host=str(server.folder), port=server.port, user=ROLE), **changes)  # type: ignore[arg-type]


def driver(server: PostgresqlServer, name: str, **changes: object) -> PostgresqlDatabase:
    return PostgresqlDatabase("main", name, reach(server, **changes), Host(operation=OPERATION))


@pytest.fixture
def database(server: PostgresqlServer, name: str) -> PostgresqlDatabase:
    return driver(server, name)


def facts_of(taken: Snapshot) -> Facts:
    return {**taken.facts, "rows": {table: facts["rows"] for table, facts in taken.tables.items()}}


@contextmanager
def visitor(server: PostgresqlServer, name: str, sql: str = "", user: str = ROLE) -> Iterator[subprocess.Popen[str]]:
    """A session that stays open and has done `sql`."""
    process = subprocess.Popen(
        ["psql", "-X", "-q", "-At", "-h", str(server.folder), "-p", str(server.port), "-U", user, "-d", name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        process.stdin.write(f"{sql};\nSELECT 'ready';\n")
        process.stdin.flush()
        assert "ready" in process.stdout.readline()
        yield process
    finally:
        process.kill()
        process.communicate()


# --- properties that lie outside the content ------------------------------------------------------------


def properties(server: PostgresqlServer, name: str) -> str:
    return server.run(
        "postgres",
        "SELECT (SELECT string_agg(item::text, ',' ORDER BY item::text) FROM unnest(datacl) item),"
        " coalesce(shobj_description(oid, 'pg_database'), ''), (SELECT"
        " string_agg(setrole || setconfig::text, ';' ORDER BY setrole) FROM pg_db_role_setting WHERE setdatabase = oid)"
        f" FROM pg_database WHERE datname = '{name}'",
    )


def test_grants_settings_and_comment_go_back_with_a_restore_point(
    server: PostgresqlServer, name: str, database: PostgresqlDatabase
) -> None:
    server.run("postgres", f"REVOKE CONNECT ON DATABASE {name} FROM PUBLIC", user=ROLE)
    server.run(name, f'ALTER DATABASE {name} SET search_path TO "$user", public', user=ROLE)
    server.run(name, f"ALTER DATABASE {name} SET work_mem TO '9MB'; COMMENT ON DATABASE {name} IS 'it''s'", user=ROLE)
    before = properties(server, name)
    assert "work_mem=9MB" in before and "it's" in before
    point = database.prepare(OPERATION, None, {})
    server.run(
        name, f"ALTER DATABASE {name} RESET ALL; DROP TABLE entry; COMMENT ON DATABASE {name} IS NULL", user=ROLE
    )
    database.swap(OPERATION, point, f"{OPERATION}.failed")
    assert properties(server, name) == before
    assert server.run(name, "SHOW search_path", user=ROLE) == '"$user", public'
    assert server.run(name, "SELECT count(*) FROM entry", user=ROLE) == "500"


def catalogue_entry(server: PostgresqlServer, name: str) -> dict[str, object]:
    """Return all that the catalogue says of a database, whatever its version, but who it is and how old."""
    text = server.run(
        "postgres",
        "SELECT to_jsonb(d) - ARRAY['oid', 'datname', 'datfrozenxid', 'datminmxid', 'datlastsysoid', 'datconfig']"
        " || jsonb_build_object('owner', pg_get_userbyid(datdba), 'comment', shobj_description(d.oid, 'pg_database'),"
        " 'settings', (SELECT jsonb_agg(x ORDER BY x) FROM (SELECT setrole::text || s AS x FROM pg_db_role_setting,"
        f" unnest(setconfig) s WHERE setdatabase = d.oid) y)) FROM pg_database d WHERE datname = '{name}'",
    )
    found: dict[str, object] = json.loads(text)
    return found


@pytest.fixture(params=["libc", "icu"])
def particular(request: pytest.FixtureRequest, server: PostgresqlServer) -> Iterator[str]:
    """A database with a property of each kind, and with words that ICU sorts in another order."""
    locale = "LOCALE_PROVIDER icu ICU_LOCALE 'de-u-kn-true'" if request.param == "icu" else ""
    with server.own_database() as made:
        server.run("postgres", f"CREATE DATABASE {made} TEMPLATE template0 OWNER {ROLE} ENCODING 'UTF8' {locale}")
        server.run(made, f"ALTER DATABASE {made} CONNECTION LIMIT 17; ALTER DATABASE {made} IS_TEMPLATE true")
        server.run(
            made, f"ALTER DATABASE {made} SET work_mem TO '9MB'; COMMENT ON DATABASE {made} IS 'it''s'", user=ROLE
        )
        server.run(made, "CREATE TABLE entry (id SERIAL PRIMARY KEY, text TEXT)", user=ROLE)
        server.run(made, "INSERT INTO entry (text) VALUES ('a10'), ('a9'), ('B'), ('\u00e4'), ('z')", user=ROLE)
        yield made
        server.run(
            "postgres", "UPDATE pg_database SET datistemplate = false WHERE datname LIKE 'hf-%' OR datname LIKE 'app%'"
        )


@pytest.mark.parametrize("user", [ROLE, "postgres"])
@pytest.mark.parametrize("way", ["restore point", "dump"])
def test_what_comes_back_is_the_same_database_to_the_last_property(
    server: PostgresqlServer, particular: str, quick_folder: Path, user: str, way: str
) -> None:
    database = driver(server, particular, user=user)
    ordered = "SELECT string_agg(text, ' ' ORDER BY text) FROM entry"
    before, order = catalogue_entry(server, particular), server.run(particular, ordered, user=ROLE)
    if way == "restore point":
        point = database.prepare(OPERATION, None, {})
    else:
        point = database.prepare(OPERATION, quick_folder / "d", facts_of(snapshot(database, quick_folder / "d")))
    server.run(particular, f"ALTER DATABASE {particular} CONNECTION LIMIT 3; DROP TABLE entry")
    database.swap(OPERATION, point, f"{OPERATION}.failed")
    assert catalogue_entry(server, particular) == before
    assert server.run(particular, ordered, user=ROLE) == order
    database.discard(f"{OPERATION}.failed")
    assert database.tokens() == []


def test_an_extension_that_only_a_superuser_makes_is_told_and_left_out(
    server: PostgresqlServer, name: str, quick_folder: Path
) -> None:
    """Nothing of the application's hangs on it, as on one that watches statements: the rest comes back."""
    server.run(name, "CREATE EXTENSION pg_stat_statements; CREATE EXTENSION IF NOT EXISTS pg_trgm")
    said: list[str] = []
    database = PostgresqlDatabase("main", name, reach(server), Host(operation=OPERATION, warn=said.append))
    taken = snapshot(database, quick_folder / "dump")
    point = database.prepare(OPERATION, quick_folder / "dump", facts_of(taken))
    assert len(said) == 1
    assert "CREATE EXTENSION" in said[0] and "pg_stat_statements" in said[0]
    database.swap(OPERATION, point, f"{OPERATION}.replaced")
    assert database.tables()["entry"]["rows"] == taken.tables["entry"]["rows"]
    assert database.query("SELECT extname FROM pg_extension WHERE extname LIKE 'pg%' ORDER BY 1") == [("pg_trgm",)]


@pytest.mark.parametrize("way", ["restore point", "dump"])
def test_a_setting_that_only_a_superuser_may_give_is_named_and_stops_nothing(
    server: PostgresqlServer, name: str, quick_folder: Path, way: str
) -> None:
    server.run(name, f"ALTER DATABASE {name} SET log_min_duration_statement = 250")
    server.run(name, f"ALTER ROLE postgres IN DATABASE {name} SET work_mem = '11MB'")
    server.run(name, f"ALTER DATABASE {name} SET work_mem TO '9MB'", user=ROLE)
    said: list[str] = []
    database = PostgresqlDatabase("main", name, reach(server), Host(operation=OPERATION, warn=said.append))
    found = [problem for problem in database.check() if problem.severity != "info"]
    assert [problem.severity for problem in found] == ["warning", "warning"]
    assert any("log_min_duration_statement=250" in problem.message for problem in found)
    if way == "restore point":
        point = database.prepare(OPERATION, None, {})
    else:
        point = database.prepare(OPERATION, quick_folder / "d", facts_of(snapshot(database, quick_folder / "d")))
    database.swap(OPERATION, point, f"{OPERATION}.failed")
    assert server.run(name, "SHOW work_mem", user=ROLE) == "9MB", "what the role may give is given"
    statements = [line.rpartition("superuser: ")[2] for line in said]
    assert len(statements) == 2
    for statement in statements:
        server.run("postgres", statement)
    assert server.run(name, "SHOW log_min_duration_statement", user=ROLE) == "250ms"
    assert server.run(name, "SHOW work_mem") == "11MB"


BY = ["dump", "parallel dump", "dump of a restore point", "parallel dump of a restore point"]


def taken_by(database: PostgresqlDatabase, target: Path, by: str, monkeypatch: pytest.MonkeyPatch) -> Snapshot:
    if by.startswith("parallel"):
        monkeypatch.setattr(archive, "_PARALLEL_BYTES", 0)
    if "restore point" not in by:
        snapshot(database, target)
        taken = snapshot(database, target)  # as where an instant is taken again
        assert target.is_dir() == by.startswith("parallel")
        return taken
    target.mkdir()
    (target / "of an attempt that died").touch()
    taken = database.dump(f"{OPERATION}0", database.prepare(f"{OPERATION}0", None, {}), target, 10)
    database.discard(f"{OPERATION}0")
    return taken


@pytest.mark.parametrize("by", BY)
def test_a_dump_loaded_elsewhere_has_the_settings_of_its_database(
    server: PostgresqlServer,
    name: str,
    database: PostgresqlDatabase,
    quick_folder: Path,
    by: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server.run(name, f"ALTER DATABASE {name} SET work_mem TO '9MB'", user=ROLE)
    taken = taken_by(database, quick_folder / "dump", by, monkeypatch)
    with server.own_database() as other:
        second = driver(server, other)
        candidate = second.prepare(OPERATION, quick_folder / "dump", facts_of(taken))
        second.swap(OPERATION, candidate, f"{OPERATION}.replaced")
        assert server.run(other, "SHOW work_mem", user=ROLE) == "9MB"
        assert second.tables() == database.tables()


def test_sessions_that_give_up_leave_a_dump_by_one(
    name: str, database: PostgresqlDatabase, quick_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Clients.run
    formats: list[str] = []

    def giving_up(self: Clients, program: str, *arguments: str, output: IO[bytes] | None = None) -> str:
        nonlocal formats
        formats += [word for word in arguments if word.startswith("--format")]
        if "--format=directory" in arguments:
            (quick_folder / "dump" / "toc.dat").touch()
            raise CommandFailedError("could not obtain lock on relation", exit_code_of_command=1)
        return run(self, program, *arguments, output=output)

    monkeypatch.setattr(archive, "_PARALLEL_BYTES", 0)
    monkeypatch.setattr(Clients, "run", giving_up)
    taken = snapshot(database, quick_folder / "dump")
    assert formats == ["--format=directory", "--format=custom"]
    assert (taken.tables["entry"]["rows"], (quick_folder / "dump").is_file()) == (500, True)


def test_a_dump_of_a_superusers_objects_is_loaded_by_another_role(
    server: PostgresqlServer, name: str, database: PostgresqlDatabase, quick_folder: Path
) -> None:
    """Owners that the role cannot give are mapped to the role itself."""
    server.run(name, "CREATE SCHEMA extra; CREATE TABLE extra.thing (a INTEGER); INSERT INTO extra.thing VALUES (1)")
    taken = snapshot(driver(server, name, user="postgres"), quick_folder / "dump")
    assert "keeper" in taken.facts["roles"]
    candidate = database.prepare(OPERATION, quick_folder / "dump", facts_of(taken))
    database.swap(OPERATION, candidate, f"{OPERATION}.replaced")
    assert server.run(name, "SELECT a FROM extra.thing", user=ROLE) == "1"


def test_a_superuser_gives_what_was_a_vanished_roles_to_the_databases_owner(
    server: PostgresqlServer, name: str, quick_folder: Path
) -> None:
    server.run("postgres", "DROP ROLE IF EXISTS former; CREATE ROLE former")
    server.run(name, "CREATE TABLE thing (a INTEGER); ALTER TABLE thing OWNER TO former; INSERT INTO thing VALUES (1)")
    superuser = driver(server, name, user="postgres")
    taken = snapshot(superuser, quick_folder / "dump")
    server.run(name, "DROP TABLE thing; DROP ROLE former")
    candidate = superuser.prepare(OPERATION, quick_folder / "dump", facts_of(taken))
    superuser.swap(OPERATION, candidate, f"{OPERATION}.replaced")
    assert server.run(name, "SELECT a FROM thing", user=ROLE) == "1", "the application may use it"


@pytest.mark.parametrize("by", BY)
def test_large_objects_extensions_and_many_schemas_come_back(
    server: PostgresqlServer, name: str, quick_folder: Path, by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = driver(server, name, user="postgres")
    server.run(
        name,
        "CREATE EXTENSION IF NOT EXISTS pg_trgm; SELECT lo_from_bytea(4711, 'large'::bytea); CREATE SCHEMA a;"
        " CREATE VIEW a.seen AS SELECT * FROM entry; CREATE MATERIALIZED VIEW a.kept AS SELECT count(*) FROM entry;"
        " CREATE TABLE a.parts (n INTEGER) PARTITION BY RANGE (n);"
        " CREATE TABLE a.part1 PARTITION OF a.parts FOR VALUES FROM (0) TO (10); INSERT INTO a.parts VALUES (3)",
    )
    taken = taken_by(database, quick_folder / "dump", by, monkeypatch)
    assert ["pg_trgm", "1.6"] in taken.facts["extensions"]
    assert taken.tables["a.parts"]["rows"] == 1
    server.run(name, "SELECT lo_unlink(4711); DROP SCHEMA a CASCADE; DROP EXTENSION pg_trgm")
    candidate = database.prepare(OPERATION, quick_folder / "dump", facts_of(taken))
    database.swap(OPERATION, candidate, f"{OPERATION}.replaced")
    assert server.run(name, "SELECT convert_from(lo_get(4711), 'UTF8'), (SELECT count FROM a.kept)") == "large|500"


# Functions of the application's that name others, and a type, without their schema, in whatever uses functions.
UNQUALIFIED = """
CREATE SCHEMA app; CREATE DOMAIN app.word AS text;
CREATE FUNCTION app.inner_plain(text) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT lower($1) $$;
CREATE FUNCTION app.plain(text) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT inner_plain($1::word) $$;
CREATE FUNCTION app.judged(text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN plain($1) <> ''; END $$;
CREATE FUNCTION app.lower(varchar) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT 'unused' $$;
CREATE TABLE app.t (id int PRIMARY KEY, a text DEFAULT app.plain('DE'),
  g text GENERATED ALWAYS AS (app.plain(a)) STORED,
  CHECK (app.judged(a)));
INSERT INTO app.t VALUES (1, 'ONE'), (2, 'TWO'); INSERT INTO app.t (id) VALUES (3);
CREATE INDEX t_plain ON app.t (app.plain(a)); CREATE MATERIALIZED VIEW app.m AS SELECT app.plain(a) AS p FROM app.t;
CREATE VIEW app.v AS SELECT lower(a) AS l FROM app.t WHERE a IN ('ONE', 'TWO') AND app.plain(a) <> 'x'
"""


def definitions(server: PostgresqlServer, name: str) -> list[str]:
    """Return what pg_dump writes of a database, content and all, but the key that differs in each dump."""
    command = ["pg_dump", "-h", str(server.folder), "-p", str(server.port), "-U", "postgres", name]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [line for line in text.splitlines() if "restrict" not in line]


@pytest.fixture
def unqualified(server: PostgresqlServer, name: str) -> str:
    server.run(name, UNQUALIFIED.replace("CREATE SCHEMA app", "CREATE SCHEMA app; SET search_path = app"), user=ROLE)
    server.run(name, f"ALTER DATABASE {name} SET search_path = app, pg_catalog", user=ROLE)
    return name


@pytest.mark.parametrize("by", ["dump", "parallel dump", "dump of a restore point"])
def test_functions_that_name_others_without_their_schema_are_loaded(
    server: PostgresqlServer,
    unqualified: str,
    database: PostgresqlDatabase,
    quick_folder: Path,
    by: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before, entry = definitions(server, unqualified), catalogue_entry(server, unqualified)
    taken = taken_by(database, quick_folder / "dump", by, monkeypatch)
    assert taken.facts["search_path"] == "app"
    candidate = database.prepare(OPERATION, quick_folder / "dump", facts_of(taken))
    database.swap(OPERATION, candidate, f"{OPERATION}.replaced")
    assert definitions(server, unqualified) == before
    assert catalogue_entry(server, unqualified) == entry


@pytest.mark.parametrize("options", [(), ("-Fc",), ("-Fd",)], ids=["SQL", "custom", "directory"])
def test_a_dump_of_another_tool_with_such_functions_is_imported(
    server: PostgresqlServer,
    unqualified: str,
    database: PostgresqlDatabase,
    quick_folder: Path,
    options: tuple[str, ...],
) -> None:
    source = quick_folder / "dump"
    argv = ["pg_dump", "-h", str(server.folder), "-p", str(server.port), "-U", ROLE, *options, "-f", str(source)]
    subprocess.run([*argv, unqualified], check=True)
    before = definitions(server, unqualified)
    with dump_source.opened(str(source)) as dump:
        candidate = database.load(OPERATION, dump)
    database.swap(OPERATION, candidate, f"{OPERATION}.replaced")
    assert definitions(server, unqualified) == before


def test_a_dump_that_no_search_path_loads_is_refused(
    server: PostgresqlServer, unqualified: str, database: PostgresqlDatabase, quick_folder: Path
) -> None:
    taken = snapshot(database, quick_folder / "dump")
    with pytest.raises(DamagedError, match="does not exist"):
        database.prepare(OPERATION, quick_folder / "dump", {**facts_of(taken), "search_path": "public"})
    before = database.inspect()["identity"]
    # A function of the application's that fits better than the server's, made after what used the latter.
    sql = (
        "CREATE VIEW app.early AS SELECT concat(a, a) AS c FROM app.t;"
        " CREATE FUNCTION app.concat(text, text) RETURNS text"
    )
    server.run(unqualified, f"{sql} LANGUAGE sql IMMUTABLE AS $$ SELECT 'other' $$", user=ROLE)
    taken = snapshot(database, quick_folder / "dump")
    with pytest.raises(DamagedError, match=r"app\.concat"):
        database.prepare(OPERATION, quick_folder / "dump", facts_of(taken))
    assert database.inspect()["identity"] == before


# --- what is refused --------------------------------------------------------------------------------------


def test_a_strangers_session_is_named_and_refuses(
    server: PostgresqlServer, name: str, database: PostgresqlDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("holdfast.drivers.databases.postgresql.copies._LEAVE_SECONDS", 0.2)
    with visitor(server, name, "SET application_name = 'report'"):
        with pytest.raises(RefusedError, match="report"):
            database.prepare(OPERATION, None, {})
        assert server.run(name, "SELECT 1", user=ROLE) == "1", "visitors may connect again"
    assert database.tokens() == []
    database.prepare(OPERATION, None, {})


def test_a_checkpoint_ahead_leaves_the_copy_little_to_write(
    server: PostgresqlServer, name: str, database: PostgresqlDatabase
) -> None:
    server.run(name, "CREATE TABLE more AS SELECT n FROM generate_series(1, 50000) n")

    def changed_pages() -> int:
        server.run("postgres", "CREATE EXTENSION IF NOT EXISTS pg_buffercache")
        return int(server.run("postgres", "SELECT count(*) FROM pg_buffercache WHERE isdirty AND reldatabase > 16383"))

    assert changed_pages() > 100
    with visitor(server, name):
        assert database.copy_ahead(OPERATION) == {}
        assert changed_pages() < 20
    assert database.tokens() == []


def test_a_server_that_fails_to_clone_copies(
    server: PostgresqlServer, name: str, database: PostgresqlDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one of version 18 on a filesystem that cannot share blocks; this one does not know the setting at all."""
    monkeypatch.setattr(copies, "may_clone", lambda session: True)
    rows = server.run(name, "SELECT count(*) FROM entry")
    database.swap(OPERATION, database.prepare(OPERATION, None, {}), f"{OPERATION}.failed")
    assert server.run(name, "SELECT count(*) FROM entry") == rows


def test_autovacuum_stops_neither_a_restore_point_nor_going_back(
    server: PostgresqlServer, name: str, database: PostgresqlDatabase
) -> None:
    """Also for a role that is not shown what it is."""
    server.run(name, "INSERT INTO entry (text) SELECT repeat('x', 500) FROM generate_series(1, 20000)", user=ROLE)
    server.run(
        name,
        "ALTER TABLE entry SET (autovacuum_vacuum_threshold = 1, autovacuum_vacuum_scale_factor = 0,"
        " autovacuum_vacuum_cost_delay = 100, autovacuum_vacuum_cost_limit = 1)",
        user=ROLE,
    )
    server.run(name, "UPDATE entry SET text = text || 'y'", user=ROLE)
    server.run("postgres", "ALTER SYSTEM SET autovacuum_naptime = '1s'")
    server.run("postgres", "SELECT pg_reload_conf()")
    at_work = f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{name}' AND backend_type = 'autovacuum worker'"

    def await_it() -> None:
        deadline = patience.deadline(90)
        while server.run("postgres", at_work) == "0":
            assert time.monotonic() < deadline, "autovacuum never came"
            time.sleep(0.05)

    try:
        await_it()
        point = database.prepare(OPERATION, None, {})
        await_it()
        database.swap(OPERATION, point, f"{OPERATION}.failed")
    finally:
        server.run("postgres", "ALTER SYSTEM RESET autovacuum_naptime")
        server.run("postgres", "SELECT pg_reload_conf()")
    assert point == database.inspect()["identity"]


def test_another_roles_session_is_named_where_it_cannot_be_ended(
    server: PostgresqlServer, name: str, database: PostgresqlDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A role that is no superuser sees little of other roles' sessions."""
    server.run("postgres", "DROP ROLE IF EXISTS reporter; CREATE ROLE reporter LOGIN")
    point = database.prepare(OPERATION, None, {})
    before = database.inspect()["identity"]
    with visitor(server, name, user="reporter"), monkeypatch.context() as patched:
        patched.setattr("holdfast.drivers.databases.postgresql.copies._LEAVE_SECONDS", 0.2)
        with pytest.raises(RefusedError, match="reporter"):
            database.prepare(f"{OPERATION}2", None, {})
        with pytest.raises(StepError, match="reporter"):
            database.swap(OPERATION, point, f"{OPERATION}.failed")
    assert database.inspect()["identity"] == before
    database.swap(OPERATION, point, f"{OPERATION}.failed")
    assert database.inspect()["identity"] == point
    server.run("postgres", "DROP ROLE reporter")


def test_another_roles_session_that_is_ending_stops_no_swap(
    server: PostgresqlServer, name: str, database: PostgresqlDatabase
) -> None:
    point = database.prepare(OPERATION, None, {})
    with visitor(server, name, user="postgres") as session:
        leaver = threading.Timer(0.2, session.terminate)
        leaver.start()
        database.swap(OPERATION, point, f"{OPERATION}.failed")
        leaver.join()
    assert database.inspect()["identity"] == point


def test_a_strangers_session_is_ended_where_that_is_configured(server: PostgresqlServer, name: str) -> None:
    with visitor(server, name):
        driver(server, name, end_sessions=True).prepare(OPERATION, None, {})


def test_a_swap_ends_sessions_on_both_databases(
    server: PostgresqlServer, name: str, database: PostgresqlDatabase
) -> None:
    point = database.prepare(OPERATION, None, {})
    with visitor(server, name, "BEGIN; DELETE FROM entry"):
        database.swap(OPERATION, point, f"{OPERATION}.failed")
    assert server.run(name, "SELECT count(*) FROM entry", user=ROLE) == "500"


def test_a_writer_in_its_transaction_keeps_pause_from_being_reached(
    server: PostgresqlServer, name: str, database: PostgresqlDatabase
) -> None:
    with visitor(server, name, "BEGIN; INSERT INTO entry (text) VALUES ('open')"):
        with pytest.raises(StepError, match="cannot be held"), database.freeze_writes(0.3):
            pass  # pragma: no cover
        assert (
            server.run(name, "SET lock_timeout = 50; INSERT INTO entry (text) VALUES ('x') RETURNING 1", user=ROLE)
            == "1"
        )


def test_small_tables_are_counted_first(server: PostgresqlServer, name: str, database: PostgresqlDatabase) -> None:
    server.run(name, "CREATE TABLE small (a INTEGER); INSERT INTO small VALUES (1); ANALYZE", user=ROLE)
    with visitor(server, name, "BEGIN; LOCK TABLE entry IN ACCESS EXCLUSIVE MODE"):
        found = database.tables(budget_seconds=0.5)
    assert {table: facts["rows"] for table, facts in found.items()} == {"entry": None, "small": 1}


@pytest.mark.parametrize(
    ("sql", "named"),
    [
        ("BEGIN; INSERT INTO entry (text) VALUES ('p'); PREPARE TRANSACTION 'gid1'", "gid1"),
        ("SELECT pg_create_logical_replication_slot('slot1', 'pgoutput')", "slot1"),
    ],
)
def test_what_blocks_or_would_be_lost_is_found_by_name(sql: str, named: str) -> None:
    own = PostgresqlServer(max_prepared_transactions="5", wal_level="logical")
    try:
        own.create_if_missing("app")
        own.run("app", "CREATE TABLE entry (id SERIAL PRIMARY KEY, text TEXT)")
        own.run("app", sql)
        found = driver(own, "app").check()
        assert [problem.severity for problem in found if named in problem.message] == ["error"]
    finally:
        own.remove()


def test_fsync_off_is_an_error() -> None:
    own = PostgresqlServer(fsync="off")
    try:
        own.create_if_missing("app")
        assert any("fsync" in problem.message and problem.severity == "error" for problem in driver(own, "app").check())
    finally:
        own.remove()


def test_row_level_security_that_holds_for_the_role_is_an_error(
    server: PostgresqlServer, name: str, database: PostgresqlDatabase, quick_folder: Path
) -> None:
    server.run(
        name,
        'CREATE TABLE "Odd" (a INTEGER); INSERT INTO "Odd" VALUES (1); ALTER TABLE "Odd" ENABLE ROW LEVEL SECURITY;'
        ' CREATE POLICY p ON "Odd" USING (a > 1)',
        user=ROLE,
    )
    assert database.check() == [], "the owner sees every row"
    server.run(name, 'ALTER TABLE "Odd" FORCE ROW LEVEL SECURITY', user=ROLE)
    server.run(name, "CREATE TABLE strange (a INTEGER); ALTER TABLE strange ENABLE ROW LEVEL SECURITY")
    first, second = database.check()
    assert (first.severity, second.severity) == ("error", "error")
    assert '"Odd"' in first.message and "NO FORCE ROW LEVEL SECURITY" in first.advice
    assert "strange" in second.message and "BYPASSRLS" in second.advice
    assert driver(server, name, user="postgres").check() == []
    server.run(name, first.advice.rpartition("; or run: ")[2].rstrip("."), user=ROLE)
    server.run(name, second.advice.rpartition("; or run: ")[2].rstrip("."))
    assert database.check() == []
    assert snapshot(database, quick_folder / "dump").tables["Odd"]["rows"] == 1


def test_missing_rights_are_named(server: PostgresqlServer, name: str) -> None:
    server.run("postgres", "DROP ROLE IF EXISTS poor; CREATE ROLE poor LOGIN")
    found = driver(server, name, user="poor").check()
    messages = " ".join(problem.message + problem.advice for problem in found if problem.severity == "error")
    assert "CREATEDB" in messages and "OWNER TO poor" in messages
    server.run("postgres", "DROP ROLE poor")


def test_a_dump_of_a_newer_server_is_refused_before_anything_changes(
    server: PostgresqlServer, name: str, database: PostgresqlDatabase, quick_folder: Path
) -> None:
    taken = snapshot(database, quick_folder / "dump")
    with pytest.raises(RefusedError, match="PostgreSQL 99"):
        database.prepare(OPERATION, quick_folder / "dump", {**facts_of(taken), "server_version": 990001})
    assert database.tokens() == []


def test_rows_missing_from_a_dump_are_damage(
    database: PostgresqlDatabase, name: str, server: PostgresqlServer, quick_folder: Path
) -> None:
    taken = snapshot(database, quick_folder / "dump")
    before = database.inspect()["identity"]
    with pytest.raises(DamagedError, match="500 rows instead of 501"):
        database.prepare(OPERATION, quick_folder / "dump", {**taken.facts, "rows": {"entry": 501}})
    assert database.inspect()["identity"] == before


def test_who_may_know_is_told_where_the_server_keeps_its_data(server: PostgresqlServer, name: str) -> None:
    assert driver(server, name).inspect()["data_folder"] is None
    assert driver(server, name, user="postgres").inspect()["data_folder"] == str(server.folder / "data")


def test_a_server_that_is_down_is_told_as_such(server: PostgresqlServer, name: str) -> None:
    lost = driver(server, name, port=1)
    with pytest.raises(HoldfastError):
        lost.inspect()
    (problem,) = lost.check()
    assert problem.severity == "error" and problem.advice


@pytest.mark.parametrize("what", ["restore point", "restore"])
def test_a_full_disk_of_the_server_leaves_the_live_database_as_it_is(
    small_disk: Path, quick_folder: Path, what: str
) -> None:
    own = PostgresqlServer(small_disk / "server", wal_keep_size="0", max_wal_size="32MB")
    try:
        own.create_if_missing("app")
        own.run(
            "app", "CREATE TABLE entry AS SELECT i, repeat('x', 500) AS t FROM generate_series(1, 40000) i", user=ROLE
        )
        own.run("postgres", "CHECKPOINT")
        database = driver(own, "app")
        taken = snapshot(database, quick_folder / "dump")
        before = database.inspect()["identity"], database.tables()
        free = os.statvfs(small_disk)
        (small_disk / "filler").write_bytes(bytes(max(0, free.f_bavail * free.f_frsize - (12 << 20))))
        with pytest.raises(HoldfastError) as caught:
            database.prepare(OPERATION, None if what == "restore point" else quick_folder / "dump", facts_of(taken))
        assert "space" in str(caught.value).lower() or "53100" in str(caught.value)
        assert own.run("app", "SELECT count(*) FROM entry", user=ROLE) == "40000", "visitors may connect"
        (small_disk / "filler").unlink()
        database.discard(OPERATION)
        assert (database.inspect()["identity"], database.tables(), database.tokens()) == (*before, [])
        database.prepare(OPERATION, None, {})
    finally:
        own.stop()


# --- secrets ------------------------------------------------------------------------------------------------


def test_a_wrong_password_names_no_password(quick_folder: Path) -> None:
    own = PostgresqlServer()
    try:
        own.create_if_missing("app")
        own.run("postgres", f"ALTER ROLE {ROLE} PASSWORD 'right-horse'")
        own.require_passwords()
        (quick_folder / "password").write_text("wrong-horse\n")
        wrong = driver(own, "app", password=f"file:{quick_folder / 'password'}")
        with pytest.raises(StepError) as caught:
            wrong.inspect()
        assert "wrong-horse" not in str(caught.value)
        (quick_folder / "password").write_text("right-horse\n")
        announced: list[str] = []
        host = Host(operation=OPERATION, announce=announced.append)
        right = PostgresqlDatabase("main", "app", reach(own, password=f"file:{quick_folder / 'password'}"), host)
        snapshot(right, quick_folder / "dump")
        assert announced and not any("right-horse" in line for line in announced)
    finally:
        own.remove()


# --- the server dies ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("outcome", ["copied", "swapped", "loaded"])
def test_an_outcome_survives_the_servers_death_right_after_it(outcome: str, quick_folder: Path) -> None:
    """With synchronous_commit off, as an administrator may have set it."""
    own = PostgresqlServer(synchronous_commit="off", wal_writer_delay="10s")
    try:
        own.create_if_missing("app")
        own.run("app", "CREATE TABLE entry AS SELECT i FROM generate_series(1, 1000) i", user=ROLE)
        own.run("postgres", "CHECKPOINT")
        database = driver(own, "app")
        taken = snapshot(database, quick_folder / "dump")
        if outcome == "loaded":
            found = database.prepare(OPERATION, quick_folder / "dump", facts_of(taken))
        else:
            found = database.prepare(OPERATION, None, {})
        if outcome == "swapped":
            own.run("app", "DELETE FROM entry", user=ROLE)
            database.swap(OPERATION, found, f"{OPERATION}.failed")
        own.kill()
        own.start()
        if outcome != "swapped":
            database.swap(OPERATION, found, f"{OPERATION}.failed")
        assert database.inspect()["identity"] == found
        assert own.run("app", "SELECT count(*) FROM entry", user=ROLE) == "1000"
    finally:
        own.remove()


def test_sessions_of_a_dead_operation_are_ended(
    server: PostgresqlServer, name: str, database: PostgresqlDatabase
) -> None:
    with (
        visitor(server, name, f"SET application_name = 'holdfast:{OPERATION}'; BEGIN; DELETE FROM entry"),
        visitor(server, name, "SET application_name = 'another'; BEGIN"),
    ):
        database.end_sessions(OPERATION)
        left = server.run("postgres", f"SELECT application_name FROM pg_stat_activity WHERE datname = '{name}'")
        assert left == "another"
    assert server.run(name, "SELECT count(*) FROM entry", user=ROLE) == "500"
