"""A dataset that answers no SQL beside a database that does: one line names its driver, and every operation has it.

The driver is the example of tests/harnesses/redis; the command line is told of it before anything else is imported.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.cli import arguments_of
from tests.harnesses.redis import RedisHarness, opened
from tests.proof import patience
from tests.site import Site

_COMMAND = """
from holdfast.config import kinds
kinds.DATABASES["redis"] = "tests.harnesses.redis.driver"
from holdfast.cli.main import main
main()
"""


def run(site: Site, *arguments: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-c", _COMMAND, *arguments_of(site, *arguments)]
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=patience.limit(60))


@pytest.fixture
def space(folder: Path) -> Iterator[RedisHarness]:
    with opened(folder) as made:
        yield made


@pytest.fixture
def site(folder: Path, space: RedisHarness) -> Iterator[Site]:
    """The guestbook, whose sessions are in Redis."""
    made = Site(folder / "s")
    place = f'host = "{space.socket}"\nname = "0"\n'
    text = made.config.read_text().replace("[migrations]\n", '[migrations]\ndatabase = "main"\n')
    made.config.write_text(f'{text}\n[databases.sessions]\nkind = "redis"\n{place}')
    space.add("first")
    yield made
    made.remove()


def test_every_operation_has_it(site: Site, space: RedisHarness) -> None:
    done = run(site, "install", "v1")
    assert done.returncode == 0, done.stderr
    space.add("second")
    done = run(site, "backup", "create")
    assert done.returncode == 0, done.stderr
    listed = json.loads(run(site, "backup", "list", "--json").stdout)
    assert set(listed["data"]["backups"][-1]["datasets"]) == {"main", "sessions", "media"}
    space.add("after the backup")
    done = run(site, "upgrade", "v3")  # its migration dies
    assert done.returncode == 6, done.stderr
    assert space.texts() == ["first", "second", "after the backup"]
    done = run(site, "upgrade", "v2")
    assert done.returncode == 0, done.stderr
    space.clear()
    done = run(site, "backup", "verify", "--load")
    assert done.returncode == 0, done.stderr
    done = run(site, "backup", "restore", "latest", "--only", "sessions")
    assert done.returncode == 0, done.stderr
    assert space.texts() == ["first", "second", "after the backup"]
    assert space.dataset.tokens() == []
    assert run(site, "check").returncode == 0


def test_migrations_need_another(site: Site) -> None:
    text = site.config.read_text()
    site.config.write_text(text.replace('[migrations]\ndatabase = "main"\n', '[migrations]\ndatabase = "sessions"\n'))
    done = run(site, "install", "v1")
    assert done.returncode == 3, done.stderr
    assert "migrations.database: sessions is of kind redis, which answers no SQL" in done.stderr
