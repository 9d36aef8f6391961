"""The operations that lose power or run out of space; as those that are killed, without visitors that write."""

from __future__ import annotations

from dataclasses import replace

from tests.faults import scenarios
from tests.faults.scenarios import Scenario

_BY_NAME = {scenario.name: scenario for scenario in scenarios.SCENARIOS}

SCENARIOS: dict[str, Scenario] = {
    "upgrade": _BY_NAME["upgrade"],
    # Without writers the data have to be the same to the byte, not only the acknowledged entries.
    "backup": replace(_BY_NAME["backup_pause"], name="backup", writers=False),
    "restore": _BY_NAME["restore"],
}
