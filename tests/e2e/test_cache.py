"""`cache rebuild`: a new cache next to the old one, and none that is half warm."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import kept
from tests.e2e.cli import run, run_json, start, succeed
from tests.proof import patience
from tests.site import Site


@pytest.fixture
def site() -> Iterator[Site]:
    with kept.site() as lent:
        yield lent


def warm(site: Site, command: str) -> None:
    lines = site.config.read_text().splitlines()
    task = f"warm_cache = [\"sh\", \"-c\", '''{command}''']"
    site.config.write_text("\n".join(task if line.startswith("warm_cache") else line for line in lines) + "\n")


def test_the_new_cache_is_used_only_when_it_is_warm(site: Site) -> None:
    go = site.folder / "go"
    warm(site, f"touch half; while [ ! -e {go} ]; do sleep 0.05; done; touch warm")
    before = Path(site.app_folder / "current").resolve()
    site.post(b"a session")
    rows = site.get("/")[1]
    process = start(site, "cache", "rebuild")
    patience.until(lambda: list(site.app_folder.glob("releases/*/half")))
    assert Path(site.app_folder / "current").resolve() == before and not (before / "half").exists()
    assert site.get("/") == (200, rows)
    go.touch()
    while process.poll() is None:
        assert site.get("/") == (200, rows), "a visitor noticed it"
    assert process.returncode == 0
    after = Path(site.app_folder / "current").resolve()
    assert after != before and (after / "warm").exists()
    assert site.get("/") == (200, rows)
    newest = run_json(site, "log", "list")["data"]["operations"][0]
    assert newest["title"] == "rebuild the cache of v1"
    assert run_json(site, "release", "list")["data"]["releases"][0]["label"] == "v1"


def test_a_failure_leaves_the_old_cache_in_use(site: Site) -> None:
    warm(site, "touch half; exit 1")
    before = Path(site.app_folder / "current").resolve()
    done = run(site, "cache", "rebuild")
    assert done.returncode == 6 and "the state before the operation is back" in done.stderr
    assert Path(site.app_folder / "current").resolve() == before
    assert site.get("/")[0] == 200


def test_without_the_task_it_is_refused(site: Site) -> None:
    lines = [line for line in site.config.read_text().splitlines() if not line.startswith("warm_cache")]
    site.config.write_text("\n".join(lines) + "\n")
    done = run(site, "cache", "rebuild")
    assert done.returncode == 4 and "no task warm_cache" in done.stderr
    assert "holdfast cache rebuild" in succeed(site, "cache", "rebuild", "--help")
