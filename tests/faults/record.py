"""Writes points.json anew: `python -m tests.faults.record [TITLE ...]`.

It says of each scenario how many points it has at least, which operation it is and which steps its points lie in. The
number may only be made smaller by hand, with a reason in the commit.
"""

from __future__ import annotations

import json
import sys

from tests import conftest  # noqa: F401  # sets up the PATH by which applications find their programs
from tests.faults.scenarios import ENGINE_SCENARIOS, SCENARIOS
from tests.faults.test_kill_points import prepared
from tests.proof.touched import POINTS

# Threads and polls of a busy engine may merge a few points of a run.
_SLACK = {"embedded": 0.97, "server": 0.95, "inside": 0.95, "container": 0.9}


def main(wanted: list[str]) -> None:
    known = json.loads(POINTS.read_text())
    for scenario in (*SCENARIOS, *ENGINE_SCENARIOS):
        if wanted and scenario.title not in wanted:
            continue
        with prepared(scenario) as ground:
            before = known.get(scenario.title, {})
            known[scenario.title] = {
                "points": max(int(len(ground.existing) * _SLACK[scenario.family]), before.get("points", 0)),
                "operation": ground.operation,
                "steps": sorted({step for number in ground.existing if (step := ground.step_of[number]) is not None}),
            }
            print(f"{scenario.title}: {len(ground.existing)} points", flush=True)
    lines = [f" {json.dumps(title)}: {json.dumps(known[title])}" for title in sorted(known)]
    POINTS.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
