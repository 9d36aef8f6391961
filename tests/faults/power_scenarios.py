"""The operations that lose power or run out of space; as those that are killed, without visitors that write."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest

from tests import releases
from tests.faults import scenarios
from tests.faults.scenarios import Scenario
from tests.proof.plugin import selection_of
from tests.proof.rotation import FamilyName
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
    """Add a tag v7 to the repository whose migration writes until the disk is full."""
    releases.add(site, "v7", "v2", "0007_fills", _FILLS)


MIGRATION_THAT_FILLS = Scenario(
    "migration_that_fills",
    ("v1", "v2"),
    lambda site: site.operate("upgrade", "v7"),
    _with_a_release_that_fills,
    fails=True,
)
EVERY = {**SCENARIOS, MIGRATION_THAT_FILLS.name: MIGRATION_THAT_FILLS}


# By which title tests/faults/points.json knows what is operated here.
TITLES = {"upgrade": "upgrade", "backup": "backup_pause", "restore": "restore"}


def taken_on_layouts(
    config: pytest.Config, family: FamilyName, layouts: Iterable[str], kind: str, scenarios: Iterable[str] = SCENARIOS
) -> list[Any]:
    """Return parameters `(layout, scenario, take)` of what this run takes; `kind` tells tests of one family apart."""
    titles = [f"{kind} {layout} {scenario}" for scenario in scenarios for layout in layouts]
    return [
        pytest.param(layout, scenario, take, id=f"{layout}-{scenario}-{take}")
        for scenario in scenarios
        for layout in layouts
        for take in selection_of(config).takes(family, f"{kind} {layout} {scenario}", titles, key=scenario)
    ]
