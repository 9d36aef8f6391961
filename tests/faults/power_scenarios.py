"""The operations that lose power or run out of space; as those that are killed, without visitors that write."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest

from tests import releases
from tests.faults import scenarios
from tests.faults.scenarios import Scenario
from tests.site import Site

_BY_NAME = {scenario.name: scenario for scenario in scenarios.SCENARIOS}

SCENARIOS: dict[str, Scenario] = {
    "upgrade": _BY_NAME["upgrade"],
    # Without writers the data have to be the same to the byte, not only the acknowledged entries.
    "backup": replace(_BY_NAME["backup_pause"], name="backup", writers=False),
    "restore": _BY_NAME["restore"],
}

_FILLS = '''def apply(database, media):
    """Converts every upload into something larger, without end."""
    database.execute("DELETE FROM entries WHERE id % 2 = 0")
    for path in sorted(media.rglob("*.bin"))[:3]:
        path.write_bytes(b"converted")
    number = 0
    while True:
        number += 1
        (media / f"converted-{number}.bin").write_bytes(b"x" * 500_000)
'''


def _with_a_release_that_fills(site: Site) -> None:
    """At v2, with a tag v7 in the repository whose migration writes until the disk is full."""
    site.operate("install", "v1")
    site.operate("upgrade", "v2")
    releases.add(site, "v7", "v2", "0007_fills", _FILLS)


MIGRATION_THAT_FILLS = Scenario(
    "migration_that_fills", _with_a_release_that_fills, lambda site: site.operate("upgrade", "v7"), fails=True
)
EVERY = {**SCENARIOS, MIGRATION_THAT_FILLS.name: MIGRATION_THAT_FILLS}


def on_layouts(layouts: Iterable[str]) -> list[Any]:
    """Parameters: every scenario on every layout, marked so that a sample has each layout and each scenario once."""
    return [
        pytest.param(layout, scenario, marks=[] if (row - column) % len(SCENARIOS) == 0 else [pytest.mark.later])
        for row, layout in enumerate(layouts)
        for column, scenario in enumerate(SCENARIOS)
    ]
