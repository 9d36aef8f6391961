"""Consumers of a queue: kinds, several equal ones, what ran before, the wait for their work and the end by force."""

from __future__ import annotations

import getpass
import subprocess
from collections.abc import Callable, Iterator

import pytest

from tests import background
from tests.background import service
from tests.e2e.cli import run, run_json, succeed
from tests.site import Site


@pytest.fixture
def site() -> Iterator[Site]:
    services = (service("consumer", "consumer", instances=3), service("clock", "cron"), service("live", "websocket"))
    with background.site(*services) as lent:
        yield lent


def change(site: Site, old: str, new: str) -> None:
    text = site.config.read_text()
    assert old in text
    site.config.write_text(text.replace(old, new))


def running(site: Site) -> list[str]:
    """Return the running services without the front, each by the name of its instance before the release's."""
    found = run_json(site, "service", "status")["data"]["services"]
    return sorted(item["name"].partition("-20")[0] for item in found if item["running"] and item["name"] != "front")


def details(site: Site, *names: str) -> dict[str, str]:
    found = run_json(site, "service", "status", *names)["data"]["services"]
    return {item["name"].partition("-20")[0]: item["detail"] for item in found}


def test_kinds_and_names_choose_services(site: Site) -> None:
    everything = ["clock", "consumer-1", "consumer-2", "consumer-3", "live", "web"]
    assert running(site) == everything
    assert details(site, "worker").keys() == {"consumer-1", "consumer-2", "consumer-3"}
    assert details(site, "cron", "live").keys() == {"clock", "live"}
    assert "service stop consumer-1 consumer-2 consumer-3 clock" in succeed(site, "service", "stop", "consumer", "cron")
    assert running(site) == ["live", "web"]
    done = run(site, "service", "restart", "scheduler")
    assert done.returncode == 4 and "none of clock runs" in done.stderr
    succeed(site, "service", "restart")
    assert running(site) == ["live", "web"], "a restart started what was stopped"
    succeed(site, "service", "start", "worker")
    assert running(site) == ["consumer-1", "consumer-2", "consumer-3", "live", "web"]
    succeed(site, "service", "start")
    assert running(site) == everything
    done = run(site, "service", "stop", "backend")
    assert done.returncode == 4 and "there is no service of kind backend" in done.stderr
    done = run(site, "service", "stop", "consumr")
    assert done.returncode == 4 and "Did you mean consumer" in done.stderr


def test_the_exit_code_of_the_status_says_whether_what_should_run_runs(site: Site) -> None:
    assert run(site, "service", "status").returncode == 0
    succeed(site, "service", "stop", "clock")
    assert run(site, "service", "status").returncode == 0, "it was stopped on purpose"
    app = site.open()
    try:
        app.context.runtime.stop(*(name for name in app.context.runtime.statuses() if name.startswith("live-")))
    finally:
        app.close()
    assert run(site, "service", "status").returncode == 4
    assert run(site, "service", "status", "web").returncode == 0


@pytest.mark.parametrize(
    ("act", "code"),
    [
        (lambda site: run(site, "upgrade", "v2"), 0),
        (lambda site: run(site, "upgrade", "v2", "--source", "--again"), 4),
        (lambda site: run(site, "upgrade", "v3"), 6),
        (lambda site: run(site, "upgrade", "v4"), 6),
        (lambda site: run(site, "backup", "create", "--consistency", "quiesce"), 0),
        (lambda site: run(site, "backup", "restore", "latest"), 0),
    ],
    ids=["success", "refused", "failure-in-the-migration", "failure-after-it", "quiesce", "restore"],
)
def test_only_what_ran_before_runs_after(
    site: Site, act: Callable[[Site], subprocess.CompletedProcess[str]], code: int
) -> None:
    succeed(site, "service", "stop", "consumer-2")
    done = act(site)
    assert done.returncode == code, done.stderr
    assert running(site) == ["clock", "consumer-1", "consumer-3", "live", "web"]
    assert details(site, "consumer-2")["consumer-2"].startswith(f"stopped by {getpass.getuser()}, 20")


def test_a_failure_before_the_migration_brings_back_what_ran(site: Site) -> None:
    succeed(site, "service", "stop", "consumer-2")
    change(site, "[tasks]\n", '[tasks]\nprepare = ["false"]\n')
    assert run(site, "upgrade", "v2").returncode == 6
    assert running(site) == ["clock", "consumer-1", "consumer-3", "live", "web"]


def test_a_rolling_upgrade_replaces_each_and_leaves_a_stopped_one(site: Site) -> None:
    succeed(site, "service", "stop", "consumer-2")
    for tag, mode in (("v2", []), ("v5", []), ("v6", ["--rolling"])):
        succeed(site, "upgrade", tag, *mode)
    assert running(site) == ["clock", "consumer-1", "consumer-3", "live", "web"]
    names = {item["name"] for item in run_json(site, "service", "status")["data"]["services"] if item["running"]}
    assert all(name.endswith("-v6") for name in names - {"front"})


def test_another_number_of_instances_runs_after_an_upgrade_as_one_ran_before(site: Site) -> None:
    change(site, "instances = 3\n", "")
    succeed(site, "upgrade", "v2")
    assert running(site) == ["clock", "consumer", "live", "web"]
    change(site, 'kind = "consumer"\n', 'kind = "consumer"\ninstances = 2\n')
    succeed(site, "upgrade", "v5")
    assert running(site) == ["clock", "consumer-1", "consumer-2", "live", "web"]


def test_one_that_does_not_end_is_killed_and_that_is_said_and_recorded(site: Site) -> None:
    change(
        site,
        'kind = "consumer"\ncommand = ["sleep", "86400"]\n',
        'kind = "consumer"\ncommand = ["sh", "-c", "trap : INT; while :; do sleep 1; done"]\n'
        'stop_signal = "INT"\nstop_timeout_seconds = 1\n',
    )
    change(site, "instances = 3\n", "")
    site.shut_down()  # the log of a supervisord that ran when the site was put back is no longer this one
    succeed(site, "recover", "--auto")
    succeed(site, "service", "start", "consumer")
    done = run(site, "upgrade", "v2")
    said = "service consumer had to be killed after 1 s"
    assert done.returncode == 0 and said in done.stdout + done.stderr
    assert said in succeed(site, "log", "show", "latest")
    done = run(site, "service", "stop", "consumer")
    assert done.returncode == 0 and said in done.stdout + done.stderr


def drains(site: Site, command: str, more: str) -> None:
    change(site, 'kind = "consumer"\n', f'kind = "consumer"\ndrain = ["sh", "-c", "{command}"]\n{more}\n')


def test_an_operation_waits_until_the_queue_is_empty(site: Site) -> None:
    marker = site.folder / "polls"
    drains(site, f"echo x >> {marker}; [ $(wc -l < {marker}) -ge 3 ]", "")
    succeed(site, "backup", "create", "--quiesce")
    assert marker.read_text() == "x\n" * 3
    marker.unlink()
    succeed(site, "upgrade", "v2")
    assert marker.read_text() == "x\n" * 3
    assert running(site) == ["clock", "consumer-1", "consumer-2", "consumer-3", "live", "web"]


@pytest.mark.parametrize(("failure", "code", "version"), [("warn", 0, "v2"), ("abort", 6, "v1")])
def test_at_the_limit_it_says_so_and_goes_on_or_ends(site: Site, failure: str, code: int, version: str) -> None:
    drains(site, "echo 7 messages; exit 1", f'drain_timeout_seconds = 0.3\ndrain_failure = "{failure}"')
    done = run(site, "upgrade", "v2")
    assert done.returncode == code, done.stderr
    assert "service consumer-1 still had work to do after 0.3 s: 7 messages" in done.stdout + done.stderr
    assert site.get("/")[1]["version"] == version
    assert running(site) == ["clock", "consumer-1", "consumer-2", "consumer-3", "live", "web"]


def test_tasks_after_the_start_and_after_a_rollback(site: Site) -> None:
    marker = site.folder / "tasks"
    note = "python3 -c \"import os,urllib.request as u;print(u.urlopen('http://127.0.0.1:%d/').status)\" >> %s"
    change(
        site,
        "[tasks]\n",
        f"[tasks]\nafter_start = [\"sh\", \"-c\", '''{note % (site.port, marker)}; exit 3''']\n"
        f'after_rollback = ["sh", "-c", "echo back >> {marker}"]\n',
    )
    done = run(site, "upgrade", "v2")
    assert done.returncode == 0, done.stderr
    assert marker.read_text() == "200\n"
    assert "the task after_start failed" in done.stdout + done.stderr
    assert "the task after_start failed" in succeed(site, "log", "show", "latest")
    done = run(site, "rollback")
    since = done.stderr.split("--discard-writes-since ")[1].split()[0]
    succeed(site, "rollback", "--discard-writes-since", since)
    assert marker.read_text().splitlines() == ["200", "back", "200"]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "instances = 3",
            'instances = 3\n\n[services.consumer-2]\ncommand = ["true"]',
            "is another service consumer-2",
        ),
        ('kind = "websocket"', 'kind = "websocket"\ninstances = 2', "only one of kind websocket can run"),
        ('kind = "cron"', 'kind = "cronn"', "expected one of web, backend, worker, consumer, scheduler, cron"),
    ],
)
def test_what_is_wrong_is_a_problem_of_the_configuration(site: Site, old: str, new: str, said: str) -> None:
    change(site, old, new)
    done = run(site, "config", "validate")
    assert done.returncode == 3 and said in done.stderr
