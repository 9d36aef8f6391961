"""Folders for the suites: in memory where the machine has such a place, so that many small trees cost little."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.memory import make_folder, remove_folder
from tests.servers import postgresql
from tests.servers.postgresql import PostgresqlServer


@pytest.fixture
def quick_folder() -> Iterator[Path]:
    path = make_folder()
    yield path
    remove_folder(path)


@pytest.fixture
def server() -> Iterator[PostgresqlServer]:
    """The one of this process."""
    with postgresql.shared() as running:
        yield running


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A disk that has room for a server and little more."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    path = Path(tempfile.mkdtemp(prefix="hfs"))
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=260m", "tmpfs", str(path)], check=True)
    yield path
    subprocess.run(["umount", "--lazy", str(path)], check=True)
    path.rmdir()
