"""What a submission costs: `python -m tests.proof.estimate [FILE...]`, in processor seconds, before anything runs.

FILE is what a change touches, by its path in the tree; without one, what changed since the submission began.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping

from tests.faults import test_disk_full, test_power_loss, test_server_dies
from tests.faults.power_scenarios import SCENARIOS as POWER
from tests.faults.power_scenarios import TITLES
from tests.faults.scenarios import ENGINE_SCENARIOS, SCENARIOS, Scenario
from tests.proof import touched
from tests.proof.rotation import FAMILIES, FamilyName, Selection
from tests.proof.touched import known_scenarios, select
from tests.site import IN_CONTAINERS

ENGINES = {scenario.title: scenario.engine for scenario in (*SCENARIOS, *ENGINE_SCENARIOS)}
# What does not depend on the change: all tests without marks, and the parts of those that rotate.
REST = {"checks": 10, "unmarked tests": 1300, "combinations": 190, "variants": 60}
MOST_SECONDS = 3800
"""The most that a submission may cost. On two cores that is about an hour, for tests also wait."""


def families() -> Iterator[tuple[FamilyName, list[str], dict[str, int]]]:
    """Yield each family with its titles and the numbers of their points."""
    known = known_scenarios()
    for name in ("embedded", "server", "inside", "container"):
        titles = [title for title, scenario in all_scenarios().items() if scenario.family == name]
        yield name, titles, {title: known[title].points for title in titles}
    layouts = [f"power {layout} {scenario}" for scenario in POWER for layout in test_power_loss.LAYOUTS]
    yield "power", layouts, dict.fromkeys(layouts, 80)
    for kind in ("little_space_from_the_start", "disk_that_fills_up_at_every_journal_write"):
        parts = [f"{kind} {part} {scenario}" for scenario in POWER for part in test_disk_full.LAYOUTS]
        yield "disk", parts, dict.fromkeys(parts, 14)
    dies = [scenario.title for scenario in test_server_dies.SCENARIOS]
    yield "server_dies", dies, dict.fromkeys(dies, 20)
    embedded = [scenario.title for scenario in SCENARIOS]
    yield "durability", embedded, dict.fromkeys(embedded, 1)


def all_scenarios() -> dict[str, Scenario]:
    return {scenario.title: scenario for scenario in (*SCENARIOS, *ENGINE_SCENARIOS)}


def estimate(selection: Selection) -> Mapping[FamilyName, float]:
    """Return the processor seconds of each family of points, as if each step of a scenario had as many."""
    seconds: dict[FamilyName, float] = {}
    known = known_scenarios()
    for name, titles, counts in families():
        for title in titles:
            count = counts[title]
            steps = sorted(known[title].steps) if title in known else [""]
            for take in selection.takes(name, title, titles, key=title.rpartition(" ")[2]):
                taken = take.points(range(count), {point: steps[point * len(steps) // count] for point in range(count)})
                seconds[name] = seconds.get(name, 0) + FAMILIES[name].seconds(len(taken), 1)
    return seconds


def main() -> None:
    """Print where the time goes."""
    if files := set(sys.argv[1:]):
        touched.changed_files = lambda _: files
    selection = select("submission", None, None, ENGINES, IN_CONTAINERS, TITLES)
    parts = {**estimate(selection), **REST}
    print("\n".join(selection.describe()))
    for name, seconds in sorted(parts.items(), key=lambda part: -part[1]):
        print(f"{seconds:6.0f}  {name}")
    print(f"{sum(parts.values()):6.0f}  in all, of at most {MOST_SECONDS}")


if __name__ == "__main__":
    main()
