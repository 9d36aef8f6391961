"""Folders and journals for unit tests: in memory where the machine has such a place."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.memory import make_folder, remove_folder


@pytest.fixture
def quick_folder() -> Iterator[Path]:
    path = make_folder()
    yield path
    remove_folder(path)
