"""Databases whose clients run inside their server's container: what every driver promises, and what a pipe may lose."""

from __future__ import annotations

import gzip
import hashlib
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from holdfast.config.schema import Database as DatabaseSettings
from holdfast.drivers.databases.mariadb.driver import MariadbDatabase
from holdfast.drivers.databases.mariadb.sanitizing import MariadbSanitizer
from holdfast.drivers.databases.postgresql.driver import PostgresqlDatabase
from holdfast.drivers.databases.postgresql.sanitizing import PostgresqlSanitizer
from holdfast.drivers.databases.sql.container_exec import Container, end_inside
from holdfast.drivers.databases.sql.session import SqlError
from holdfast.drivers.interchange import dump_source
from holdfast.drivers.protocols.sanitizing import Sanitizer
from holdfast.errors import CancelledError, CommandFailedError, HoldfastError, RefusedError, StepError
from holdfast.model import Server
from holdfast.sanitize import rules
from holdfast.sanitize.deciding import decide
from holdfast.system.host import OPERATION_VARIABLE, Host
from holdfast.system.processes import processes_with
from tests.contract.dumps import snapshot
from tests.contract.test_datasets import (
    harness,
    test_a_missing_dataset_cannot_be_held_or_copied,
    test_a_snapshot_holds_its_instant,
    test_an_instant_is_fixed_while_writers_go_on,
    test_hold_keeps_writers_out_until_the_snapshot_is_taken,
    test_inspect_of_a_dataset_and_of_none,
    test_restore_from_a_dump_and_back_by_identity,
)
from tests.harnesses.mariadb import MariadbHarness
from tests.harnesses.mariadb import opened as opened_mariadb
from tests.harnesses.postgresql import PostgresqlHarness
from tests.harnesses.postgresql import opened as opened_postgresql
from tests.proof import patience
from tests.servers import docker, mariadb, postgresql

__all__ = [
    "harness",
    "test_a_missing_dataset_cannot_be_held_or_copied",
    "test_a_snapshot_holds_its_instant",
    "test_an_instant_is_fixed_while_writers_go_on",
    "test_hold_keeps_writers_out_until_the_snapshot_is_taken",
    "test_inspect_of_a_dataset_and_of_none",
    "test_restore_from_a_dump_and_back_by_identity",
]

Inside = PostgresqlHarness | MariadbHarness
SLEEP = {"postgresql": "SELECT pg_sleep(600);\n", "mariadb": "SELECT SLEEP(600);\n"}


@pytest.fixture(params=["postgresql", "mariadb"])
def missing(request: pytest.FixtureRequest, quick_folder: Path) -> Iterator[Inside]:
    """An engine in a container, whose database does not exist yet."""
    if request.param == "postgresql":
        with opened_postgresql(quick_folder, postgresql.shared_enclosed) as made:
            yield made
    else:
        with opened_mariadb(quick_folder, mariadb.shared_enclosed, MariadbDatabase) as made:
            yield made


def container_of(harness: Inside) -> Container:
    assert harness.reached is not None
    found = Container.of(harness.reached)
    assert found is not None
    return found


def of_operation(harness: Inside, host: Host) -> PostgresqlDatabase | MariadbDatabase:
    """The same database, as an operation has it that can be cancelled."""
    assert harness.reached is not None
    driver = PostgresqlDatabase if harness.database.kind == "postgresql" else MariadbDatabase
    name = harness.database.database  # type: ignore[attr-defined]  # which of these two it is, both have
    return driver("main", name, harness.reached, host)


def inside(harness: Inside, variable: str) -> list[str]:
    """What goes on in the container with a variable in its environment."""
    look = (
        """for p in /proc/[0-9]*; do tr '\\0' '\\n' < $p/environ | grep -qxF "$1" && tr '\\0' ' ' < $p/cmdline;"""
        " done 2> /dev/null; true"
    )
    box = container_of(harness)
    done = subprocess.run(
        [box.engine, "exec", box.name, "sh", "-c", look, "sh", variable], capture_output=True, text=True, check=True
    )
    return done.stdout.split("\n") if done.stdout else []


def eventually_inside(harness: Inside, variable: str) -> None:
    deadline = patience.deadline(60)
    while not inside(harness, variable):
        assert time.monotonic() < deadline, "nothing began inside"
        time.sleep(0.1)


def busy(harness: Inside) -> str:
    """Statements of the test that the server still carries out."""
    if harness.database.kind == "postgresql":
        with postgresql.shared_enclosed() as server:
            return server.run("postgres", "SELECT pid FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%'")
    with mariadb.shared_enclosed() as maria:
        return maria.run("", "SELECT id FROM information_schema.processlist WHERE info LIKE 'SELECT SLEEP%'")


def slow_dump(harness: Inside) -> Path:
    path = harness.folder / "slow.sql"
    path.write_text("CREATE TABLE foreign_one (a INTEGER);\n" + SLEEP[harness.database.kind])
    return path


def test_a_cancelled_load_ends_inside_too(harness: Inside) -> None:
    cancelled = threading.Event()
    host = Host(operation="20260101-000000-cancelled", cancelled=cancelled.is_set)
    variable = f"{OPERATION_VARIABLE}={host.operation}"

    def cancel() -> None:
        try:
            eventually_inside(harness, variable)
            time.sleep(0.5)
        finally:
            cancelled.set()

    waiter = threading.Thread(target=cancel)
    waiter.start()
    try:
        with pytest.raises(CancelledError), dump_source.opened(str(slow_dump(harness))) as source:
            of_operation(harness, host).load("op", source)
    finally:
        waiter.join()
    host.leave()  # ends sessions that wait for their next use, and nothing else
    assert inside(harness, variable) == []
    harness.database.discard("op")
    harness.database.end_sessions("20260101-000000-cancelled")
    assert busy(harness) == ""
    assert harness.texts() == ["one", "two"]


def clients_of(harness: Inside) -> Any:
    return of_operation(harness, Host(operation="20260101-000000-client"))._clients


def session_of(harness: Inside, clients: Any) -> AbstractContextManager[Any]:
    found: AbstractContextManager[Any] = clients.session(harness.database.database)  # type: ignore[attr-defined]  # as above
    return found


def test_a_client_that_fails_ends_no_other_of_its_operation(harness: Inside) -> None:
    """Some failures are expected, as of a dump program that meets a broken view."""
    clients = clients_of(harness)
    with session_of(harness, clients) as session:
        assert session.value("SELECT 1") == "1"
        with pytest.raises(CommandFailedError):
            if harness.database.kind == "postgresql":
                clients.run("pg_restore", "--no-such-option")
            else:
                clients.dump(lambda _: None, "--no-such-option", names=["app"])
        assert session.value("SELECT 2") == "2"


def test_a_statement_that_is_not_waited_for_ends_inside(harness: Inside) -> None:
    """Else a lock that could not be had in time would be waited for, and visitors behind it."""
    clients = clients_of(harness)
    with pytest.raises(SqlError, match="did not answer"), session_of(harness, clients) as session:
        session.run(SLEEP[harness.database.kind], 0.5)
    assert inside(harness, f"{OPERATION_VARIABLE}=20260101-000000-client") == []
    assert busy(harness) == ""


def test_what_a_killed_command_left_inside_is_ended_by_its_operation_alone(harness: Inside) -> None:
    killed, others = (f"20260101-000000-{secrets.token_hex(4)}" for _ in range(2))  # another worker may be at it too
    mine, other = (f"{OPERATION_VARIABLE}={name}" for name in (killed, others))
    box = container_of(harness)
    for variable in (mine, other):
        name, _, value = variable.partition("=")
        argv = box.argv(["sleep", "600"], [])
        with subprocess.Popen(argv, env={**os.environ, name: value}, stdin=subprocess.PIPE) as client:
            eventually_inside(harness, variable)
            client.kill()
    assert inside(harness, mine), "it should run on, or there were nothing to end"
    harness.database.end_sessions(killed)
    assert inside(harness, mine) == []
    assert inside(harness, other)
    end_inside(box, others, Host())
    assert inside(harness, other) == []
    assert processes_with(f"{mine}\0") == []


def test_one_that_ignores_signals_is_killed(harness: Inside) -> None:
    deaf = f"20260101-000000-{secrets.token_hex(4)}"
    variable = f"{OPERATION_VARIABLE}={deaf}"
    argv = container_of(harness).argv(["sh", "-c", "trap '' INT TERM; exec sleep 600"], [])
    environment = {**os.environ, OPERATION_VARIABLE: deaf}
    with subprocess.Popen(argv, env=environment, stdin=subprocess.PIPE) as client:
        eventually_inside(harness, variable)
        client.kill()
    end_inside(container_of(harness), deaf, Host())
    assert inside(harness, variable) == []


def test_a_dump_whose_program_dies_is_none(harness: Inside) -> None:
    """The exit code comes out of the container."""
    harness.execute(
        "INSERT INTO entry (text) WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200000)"
        " SELECT CONCAT(i, MD5(CONCAT(i, 'x'))) FROM n"
        if harness.database.kind == "mariadb"
        else "INSERT INTO entry (text) SELECT md5(i::text) || md5((i * 7)::text) FROM generate_series(1, 200000) i"
    )
    program = "pg_dump" if harness.database.kind == "postgresql" else "mariadb-dump"
    operation = f"20260101-000000-{secrets.token_hex(4)}"  # that of no other test, in whatever process
    stop = threading.Event()

    def kill() -> None:
        while not stop.is_set():
            for process in processes_with(f"{OPERATION_VARIABLE}={operation}\0"):
                command = process.command.split()
                rows = {"--format=custom", "--single-transaction"} & set(command)
                if command and os.path.basename(command[0]) == program and rows:
                    os.kill(process.pid, signal.SIGKILL)
                    return
            time.sleep(0.005)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        with pytest.raises(StepError):
            snapshot(of_operation(harness, Host(operation=operation)), harness.folder / "dump")
    finally:
        stop.set()
        killer.join()


def test_a_dump_that_finds_no_room_ends_inside_too(harness: Inside, small_disk: Path) -> None:
    """The engine takes what a program prints to its end, whoever listens."""
    many = "SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200000"
    harness.execute(
        f"INSERT INTO entry (text) WITH RECURSIVE n (i) AS ({many}) SELECT CONCAT(i, MD5(i + 1)) FROM n"
        if harness.database.kind == "mariadb"
        else "INSERT INTO entry (text) SELECT md5(i::text) || md5((i * 7)::text) FROM generate_series(1, 200000) i"
    )
    subprocess.run(
        ["dd", "if=/dev/zero", f"of={small_disk}/filler", "bs=1M", "count=259"], check=True, capture_output=True
    )
    host = Host(operation="20260101-000000-full")
    with pytest.raises((StepError, OSError)):
        snapshot(of_operation(harness, host), small_disk / "dump")
    host.leave()  # ends sessions that wait for their next use, and nothing else
    assert inside(harness, f"{OPERATION_VARIABLE}=20260101-000000-full") == []


@pytest.fixture
def cutting(harness: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container engine that loses the end of what comes through, and ends well all the same."""
    programs = harness.folder / "programs"
    programs.mkdir()
    real = next(path for folder in os.environ["PATH"].split(":") if os.path.exists(path := f"{folder}/docker"))
    script = (
        f"#!{sys.executable}\nimport subprocess, sys\n"
        "if not any(word in sys.argv for word in ('pg_dump', 'mariadb-dump')):\n"
        f"    sys.exit(subprocess.run([{real!r}, *sys.argv[1:]]).returncode)\n"
        f"whole = subprocess.run([{real!r}, *sys.argv[1:]], stdout=subprocess.PIPE, check=True).stdout\n"
        "sys.stdout.buffer.write(whole[: len(whole) * 9 // 10])\n"
    )
    (programs / "docker").write_text(script)
    (programs / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")


@pytest.mark.usefixtures("cutting")
def test_a_dump_that_lost_its_end_on_the_way_is_none(harness: Inside) -> None:
    with pytest.raises(HoldfastError):
        snapshot(harness.database, harness.folder / "dump")


@pytest.mark.parametrize("missing", ["postgresql"], indirect=True)  # no other dumps into folders
def test_a_folder_cannot_be_given_to_clients_inside(harness: Inside) -> None:
    (harness.folder / "dump").mkdir()
    live = harness.identity()
    with pytest.raises(RefusedError, match="is a folder"):
        harness.database.prepare("op", harness.folder / "dump", {})
    assert (harness.identity(), harness.database.tokens()) == (live, [])


@pytest.mark.parametrize("missing", ["postgresql"], indirect=True)
def test_a_function_that_names_another_without_its_schema_is_loaded_inside(harness: Inside) -> None:
    """The dump goes in through a pipe, and its search path by the environment."""
    harness.execute("CREATE FUNCTION inner_name(text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT lower($1)'")
    harness.execute("CREATE FUNCTION outer_name(text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT inner_name($1)'")
    harness.execute("CREATE INDEX unqualified ON entry (outer_name(text))")
    dump = harness.folder / "dump"
    harness.dump(dump)
    candidate = harness.prepare("op", dump)
    harness.database.swap("op", candidate, "op.replaced")
    assert harness.texts() == ["one", "two"]
    found = harness.database.query("SELECT indexname FROM pg_indexes WHERE indexname = 'unqualified'")
    assert found == [("unqualified",)]


def test_a_password_goes_in_by_the_environment_alone(harness: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "correct-horse-battery")
    assert harness.reached is not None
    reached = replace(harness.reached, password="env:SECRET")
    host = Host(operation="20260101-000000-secret")
    driver = type(harness.database)
    assert driver in (PostgresqlDatabase, MariadbDatabase)
    variable = "PGPASSWORD" if driver is PostgresqlDatabase else "MYSQL_PWD"
    clients = driver("main", "app", reached, host)._clients  # type: ignore[call-arg]  # a server's driver
    argv = clients.argv("printenv")
    assert "correct-horse" not in " ".join(argv)
    arguments = [*argv[: argv.index("printenv") + 1], variable]
    told = subprocess.run(
        arguments, env=host.environment(clients.environment()), capture_output=True, text=True, check=True
    )
    assert told.stdout == "correct-horse-battery\n"


def test_a_container_that_is_gone_is_named(harness: Inside) -> None:
    assert harness.reached is not None
    reached = replace(harness.reached, container="docker:no-such-box")
    database = type(harness.database)("main", "app", reached, Host())  # type: ignore[call-arg]  # a server's driver
    (problem,) = database.check()
    assert (problem.severity, "no-such-box" in problem.message) == ("error", True)


def test_an_engine_that_dies_in_a_dump_leaves_none(quick_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    docker.engine()
    for name in {"DOCKER_HOST", "DOCKER_CONFIG"} & os.environ.keys():  # which an engine sets for all that come after
        monkeypatch.setenv(name, os.environ[name])
    own = docker.DockerEngine()
    monkeypatch.setattr(docker, "engine", lambda: own)
    server = postgresql.EnclosedPostgresqlServer()
    try:
        server.create_if_missing("app")
        server.run(
            "app",
            "CREATE TABLE entry AS SELECT i, md5(i::text) || md5((i * 7)::text) AS text"
            " FROM generate_series(1, 200000) i",
            user=postgresql.ROLE,
        )
        reached = Server(host=str(server.place), port=server.port, user=postgresql.ROLE, container=server.container)
        database = PostgresqlDatabase("main", "app", reached, Host(operation="contract"))
        look = ["docker", "inspect", "--format={{.State.Pid}}", server.container.partition(":")[2]]
        first = int(subprocess.run(look, capture_output=True, text=True, check=True).stdout)
        killer = threading.Timer(1.5, own.kill)
        killer.start()
        with pytest.raises(HoldfastError):
            for number in range(10):
                snapshot(database, quick_folder / f"dump{number}")
        killer.join()
        os.kill(first, signal.SIGKILL)  # else the engine, when it is back, waits for it
    finally:
        own.start()
        own.remove()
        server.remove()


def test_a_sanitized_dump_is_written_by_clients_inside(harness: Inside, tmp_path: Path) -> None:
    for number in range(20):
        harness.add(f"Raw-Text-{number}")
    settings = DatabaseSettings(kind="postgresql", name=harness.name)
    sanitizer: Sanitizer = (
        PostgresqlSanitizer("main", settings, harness.reached, Host())
        if isinstance(harness, PostgresqlHarness)
        else MariadbSanitizer("main", harness.name, harness.reached, Host())
    )
    schema = sanitizer.schema()
    found = rules.parse('[tables.entry.columns]\ntext = "hash"\n', "sanitize.toml", str)
    plan = decide(schema, found, sanitizer.contents(schema), sanitizer.quote).plan
    assert sanitizer.problems(plan) == []
    key = secrets.token_hex(32)
    dump = sanitizer.write(plan, key, tmp_path, "gz", lambda _: None, 2)
    text = b"".join(gzip.decompress(part.read_bytes()) for part in dump.parts)
    assert dump.rows == {"entry": len(harness.texts())} and b"Raw-Text" not in text
    digest = hashlib.sha256(f"{key}:hash:Raw-Text-7".encode()).hexdigest()[:20]
    assert digest.encode() in text, "the key arrived inside"
