"""Scheduled tasks: when and as what they run, what is recorded, and what an operation does about them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import kept
from tests.e2e.cli import run, run_json, start, succeed
from tests.proof import patience
from tests.site import Site


@pytest.fixture
def site() -> Iterator[Site]:
    with kept.site() as lent:
        yield lent


def add(site: Site, text: str) -> None:
    site.config.write_text(f"{site.config.read_text()}\n{text}\n")


def task(command: str, more: str = "every_seconds = 1", name: str = "tick") -> str:
    return f"[schedule.{name}]\ncommands = [\"sh\", \"-c\", '''{command}''']\n{more}\n"


def log(site: Site, name: str = "tick") -> list[dict[str, Any]]:
    path = site.state / "schedule" / f"{name}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def events(site: Site, kind: str) -> list[dict[str, Any]]:
    return [one for one in log(site) if one["event"] == kind]


def listed(site: Site, name: str = "tick") -> dict[str, Any]:
    tasks = run_json(site, "schedule", "list")["data"]["tasks"]
    found: dict[str, Any] = next(one for one in tasks if one["name"] == name)
    return found


def test_a_task_runs_again_and_again_in_the_release_and_is_recorded(site: Site) -> None:
    place = site.folder / "ran"
    add(site, task(f'echo "$PWD $HOLDFAST_RELEASE" >> {place}; echo said; exit 3'))
    assert listed(site)["next_run"] == ""
    succeed(site, "service", "start", "schedule")
    patience.until(lambda: len(events(site, "end")) >= 2)
    current = str(Path(site.app_folder / "current").resolve())
    assert set(place.read_text().splitlines()) == {f"{current} {Path(current).name}"}
    one = events(site, "end")[0]
    assert (one["exit_code"], one["output"]) == (3, "said\n")
    found = listed(site)
    assert (found["when"], found["last_exit_code"]) == ("every 1 s", 3)
    assert found["last_start"] and found["next_run"]
    assert "schedule" in {item["name"].partition("-20")[0] for item in run_json(site, "status")["data"]["services"]}


def test_no_task_runs_twice_at_once_and_an_operation_waits_for_its_end(site: Site) -> None:
    go = site.folder / "go"
    add(site, task(f"while [ ! -e {go} ]; do sleep 0.1; done; echo $HOLDFAST_RELEASE"))
    succeed(site, "service", "start", "schedule")
    patience.until(lambda: events(site, "start"))
    seen = len(events(site, "skipped"))
    patience.until(lambda: len(events(site, "skipped")) > seen + 1)
    assert len(events(site, "start")) == 1 and listed(site)["running"]
    done = run(site, "schedule", "run", "tick")
    assert done.returncode == 5 and "runs already" in done.stderr
    upgrade = start(site, "upgrade", "v2")
    patience.until(lambda: run_json(site, "status")["data"]["gate"]["operation"])
    assert upgrade.poll() is None
    go.touch()
    assert upgrade.wait(patience.limit(60)) == 0
    first = events(site, "end")[0]
    assert (first["exit_code"], first["output"].strip().endswith("-v1")) == (0, True)
    patience.until(lambda: any(one["output"].strip().endswith("-v2") for one in events(site, "end")))
    succeed(site, "service", "stop", "scheduler")
    count = len(log(site))
    assert not listed(site)["running"] and listed(site)["next_run"] == ""
    assert len(log(site)) == count


def test_what_does_not_end_in_time_is_ended_and_that_is_said(site: Site) -> None:
    add(site, f"{task('echo $$ > ' + str(site.folder / 'pid') + '; sleep 3600')}")
    text = site.config.read_text().replace("[limits]\n", "[limits]\nschedule_stop_seconds = 1\n")
    site.config.write_text(text)
    site.shut_down()  # the log of a supervisord that ran when the site was put back is no longer this one
    succeed(site, "recover", "--auto")
    succeed(site, "service", "start", "schedule")
    patience.until((site.folder / "pid").exists)
    patience.until(lambda: (site.folder / "pid").read_text().strip())
    done = run(site, "service", "stop", "schedule")
    assert done.returncode == 0 and "service schedule had to be killed after 1 s" in done.stdout + done.stderr
    pid = (site.folder / "pid").read_text().strip()
    patience.until(lambda: not Path(f"/proc/{pid}/cwd").exists())


def test_a_task_that_is_removed_or_changed_is_so_without_a_restart(site: Site) -> None:
    before = site.config.read_text()
    add(site, task("true") + task("true", name="other"))
    succeed(site, "service", "start", "schedule")
    patience.until(lambda: events(site, "end") and log(site, "other"))
    site.config.write_text(f"{before}\n{task('true', name='other')}")
    seen = len(log(site, "other"))
    patience.until(lambda: len(log(site, "other")) > seen + 4)
    assert [one["name"] for one in run_json(site, "schedule", "list")["data"]["tasks"]] == ["other"]
    count = len(log(site))
    seen = len(log(site, "other"))
    patience.until(lambda: len(log(site, "other")) > seen + 4)
    assert len(log(site)) == count, "a removed task was started"
    site.config.with_name("holdfast.prod.toml").write_text(task("true", name="third"))
    patience.until(lambda: log(site, "third"))


def test_one_is_run_by_hand_and_cron_fields_say_when_it_runs_next(site: Site) -> None:
    add(site, task("exit 4", 'minute = "30"\nhour = "3"', "nightly"))
    done = run(site, "schedule", "run", "nightly")
    assert done.returncode == 1 and "exit code 4" in done.stderr
    succeed(site, "service", "start", "schedule")
    found = listed(site, "nightly")
    assert (found["when"], found["last_exit_code"]) == ("30 3 * * *", 4)
    assert found["next_run"].endswith("T03:30:00Z")
    done = run(site, "schedule", "run", "nightli")
    assert done.returncode == 4 and "Did you mean nightly?" in done.stderr


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ('minute = "61"', "schedule.tick.minute: '61' is not valid in a crontab (holdfast.toml, line "),
        ('hour = "a"', "schedule.tick.hour: 'a' is not valid in a crontab (holdfast.toml, line "),
        ('month = "* *"', "schedule.tick.month: '* *' is not valid in a crontab"),
        ('monthday = "30"\nmonth = "2"', "schedule.tick.monthday: there is no such time: * * 30 2 *"),
        ('hour = "3"\nevery_seconds = 5', "schedule.tick.every_seconds: is instead of hour, not with them"),
        ("every_seconds = -1", "schedule.tick.every_seconds: expected a whole number of at least 0"),
        ('[services.schedule]\ncommand = ["true"]', "services.schedule: is the name of the service that runs"),
    ],
)
def test_a_wrong_field_is_a_problem_of_the_configuration(site: Site, more: str, said: str) -> None:
    add(site, task("true", more))
    done = run(site, "config", "validate")
    assert done.returncode == 3 and said in done.stderr
