"""Power is lost at every journal write: the filesystems are shut down under a running operation.

Nothing that was not flushed reaches the disk. After mounting again and `recover` at boot the application is whole,
old or new.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from holdfast.errors import HoldfastError, OperationFailedError
from tests import kept
from tests.faults import loop
from tests.faults.power_machine import Machine, prepare
from tests.faults.power_recorder import Recorder, recording
from tests.faults.power_scenarios import SCENARIOS, taken_on_layouts
from tests.faults.scenarios import SCENARIOS as KILLED
from tests.faults.scenarios import Scenario
from tests.faults.test_kill_points import Ground, check_whole
from tests.proof.plugin import selection_of
from tests.proof.rotation import Take
from tests.site import Site

_MOST_FAILURES = 8

# Which part lies on which filesystem, and whether device numbers are others after the boot.
LAYOUTS: dict[str, tuple[dict[str, tuple[str, int | None]], bool]] = {
    "ext4": ({"folder": ("ext4", None)}, False),
    "xfs": ({"folder": ("xfs", None)}, False),
    "three": (
        {"folder": ("ext4", 64), "state": ("ext4", None), "vault": ("xfs", None), "application": ("xfs", None)},
        False,
    ),
    "ext4-on-another-device": ({"folder": ("ext4", None)}, True),
}

pytestmark = pytest.mark.faults

# A run that is not finished, records for messages, space without content, and what is known of processes, of which none
# outlives a power loss: what may be gone after one.
_UNFINISHED = ("/vault/tmp/", "/packages/tmp/")
"""Folders of what is not finished yet; it counts from its move out of them on."""
_MAY_BE_LOST = (
    *_UNFINISHED,
    "/state/locks/",
    "/state/logs/",
    "/state/processes",
    "/state/supervisor/processes",
    "/state/front/lock",
    "/reserve",
    ".sock",
    "/supervisord.out",
)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make a test for each part that this run takes."""
    if "layout" in metafunc.fixturenames:
        found = taken_on_layouts(metafunc.config, "power", LAYOUTS, "power")
        metafunc.parametrize(("layout", "scenario", "take"), found)
    elif "scenario" in metafunc.fixturenames:
        titles = [scenario.title for scenario in KILLED]
        selection = selection_of(metafunc.config)
        taken = [one for one in KILLED if selection.takes("durability", one.title, titles)]
        metafunc.parametrize("scenario", taken, ids=lambda scenario: scenario.name)


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
        ground = Ground(scenario, machine.site, None, old, old_label, new, new_label, points, machine.child)  # type: ignore[arg-type]  # nothing is saved, and a child forks as the Forker does
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
    state = check_whole(ground, [])
    return backup_state(machine) if ground.old == ground.new else state


def backup_state(machine: Machine) -> str:
    """For what changes no data: `new` if it is committed; then its set is listed, and otherwise it is not."""
    app = machine.site.open()
    try:
        newest = app.journal.operations(1)[0]
        assert app.context.vault is not None
        listed = [backup.operation for backup in app.context.vault.backups()]
        assert (newest.id in listed) == newest.committed, f"{newest.id} {newest.outcome}: {listed}"
        return "new" if newest.kind == "backup.create" and newest.committed else "old"
    finally:
        app.close()


@pytest.mark.root
@pytest.mark.skipif(loop.missing() is not None, reason=str(loop.missing()))
def test_power_lost_at_every_journal_write_ends_old_or_new(
    layout: str, scenario: str, take: Take, record_property: pytest.RecordProperty
) -> None:
    _, move = LAYOUTS[layout]
    with prepared(layout, scenario) as (machine, ground):
        assert sum(label.startswith("journal") for label in ground.points) >= 10, ground.points
        # Take every point on one filesystem of each kind, and every sixth on the layouts that combine them.
        existing = range(0, len(ground.points), 1 if layout in ("ext4", "xfs") else 6)
        chosen = take.points(existing, {})
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
        record_property("power_loss", f"{layout} {scenario} {take}: {len(chosen)} of {len(existing)} points, {ends}")
        assert not failures, "\n".join(failures)
        if take.is_whole:
            assert ends["old"] and ends["new"], ends


def test_what_the_journal_rests_on_is_durable_before_it_is_written(
    scenario: Scenario, record_property: pytest.RecordProperty
) -> None:
    """Without root: nothing is shut down, but each change and each sync of this process is on record."""
    with kept.site(tags=scenario.tags) as site:
        if scenario.before is not None:
            scenario.before(site)
        check_durability(scenario, site, record_property)


def check_durability(scenario: Scenario, site: Site, record_property: pytest.RecordProperty) -> None:
    writes: list[str] = []
    early: list[str] = []

    def at_write(what: str, lost: list[str]) -> None:
        writes.append(what)
        early.extend(f"{what}: {item} is not durable" for item in lost)

    recorder = Recorder([site.folder], lambda path: any(part in str(path) for part in _MAY_BE_LOST), at_write)
    recorder.unfinished = lambda path: any(part in str(path) for part in _UNFINISHED)
    with recording(recorder), contextlib.suppress(OperationFailedError):
        scenario.act(site)
    record_property("power_loss", f"recorded {scenario.name}: {len(writes)} journal writes")
    assert len(writes) >= 6, writes
    assert any(what.startswith("finish") for what in writes)
    assert recorder.synced_filesystems >= 1
    assert not early, "\n".join(early[:20])
    assert not recorder.early, "\n".join(recorder.early[:20])
