"""Which process a service was started as: a file that `launch.py` writes just before it becomes the service.

Its boot and namespace stand in it, as the numbers mean nothing beyond them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from holdfast.system import processes


@dataclass(frozen=True)
class Started:
    pid: int
    started: int
    release: str
    where: str


def read(path: Path) -> Started | None:
    """Return what is recorded, or None where that is nothing of this boot and namespace."""
    try:
        record = Started(**json.loads(path.read_text()))
        return record if record.where == processes.boot_and_namespace() else None
    except (OSError, ValueError, TypeError):
        return None
