"""The operations that lose power or run out of space; as those that are killed, without visitors that write."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace

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
    git = ["git", "-C", str(site.repository), "-c", "user.name=Guestbook", "-c", "user.email=guestbook@example.invalid"]
    settings = json.loads(_output([*git, "show", "v2:settings.json"]))
    _output([*git, "checkout", "--quiet", "--detach", "v2"])
    (site.repository / "migrations" / "0007_fills.py").write_text(_FILLS)
    (site.repository / "settings.json").write_text(json.dumps({**settings, "version": "v7"}))
    _output([*git, "add", "--all"])
    _output([*git, "commit", "--quiet", "--message", "Guestbook v7"])
    _output([*git, "tag", "v7"])


def _output(argv: list[str]) -> str:
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True).stdout


MIGRATION_THAT_FILLS = Scenario(
    "migration_that_fills", _with_a_release_that_fills, lambda site: site.operate("upgrade", "v7"), fails=True
)
EVERY = {**SCENARIOS, MIGRATION_THAT_FILLS.name: MIGRATION_THAT_FILLS}
