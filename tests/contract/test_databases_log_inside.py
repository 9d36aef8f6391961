"""Restore points by PostgreSQL's log: what they take back, when they are not made, and what can end them half-way."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from holdfast.drivers.databases.postgresql import data_volume, log_slot
from holdfast.drivers.databases.postgresql.driver import PostgresqlDatabase
from holdfast.errors import CommandFailedError, StepError
from holdfast.model import Server
from holdfast.system import fault_points
from holdfast.system.host import OPERATION_VARIABLE, Host
from tests.contract.dumps import snapshot
from tests.contract.test_datasets import (
    harness,
    test_a_dump_of_a_restore_point_is_of_the_time_of_the_restore_point,
    test_a_restore_point_begun_ahead_has_what_was_written_since,
    test_restore_point_from_the_live_database,
    test_what_was_done_ahead_is_discarded_with_its_operation,
)
from tests.harnesses.postgresql import LogHarness, opened_with_log
from tests.proof import patience
from tests.servers import docker, podman, postgresql
from tests.servers.postgresql import SUPERUSER, OwnContainerPostgresqlServer
from tests.standins import postgres as standin

__all__ = [
    "harness",
    "test_a_dump_of_a_restore_point_is_of_the_time_of_the_restore_point",
    "test_a_restore_point_begun_ahead_has_what_was_written_since",
    "test_restore_point_from_the_live_database",
    "test_what_was_done_ahead_is_discarded_with_its_operation",
]
# Operators choose these restore points. All tests run whenever the driver changes.
pytestmark = pytest.mark.variant("postgresql-log-inside")
ROWS = "SELECT string_agg(text, ',' ORDER BY id) FROM entry"


class Place:
    """A database of two rows, alone on its server."""

    def __init__(self, server: OwnContainerPostgresqlServer, name: str) -> None:
        self.server = server
        self.name = name
        self.operation = f"20260101-000000-upgrade-{secrets.token_hex(2)}"
        self.warnings: list[str] = []
        self.hosts: list[Host] = []

    def database(self, operation: str | None = None) -> PostgresqlDatabase:
        """As a new process of Holdfast opens it."""
        reached = Server(
            host=str(self.server.place), port=self.server.port, user=SUPERUSER, container=self.server.container
        )
        host = Host(operation=operation or self.operation, warn=self.warnings.append)
        self.hosts.append(host)
        return PostgresqlDatabase("main", self.name, reached, host, restore_point="log")

    def sql(self, statement: str) -> str:
        return self.server.run(self.name, statement)

    @property
    def data(self) -> Path:
        return self.server.folder / "data"

    @property
    def container(self) -> str:
        return self.server.container.partition(":")[2]


@pytest.fixture
def missing(quick_folder: Path) -> Iterator[LogHarness]:
    """A database that does not exist yet, for the suite of all datasets."""
    with opened_with_log(quick_folder) as made:
        assert isinstance(made, LogHarness)
        yield made


@pytest.fixture
def place() -> Iterator[Place]:
    with postgresql.shared_own_container() as server, server.own_database() as name:
        server.create_if_missing(name)
        made = Place(server, name)
        made.sql("CREATE TABLE entry (id SERIAL PRIMARY KEY, text TEXT); INSERT INTO entry (text) VALUES ('a'), ('b')")
        try:
            yield made
        finally:
            for host in made.hosts:
                host.let_go()
            server.start()
            server.tidy()


def point_of(place: Place, database: PostgresqlDatabase) -> str:
    return database.prepare(place.operation, None, database.copy_ahead(place.operation))


def is_by_log(point: str) -> bool:
    return "holdfast-" in point


# --- what goes back -----------------------------------------------------------------------------------


def test_everything_goes_back_but_the_servers_settings(place: Place) -> None:
    database = place.database()
    before = snapshot(database, place.server.folder / "before")
    ahead = database.copy_ahead(place.operation)
    # What visitors do meanwhile is in the point, a change of a table too.
    place.sql("ALTER TABLE entry ADD COLUMN more INTEGER DEFAULT 7; INSERT INTO entry (text) VALUES ('c')")
    point = database.prepare(place.operation, None, ahead)
    assert is_by_log(point) and place.warnings == []
    place.sql("CREATE ROLE of_the_migration; DROP TABLE entry; CREATE TABLE other (i INTEGER)")
    place.sql("ALTER SYSTEM SET log_min_messages = 'error'")
    rules = (place.data / "pg_hba.conf").read_text()
    (place.data / "pg_hba.conf").write_text(f"{rules}# written since\n")
    database.swap(place.operation, point, f"{place.operation}.failed")
    assert place.sql(ROWS) == "a,b,c"
    assert place.sql("SELECT sum(more) FROM entry") == "21"
    assert place.sql("SELECT count(*) FROM pg_roles WHERE rolname = 'of_the_migration'") == "0"
    assert place.sql("SELECT count(*) FROM pg_class WHERE relname = 'other'") == "0"
    assert "log_min_messages" in (place.data / "postgresql.auto.conf").read_text()
    assert (place.data / "pg_hba.conf").read_text().endswith("# written since\n")
    database.discard(place.operation)
    (place.data / "pg_hba.conf").write_text(rules)
    place.sql("ALTER SYSTEM RESET ALL")
    assert (database.tokens(), list(place.data.glob("*holdfast*"))) == ([], [])
    assert place.sql("SELECT count(*) FROM pg_replication_slots") == "0"
    assert list(snapshot(database, place.server.folder / "after").tables) == list(before.tables)


def test_a_cluster_that_went_back_goes_back_again_and_is_dumped(place: Place) -> None:
    """On the timeline that the first time began."""
    database = place.database()
    database.swap(place.operation, point_of(place, database), f"{place.operation}.failed")
    database.discard(place.operation)
    second = f"{place.operation}.b"
    ahead = database.copy_ahead(second)
    place.sql("INSERT INTO entry (text) VALUES ('c')")
    point = database.prepare(second, None, ahead)
    place.sql("DELETE FROM entry")
    taken = database.dump(second, point, place.server.folder / "dump", 60)
    assert taken.tables["entry"]["rows"] == 3
    with database.candidate(second, point) as candidate:
        assert candidate.query(ROWS) == [("a,b,c",)]
    database.swap(second, point, f"{second}.failed")
    assert place.sql(ROWS) == "a,b,c"
    database.discard(second)


def test_a_role_that_is_no_superuser_gets_a_copy(place: Place) -> None:
    reached = Server(
        host=str(place.server.place), port=place.server.port, user=postgresql.ROLE, container=place.server.container
    )
    host = Host(operation=place.operation)
    place.hosts.append(host)
    database = PostgresqlDatabase("main", place.name, reached, host, restore_point="log")
    assert database.copying().why == "the role is no superuser"
    assert database.copy_ahead(place.operation) == {}
    assert database.tokens() == []


def test_a_small_database_is_copied_unless_the_operator_wants_otherwise(place: Place) -> None:
    reached = Server(
        host=str(place.server.place), port=place.server.port, user=SUPERUSER, container=place.server.container
    )
    host = Host(operation=place.operation)
    place.hosts.append(host)
    database = PostgresqlDatabase("main", place.name, reached, host, restore_point="auto")
    assert "below 2048 MiB" in database.copying().why
    assert "template copy" in database.copying().made
    assert place.database().copying().why == ""


# --- when it is not made --------------------------------------------------------------------------------


_FOREIGN = {
    "another database": ("CREATE DATABASE of_another", "DROP DATABASE of_another"),
    "another replication slot": (
        "SELECT pg_create_physical_replication_slot('of_another')",
        "SELECT pg_drop_replication_slot('of_another')",
    ),
    "not in the log": ("CREATE UNLOGGED TABLE fleeting (i INTEGER)", "DROP TABLE fleeting"),
    "has tables": ("CREATE TABLE of_another (i INTEGER)", "DROP TABLE of_another"),
}


def _database_of(place: Place, why: str) -> str:
    return place.name if why == "not in the log" else "postgres"


def test_what_the_log_would_take_along_or_lacks_is_known_before(place: Place) -> None:
    database = place.database()
    for why, (made, gone) in _FOREIGN.items():
        place.server.run(_database_of(place, why), made)
        try:
            assert why in database.copying().why
            assert database.copy_ahead(place.operation) == {}
        finally:
            place.server.run(_database_of(place, why), gone)
        assert database.copying().why == ""
    assert (place.warnings, database.tokens()) == ([], [])


@pytest.mark.parametrize(
    "why",
    [
        "not in the log",
        *(pytest.param(why, marks=pytest.mark.combination) for why in _FOREIGN if why != "not in the log"),
    ],
)
def test_what_appears_until_the_window_makes_it_a_copy(place: Place, why: str) -> None:
    database = place.database()
    made, gone = _FOREIGN[why]
    ahead = database.copy_ahead(place.operation)
    place.server.run(_database_of(place, why), made)
    try:
        point = database.prepare(place.operation, None, ahead)
        assert not is_by_log(point)
        assert [text for text in place.warnings if why in text and "copied instead" in text]
    finally:
        place.server.run(_database_of(place, why), gone)
    place.sql("DELETE FROM entry")
    database.swap(place.operation, point, f"{place.operation}.failed")
    assert place.sql(ROWS) == "a,b"
    database.discard(place.operation)
    assert database.tokens() == []


def test_a_session_that_somebody_ends_takes_its_slot_along_and_a_copy_is_made(place: Place) -> None:
    database = place.database()
    ahead = database.copy_ahead(place.operation)
    place.sql("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots")
    patience.until(lambda: place.sql("SELECT count(*) FROM pg_replication_slots") == "0")
    point = database.prepare(place.operation, None, ahead)
    assert not is_by_log(point)
    assert any("was ended" in text and "copied instead" in text for text in place.warnings)
    database.discard(place.operation)


def test_a_slot_that_keeps_too_much_is_given_up_by_itself(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_slot, "LEAST_KEPT_BYTES", 1 << 20)
    monkeypatch.setattr(log_slot, "MOST_KEPT_BYTES", 1 << 20)
    database = place.database()
    ahead = database.copy_ahead(place.operation)
    place.sql("INSERT INTO entry (text) SELECT repeat('x', 500) FROM generate_series(1, 4000)")
    patience.until(lambda: place.sql("SELECT count(*) FROM pg_replication_slots") == "0")
    point = database.prepare(place.operation, None, ahead)
    assert not is_by_log(point)
    assert any("more than 1 MiB" in text for text in place.warnings)
    database.discard(place.operation)


def test_a_server_that_died_before_the_window_makes_it_a_copy(place: Place) -> None:
    database = place.database()
    ahead = database.copy_ahead(place.operation)
    place.server.kill()
    place.server.start()
    point = database.prepare(place.operation, None, ahead)
    assert not is_by_log(point) and place.warnings
    place.sql("DELETE FROM entry")
    database.swap(place.operation, point, f"{place.operation}.failed")
    assert place.sql(ROWS) == "a,b"
    database.discard(place.operation)


def test_a_base_backup_that_fails_makes_it_a_copy(place: Place) -> None:
    """As where the rules of access do not let the role replicate."""
    rules = (place.data / "pg_hba.conf").read_text()
    (place.data / "pg_hba.conf").write_text("local all all trust\n")
    place.sql("SELECT pg_reload_conf()")
    try:
        database = place.database()
        assert database.copy_ahead(place.operation) == {}
        assert any("no restore point by the log" in text and "pg_hba.conf" in text for text in place.warnings)
        assert database.tokens() == []
        assert place.sql("SELECT count(*) FROM pg_replication_slots") == "0"
    finally:
        (place.data / "pg_hba.conf").write_text(rules)
        place.sql("SELECT pg_reload_conf()")


# --- what ends it half-way --------------------------------------------------------------------------------


def test_a_log_without_its_point_leaves_the_live_data_and_the_server_as_they_are(place: Place) -> None:
    database = place.database()
    point = point_of(place, database)
    segments = sorted((place.data / f"{data_volume.PREFIX}{place.operation}" / "new" / "pg_wal").glob("0*"))
    segments[-1].unlink()
    place.sql("INSERT INTO entry (text) VALUES ('of the migration')")
    with pytest.raises(CommandFailedError):
        database.swap(place.operation, point, f"{place.operation}.failed")
    assert place.sql(ROWS) == "a,b,of the migration"
    database.discard(place.operation)


# The number of moves after which the exchange is cut short: none, in each half, and before the last one.
@pytest.mark.combination
@pytest.mark.parametrize("moves", [0, 1, 9, 17, 18, 30, 37])
def test_an_exchange_that_is_cut_short_lets_no_server_start_and_is_completed(
    place: Place, moves: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = place.database()
    point = point_of(place, database)
    place.sql("DELETE FROM entry")
    whole = data_volume._EXCHANGE
    fuse = (
        'mv() {\n    left=$(cat "$folder/fuse")\n    [ "$left" != 0 ] || exit 9\n'
        '    echo $((left - 1)) > "$folder/fuse"\n    command mv "$@"\n}\n'
    )
    (place.data / f"{data_volume.PREFIX}{place.operation}" / "fuse").write_text(f"{moves}\n")
    os.chmod(place.data / f"{data_volume.PREFIX}{place.operation}" / "fuse", 0o666)
    monkeypatch.setattr(data_volume, "_EXCHANGE", whole.replace("set -eu\n", f"set -eu\n{fuse}", 1))
    with pytest.raises(CommandFailedError):
        database.swap(place.operation, point, f"{place.operation}.failed")
    monkeypatch.setattr(data_volume, "_EXCHANGE", whole)
    subprocess.run(["docker", "start", place.container], capture_output=True, check=True)
    subprocess.run(["docker", "wait", place.container], capture_output=True, check=True)
    assert not (place.data / "PG_VERSION").exists()
    again = place.database()
    again.end_sessions(place.operation)
    again.swap(place.operation, point, f"{place.operation}.failed")
    assert (place.sql(ROWS), again.inspect()["identity"]) == ("a,b", point)
    again.discard(place.operation)
    assert again.tokens() == []


def test_a_server_that_somebody_starts_too_early_does_not_get_at_the_data(place: Place) -> None:
    """As an engine does that starts again, or its operator."""
    database = place.database()
    point = point_of(place, database)
    place.sql("DELETE FROM entry")

    def start(label: str) -> None:
        if label == "the server has stopped":
            subprocess.run(["docker", "start", place.container], capture_output=True, check=True)

    fault_points.listen(start)
    try:
        database.swap(place.operation, point, f"{place.operation}.failed")
    finally:
        fault_points.forget(start)
    assert (place.sql(ROWS), database.inspect()["identity"]) == ("a,b", point)
    database.discard(place.operation)


def test_an_exchange_that_is_given_up_before_the_stop_leaves_a_server_that_starts(place: Place) -> None:
    """As where an operator restores a backup instead."""
    database = place.database()
    point_of(place, database)
    volume = data_volume.DataVolume("main", database._clients.container, database._host)  # type: ignore[arg-type]  # has one
    found = volume.look(place.operation)
    assert found is not None
    volume.recover(found, place.operation, then=data_volume.FORWARD)
    assert not (place.data / "PG_VERSION").exists()
    assert place.sql(ROWS) == "a,b", "who runs does not notice"
    database.discard(place.operation)
    assert (place.data / "PG_VERSION").exists() and database.tokens() == []
    place.server.kill()
    place.server.start()
    assert place.sql(ROWS) == "a,b"


def test_a_fence_ends_what_a_killed_base_backup_and_one_off_containers_still_do(place: Place) -> None:
    place.sql("INSERT INTO entry (text) SELECT repeat('x', 500) FROM generate_series(1, 40000)")
    database = place.database()
    program = [
        *("docker", "exec", f"--env={OPERATION_VARIABLE}", f"--env=PGAPPNAME=holdfast:{place.operation}"),
        *(place.container, "pg_basebackup", "-h", str(place.server.place), "-U", SUPERUSER),
        *("--max-rate=32k", "--checkpoint=fast", "--wal-method=fetch", f"--pgdata=/tmp/{place.operation}"),
    ]
    senders = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'walsender'"
    with subprocess.Popen(program, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as client:
        patience.until(lambda: place.sql(senders) != "0")
        client.kill()
    volume = data_volume.DataVolume("main", database._clients.container, database._host)  # type: ignore[arg-type]  # has one
    one_off = [*volume._one_off("0", "sleep", "--detach"), "600"]
    subprocess.run(one_off, capture_output=True, check=True)
    mine = ["docker", "ps", "--quiet", f"--filter=label=holdfast.operation={place.operation}"]
    assert subprocess.run(mine, capture_output=True, check=True).stdout
    place.database("20260101-000000-another").end_sessions("20260101-000000-another")
    assert subprocess.run(mine, capture_output=True, check=True).stdout, "it belongs to another operation"
    database.end_sessions(place.operation)
    assert not subprocess.run(mine, capture_output=True, check=True).stdout
    assert place.sql(senders) == "0"


def test_an_operation_that_is_left_leaves_no_slot(place: Place) -> None:
    database = place.database()
    database.copy_ahead(place.operation)
    assert place.sql("SELECT count(*) FROM pg_replication_slots") == "1"
    database._host.let_go()
    patience.until(lambda: place.sql("SELECT count(*) FROM pg_replication_slots") == "0")
    database.discard(place.operation)


# --- as official images are ----------------------------------------------------------------------------------


@dataclass
class Official:
    """A container that begins as root, with the volume itself as the data directory; the engine starts it again."""

    engine: str
    name: str

    def sql(self, sql: str) -> str:
        argv = [self.engine, "exec", self.name, "psql", "-XqAt", "-U", "app", "-d", "shop", "-c", sql]
        return subprocess.run(argv, capture_output=True, text=True, check=False).stdout.strip()


@pytest.fixture(params=["docker", pytest.param("podman", marks=pytest.mark.variant("podman"))])
def official(request: pytest.FixtureRequest, quick_folder: Path) -> Iterator[Official]:
    engine = request.param
    podman.compose() if engine == "podman" else docker.engine()
    name, image = f"box-{secrets.token_hex(4)}", f"{docker.IMAGE}-official"
    standin.build(quick_folder / "image", image, engine)
    (quick_folder / "data").mkdir()
    mounts = [f"--volume={mount}" for mount in docker.machine_mounts()]
    settings = [f"--env=POSTGRES_{key}" for key in ("USER=app", "PASSWORD=secret", "DB=shop")]
    volume = f"--volume={quick_folder / 'data'}:{standin.DATA}"
    argv = [engine, "run", "--detach", f"--name={name}", "--network=none", "--restart=always", volume]
    subprocess.run([*argv, *mounts, *settings, image], capture_output=True, check=True)
    try:
        found = Official(engine, name)
        patience.until(lambda: found.sql("SELECT 1") == "1")
        yield found
    finally:
        subprocess.run([engine, "rm", "--force", name], capture_output=True, check=True)
        subprocess.run([engine, "rmi", image], capture_output=True, check=False)
        shutil.rmtree(quick_folder / "data", ignore_errors=True)


def test_a_container_like_the_official_image_goes_back(official: Official) -> None:
    reached = Server(user="app", container=f"{official.engine}:{official.name}")
    host = Host(operation="20260101-000000-official")
    database = PostgresqlDatabase("main", "shop", reached, host, restore_point="log")
    assert database.copying().why == ""
    official.sql("CREATE TABLE entry AS SELECT i AS id, 'row ' || i AS text FROM generate_series(1, 3) i")
    ahead = database.copy_ahead("op")
    official.sql("DELETE FROM entry WHERE id = 2")
    point = database.prepare("op", None, ahead)
    assert is_by_log(point)
    official.sql("DROP TABLE entry")
    database.swap("op", point, "op.failed")
    assert official.sql(ROWS) == "row 1,row 3"
    database.discard("op")
    host.let_go()
    look = [official.engine, "inspect", "--format={{.HostConfig.RestartPolicy.Name}} {{.State.Running}}", official.name]
    assert subprocess.run(look, capture_output=True, text=True, check=True).stdout.strip() == "always true"


def test_an_identity_of_nobody_is_gone(place: Place) -> None:
    with pytest.raises(StepError, match="gone"):
        place.database().swap(place.operation, "1.holdfast-none", "aside")
