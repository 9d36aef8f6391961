"""The stand-ins themselves: what their pages say works on them, and they leave nothing behind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.standins.connect_access import SERVICES, ConnectAccess
from tests.standins.project import PERSONS, UPLOADS
from tests.standins.visitor import Visitor, ask, get


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
    assert site.image_of("django") != image

    site.compose("run", "--rm", "postgres", "restore", backup)
    site.git("checkout", "--quiet", old)
    for words in (["build"], ["down"], ["up", "-d"]):
        site.compose(*words)
    site.wait()
    assert get(site.web_port) == (200, {"version": "v1", **rows})
    assert site.fingerprint() == before
