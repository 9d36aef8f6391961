"""A Compose project whose own nginx leads visitors to the web: no visitor is lost, none meets an unverified version."""

from __future__ import annotations

import http.client
import json
import shutil
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compose_site import ComposeSite
from tests.e2e.cli import run


@pytest.fixture
def adopted(folder: Path) -> Iterator[ComposeSite]:
    if shutil.which("nginx") is None:
        pytest.skip("no nginx here: `make test-setup` as root installs one")
    made = ComposeSite(folder, gate="nginx")
    try:
        made.start()
        assert made.get("/")[0] == 200, "through the operator's own first file"
        done = run(made, "adopt")
        assert done.returncode == 0, done.stderr
        yield made
    finally:
        made.remove()


class Visitors:
    """Ask again and again on connections that they keep."""

    def __init__(self, port: int) -> None:
        self.met: Counter[str] = Counter()
        self._port = port
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._visit) for _ in range(2)]
        for thread in self._threads:
            thread.start()

    def _visit(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
        while not self._ended.is_set():
            kept = connection.sock is not None
            try:
                connection.request("GET", "/")
                answer = connection.getresponse()
                body = answer.read()
                retry = answer.getheader("Retry-After")
                self.met[json.loads(body)["version"] if answer.status == 200 else f"{answer.status} {bool(retry)}"] += 1
            except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError) as error:
                # A connection that was kept idle may be closed at any time, and then every client asks anew (RFC 9110, 9.2.2).
                connection.close()
                if not kept:
                    self.met[repr(error)] += 1
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                self.met[repr(error)] += 1
            time.sleep(0.005)
        connection.close()

    def __enter__(self) -> Counter[str]:
        return self.met

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()


def test_a_maintenance_upgrade_and_a_rolling_one(adopted: ComposeSite) -> None:
    with Visitors(adopted.port) as met:
        done = run(adopted, "upgrade", "v2")
    assert done.returncode == 0, done.stderr
    assert set(met) == {"v1", "v2", "503 True"}, met
    with Visitors(adopted.port) as met:
        done = run(adopted, "upgrade", "v2", "--rolling")
    assert done.returncode == 0, done.stderr
    assert set(met) == {"v2"}, met


@pytest.mark.later
def test_rolling_back_and_forth_loses_no_visitor(adopted: ComposeSite) -> None:
    adopted.add("same-schema", "v1", lambda folder: (folder / "note.txt").write_text("another commit"))
    with Visitors(adopted.port) as met:
        outcomes = [run(adopted, "upgrade", tag, "--rolling") for tag in ("same-schema", "v1") * 2 + ("same-schema",)]
    assert [done.returncode for done in outcomes] == [0] * 5, [done.stderr for done in outcomes]
    assert set(met) == {"v1"}, met


@pytest.mark.later
def test_a_failed_upgrade_is_met_by_nobody(adopted: ComposeSite) -> None:
    before = adopted.fingerprint()
    with Visitors(adopted.port) as met:
        done = run(adopted, "upgrade", "v4")
    assert done.returncode == 6, done.stderr
    assert set(met) == {"v1", "503 True"}, met
    assert adopted.fingerprint() == before
