"""A Compose project whose own proxy leads visitors to the web: no visitor is lost, none meets an unverified version."""

from __future__ import annotations

import contextlib
import http.client
import json
import shutil
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compose_site import ComposeSite
from tests.e2e.cli import run, run_json, start
from tests.proof import patience


@pytest.fixture(params=["nginx", "caddy"])
def adopted(request: pytest.FixtureRequest, folder: Path) -> Iterator[ComposeSite]:
    if shutil.which(request.param) is None:
        pytest.skip(f"no {request.param} here: `make test-setup` as root installs one")
    made = ComposeSite(folder, gate=request.param)
    try:
        made.start()
        assert made.get("/")[0] == 200, "through the operator's own first file"
        done = run(made, "adopt")
        assert done.returncode == 0, done.stderr
        yield made
    finally:
        made.remove()


class Visitors:
    """Ask again and again, on connections that they keep or on new ones."""

    def __init__(self, port: int, path: str = "/", *, keep: bool = True) -> None:
        self.met: Counter[str] = Counter()
        self._path, self._keep = path, keep
        self._port = port
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._visit) for _ in range(2)]
        for thread in self._threads:
            thread.start()

    def _visit(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=patience.limit(30))
        while not self._ended.is_set():
            kept = connection.sock is not None
            try:
                connection.request("GET", self._path)
                answer = connection.getresponse()
                body = answer.read()
                retry = answer.getheader("Retry-After")
                self.met[json.loads(body)["version"] if answer.status == 200 else f"{answer.status} {bool(retry)}"] += 1
            except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError) as error:
                # An idle connection may be closed at any time, and then every client asks again (RFC 9110, 9.2.2).
                connection.close()
                if not kept:
                    self.met[repr(error)] += 1
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                self.met[repr(error)] += 1
            if not self._keep:
                connection.close()
            time.sleep(0.005)
        connection.close()

    def __enter__(self) -> Counter[str]:
        return self.met

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()


@pytest.mark.combination
def test_a_maintenance_upgrade_and_a_rolling_one(adopted: ComposeSite) -> None:
    with Visitors(adopted.port) as met:
        done = run(adopted, "upgrade", "v2")
    assert done.returncode == 0, done.stderr
    assert set(met) == {"v1", "v2", "503 True"}, met
    with Visitors(adopted.port) as met:
        done = run(adopted, "upgrade", "v2", "--rolling")
    assert done.returncode == 0, done.stderr
    assert set(met) == {"v2"}, met


def _with_a_slow_page(folder: Path) -> None:
    app = folder / "app.py"
    slow = (
        "    def do_GET(self):\n"
        "        if self.path == '/slow':\n"
        "            __import__('time').sleep(5)\n"
        "            self.path = '/'\n"
    )
    app.write_text(app.read_text().replace("    def do_GET(self):\n", slow))


@pytest.mark.combination
def test_rolling_back_and_forth_loses_no_visitor(adopted: ComposeSite) -> None:
    """Nor one on a connection that is kept, nor one whose answer takes five seconds."""
    adopted.add("slow", "v1", _with_a_slow_page)
    adopted.add("slower", "slow", lambda folder: (folder / "note.txt").write_text("another commit"))
    done = run(adopted, "upgrade", "slow", "--rolling")
    assert done.returncode == 0, done.stderr
    port = adopted.port
    with Visitors(port) as met, Visitors(port, "/slow") as met_slowly, Visitors(port, keep=False) as met_anew:
        outcomes = [run(adopted, "upgrade", tag, "--rolling") for tag in ("slower", "slow") * 2 + ("slower",)]
    assert [done.returncode for done in outcomes] == [0] * 5, [done.stderr for done in outcomes]
    assert [set(each) for each in (met, met_slowly, met_anew)] == [{"v1"}] * 3, (met, met_slowly, met_anew)


@pytest.mark.combination
def test_one_that_was_killed_is_met_old_or_new(adopted: ComposeSite) -> None:
    """At moments of its whole length; until it is recovered visitors meet the page, or the version from before."""
    for seconds in (0.5, 2, 4, 6, 8, 11, 14):
        before = adopted.get("/")[1]["version"]
        with Visitors(adopted.port) as met:
            process = start(adopted, "upgrade", "v2")
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(seconds)
            process.kill()
            process.wait()
            done = run(adopted, "recover")
        assert done.returncode == 0, done.stderr
        status, page = adopted.get("/")
        assert (status, page["version"] in (before, "v2")) == (200, True), (seconds, page)
        assert set(met) <= {before, page["version"], "503 True"}, (seconds, met)
        assert run_json(adopted, "status")["data"]["operations"] == []


@pytest.mark.combination
def test_a_failed_upgrade_is_met_by_nobody(adopted: ComposeSite) -> None:
    before = adopted.fingerprint()
    with Visitors(adopted.port) as met:
        done = run(adopted, "upgrade", "v4")
    assert done.returncode == 6, done.stderr
    assert set(met) == {"v1", "503 True"}, met
    assert adopted.fingerprint() == before
