"""What every Files driver promises."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from holdfast.drivers.entries import Selection
from holdfast.drivers.protocols.files import Files
from holdfast.errors import CancelledError, DamagedError, RefusedError
from holdfast.model import Entry
from tests import harnesses
from tests.contract import trees

DRIVERS = harnesses.files()


@pytest.fixture(params=list(DRIVERS))
def make(request: pytest.FixtureRequest) -> Callable[[Path], Files]:
    return DRIVERS[request.param]


@pytest.fixture
def files(make: Callable[[Path], Files], quick_folder: Path) -> Files:
    trees.plain(quick_folder / "root")
    return make(quick_folder / "root")


def no_check() -> None:
    pass


def test_scan_lists_everything_in_one_fixed_order(files: Files) -> None:
    entries = list(files.scan())
    assert {entry.raw_path() for entry in entries} == set(trees.look(files.root))
    assert [entry.order() for entry in entries] == sorted(entry.order() for entry in entries)
    kinds = {entry.path: entry.kind for entry in entries}
    assert (kinds["a"], kinds["a/one.txt"], kinds["link"]) == ("directory", "file", "symlink")
    targets = {entry.path: entry.target for entry in entries}
    assert targets["dangling"] == "/nowhere/at all"
    assert {entry.path: entry.size for entry in entries}["a/one.txt"] == 3


def test_scan_of_a_missing_root_is_empty(make: Callable[[Path], Files], quick_folder: Path) -> None:
    assert list(make(quick_folder / "none").scan()) == []


def test_open_reads_the_content_and_a_vanished_one_is_not_found(files: Files) -> None:
    entry = next(entry for entry in files.scan() if entry.path == "a/b/deep.txt")
    with os.fdopen(files.open(entry), "rb") as file:
        assert file.read() == b"deep"
    (files.root / "a" / "b" / "deep.txt").unlink()
    with pytest.raises(FileNotFoundError):
        files.open(entry)


@pytest.mark.parametrize("change", trees.CHANGES, ids=lambda change: change.__name__)
def test_restore_by_stage_and_apply_and_back_by_revert(files: Files, change: Callable[[Path], None]) -> None:
    wanted, fetch = trees.listed(files)
    original = trees.look(files.root)
    change(files.root)
    changed = trees.look(files.root)

    files.stage("op1", wanted, fetch, no_check)
    assert trees.look(files.root) == changed, "staging is invisible"
    files.apply("op1")
    assert trees.look(files.root) == original
    files.apply("op1")
    assert trees.look(files.root) == original, "apply may be repeated"
    files.revert("op1")
    assert trees.look(files.root) == changed
    files.revert("op1")
    assert trees.look(files.root) == changed, "revert may be repeated"
    files.apply("op1")
    assert trees.look(files.root) == original, "what was reverted can be applied again"
    files.discard("op1")
    files.discard("op1")
    assert trees.look(files.root) == original
    assert not (files.root / ".holdfast" / "op1").exists()


# --- parts of a tree -----------------------------------------------------------------------------------


def with_part(
    changed: dict[bytes, tuple[Any, ...]], original: dict[bytes, tuple[Any, ...]], chosen: Selection
) -> dict[bytes, tuple[Any, ...]]:
    """What a tree is once a part of the original came back into the changed one."""
    replaced = [path for path in original if chosen.covers(path) and not stat.S_ISDIR(original[path][0])]
    stays = {
        path: facts
        for path, facts in changed.items()
        if not any(path.startswith(gone + b"/") for gone in replaced) and not chosen.covers(path)
    }
    inside = {path: facts for path, facts in changed.items() if chosen.covers(path)}
    inside = {path: facts for path, facts in inside.items() if not any(path.startswith(r + b"/") for r in replaced)}
    back = {path: facts for path, facts in original.items() if chosen.covers(path)}
    above = {path: facts for path, facts in original.items() if chosen.is_above(path)}
    return {**above, **stays, **inside, **back}


@pytest.mark.parametrize("change", trees.CHANGES, ids=lambda change: change.__name__)
@pytest.mark.parametrize(
    "paths", [[b"a/b/deep.txt"], [b"a/b", b"link"], [b"a-b", b"empty", b"emptydir"], [b"a"], [b""]], ids=repr
)
def test_a_part_of_a_tree_comes_back_and_everything_else_stays(
    files: Files, change: Callable[[Path], None], paths: list[bytes]
) -> None:
    wanted, fetch = trees.listed(files)
    original = trees.look(files.root)
    change(files.root)
    changed = trees.look(files.root)
    chosen = Selection(paths)
    part = list(chosen.select(wanted))
    if paths == [b"a/b/deep.txt"] and change is trees.directory_to_file:
        with pytest.raises(RefusedError, match="a file now"):
            files.stage("op1", part, fetch, no_check, within=chosen)
        assert trees.look(files.root) == changed
        return

    files.stage("op1", part, fetch, no_check, within=chosen)
    assert trees.look(files.root) == changed, "staging is invisible"
    files.apply("op1")
    assert trees.look(files.root) == with_part(changed, original, chosen)
    files.apply("op1")
    assert trees.look(files.root) == with_part(changed, original, chosen), "apply may be repeated"
    files.revert("op1")
    assert trees.look(files.root) == changed
    files.discard("op1")
    assert trees.look(files.root) == changed


def test_a_look_yields_what_a_scan_does(files: Files) -> None:
    for paths in ([b"a/b/deep.txt"], [b"a", b"link"], [b"none", b"a/none/x", b"empty"], [b"empty/below"], [b""], []):
        chosen = Selection(paths)
        assert list(files.look(chosen)) == [entry for entry in files.scan() if chosen.wants(entry.raw_path())], paths


def test_restore_into_a_root_that_does_not_exist(make: Callable[[Path], Files], files: Files) -> None:
    wanted, fetch = trees.listed(files)
    elsewhere = make(files.root.parent / "elsewhere")
    elsewhere.stage("op1", wanted, fetch, no_check)
    elsewhere.apply("op1")
    assert trees.look(elsewhere.root) == trees.look(files.root)


def test_apply_and_revert_without_staged_moves_do_nothing(files: Files) -> None:
    before = trees.look(files.root)
    files.apply("never staged")
    files.revert("never staged")
    files.discard("never staged")
    assert trees.look(files.root) == before


def test_a_damaged_content_fails_while_nothing_is_visible(files: Files) -> None:
    wanted, _ = trees.listed(files)
    trees.clear(files.root)

    def damaged(entry: Entry, target: int) -> None:
        if entry.path == "empty":
            raise DamagedError("this content is damaged")

    with pytest.raises(DamagedError):
        files.stage("op1", wanted, damaged, no_check)
    assert trees.look(files.root) == {}
    files.revert("op1")
    files.discard("op1")
    assert [path.name for path in files.root.rglob("*") if "op1" in path.parts] == []


def test_staging_stops_on_request(files: Files) -> None:
    wanted, fetch = trees.listed(files)
    shutil.rmtree(files.root / "a")
    before = trees.look(files.root)

    def stop() -> None:
        raise CancelledError("stopped on request")

    with pytest.raises(CancelledError):
        files.stage("op1", wanted, fetch, stop)
    assert trees.look(files.root) == before


def test_two_operations_do_not_share_anything(files: Files) -> None:
    wanted, fetch = trees.listed(files)
    original = trees.look(files.root)
    trees.additions(files.root)
    files.stage("op1", wanted, fetch, no_check)
    files.apply("op1")
    files.stage("op10", wanted, fetch, no_check)
    files.apply("op10")
    files.discard("op10")
    assert trees.look(files.root) == original
    files.revert("op1")
    assert (files.root / "new" / "file").read_bytes() == b"new", "op1's way back outlives op10's discard"


def test_check_names_a_missing_root(make: Callable[[Path], Files], quick_folder: Path) -> None:
    (quick_folder / "there").mkdir()
    assert make(quick_folder / "there").check() == []
    problems = make(quick_folder / "none").check()
    assert [problem.severity for problem in problems] == ["warning"]
    assert str(quick_folder / "none") in problems[0].message
