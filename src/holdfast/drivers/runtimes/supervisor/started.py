"""The record of the process as which a service was started: a file that `launch.py` writes just before it.

The record includes boot and namespace, because process ids mean nothing beyond them.
"""

from __future__ import annotations

import json
from pathlib import Path

import msgspec

from holdfast.system import processes


class Started(msgspec.Struct, frozen=True):
    pid: int
    started: int
    release: str
    where: str


def read(path: Path) -> Started | None:
    """Return the record; None where there is none of this boot and namespace."""
    try:
        record = Started(**json.loads(path.read_text()))
        return record if record.where == processes.boot_and_namespace() else None
    except (OSError, ValueError, TypeError):
        return None
