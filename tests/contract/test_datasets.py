"""What every driver of a dataset promises, whatever it keeps: entries come from the driver's harness."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.errors import HoldfastError, RefusedError, StepError
from tests import harnesses
from tests.contract.dumps import snapshot
from tests.harnesses.harness import Harness, WriterHeldError

FOUND = harnesses.datasets()


@pytest.fixture(params=harnesses.parameters(FOUND))
def missing(request: pytest.FixtureRequest, quick_folder: Path) -> Iterator[Harness]:
    """A dataset that does not exist yet."""
    with FOUND[request.param](quick_folder) as made:
        yield made


@pytest.fixture
def harness(missing: Harness) -> Harness:
    missing.create()
    for text in ("one", "two"):
        missing.add(text)
    return missing


# --- looking ------------------------------------------------------------------------------------------


def test_inspect_of_a_dataset_and_of_none(harness: Harness) -> None:
    facts = harness.dataset.inspect()
    assert facts["exists"] is True
    assert facts["identity"]
    assert facts["size_bytes"] > 0
    assert facts["tool"]
    harness.dataset.swap("op", None, "op")
    facts = harness.dataset.inspect()
    assert (facts["exists"], facts["identity"], facts["size_bytes"]) == (False, None, 0)


# --- copies -------------------------------------------------------------------------------------------


def test_a_snapshot_holds_its_instant(harness: Harness) -> None:
    dump = harness.folder / "dump"
    harness.dump(dump)
    harness.add("later")
    assert harness.texts_of(dump) == ["one", "two"]
    (table,) = harness.taken[dump].tables.values()
    assert table["rows"] == 2
    assert harness.texts() == ["one", "two", "later"]


def test_a_dump_is_not_for_others_to_read(harness: Harness) -> None:
    harness.dump(harness.folder / "dump")
    assert (harness.folder / "dump").stat().st_mode & 0o077 == 0


def test_hold_keeps_writers_out_until_the_snapshot_is_taken(harness: Harness) -> None:
    dump = harness.folder / "dump"
    if not harness.holds_writers:
        _snapshot_without_holding(harness, dump)
        return
    with harness.dataset.freeze_writes(2) as fix:
        with pytest.raises(WriterHeldError):
            harness.add("while held")
        assert harness.texts() == ["one", "two"], "readers go on"
        finish = fix(dump, [], 10)
        harness.taken[dump] = finish()
        assert harness.taken[dump].held_seconds > 0 or harness.dataset.kind == "fake"
        harness.add("after")
    assert harness.texts_of(dump) == ["one", "two"]
    assert harness.texts() == ["one", "two", "after"]


def _snapshot_without_holding(harness: Harness, dump: Path) -> None:
    with harness.dataset.freeze_writes(2) as fix:
        harness.add("at once")
        harness.taken[dump] = fix(dump, [], 10)()
        harness.add("after")
    assert harness.texts_of(dump) == ["one", "two", "at once"]
    assert harness.texts() == ["one", "two", "at once", "after"]


def test_an_instant_is_fixed_while_writers_go_on(harness: Harness) -> None:
    dump = harness.folder / "dump"
    with harness.dataset.freeze_writes(None) as fix:
        harness.add("before")
        finish = fix(dump, [], 10)
        harness.add("after")
        harness.taken[dump] = finish()
    assert harness.taken[dump].held_seconds < harness.fixed_within_seconds
    assert harness.texts_of(dump) == ["one", "two", "before"]
    assert harness.texts() == ["one", "two", "before", "after"]


def test_hold_lets_writers_go_when_no_snapshot_is_taken(harness: Harness) -> None:
    with pytest.raises(HoldfastError, match="for another reason"), harness.dataset.freeze_writes(2):
        raise HoldfastError("for another reason")
    harness.add("after")
    assert harness.texts() == ["one", "two", "after"]


def test_two_cannot_hold_unless_both_keep_writers_out(harness: Harness) -> None:
    if not harness.holds_writers:  # its application makes it again, and nobody holds it
        with harness.dataset.freeze_writes(None):
            harness.add("meanwhile")
        return
    with harness.dataset.freeze_writes(2):
        if harness.holders_go_together:
            with harness.dataset.freeze_writes(0.05), pytest.raises(WriterHeldError):
                harness.add("while held")
            return
        with pytest.raises(StepError, match="cannot be held"), harness.dataset.freeze_writes(0.05):
            pass  # pragma: no cover
    harness.add("after")


def test_a_missing_dataset_cannot_be_held_or_copied(missing: Harness) -> None:
    with pytest.raises(StepError), missing.dataset.freeze_writes(0.05):
        pass  # pragma: no cover
    with pytest.raises(StepError):
        snapshot(missing.dataset, missing.folder / "dump")


def test_how_a_restore_point_would_be_made_is_said_for_operators(missing: Harness) -> None:
    assert missing.dataset.copying().made
    missing.create()
    copying = missing.dataset.copying()
    assert copying.made and copying.back


# --- beside and swap ----------------------------------------------------------------------------------


def test_restore_from_a_dump_and_back_by_identity(harness: Harness) -> None:
    dump = harness.dump_of("old")
    harness.add("three")
    live = harness.identity()
    candidate = harness.prepare("op", dump)
    assert harness.identity() == live, "the candidate stands beside"
    harness.dataset.swap("op", candidate, "op")
    assert (harness.identity(), harness.texts()) == (candidate, ["old"])
    harness.dataset.swap("op", candidate, "op")
    assert harness.texts() == ["old"], "a swap may be repeated"
    harness.dataset.swap("op", live, "op.back")
    assert (harness.identity(), harness.texts()) == (live, ["one", "two", "three"])
    harness.dataset.swap("op", live, "op.back")
    assert harness.texts() == ["one", "two", "three"]


def test_of_several_beside_the_recorded_identity_comes_never_the_first_of_a_kind(harness: Harness) -> None:
    """As where an earlier operation left a candidate of its own."""
    first, second = harness.dump_of("first"), harness.dump_of("second")
    live = harness.identity()
    left, wanted = harness.prepare("earlier", first), harness.prepare("op", second)
    assert left != wanted
    harness.dataset.swap("op", wanted, "op")
    assert (harness.identity(), harness.texts()) == (wanted, ["second"])
    harness.dataset.swap("op", live, "op.back")
    assert harness.identity() == live
    harness.dataset.swap("earlier", left, "earlier.aside")
    assert (harness.identity(), harness.texts()) == (left, ["first"])


def test_restore_point_from_the_live_database(harness: Harness) -> None:
    point = harness.prepare("op", None)
    live = harness.identity()
    assert point != live
    harness.add("of the migration")
    harness.dataset.swap("op", point, "op.aside")
    assert (harness.identity(), harness.texts()) == (point, ["one", "two"])
    harness.dataset.swap("op", live, "op.again")
    assert harness.texts() == ["one", "two", "of the migration"]


def test_a_restore_point_begun_ahead_has_what_was_written_since(harness: Harness) -> None:
    live = harness.identity()
    ahead = harness.dataset.copy_ahead("op")
    assert (harness.identity(), harness.texts()) == (live, ["one", "two"])
    harness.clear()
    for text in ("one", "three"):
        harness.add(text)
    point = harness.dataset.prepare("op", None, ahead)
    harness.add("of the migration")
    harness.dataset.swap("op", point, "op.aside")
    assert (harness.identity(), harness.texts()) == (point, ["one", "three"])
    harness.dataset.swap("op", live, "op.again")
    assert harness.texts() == ["one", "three", "of the migration"]


def test_what_was_done_ahead_is_discarded_with_its_operation(harness: Harness) -> None:
    ahead = harness.dataset.copy_ahead("op")
    assert harness.dataset.copy_ahead("op") is not None, "it may be repeated"
    harness.dataset.discard("op")
    assert harness.dataset.tokens() == []
    assert harness.texts() == ["one", "two"]
    harness.dataset.swap("op", harness.dataset.prepare("op", None, ahead), "op.aside")
    assert harness.texts() == ["one", "two"]


def test_a_dump_of_a_restore_point_is_of_the_time_of_the_restore_point(harness: Harness) -> None:
    live = snapshot(harness.dataset, harness.folder / "live")
    point, target = harness.prepare("op", None), harness.folder / "dump"
    harness.add("of the migration")
    harness.dataset.dump("op", point, target, 10)
    taken = harness.taken[target] = harness.dataset.dump("op", point, target, 10)
    assert taken.tables == live.tables
    assert harness.lasting(taken) == harness.lasting(live)
    assert target.stat().st_mode & 0o777 == 0o600
    assert harness.texts() == ["one", "two", "of the migration"]
    harness.dataset.swap("op3", harness.prepare("op3", target), "op3.aside")
    assert harness.texts() == ["one", "two"]
    harness.dataset.swap("op", point, "op.aside")
    assert (harness.identity(), harness.texts()) == (point, ["one", "two"])


def test_a_dump_of_what_was_replaced_is_of_the_time_of_the_swap(harness: Harness) -> None:
    candidate, target = harness.prepare("op", harness.dump_of("new")), harness.folder / "replaced"
    before, live = snapshot(harness.dataset, harness.folder / "live"), harness.identity()
    assert live is not None
    harness.dataset.swap("op", candidate, "op.replaced")
    harness.add("written since")
    harness.dataset.dump("op", live, target, 10)
    taken = harness.taken[target] = harness.dataset.dump("op", live, target, 10)
    assert taken.tables == before.tables
    assert harness.lasting(taken) == harness.lasting(before)
    assert harness.texts() == ["new", "written since"]
    harness.dataset.swap("op2", harness.prepare("op2", target), "op2.aside")
    assert harness.texts() == ["one", "two"]
    harness.dataset.discard("op")
    with pytest.raises(StepError, match="gone"):
        harness.dataset.dump("op", live, target, 10)


def test_prepare_may_be_repeated_and_replaces_the_earlier_candidate(harness: Harness) -> None:
    first = harness.prepare("op", harness.dump_of("first"))
    second = harness.prepare("op", harness.dump_of("second"))
    harness.dataset.swap("op", second, "op")
    assert harness.texts() == ["second"]
    if first != second:
        with pytest.raises(StepError):
            harness.dataset.swap("op", first, "op")
    assert harness.texts() == ["second"]


def test_an_identity_that_is_gone_changes_nothing(harness: Harness) -> None:
    with pytest.raises(StepError, match="gone"):
        harness.dataset.swap("op", "0:0", "op")
    assert harness.texts() == ["one", "two"]


def test_swap_to_nothing_and_back(harness: Harness) -> None:
    live = harness.identity()
    harness.dataset.swap("op", None, "op")
    harness.dataset.swap("op", None, "op")
    assert harness.identity() is None
    harness.dataset.swap("op", live, "op")
    assert harness.texts() == ["one", "two"]


def test_what_steps_aside_never_goes_over_an_earlier_entry(harness: Harness) -> None:
    """Every identity that an operation ever had in place can be put back."""
    seen = [harness.identity()]
    expected = [["one", "two"]]
    for text in ("a", "b", "c"):
        candidate = harness.prepare(f"op.{text}", harness.dump_of(text))
        harness.dataset.swap("op", candidate, "op.aside")
        seen.append(candidate)
        expected.append([text])
    for identity, texts in zip(seen, expected, strict=True):
        harness.dataset.swap("op", identity, "op.aside")
        assert (harness.identity(), harness.texts()) == (identity, texts)


def test_discard_removes_an_operations_own_and_nothing_else(harness: Harness) -> None:
    dump = harness.dump_of("old")
    mine, other = harness.prepare("op1", dump), harness.prepare("op10", dump)
    harness.dataset.discard("op1")
    harness.dataset.discard("op1")
    harness.dataset.discard("never heard of")
    with pytest.raises(StepError):
        harness.dataset.swap("op1", mine, "op1")
    harness.dataset.swap("op10", other, "op10")
    assert harness.texts() == ["old"]


def test_a_candidate_is_handed_over_and_the_live_database_stays(harness: Harness) -> None:
    before, name = harness.identity(), harness.free_name()
    harness.prepare("op", harness.dump_of("old"))
    harness.dataset.hand_over("op", name, rehearsal=True)
    harness.dataset.hand_over("op", name)
    harness.dataset.hand_over("op", name)
    harness.dataset.discard("op")
    assert (harness.identity(), harness.texts(), harness.dataset.tokens()) == (before, ["one", "two"], [])
    assert harness.texts_under(name) == ["old"]
    harness.prepare("op2", harness.dump_of("newer"))
    for rehearsal in (True, False):
        with pytest.raises(RefusedError):
            harness.dataset.hand_over("op2", name, rehearsal=rehearsal)
    harness.dataset.discard("op2")
    assert harness.texts_under(name) == ["old"]


def test_a_damaged_dump_is_refused_and_nothing_changes(harness: Harness) -> None:
    dump = harness.dump_of(*[f"row-{number}" for number in range(30)])
    whole = dump.read_bytes()
    dump.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(HoldfastError):
        harness.prepare("op", dump)
    dump.write_bytes(b"this is no dump at all" * 100)
    with pytest.raises(HoldfastError):
        harness.prepare("op", dump)
    assert harness.texts() == ["one", "two"]
