"""What an upgrade in containers stands on ends in the middle of it: the engine, the database, the machine itself."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import containers
from tests.compose_site import ComposeSite
from tests.e2e.cli import output, run, run_json, start
from tests.proof import patience
from tests.servers import docker, podman

pytestmark = pytest.mark.combination
_SECONDS = 60


@pytest.fixture
def client(request: pytest.FixtureRequest) -> str:
    return str(getattr(request, "param", "docker"))


@pytest.fixture
def adopted(client: str, folder: Path) -> Iterator[ComposeSite]:
    """At v2, with a worker that tells of a database between two versions."""
    made = ComposeSite(folder, slow=4.0, worker=containers.WITNESS, client=client)
    try:
        made.start()
        for arguments in (("adopt",), ("upgrade", "v2")):
            done = run(made, *arguments)
            assert done.returncode == 0, done.stderr
        yield made
    finally:
        made.remove()


def in_the_middle(site: ComposeSite) -> subprocess.Popen[bytes]:
    """An upgrade that stands in the middle of its migration."""
    process = start(site, "upgrade", "v5")
    deadline = patience.deadline(_SECONDS)
    while not (site.folder / "media" / "piece-2.txt").exists():
        assert process.poll() is None and time.monotonic() < deadline, output(site)
        time.sleep(0.01)
    return process


def cut_power(site: ComposeSite, holdfast: subprocess.Popen[bytes] | None = None) -> None:
    """Ends Holdfast, its front, the engine and all containers at one moment; the engine is back after that."""
    if holdfast is not None:
        holdfast.kill()
        holdfast.wait()
    engine = podman.compose() if site.client == "podman" else docker.compose()
    engine.halt()
    site.shut_down_front()
    engine.start()


def first_process(site: ComposeSite, service: str) -> int:
    (id,) = site.containers(f"--filter=label=com.docker.compose.service={service}")
    return int(containers.engine("inspect", "--format={{.State.Pid}}", id, client=site.client))


def check_old(site: ComposeSite, before: str, images: tuple[str, str]) -> None:
    assert site.fingerprint() == before
    assert site.get("/") == (200, {"version": "v2", "entries": 120})
    assert (site.image_of("web"), site.image_of("worker")) == images
    assert run_json(site, "status")["data"]["operations"] == []
    assert not (site.folder / "database" / "half-migrated").exists(), "an old worker ran on a half-migrated database"


def _known(site: ComposeSite) -> tuple[str, tuple[str, str]]:
    return site.fingerprint(), (site.image_of("web"), site.image_of("worker"))


@pytest.mark.combination
def test_the_witness_can_tell(adopted: ComposeSite) -> None:
    (adopted.folder / "media" / "piece-0.txt").touch()
    deadline = patience.deadline(_SECONDS)
    while not (adopted.folder / "database" / "half-migrated").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _kill_engine(_: ComposeSite) -> None:
    with docker.shared() as engine:
        engine.kill()
        time.sleep(0.3)
        engine.start()


def _kill_database(site: ComposeSite) -> None:
    os.kill(first_process(site, "database"), signal.SIGKILL)


@pytest.mark.parametrize("strike", [_kill_engine, pytest.param(_kill_database, marks=pytest.mark.combination)])
def test_the_engine_or_the_database_is_killed_in_the_middle(
    adopted: ComposeSite, strike: Callable[[ComposeSite], None]
) -> None:
    before, images = _known(adopted)
    process = in_the_middle(adopted)
    strike(adopted)
    assert process.wait(patience.limit(120)) == 6, output(adopted)
    assert run(adopted, "recover").returncode == 0
    check_old(adopted, before, images)


@pytest.mark.parametrize("client", ["docker", "podman"], indirect=True)
def test_the_machine_ends_in_the_middle(adopted: ComposeSite) -> None:
    """Until the recovery only the database runs, although every container of the application restarts by itself."""
    before, images = _known(adopted)
    cut_power(adopted, in_the_middle(adopted))
    time.sleep(1.0)  # what the engine starts again is started by now
    label = '--format={{index .Config.Labels "com.docker.compose.service"}}'
    running = adopted.containers("--filter=status=running")
    assert [containers.engine("inspect", label, id, client=adopted.client) for id in running] == ["database"]
    done = run(adopted, "recover", "--auto")
    assert done.returncode == 0, done.stderr
    check_old(adopted, before, images)


@pytest.mark.combination
@pytest.mark.parametrize("client", ["docker", "podman"], indirect=True)
def test_a_reboot_while_nothing_is_under_way(adopted: ComposeSite) -> None:
    """Containers with `restart: always` are started by the engine, the page of visitors by `recover --auto`."""
    before, images = _known(adopted)
    cut_power(adopted)
    done = run(adopted, "recover", "--auto")
    assert done.returncode == 0, done.stderr
    check_old(adopted, before, images)
    done = run(adopted, "upgrade", "v5")
    assert done.returncode == 0, done.stderr
    assert adopted.get("/") == (200, {"version": "v5", "entries": 120})


@pytest.mark.combination
def test_the_machine_ends_once_more_while_it_is_recovered(adopted: ComposeSite) -> None:
    before, images = _known(adopted)
    cut_power(adopted, in_the_middle(adopted))
    process = start(adopted, "recover", "--auto")
    time.sleep(1.5)
    cut_power(adopted, process)
    done = run(adopted, "recover", "--auto")
    assert done.returncode == 0, done.stderr
    check_old(adopted, before, images)
