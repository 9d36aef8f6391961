"""The operator's own maintenance: what stops, what goes on, who gets through, and what survives."""

from __future__ import annotations

import getpass
import http.client
import json
import time
from collections.abc import Iterator

import pytest

from tests import background
from tests.background import service
from tests.e2e.cli import run, run_json, succeed
from tests.releases import add_files
from tests.site import Site


@pytest.fixture
def site() -> Iterator[Site]:
    with background.site(service("consumer", "consumer", instances=2), service("clock", "cron")) as lent:
        yield lent


def pids(site: Site) -> dict[str, int]:
    """Return the processes of the running services without the front, by the name before the release's."""
    found = run_json(site, "service", "status")["data"]["services"]
    return {
        item["name"].partition("-20")[0]: item["pid"] for item in found if item["running"] and item["name"] != "front"
    }


def ask(site: Site, path: str = "/", **headers: str) -> tuple[int, dict[str, str], str]:
    connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=20)
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read().decode()
    finally:
        connection.close()


def token(site: Site) -> str:
    return str(json.loads((site.state / "front" / "gate.json").read_text())["preview_token"])


def through(site: Site) -> int:
    return ask(site, Cookie=f"holdfast_preview={token(site)}", Accept="application/json")[0]


def test_what_works_in_the_background_stops_and_comes_back(site: Site) -> None:
    before = pids(site)
    assert before.keys() == {"web", "consumer-1", "consumer-2", "clock"}
    succeed(site, "service", "stop", "consumer-2")
    succeed(site, "maintenance", "on", "--for", "1d2h30m", "--comment", "New disks")
    assert pids(site) == {"web": before["web"]}
    status, headers, page = ask(site)
    assert status == 503 and "New disks" in page and 95_000 < int(headers["Retry-After"]) <= 95_400
    said = succeed(site, "status")
    assert f"closed by {getpass.getuser()} since" in said and "New disks; consumer-1, clock stopped" in said
    assert f"consumer-1: stopped by {getpass.getuser()}" in said
    succeed(site, "maintenance", "on", "--comment", "Still the disks")
    succeed(site, "maintenance", "off")
    assert pids(site).keys() == {"web", "consumer-1", "clock"}, "one that was stopped before was started"
    assert site.get("/")[0] == 200


def test_web_only_leaves_the_others_running_with_the_same_processes(site: Site) -> None:
    before = pids(site)
    succeed(site, "maintenance", "on", "--web-only")
    assert site.get("/")[0] == 503
    assert pids(site) == before
    succeed(site, "maintenance", "off")
    assert pids(site) == before and site.get("/")[0] == 200


def test_the_holder_of_the_link_gets_through_all_the_time(site: Site) -> None:
    succeed(site, "maintenance", "on")
    status, headers, _ = ask(site, f"/.holdfast/bypass/{token(site)}")
    assert (status, headers["Location"]) == (303, "/")
    assert headers["Set-Cookie"].startswith(f"holdfast_preview={token(site)};")
    assert ask(site, "/.holdfast/bypass/wrong")[0] == 503
    assert ask(site, Cookie="holdfast_preview=wrong")[0] == 503
    assert through(site) == 200
    kept_token = token(site)
    succeed(site, "upgrade", "v2")
    assert (site.get("/")[0], through(site), token(site)) == (503, 200, kept_token)
    assert run(site, "upgrade", "v3").returncode == 6
    assert (site.get("/")[0], through(site), token(site)) == (503, 200, kept_token)
    assert pids(site).keys() == {"web"}, "an operation started what the maintenance has stopped"
    succeed(site, "maintenance", "off")
    assert site.get("/")[1]["version"] == "v2" and pids(site).keys() == {"web", "consumer-1", "consumer-2", "clock"}
    status, headers, _ = ask(site, f"/.holdfast/bypass/{kept_token}")
    assert status == 303 and "Set-Cookie" not in headers, "the link reached the application"
    assert ask(site, Cookie=f"holdfast_preview={kept_token}")[0] == 200
    succeed(site, "maintenance", "on")
    assert token(site) != kept_token and ask(site, Cookie=f"holdfast_preview={kept_token}")[0] == 503


def test_it_survives_a_reboot(site: Site) -> None:
    succeed(site, "maintenance", "on", "--comment", "Disks")
    site.shut_down()
    succeed(site, "recover", "--auto")
    assert site.get("/")[0] == 503 and "Disks" in ask(site)[2]
    assert pids(site).keys() == {"web"} and through(site) == 200
    succeed(site, "maintenance", "off")
    assert pids(site).keys() == {"web", "consumer-1", "consumer-2", "clock"}


def test_one_that_takes_longer_than_was_said_is_reported(site: Site) -> None:
    succeed(site, "maintenance", "on", "--for", "1h", "--comment", "Disks")
    assert run(site, "maintenance", "status").returncode == 0
    path = site.state / "front" / "gate.json"
    state = json.loads(path.read_text())
    state["hold"]["until"] = int(time.time()) - 5400
    path.write_text(json.dumps(state))
    assert "overdue by 1h30m" in succeed(site, "status")
    done = run(site, "maintenance", "status")
    assert done.returncode == 4 and "overdue by 1h30m" in done.stdout
    found = run_json(site, "check")["data"]["problems"]
    assert any(one["subject"] == "maintenance" and "overdue" in one["message"] for one in found)
    assert run(site, "check").returncode == 4


@pytest.mark.parametrize("duration", ["soon", "1h1d", "0m", "99999d"])
def test_a_wrong_duration_changes_nothing(site: Site, duration: str) -> None:
    done = run(site, "maintenance", "on", "--for", duration)
    assert done.returncode == 2 and "duration" in done.stderr
    assert site.get("/")[0] == 200 and len(pids(site)) == 4


def test_pages_of_the_release_are_shown_by_host_and_code(site: Site) -> None:
    text = site.config.read_text()
    site.config.write_text(text.replace("[gate]\n", '[gate]\npages = "errors"\n'))
    add_files(
        site,
        "v2.1",
        "v2",
        {
            "errors/503.html": "<p>all hosts: $message $comment</p>",
            "errors/503.shop.example.html": "shop",
            "errors/502.html": "no web",
        },
    )
    succeed(site, "upgrade", "v2.1")
    succeed(site, "maintenance", "on", "--comment", "<disks>")
    status, headers, page = ask(site)
    assert (status, page) == (503, "<p>all hosts: The guestbook is being upgraded. &lt;disks&gt;</p>")
    assert "Retry-After" in headers
    assert ask(site, Host="Shop.Example:80")[2] == "shop"
    assert json.loads(ask(site, Host="shop.example", Accept="application/json")[2])["error"] == "maintenance"
    succeed(site, "maintenance", "off")
    succeed(site, "service", "stop", "web")
    assert ask(site, Host="shop.example")[::2] == (502, "no web")
