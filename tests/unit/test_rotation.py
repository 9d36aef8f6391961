"""Every point is reached within a stated number of submissions, and all that a change touches at once."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from tests.faults.power_scenarios import TITLES
from tests.proof.estimate import ENGINES, MOST_SECONDS, REST, estimate, families
from tests.proof.rotation import ALL_STEPS, FAMILIES, MARKED_PERIOD, FamilyName, Selection, Take, Touched
from tests.proof.touched import (
    ROOT,
    drivers_of,
    known_scenarios,
    module_of,
    select,
    touched_operations,
    touched_steps,
)
from tests.site import IN_CONTAINERS

MOST_SUBMISSIONS = 24


@pytest.mark.parametrize("first", [1, 8, 100])
def test_every_point_is_taken_within_the_stated_number_of_submissions(
    first: int, record_property: pytest.RecordProperty
) -> None:
    for name, titles, counts in families():
        taken: Counter[tuple[str, int]] = Counter()
        period = FAMILIES[name].submission.period
        sizes = []
        for number in range(first, first + period):
            selection = Selection("submission", number, {})
            before = taken.total()
            for title in titles:
                for take in selection.takes(name, title, titles):
                    taken.update((title, point) for point in take.points(range(counts[title]), {}))
            sizes.append(taken.total() - before)
        every = {(title, point) for title in titles for point in range(counts[title])}
        assert set(taken) == every and set(taken.values()) == {1}
        record_property(
            "rotation", f"{name}: {len(every)} points within {period}, {min(sizes)} to {max(sizes)} at a time"
        )
        assert period <= MOST_SUBMISSIONS
    assert max(MARKED_PERIOD.values()) <= MOST_SUBMISSIONS


def test_every_marked_test_is_taken_within_its_period_and_when_its_product_changed() -> None:
    for mark, period in MARKED_PERIOD.items():
        for node in ("tests/e2e/test_a.py::test_one[mysql]", "tests/contract/test_b.py::test_two"):
            taken = [Selection("submission", number, {}).takes_marked(mark, node) for number in range(period)]
            assert sum(taken) == 1
    changed = Selection("submission", 0, {}, frozenset({"mysql"}))
    assert changed.takes_marked("variant", "any", "mysql")


def test_everything_takes_every_point_once() -> None:
    selection = Selection("everything", 5, {})
    taken = [point for take in selection.takes("embedded", "a", ["a"]) for point in take.points(range(100), {})]
    assert sorted(taken) == list(range(100))


def test_touched_points_are_all_taken_at_once_or_shared_by_a_stated_number_of_submissions() -> None:
    steps = {point: "gate.close" if point < 10 else "task.run" for point in range(60)}
    touched = {"server": {"a": Touched(frozenset({"gate.close"}), 10)}}
    for number in range(FAMILIES["server"].submission.period):
        (take,) = Selection("submission", number, touched).takes("server", "a", ["a", "b"])
        assert set(range(10)) <= set(take.points(range(60), steps))
    titles = ["a", "b"]
    expensive = {"container": dict.fromkeys(titles, Touched(ALL_STEPS, 100))}
    taken: Counter[tuple[str, int]] = Counter()
    for number in range(600, 610):  # 200 points of 6.5 seconds and two preparations, at 150 seconds a submission
        for title in titles:
            for take in Selection("submission", number, expensive).takes("container", title, titles):
                touched_points = Take((), 1, take.steps, take.thin, take.thin_offset).points(range(100), {})
                taken.update((title, point) for point in touched_points)
    assert set(taken) == {(title, point) for title in titles for point in range(100)} and max(taken.values()) == 1


def test_a_submission_that_touches_everything_is_bounded(
    monkeypatch: pytest.MonkeyPatch, record_property: pytest.RecordProperty
) -> None:
    monkeypatch.setattr("tests.proof.touched.changed_files", lambda _: {"src/holdfast/engine/runner.py"})
    selection = select("submission", 0, None, ENGINES, IN_CONTAINERS, TITLES)
    costs = [
        sum(estimate(replace(selection, number=number)).values()) + sum(REST.values())
        for number in range(MOST_SUBMISSIONS)
    ]
    record_property("rotation", f"everything touched: {min(costs):.0f} to {max(costs):.0f} processor seconds")
    assert max(costs) <= MOST_SECONDS


def module(path: str) -> set[str]:
    assert (ROOT / path).exists()
    found = module_of(path)
    assert found is not None
    return {found}


def test_a_changed_file_finds_its_steps_operations_and_drivers() -> None:
    assert touched_steps(module("src/holdfast/steps/guard.py")) == {"guard.count", "guard.compare"}
    assert "gate.close" in touched_steps(module("src/holdfast/steps/services.py")), "by what the step's module imports"
    assert touched_operations(module("src/holdfast/operations/clone.py")) == {"clone"}
    driver = module("src/holdfast/drivers/databases/postgresql/copies.py")
    assert driver <= drivers_of("postgresql") and not driver & drivers_of("mariadb")
    assert module("src/holdfast/drivers/runtimes/supervisor/launch.py") <= drivers_of("sqlite"), (
        "it is started as a program"
    )


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        ("src/holdfast/steps/guard.py", {("embedded", "upgrade"), ("server", "postgresql_upgrade")}),
        (
            "src/holdfast/drivers/databases/mariadb/copies.py",
            {("server", "mariadb_restore"), ("server", "mysql_restore")},
        ),
        (
            "src/holdfast/drivers/runtimes/compose/driver.py",
            {("container", "compose_upgrade"), ("container", "podman_upgrade_that_fails")},
        ),
        (
            "src/holdfast/engine/runner.py",
            {("embedded", title) for title, engine in ENGINES.items() if engine == "sqlite"},
        ),
        ("src/holdfast/system/durable.py", {("power", "upgrade"), ("disk", "backup")}),
    ],
)
def test_a_change_touches_scenarios(
    path: str, wanted: set[tuple[FamilyName, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.proof.touched.changed_files", lambda _: {path})
    selection = select("submission", 3, None, ENGINES, IN_CONTAINERS, TITLES)
    found = {(family, title) for family, titles in selection.touched.items() for title in titles}
    assert wanted <= found
    whole = {family for family, title in wanted if selection.touched[family][title].steps == ALL_STEPS}
    assert whole == {family for family, _ in wanted} or path.endswith("guard.py")


def test_each_kind_of_operation_leads_to_its_file() -> None:
    from tests.proof.touched import _OPERATIONS

    for title, known in known_scenarios().items():
        assert any(known.operation.startswith(kind) for kind in _OPERATIONS), title
