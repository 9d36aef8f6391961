"""Retention: what is kept, whatever the rules and the sets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.application.application import App
from holdfast.errors import DamagedError
from holdfast.model import Backup
from holdfast.operations import prune
from holdfast.steps.backup import PruneBackups
from tests.fakes import MemoryVault
from tests.unit.applications import do, make_app, make_backup, make_context

PERIODS = {"hourly": "%Y%m%d%H", "daily": "%Y%m%d", "weekly": "%G%V", "monthly": "%Y%m", "yearly": "%Y"}
START = datetime(2025, 12, 20, tzinfo=UTC)


@st.composite
def histories(draw: st.DrawFn) -> list[Backup]:
    """Sets as time went by, some pinned, in any order; clocks may have been set back."""
    sets, at = [], START
    for number in range(1, draw(st.integers(0, 25)) + 1):
        at += timedelta(minutes=draw(st.sampled_from([-30, 0, 10, 60, 600, 1440, 20000, 600000])))
        created_at = at.strftime("%Y-%m-%dT%H:%M:%SZ")
        datasets = draw(st.sampled_from([("main", "media"), ("main",), ("media", "main", "more"), ()]))
        sets.append(make_backup(number, created_at, pinned=draw(st.booleans()), datasets=datasets))
    return draw(st.permutations(sets))


rules = st.fixed_dictionaries({"last": st.integers(1, 5)}, optional={name: st.integers(0, 6) for name in PERIODS})


def newest_first(sets: list[Backup]) -> list[Backup]:
    return sorted(sets, key=lambda backup: -backup.sequence)


@settings(max_examples=200, deadline=None)
@given(sets=histories(), keep=rules)
def test_pinned_ones_and_the_last_are_always_kept(sets: list[Backup], keep: dict[str, int]) -> None:
    kept = prune.kept(sets, keep)
    assert {backup.id for backup in sets if backup.pinned} <= set(kept)
    assert {backup.id for backup in newest_first(sets)[: keep["last"]]} <= set(kept)
    assert all(kept.values()), "each with its reason"


@settings(max_examples=200, deadline=None)
@given(sets=histories(), keep=rules)
def test_each_rule_keeps_the_newest_of_that_many_periods(sets: list[Backup], keep: dict[str, int]) -> None:
    kept = prune.kept(sets, keep)
    for name, pattern in PERIODS.items():
        newest: dict[str, str] = {}
        for backup in newest_first(sets):
            newest.setdefault(datetime.fromisoformat(backup.created_at).strftime(pattern), backup.id)
        wanted = list(newest.values())[: keep.get(name, 0)]
        assert sorted(id for id, why in kept.items() if name in why) == sorted(wanted)


@settings(max_examples=100, deadline=None)
@given(sets=histories(), keep=rules)
def test_what_is_kept_for_a_reason_stays_when_the_rest_is_gone(sets: list[Backup], keep: dict[str, int]) -> None:
    kept = prune.kept(sets, keep)
    left = [backup for backup in sets if backup.id in kept]
    assert set(prune.kept(left, keep)) == set(kept)


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    found = make_app(tmp_path_factory.mktemp("app"), backup={"keep": {"last": 2, "daily": 3}})
    yield found
    found.close()


class Listed(MemoryVault):
    """A vault whose sets are told to it."""

    def __init__(self, sets: list[Backup]) -> None:
        super().__init__()
        self._listed = sorted(sets, key=lambda backup: backup.sequence)

    def backups(self) -> list[Backup]:
        return self._listed


@settings(max_examples=150, deadline=None)
@given(sets=histories())
def test_the_plan_never_removes_the_last_complete_set(app: App, sets: list[Backup]) -> None:
    app.context.vault = Listed(sets)
    plan = prune.plan(app)
    removed = set(plan.parameters.remove)
    complete = [backup for backup in newest_first(sets) if {"main", "media"} <= set(backup.datasets)]
    left = [backup for backup in complete if backup.id not in removed]
    assert left if complete else not left
    assert not removed & {backup.id for backup in sets if backup.pinned}
    assert not removed & {backup.id for backup in newest_first(sets)[:2]}
    assert len(left) >= min(3, len(complete)), "never fewer than three whole ones"
    assert len(plan.notes) == len(sets), "the operator is told of each"
    assert [step.parameters["remove"] for step in plan.after_commit] == [list(plan.parameters.remove)]


def test_the_newest_complete_sets_stay_however_many_partial_ones_follow(app: App) -> None:
    days = [(f"2026-01-{day:02d}", ("main", "media")) for day in range(1, 5)]
    days += [(f"2026-02-{day:02d}", ("main",)) for day in range(1, 9)]
    sets = [make_backup(number, f"{day}T00:00:00Z", datasets=names) for number, (day, names) in enumerate(days)]
    app.context.vault = Listed(sets)
    plan = prune.plan(app)
    assert "set-0" in plan.parameters.remove
    assert not {"set-1", "set-2", "set-3"} & set(plan.parameters.remove)
    assert "keeps set-3 (last, daily)" in plan.notes


def test_nothing_is_planned_while_a_set_is_damaged(app: App) -> None:
    vault = Listed([])
    vault.broken = {"set-3"}
    app.context.vault = vault
    with pytest.raises(DamagedError, match="set-3"):
        prune.plan(app)


def test_a_prune_that_cannot_be_done_any_more_closes_its_operation(app: App) -> None:
    """The damage is of the moment after its commit; the next prune refuses."""

    class DamagedMeanwhile(Listed):
        def prune(self, remove: Sequence[str], run: str) -> Mapping[str, int]:
            raise DamagedError("set-3 is damaged")

    app.context.vault = DamagedMeanwhile([])
    context, recorded, said = make_context()
    do(PruneBackups(("set-1",)), app.context, context)
    assert (said, recorded) == (["nothing was removed: set-3 is damaged"], {})


def test_a_partial_set_takes_no_whole_ones_place(app: App) -> None:
    """Ten days, each with a whole set at night and a partial one, as a safety backup, in the morning."""
    sets = []
    for day in range(1, 11):
        sets.append(make_backup(2 * day, f"2026-03-{day:02d}T02:00:00Z", datasets=("main", "media")))
        sets.append(make_backup(2 * day + 1, f"2026-03-{day:02d}T10:00:00Z", datasets=("media",)))
    app.context.vault = Listed(sets)
    removed = prune.plan(app).parameters.remove
    whole = [backup.id for backup in sets if "main" in backup.datasets and backup.id not in removed]
    assert whole == [f"set-{2 * day}" for day in (8, 9, 10)]


def test_three_whole_sets_stay_whatever_the_rules_say(tmp_path: Path) -> None:
    """The newest may be of data that were harmed already; a safety set, of what was replaced, is none of them."""
    app = make_app(tmp_path, backup={"keep": {"last": 1}})
    try:
        sets = [
            make_backup(number, f"2026-03-{number:02d}T02:00:00Z", datasets=("main", "media")) for number in range(1, 9)
        ]
        sets[-1].safety = True
        app.context.vault = Listed(sets)
        removed = prune.plan(app).parameters.remove
        assert sorted({backup.id for backup in sets} - set(removed)) == ["set-5", "set-6", "set-7", "set-8"]
    finally:
        app.close()


def test_without_rules_there_is_a_ladder(tmp_path: Path) -> None:
    app = make_app(tmp_path)
    try:
        keep = app.loaded.configuration.backup.keep
        assert (keep.last, keep.daily, keep.weekly, keep.monthly) == (3, 7, 4, 6)
    finally:
        app.close()
