"""The server of a database or index killed with SIGKILL, with Holdfast or under it.

It restarts by itself, as under a supervisor.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pytest

from holdfast.application import stale_indices
from holdfast.errors import HoldfastError
from holdfast.operations import index
from tests.faults.scenarios import ENGINE_SCENARIOS, Scenario
from tests.faults.test_kill_points import Ground, check_whole, prepared, recover_here
from tests.proof import patience
from tests.proof.plugin import selection_of
from tests.proof.rotation import Take
from tests.servers import docker, mariadb, mysql, podman, postgresql, search
from tests.servers.docker import DockerEngine
from tests.servers.mariadb import MariadbServer
from tests.servers.podman import PodmanEngine
from tests.servers.postgresql import PostgresqlServer
from tests.servers.search import SearchServer
from tests.site import Site

pytestmark = pytest.mark.faults

Server = PostgresqlServer | MariadbServer | DockerEngine | PodmanEngine | SearchServer
# Inside a container it is the container that is killed; where services run in containers, their engine.
_SERVERS: dict[str, Callable[[], AbstractContextManager[Server]]] = {
    "postgresql": postgresql.shared,
    "mariadb": mariadb.shared,
    "mysql": mysql.shared,
    "postgresql-inside": postgresql.shared_enclosed,
    "mariadb-inside": mariadb.shared_enclosed,
    "postgresql-log-inside": postgresql.shared_own_container,
    "compose": docker.shared,
    "podman": podman.shared,
    "search": lambda: nullcontext(search.shared()),
    "mariadb-search": lambda: nullcontext(search.shared()),  # MariaDB's own server dies in other scenarios
}
_NAMES = ("upgrade", "upgrade_that_fails", "restore")
SCENARIOS = [scenario for scenario in ENGINE_SCENARIOS if scenario.name in _NAMES]
_BACK_SECONDS = 10
_SPARSER = 4  # than the kill points: what is between two of them is the same to a server


def die_together(ground: Ground, number: int) -> str:
    """Holdfast and the server die at one moment, as when the machine does; the server is back before `recover`."""
    site, scenario = ground.site, ground.scenario
    site.put_back(ground.saved)
    end, output = ground.forker.run(site.folder, scenario.title, "act", kill_at=number)
    assert end == "killed", f"point was not reached: {end} {output}"
    with _SERVERS[scenario.engine]() as server:
        server.halt() if isinstance(server, PodmanEngine) else server.kill()
        server.start()
    recover_here(site)
    wait_for_what_watches_it(site)
    build_again(site)
    return check_whole(ground, [])


def wait_for_what_watches_it(site: Site) -> None:
    """Wait for an engine that restarts what had died with it, in its own time, unless an operation had stopped it."""
    deadline = patience.deadline(_BACK_SECONDS)
    while site.get("/")[0] == 502 and time.monotonic() < deadline:
        time.sleep(0.05)


def build_again(site: Site) -> None:
    """Run `index rebuild` where an index is out of date, or what was next to it could not be removed yet."""
    app = site.open()
    try:
        behind = [name for name, one in app.context.indices.items() if one.tokens()]
        if wanted := {*stale_indices.stale(app.loaded), *behind}:
            app.run(index.plan(app, [*wanted]))
    finally:
        app.close()


def die_under_it(ground: Ground, number: int, folder: Path) -> str:
    """The server dies in the middle of an operation and comes back while Holdfast goes on, or goes back."""
    site, scenario = ground.site, ground.scenario
    site.put_back(ground.saved)
    record = folder / f"record{number}"
    reached = record.with_suffix(".reached")
    ground.forker.start(site.folder, scenario.title, "act", kill_at=None, record=record, wait_at=number)
    deadline = patience.deadline(60)
    while not reached.exists():
        assert time.monotonic() < deadline, "point was not reached"
        time.sleep(0.01)
    with _SERVERS[scenario.engine]() as server:
        server.kill()
        reached.unlink()
        time.sleep(0.3)
        server.start()
    end, output = ground.forker.end()
    assert end in ("done", "failed"), output
    recover_here(site)  # what happened after the commit point may still be to do
    wait_for_what_watches_it(site)
    build_again(site)
    return check_whole(ground, [])


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make a test for each part of a scenario that this run takes."""
    titles = [scenario.title for scenario in SCENARIOS]
    found = [
        pytest.param(scenario, take, id=f"{scenario.title}-{take}")
        for scenario in SCENARIOS
        for take in selection_of(metafunc.config).takes("server_dies", scenario.title, titles)
    ]
    metafunc.parametrize(("scenario", "take"), found)


def test_the_server_dies(
    scenario: Scenario, take: Take, folder: Path, record_property: Callable[[str, object], None]
) -> None:
    with prepared(scenario) as ground:
        chosen = take.points(ground.existing[::_SPARSER], ground.step_of)
        failures = []
        for way in ("together", "under it"):
            ends = {"old": 0, "new": 0}
            for number in chosen:
                try:
                    end = die_together(ground, number) if way == "together" else die_under_it(ground, number, folder)
                    ends[end] += 1
                except (AssertionError, HoldfastError, OSError) as error:
                    failures.append(
                        f"{way}, point {number} ({ground.points[number]}): {type(error).__name__}: {str(error)[:1500]}"
                    )
                    ground.site.shut_down()
            record_property("server_dies", f"{scenario.title} {take} {way}: {sum(ends.values())} points, {ends}")
        assert not failures, "\n".join(failures)
