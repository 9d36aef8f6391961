"""The stand-in of OroPlatform with its preset: the three modes of an upgrade, and how a failed one is taken back."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager

import psycopg
import pytest

from tests.e2e.cli import run, run_json, succeed
from tests.memory import make_folder
from tests.proof import patience
from tests.standins.oro.site import Oro
from tests.standins.visitor import Visitor, writing


@pytest.fixture(scope="module")
def installed() -> Iterator[Oro]:
    """v5.1.0 with three consumers and scheduled tasks, of which one consumer was stopped by the operator."""
    made = Oro(make_folder("hfo"), consumers=3)
    try:
        succeed(made, "install", "v5.1.0")
        succeed(made, "service", "stop", "consumer2")
        made.save()
        yield made
    finally:
        made.end()


@pytest.fixture
def oro(installed: Oro) -> Oro:
    installed.put_back()
    return installed


SETTLES = patience.wait(8)
RAN = ["consumer", "consumer3", "fpm", "front", "schedule", "web", "websocket"]


def orders(oro: Oro) -> AbstractContextManager[list[int]]:
    """Write orders, each of which sends a message, as long as the block runs; give the ids of the acknowledged ones."""

    def order() -> int | None:
        status, content = oro.post("/order", b"of a visitor")
        return int(content["order"]) if status == 201 else None

    return writing(order, 0.03)


def assert_kept(oro: Oro, acknowledged: list[int]) -> None:
    """No order is lost, and each message was handled once."""
    found = {int(line) for line in oro.sql("SELECT id FROM acme_order").splitlines()}
    assert set(acknowledged) <= found
    succeed(oro, "service", "stop", "schedule")
    oro.wait_for_messages()
    patience.until(lambda: oro.messages()[0] == oro.messages()[1])
    assert oro.messages()[2] == 0, "a message was handled twice"


@pytest.mark.combination
def test_an_upgrade_in_maintenance_mode(oro: Oro) -> None:
    plan = run(oro, "upgrade", "v5.1.1", "--dry-run").stdout
    assert re.search(r"oro:platform:update --force .*\(.*from preset:oroplatform\)", plan)
    order = [plan.index(step) for step in ("close the gate", "stop services", "run migrate", "run warm_cache")]
    assert order == sorted(order)
    with orders(oro) as acknowledged, Visitor(oro.port, "/user/login") as visitor:
        succeed(oro, "upgrade", "v5.1.1")
    assert set(visitor.statuses) == {200, 503}
    assert oro.version == "5.1.1"
    assert oro.running() == RAN
    assert oro.sql("SELECT max(version) FROM oro_migrations WHERE bundle = 'OroUserBundle'") == "v1_11"
    assert_kept(oro, acknowledged)


def test_a_compatible_version_is_rolled_out_and_back_without_a_failed_request(oro: Oro) -> None:
    with orders(oro) as acknowledged, Visitor(oro.port, "/user/login", interval_seconds=0.005) as visitor:
        succeed(oro, "upgrade", "v5.1.1", "--rolling")
        assert oro.running() == RAN
        succeed(oro, "rollback")
    assert set(visitor.statuses) == {200}, visitor.unanswered
    assert oro.version == "5.1.0"
    assert oro.running() == RAN
    assert_kept(oro, acknowledged)


@pytest.mark.combination
def test_rolling_upgrades_back_and_forth_five_times(oro: Oro) -> None:
    with orders(oro) as acknowledged, Visitor(oro.port, "/user/login", interval_seconds=0.005) as visitor:
        for _ in range(5):
            succeed(oro, "upgrade", "v5.1.1", "--rolling")
            succeed(oro, "rollback")
    assert set(visitor.statuses) == {200}, visitor.unanswered
    assert oro.running() == RAN
    assert_kept(oro, acknowledged)


@pytest.mark.combination
def test_a_source_upgrade_runs_no_migration(oro: Oro) -> None:
    with Visitor(oro.port, "/user/login", interval_seconds=0.005) as visitor:
        succeed(oro, "upgrade", "v5.1.0-p1", "--source")
    assert set(visitor.statuses) == {200}, visitor.unanswered
    assert "oro:platform:update --force" not in succeed(oro, "log", "show", "latest")
    assert oro.version == "5.1.0-p1"
    assert oro.running() == RAN
    pending = run(oro, "upgrade", "v5.1.1", "--source")
    assert pending.returncode == 4
    assert "AddNickname" in pending.stderr
    assert "LoadTags" in pending.stderr
    oro.sql("UPDATE oro_entity_config_field SET state = 'Requires update'")
    differs = run(oro, "upgrade", "v5.1.0", "--source")
    assert differs.returncode == 4
    assert "User::title has changes that are not applied" in differs.stderr
    assert oro.version == "5.1.0-p1"


@pytest.mark.combination
def test_a_rolling_upgrade_that_the_old_code_does_not_tolerate(oro: Oro) -> None:
    refused = run(oro, "upgrade", "v5.1.2", "--rolling")
    assert refused.returncode == 4
    assert "drops column oro_user.title, drops entity field title" in refused.stderr
    assert "--allow-incompatible" in refused.stderr
    assert oro.version == "5.1.0"
    assert oro.sql("SELECT title FROM oro_user") == "Administrator"
    assert run(oro, "upgrade", "v5.1.2", "--source", "--allow-incompatible").returncode == 2
    done = run(oro, "upgrade", "v5.1.2", "--rolling", "--allow-incompatible")
    assert done.returncode == 0, done.stderr
    assert "allowed by --allow-incompatible: the old code does not tolerate" in succeed(oro, "log", "show", "latest")
    assert oro.version == "5.1.2"
    back = run(oro, "rollback")
    assert back.returncode == 4
    assert "OroUserBundle v1_12" in back.stderr


@pytest.mark.combination
def test_a_failure_before_the_database_changes_is_undone_by_reopening(oro: Oro) -> None:
    before = oro.digest()
    host, name = oro.store.place["HOST"], oro.store.name
    with psycopg.connect(host=host, dbname=name, user="postgres", application_name="a report", autocommit=True):
        failed = run(oro, "upgrade", "v5.1.1")
    assert failed.returncode == 4, failed.stderr
    assert "Undone by reopening: because " in failed.stderr
    assert "nothing had changed the data before" in failed.stderr
    assert oro.digest() == before
    assert oro.running() == RAN
    assert oro.version == "5.1.0"


def test_a_failure_in_the_migration_is_undone_by_the_restore_point(oro: Oro) -> None:
    before = oro.digest()
    with orders(oro) as acknowledged:
        failed = run_json(oro, "upgrade", "dies")
    assert failed["exit_code"] == 6
    how = failed["error"]["undone_by"]
    assert how["strategy"] == "the restore point"
    assert how["because"].startswith("`run migrate` had begun")
    shown = succeed(oro, "log", "show", "latest")
    assert "undone by  the restore point: because `run migrate` had begun" in shown
    assert run_json(oro, "log", "show", "latest")["data"]["undone_by"] == how
    assert oro.running() == RAN
    assert oro.version == "5.1.0"
    assert_kept(oro, acknowledged)
    assert oro.sql("SELECT to_regclass('acme_half')") == ""
    oro.sql(f"DELETE FROM acme_order WHERE id > 40; SELECT setval('acme_order_id_seq', {40})")
    assert oro.digest() == before


@pytest.mark.combination
@pytest.mark.parametrize("version", ["answers-500", "consumer-dies", "does-nothing"])
def test_a_bad_version_is_undone(oro: Oro, version: str) -> None:
    before = oro.digest()
    oro.write(settles=SETTLES if version == "consumer-dies" else 1)
    failed = run(oro, "upgrade", version)
    assert failed.returncode == 6, failed.stderr
    assert "Undone by the restore point" in failed.stderr
    if version == "does-nothing":
        assert "`migrate` ended without an error, and migrations are still pending" in failed.stderr
        assert "--force" in failed.stderr
    assert oro.digest() == before
    assert oro.running() == RAN
    assert oro.version == "5.1.0"


@pytest.mark.combination
def test_a_version_that_php_cannot_read_never_stops_the_old_one(oro: Oro) -> None:
    with Visitor(oro.port, "/user/login") as visitor:
        failed = run(oro, "upgrade", "bad-syntax")
    assert failed.returncode == 6
    assert "Undone by removing the new release" in failed.stderr
    assert set(visitor.statuses) == {200}


@pytest.mark.combination
def test_a_rolling_upgrade_whose_consumer_dies_keeps_what_visitors_wrote(oro: Oro) -> None:
    oro.write(settles=SETTLES)
    with orders(oro) as acknowledged, Visitor(oro.port, "/user/login") as visitor:
        failed = run(oro, "upgrade", "consumer-dies", "--rolling")
    assert failed.returncode == 10, failed.stderr
    assert "Undone by the old code alone" in failed.stderr
    assert set(visitor.statuses) == {200}, visitor.unanswered
    assert oro.running() == RAN
    assert_kept(oro, acknowledged)


@pytest.mark.combination
def test_consumers_that_ignore_their_signal_are_killed_and_that_is_said(oro: Oro) -> None:
    """The application's own lock keeps them: they sleep until it is gone, whatever signal comes."""
    oro.write(stop_seconds=1)
    succeed(oro, "service", "stop", "consumer")
    succeed(oro, "service", "start", "consumer")
    assert oro.console("oro:maintenance:lock").returncode == 0
    assert oro.get("/user/login")[0] == 503
    assert run(oro, "console", "--", "oro:cron").returncode != 0
    patience.until(lambda: "sleeps" in oro.output_of("consumer"))
    stopped = run(oro, "service", "stop", "consumer")
    assert stopped.returncode == 0
    assert "service consumer had to be killed after 1 s" in stopped.stdout + stopped.stderr
    assert oro.console("oro:maintenance:unlock").returncode == 0
    assert oro.get("/user/login")[0] == 200


@pytest.mark.combination
def test_sessions_and_uploads_outlive_a_release(oro: Oro) -> None:
    assert oro.post("/upload", b"of a visitor")[0] == 201
    succeed(oro, "upgrade", "v5.1.1")
    (name,) = [path.name for path in (oro.shared / "media" / "uploads").iterdir()]
    assert oro.get(f"/media/uploads/{name}")[0] == 200
    assert oro.get("/app_dev.php")[0] == 404
    assert oro.get("/.env-app.local")[0] == 404
