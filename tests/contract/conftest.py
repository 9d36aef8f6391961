"""Folders for the suites: in memory where the machine has such a place, so that many small trees cost little."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers import postgresql
from tests.servers.postgresql import PostgresqlServer


@pytest.fixture
def quick_folder() -> Iterator[Path]:
    memory = "/dev/shm"
    path = Path(tempfile.mkdtemp(prefix="hf", dir=memory if os.access(memory, os.W_OK) else None))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def server() -> Iterator[PostgresqlServer]:
    """The one of this process."""
    with postgresql.shared() as running:
        yield running
