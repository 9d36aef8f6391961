"""`service stop` and `start` of a backend and of others, and what `status` says of what is stopped."""

from __future__ import annotations

import getpass
from collections.abc import Iterator

import pytest

from tests import kept
from tests.e2e.cli import run, run_json, succeed
from tests.site import Site


@pytest.fixture
def site() -> Iterator[Site]:
    with kept.site() as lent:
        text = lent.config.read_text()
        lent.config.write_text(f'{text}\n[services.app]\nkind = "backend"\ncommand = ["sleep", "86400"]\n')
        succeed(lent, "service", "start", "app")
        yield lent


def stopped_ones(site: Site) -> dict[str, str]:
    """Return what `service status` says of each service that does not run."""
    found = run_json(site, "service", "status")["data"]["services"]
    return {item["name"]: item["detail"] for item in found if not item["running"]}


def test_a_web_goes_with_its_backend_and_comes_back_with_it(site: Site) -> None:
    done = run(site, "service", "stop", "app")
    assert done.returncode == 0, done.stderr
    assert "service stop app, with web" in done.stdout
    assert "web is stopped with app, because it sends visitors there." in done.stderr
    assert site.get("/")[0] == 502
    by = getpass.getuser()
    stopped = stopped_ones(site)
    assert stopped.keys() == {"app", "web"}
    assert stopped["app"].startswith(f"stopped by {by}, 20")
    assert stopped["web"].startswith(f"stopped with app by {by}, 20")
    assert f"web: stopped with app by {by}, 20" in succeed(site, "status")
    facts = {item["service"]: item["together_with"] for item in run_json(site, "status")["data"]["stopped"]}
    assert facts == {"app": [], "web": ["app"]}
    done = run(site, "service", "start", "app")
    assert done.returncode == 0, done.stderr
    assert "service start app, with web" in done.stdout
    assert site.get("/")[0] == 200
    assert stopped_ones(site) == {}


def test_a_web_that_was_stopped_by_itself_stays_stopped(site: Site) -> None:
    succeed(site, "service", "stop", "web")
    assert "with web" not in succeed(site, "service", "stop", "app")
    assert "with web" not in succeed(site, "service", "start", "app")
    assert stopped_ones(site).keys() == {"web"}
    succeed(site, "service", "start")
    assert stopped_ones(site) == {}


def test_a_web_that_was_stopped_by_name_meanwhile_stays_stopped(site: Site) -> None:
    succeed(site, "service", "stop", "app")
    succeed(site, "service", "stop", "web")
    succeed(site, "service", "start", "app")
    assert stopped_ones(site).keys() == {"web"}


def test_a_restart_of_a_stopped_backend_brings_its_web(site: Site) -> None:
    succeed(site, "service", "stop", "app")
    succeed(site, "service", "restart", "app")
    assert site.get("/")[0] == 200
    assert stopped_ones(site) == {}
