"""The stand-ins themselves: what their pages say works on them, and they leave nothing behind."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.proof import patience
from tests.standins.connect_access import SERVICES, ConnectAccess
from tests.standins.project import PERSONS, UPLOADS
from tests.standins.uso import Uso
from tests.standins.visitor import Visitor, ask, get

pytestmark = [pytest.mark.combination]  # Holdfast's own tests on them start them by the same commands


@pytest.fixture
def connect_access(folder: Path) -> Iterator[ConnectAccess]:
    made = ConnectAccess(folder)
    try:
        made.start()
        yield made
    finally:
        made.remove()
        assert made.left_behind() == []


def test_connect_access_by_its_own_pages(connect_access: ConnectAccess) -> None:
    site = connect_access
    rows = {"persons": PERSONS, "uploads": UPLOADS}
    assert get(site.web_port) == (200, {"version": "v1", **rows})
    assert site.running() == sorted(SERVICES)
    image = site.image_of("django")

    status, said = site.upload(b"of a visitor", site.web_port)
    assert status == 201
    assert ask(site.web_port, f"/media/{said['file']}") == (200, b"of a visitor")
    assert ask(site.web_port, f"/uploads/{said['id']}/") == (200, b"of a visitor")
    rows["uploads"] += 1
    before = site.fingerprint()
    site.compose("run", "postgres", "backup")
    (backup,) = site.backups()
    old = site.git("rev-parse", "HEAD")
    site.publish("v2")
    site.git("pull", "--quiet", "origin", "master")
    site.manage("migrate")  # as its page has it, before the build: nothing is done
    assert site.fingerprint() == before
    site.compose("build")
    site.manage("migrate")
    with Visitor(site.web_port) as visitor:
        site.compose("down")
        site.compose("up", "-d")
        site.wait()
    assert visitor.failures and visitor.longest_seconds > 0
    assert get(site.web_port) == (200, {"version": "v2", **rows})
    assert site.running() == sorted(SERVICES)
    assert site.sql("SELECT count(*) FROM connect_access_upload WHERE label = upper(title)") == str(UPLOADS + 1)
    assert site.image_of("django") != image and site.fingerprint() != before

    site.compose("run", "--rm", "postgres", "restore", backup)
    site.git("checkout", "--quiet", old)
    for arguments in (["build"], ["down"], ["up", "-d"]):
        site.compose(*arguments)
    site.wait()
    assert get(site.web_port) == (200, {"version": "v1", **rows})
    assert site.fingerprint() == before


def until(condition: Callable[[], bool]) -> None:
    deadline = patience.deadline(60)
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.05)


@pytest.fixture(params=["apache", "nginx"])
def uso(request: pytest.FixtureRequest, folder: Path) -> Iterator[Uso]:
    made = Uso(folder, web=request.param)
    try:
        made.start()
        yield made
    finally:
        made.remove()
        assert made.left_behind() == []


def test_uso_by_its_own_pages(uso: Uso) -> None:
    rows = {"persons": PERSONS, "uploads": UPLOADS}
    assert uso.get("/", uso.web_port) == (200, {"version": "v1", **rows})
    assert uso.upload(b"of a visitor", uso.web_port)[0] == 201
    rows["uploads"] += 1
    before, image = uso.fingerprint(), uso.image_of("uso")

    uso.compose("stop", "uso")
    status, content = ask(uso.web_port, "/")
    assert (status, content) == ((502, b"<p>We will be back.</p>\n") if uso.web == "nginx" else (0, b""))
    uso.compose("down")
    backup = uso.backup()
    uso.publish("v2")
    uso.git("pull", "--quiet", "origin", "main")
    assert uso.build().returncode == 0
    uso.compose("up", "-d")
    uso.wait()
    assert uso.get("/", uso.web_port) == (200, {"version": "v2", **rows})
    assert uso.sql("SELECT count(*) FROM usonline_upload WHERE label = upper(title)") == str(UPLOADS + 1)
    uso.sql("DELETE FROM usonline_tick")
    until(lambda: uso.sql("SELECT DISTINCT source FROM usonline_tick") == "cron")
    assert uso.image_of("uso") == uso.image("v2") == uso.image("latest") != image
    assert uso.fingerprint() != before

    uso.publish("does-not-build")
    uso.git("pull", "--quiet", "origin", "main")
    done = uso.build()
    assert done.returncode == 0 and "nothing" in done.stderr
    assert uso.image("latest") == uso.image("v2") and not uso.image("does-not-build")

    uso.compose("down")
    uso.restore(backup)
    subprocess.run([uso.engine, "tag", "usonline:v1", "usonline:latest"], check=True)
    uso.compose("up", "-d")
    uso.wait()
    assert uso.get("/", uso.web_port) == (200, {"version": "v1", **rows})
    assert (uso.fingerprint(), uso.image_of("uso")) == (before, image)
