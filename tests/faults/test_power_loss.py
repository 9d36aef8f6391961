"""Power is lost at every journal write: the filesystems are shut down under a running operation.

Nothing that was not flushed reaches the disk. After mounting again and `recover` at boot the application is whole,
old or new.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from holdfast.errors import HoldfastError
from tests.faults import loop
from tests.faults.power_machine import Machine, prepare
from tests.faults.power_scenarios import SCENARIOS
from tests.faults.test_kill_points import Ground, check_whole

_MOST_FAILURES = 8

# Which part lies on which filesystem, and whether device numbers are others after the boot.
LAYOUTS: dict[str, tuple[dict[str, tuple[str, int | None]], bool]] = {
    "ext4": ({"folder": ("ext4", None)}, False),
    "xfs": ({"folder": ("xfs", None)}, False),
    "three": (
        {"folder": ("ext4", 64), "state": ("ext4", None), "vault": ("xfs", None), "application": ("xfs", None)}, False,
    ),
    "ext4-on-another-device": ({"folder": ("ext4", None)}, True),
}  # fmt: skip

pytestmark = [
    pytest.mark.faults,
    pytest.mark.root,
    pytest.mark.skipif(loop.missing() is not None, reason=str(loop.missing())),
]


@contextlib.contextmanager
def prepared(layout: str, scenario_name: str) -> Iterator[tuple[Machine, Ground]]:
    parts, _ = LAYOUTS[layout]
    scenario = SCENARIOS[scenario_name]
    machine = Machine(parts)
    try:
        old, old_label = prepare(machine, scenario)
        record = machine.mountpoints[0] + ".points"
        end, _, trace = machine.order("operate", scenario=scenario_name, power=machine.mountpoints, record=record)
        assert end == "done", trace
        new, new_label = machine.site.fingerprint(), machine.site.release_label()
        with open(record) as file:
            points = file.read().splitlines()
        ground = Ground(
            scenario, machine.site, machine.site.folder, old, old_label, new, new_label, points, machine.child
        )  # type: ignore[arg-type]
        yield machine, ground
    finally:
        machine.remove()


def one_point(machine: Machine, ground: Ground, number: int, *, move: bool) -> str:
    machine.put_back()
    end, _, trace = machine.order("operate", scenario=ground.scenario.name, power=machine.mountpoints, at=number)
    assert end == "killed", f"the point was not reached: {end} {trace}"
    machine.cycle_power(move=move)
    end, message, trace = machine.order("boot")
    assert end == "done", f"recover: {end}: {message}\n{trace}"
    machine.wait_for_answer()
    return check_whole(ground, [])


@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_power_lost_at_every_journal_write_ends_old_or_new(
    layout: str, scenario: str, request: pytest.FixtureRequest, record_property: pytest.RecordProperty
) -> None:
    every = request.config.getoption("--every")
    _, move = LAYOUTS[layout]
    with prepared(layout, scenario) as (machine, ground):
        assert sum(label.startswith("journal") for label in ground.points) >= 10, ground.points
        chosen = [number for number in range(len(ground.points)) if number % every == 0]
        ends = {"old": 0, "new": 0}
        failures = []
        for number in chosen:
            try:
                ends[one_point(machine, ground, number, move=move)] += 1
            except (AssertionError, HoldfastError) as error:
                failures.append(
                    f"point {number} ({ground.points[number]}): {type(error).__name__}: {str(error)[:3000]}"
                )
                if len(failures) >= _MOST_FAILURES:
                    break
        record_property("power_loss", f"{layout} {scenario}: {len(chosen)} of {len(ground.points)} points, {ends}")
        assert not failures, "\n".join(failures)
        assert ends["old"], "no point ended in the old state"
        if every == 1:
            assert ends["new"], "no point ended in the new state"
