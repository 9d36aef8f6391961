"""A full disk under upgrade, backup and restore: what fails is undone without space, the old version serves.

The vault, the state, the application, and all of them together in turn lie on a small filesystem. It is full from
the start, but for a little; or it fills up at a journal write in the middle of the operation.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from holdfast.errors import HoldfastError
from tests.faults import loop
from tests.faults.loop import Filesystem
from tests.faults.power_machine import Machine, prepare
from tests.faults.power_scenarios import EVERY, MIGRATION_THAT_FILLS, taken_on_layouts
from tests.faults.test_kill_points import Ground, check_whole
from tests.proof.rotation import Take

_SMALL = ("ext4", 64)
LAYOUTS: dict[str, dict[str, tuple[str, int | None]]] = {
    "vault": {"folder": ("ext4", None), "vault": _SMALL},
    "state": {"folder": ("ext4", None), "state": _SMALL},
    "application": {"folder": ("ext4", None), "application": _SMALL},
    "all": {"folder": ("ext4", 96)},
}
FREE_KIB = (0, 4, 16, 64, 128, 256, 512, 1024, 1536, 2048, 3072, 4096, 6144, 8192)
_UNDONE = {"OperationFailedError", "RefusedError", "NoSpaceError"}
_MOST_FAILURES = 8

pytestmark = [
    pytest.mark.faults,
    pytest.mark.root,
    pytest.mark.skipif(loop.missing() is not None, reason=str(loop.missing())),
]


# Points lie before and after each write of the journal, and space runs out between two of them in the same way.
_SPARSER = 6


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make a test for each part that this run takes."""
    if "take" not in metafunc.fixturenames:
        return
    kind = metafunc.function.__name__.removeprefix("test_")
    found = (
        taken_on_layouts(metafunc.config, "disk", ("application", "state", "all"), kind, ("upgrade",))
        if "recovery" in kind
        else taken_on_layouts(metafunc.config, "disk", LAYOUTS, kind)
    )
    metafunc.parametrize(("part", "scenario", "take"), found)


@contextlib.contextmanager
def prepared(part: str, scenario_name: str) -> Iterator[tuple[Machine, Filesystem, Ground]]:
    machine = Machine(LAYOUTS[part])
    small = machine.filesystems["folder" if part == "all" else part]
    scenario = EVERY[scenario_name]
    try:
        old, old_label = prepare(machine, scenario)
        record = f"{small.mountpoint}.points"
        order = {"scenario": scenario_name, "ballast": str(small.ballast), "record": record}
        end, message, trace = machine.order("operate", **order)
        assert end == ("OperationFailedError" if scenario.fails else "done"), trace
        assert not scenario.fails or "No space left" in message, message
        new, new_label = machine.site.fingerprint(), machine.site.release_label()
        with open(record) as file:
            points = file.read().splitlines()
        yield (
            machine,
            small,
            Ground(scenario, machine.site, None, old, old_label, new, new_label, points, machine.child),  # type: ignore[arg-type]  # nothing is saved, and a child forks as the Forker does
        )
    finally:
        machine.remove()


def check_after(machine: Machine, small: Filesystem, ground: Ground, end: str, message: str, trace: str) -> str:
    """What an operation left that met a full disk; then again with space."""
    site = machine.site
    # SQLite in WAL mode cannot even read without room for its `-shm`: on its own full disk the guestbook answers 500,
    # with or without Holdfast. It has to be the old one again as soon as there is room.
    on_its_own = small.mountpoint in site.database.parents
    if end == "done":
        small.release()
        assert check_whole(ground, []) == ("new" if ground.new != ground.old else "old")
        return "done"
    if end == "InterruptedOperationError":
        assert "after the commit" in message, trace
        small.release()
        recover(machine)
        check_whole(ground, [])
        assert site.release_label() == ground.new_label
        return "recovered"
    if end == "StuckError" and on_its_own and "not healthy after" in message.partition("(the operation had failed")[0]:
        small.release()
        recover(machine)
        assert check_whole(ground, []) == "old"
        return "stuck until the application had room"
    assert end in _UNDONE, f"{end}: {message}\n{trace}"
    if on_its_own:
        small.release()
        machine.wait_for_answer()
    status, body = site.get("/")
    assert status == 200, f"after {end} ({message}) the old version answers {status}: {body}"
    assert body["version"] == ground.old_label
    assert site.fingerprint() == ground.old, f"after {end} ({message}) the data are not the old"
    small.release()
    assert check_whole(ground, []) == "old"
    again = machine.order("operate", scenario=ground.scenario.name)
    assert again[0] == "done", f"after space was freed: {again[0]}: {again[1]}\n{again[2]}"
    assert check_whole(ground, []) == ("new" if ground.new != ground.old else "old")
    return "undone"


def recover(machine: Machine) -> None:
    end, message, trace = machine.order("recover")
    assert end == "done", f"recover with space: {end}: {message}\n{trace}"
    machine.wait_for_answer()


def test_little_space_from_the_start(
    part: str, scenario: str, take: Take, record_property: pytest.RecordProperty
) -> None:
    ends: dict[str, int] = {}
    failures = []
    chosen = [FREE_KIB[index] for index in take.points(range(len(FREE_KIB)), {})]
    with prepared(part, scenario) as (machine, small, ground):
        for free_kib in chosen:
            try:
                machine.put_back()
                small.fill(free_kib << 10)
                end = check_after(machine, small, ground, *machine.order("operate", scenario=scenario))
                ends[end] = ends.get(end, 0) + 1
            except (AssertionError, HoldfastError, OSError) as error:
                failures.append(f"{free_kib} KiB free: {type(error).__name__}: {str(error)[:3000]}")
                if len(failures) >= _MOST_FAILURES:
                    break
    record_property("disk_full", f"{part} {scenario} {take}: {len(chosen)} sizes, {ends}")
    assert not failures, "\n".join(failures)
    assert ends.get("undone") or not take.is_whole, "the disk was never too full"


def test_disk_that_fills_up_at_every_journal_write(
    part: str, scenario: str, take: Take, record_property: pytest.RecordProperty
) -> None:
    ends: dict[str, int] = {}
    failures = []
    with prepared(part, scenario) as (machine, small, ground):
        chosen = take.points(range(0, len(ground.points), _SPARSER), {})
        for number in chosen:
            try:
                machine.put_back()
                answer = machine.order("operate", scenario=scenario, ballast=str(small.ballast), at=number)
                end = check_after(machine, small, ground, *answer)
                ends[end] = ends.get(end, 0) + 1
            except (AssertionError, HoldfastError, OSError) as error:
                failures.append(
                    f"full at point {number} ({ground.points[number]}): {type(error).__name__}: {str(error)[:3000]}"
                )
                if len(failures) >= _MOST_FAILURES:
                    break
    record_property(
        "disk_full", f"{part} {scenario} {take}: full at {len(chosen)} of {len(ground.points)} points, {ends}"
    )
    assert not failures, "\n".join(failures)
    # What fills up under the state alone is made good by its reserve.
    assert part == "state" or set(ends) != {"done"} or not take.is_whole, "the disk was never too full"


def test_recovery_of_a_killed_upgrade_needs_no_space(
    part: str, scenario: str, take: Take, record_property: pytest.RecordProperty
) -> None:
    ends = {"old": 0, "new": 0}
    failures = []
    with prepared(part, scenario) as (machine, small, ground):
        # The last one lies after the commit, however few are taken.
        chosen = take.points(sorted({*range(0, len(ground.points), _SPARSER), len(ground.points) - 1}), {})
        for number in chosen:
            try:
                machine.put_back()
                # Power that takes no filesystem along: the process dies.
                assert machine.order("operate", scenario=scenario, power=[], at=number)[0] == "killed"
                small.fill()
                end, message, trace = machine.order("recover")
                assert end == "done", f"recover on a full disk: {end}: {message}\n{trace}"
                small.release()
                machine.wait_for_answer()
                ends[check_whole(ground, [])] += 1
            except (AssertionError, HoldfastError, OSError) as error:
                failures.append(
                    f"point {number} ({ground.points[number]}): {type(error).__name__}: {str(error)[:3000]}"
                )
                if len(failures) >= _MOST_FAILURES:
                    break
    record_property(
        "disk_full", f"recover with {part} full {take}: {len(chosen)} of {len(ground.points)} points, {ends}"
    )
    assert not failures, "\n".join(failures)
    if take.is_whole:
        assert ends["old"] and ends["new"], ends


@pytest.mark.parametrize("part", ["application", "all"])
def test_migration_that_fills_the_disk_is_undone_without_space(part: str) -> None:
    with prepared(part, MIGRATION_THAT_FILLS.name) as (machine, small, ground):
        assert ground.new == ground.old, "the failed operation was not undone"
        assert ground.new_label == ground.old_label == "v2"
        assert check_whole(ground, []) == "old"
        machine.put_back()
        # What another program takes besides the migration is not there for the undo either.
        small.fill(6 << 20)
        end, message, trace = machine.order("operate", scenario=ground.scenario.name)
        assert end == "OperationFailedError", f"{end}: {message}\n{trace}"
        assert "No space left" in message, message
        assert machine.site.get("/")[0] == 200
        small.release()
        assert check_whole(ground, []) == "old"
