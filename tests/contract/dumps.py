"""Taking a dump as the steps do, in one call."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from holdfast.drivers.protocols.datasets import Dataset
from holdfast.model import Snapshot


def snapshot(database: Dataset, target: Path, queries: Sequence[str] = (), budget_seconds: float = 10) -> Snapshot:
    with database.freeze_writes(None) as fix:
        return fix(target, queries, budget_seconds)()
