"""Folders and journals for unit tests: in memory where the machine has such a place."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


@pytest.fixture
def quick_folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="hf", dir=MEMORY))
    yield path
    shutil.rmtree(path, ignore_errors=True)
