"""What the local Files driver keeps beyond the protocol: any name, links, attributes, holes; and every interruption."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from holdfast.drivers.entries import Selection
from holdfast.drivers.files import moves
from holdfast.drivers.files.local import LocalFiles
from holdfast.errors import RefusedError, StepError
from tests.contract import trees
from tests.contract.test_files import no_check
from tests.memory import MEMORY
from tests.ordinary import as_ordinary_user


class Killed(BaseException):
    """Stands for the end of the process at this point."""


def restore(files: LocalFiles, change: Callable[[Path], None]) -> tuple[Any, Any]:
    """Lists a tree, changes it and stages the way back; the state wanted and the state before the apply."""
    wanted, fetch = trees.listed(files)
    original = trees.look(files.root)
    change(files.root)
    changed = trees.look(files.root)
    files.stage("op", wanted, fetch, no_check)
    return original, changed


# --- what is kept -------------------------------------------------------------------------------------


NAMES = [b"caf\xe9", b"\xff\xfe", b"new\nline", b"quote\"'", b"back\\slash", b"-rf", b"caf\xc3\xa9", b" ", b"a\x01b"]


def test_names_that_are_not_utf8(quick_folder: Path) -> None:
    root = quick_folder / "r"
    root.mkdir()
    base = os.fsencode(root)
    for name in NAMES:
        os.mkdir(base + b"/d" + name)
        with open(base + b"/d" + name + b"/" + name, "wb") as file:
            file.write(name)
        os.symlink(name, base + b"/l" + name)
    files = LocalFiles("m", root)
    entries = {entry.raw_path(): entry for entry in files.scan()}
    assert set(entries) == set(trees.look(root))
    assert all(entries[b"l" + name].raw_target() == name for name in NAMES)
    original, changed = restore(files, trees.clear)
    files.apply("op")
    assert trees.look(root) == original
    files.revert("op")
    assert trees.look(root) == changed == {}


def test_hard_links_are_one_file_again(quick_folder: Path) -> None:
    root = quick_folder / "r"
    trees.plain(root)
    os.link(root / "a-b", root / "a" / "same")
    os.link(root / "a-b", root / "z-same")
    files = LocalFiles("m", root)
    original, _ = restore(files, trees.clear)
    files.apply("op")
    assert trees.look(root) == original
    assert (root / "a-b").stat().st_nlink == 3


@pytest.mark.parametrize("broken_name", ["a-b", "z-same"])
def test_a_hard_link_that_was_broken_or_made_is_put_right(quick_folder: Path, broken_name: str) -> None:
    root = quick_folder / "r"
    trees.plain(root)
    os.link(root / "a-b", root / "z-same")

    def change(root: Path) -> None:
        (root / broken_name).unlink()
        (root / broken_name).write_bytes(b"beside a")
        os.link(root / "empty", root / "stranger")

    files = LocalFiles("m", root)
    original, changed = restore(files, change)
    files.apply("op")
    assert trees.look(root) == original
    files.revert("op")
    assert trees.look(root) == changed


def test_extended_attributes_of_files_and_directories(folder: Path) -> None:
    if not trees.supports_xattrs(folder):
        pytest.skip(f"{folder} is on a filesystem without user extended attributes")
    root = folder / "r"
    trees.plain(root)
    os.setxattr(root / "a" / "one.txt", "user.mime", b"text/plain")
    os.setxattr(root / "a" / "one.txt", "user.binary", bytes(range(256)))
    os.setxattr(root / "a", "user.owner", b"somebody")

    def change(root: Path) -> None:
        os.removexattr(root / "a" / "one.txt", "user.mime")
        os.setxattr(root / "a" / "one.txt", "user.binary", b"other")
        os.setxattr(root / "a-b", "user.foreign", b"1")
        os.removexattr(root / "a", "user.owner")

    files = LocalFiles("m", root)
    original, changed = restore(files, change)
    files.apply("op")
    assert trees.look(root) == original
    files.revert("op")
    assert trees.look(root) == changed


def test_a_named_pipe_comes_back_and_sockets_are_no_data(quick_folder: Path) -> None:
    root = quick_folder / "r"
    root.mkdir()
    os.mkfifo(root / "pipe", 0o600)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(root / "sock"))
    files = LocalFiles("m", root)
    assert [(entry.path, entry.kind) for entry in files.scan()] == [("pipe", "fifo")]
    original, _ = restore(files, lambda root: (root / "pipe").unlink())
    files.apply("op")
    assert trees.look(root)[b"pipe"] == original[b"pipe"]
    assert (root / "sock").exists()


def test_holes_are_listed_by_their_data(quick_folder: Path) -> None:
    root = quick_folder / "r"
    root.mkdir()
    with open(root / "sparse", "wb") as file:
        file.seek(1 << 20)
        file.write(b"x" * 4096)
        file.truncate(3 << 20)
    files = LocalFiles("m", root)
    (entry,) = files.scan()
    descriptor = files.open(entry)
    files.complete(entry, descriptor)
    os.close(descriptor)
    assert [tuple(segment) for segment in entry.sparse] == [(1 << 20, 4096)]


def test_excluded_files_are_neither_listed_nor_touched(quick_folder: Path) -> None:
    root = quick_folder / "r"
    trees.plain(root)
    (root / "a" / "cache").mkdir()
    (root / "a" / "cache" / "x").write_bytes(b"cached")
    (root / "a" / "x.lock").write_bytes(b"lock")
    files = LocalFiles("m", root, ["a/cache", "*.lock"])
    assert not {"a/cache", "a/cache/x", "a/x.lock"} & {entry.path for entry in files.scan()}
    restore(files, lambda root: (root / "a" / "one.txt").unlink())
    files.apply("op")
    assert (root / "a" / "one.txt").read_bytes() == b"one"
    assert (root / "a" / "cache" / "x").read_bytes() == b"cached"
    assert (root / "a" / "x.lock").exists()


def test_excluded_files_stay_where_their_directory_is_not_wanted(quick_folder: Path) -> None:
    """As where a database lies in a folder of its own among the files, and the set is older than that folder."""
    root = quick_folder / "r"
    trees.plain(root)
    files = LocalFiles("m", root, ["db/app.sqlite3"])
    wanted, fetch = trees.listed(files)
    (root / "db").mkdir()
    (root / "db" / "app.sqlite3").write_bytes(b"the live database")
    files.stage("op", wanted, fetch, no_check)
    files.apply("op")
    files.discard("op")
    assert (root / "db" / "app.sqlite3").read_bytes() == b"the live database"


def test_a_user_without_privileges_restores_into_read_only_directories(quick_folder: Path) -> None:
    quick_folder.chmod(0o777)

    def change(root: Path) -> None:
        os.chmod(root / "a" / "b", 0o755)
        (root / "a" / "b" / "deep.txt").write_bytes(b"changed")

    def there_and_back() -> None:
        root = quick_folder / "r"
        trees.plain(root)
        os.chmod(root / "a" / "b", 0o555)
        files = LocalFiles("m", root)
        original, changed = restore(files, change)
        files.apply("op")
        assert trees.look(root) == original
        files.revert("op")
        assert trees.look(root) == changed

    as_ordinary_user(there_and_back)


def test_staging_twice_is_refused_and_keeps_the_way_back(quick_folder: Path) -> None:
    trees.plain(quick_folder / "r")
    files = LocalFiles("m", quick_folder / "r")
    original, changed = restore(files, trees.additions)
    files.apply("op")
    with pytest.raises(RefusedError):
        files.stage("op", [], lambda entry, target: None, no_check)
    assert trees.look(files.root) == original
    files.revert("op")
    assert trees.look(files.root) == changed


# --- parts of a tree ----------------------------------------------------------------------------------


def stage_part(files: LocalFiles, paths: list[bytes], change: Callable[[Path], None]) -> Any:
    """Lists a tree, changes it and stages the way back of some paths; the state before the apply."""
    wanted, fetch = trees.listed(files)
    change(files.root)
    changed = trees.look(files.root)
    chosen = Selection(paths)
    files.stage("op", chosen.select(wanted), fetch, no_check, within=chosen)
    return changed


def test_what_came_into_being_after_the_staging_is_not_overwritten(quick_folder: Path) -> None:
    root = quick_folder / "r"
    trees.plain(root)
    files = LocalFiles("m", root)
    changed = stage_part(files, [b"a-b", b"empty"], trees.all_gone)
    (root / "empty").write_bytes(b"of a visitor")
    with pytest.raises(StepError, match="empty came into being meanwhile"):
        files.apply("op")
    files.revert("op")
    assert trees.look(root).keys() == {*changed, b"empty"}
    assert (root / "empty").read_bytes() == b"of a visitor"


def test_what_changed_after_the_staging_is_kept_until_the_undo(quick_folder: Path) -> None:
    root = quick_folder / "r"
    trees.plain(root)
    files = LocalFiles("m", root)
    stage_part(files, [b"a-b"], lambda root: (root / "a-b").write_bytes(b"changed") and None)
    (root / "a-b").write_bytes(b"changed once more")
    files.apply("op")
    assert (root / "a-b").read_bytes() == b"beside a"
    files.revert("op")
    assert (root / "a-b").read_bytes() == b"changed once more"


def test_a_link_on_the_way_to_a_part_is_not_followed(quick_folder: Path) -> None:
    root = quick_folder / "r"
    trees.plain(root)
    outside = quick_folder / "outside"
    outside.mkdir()

    def linked(root: Path) -> None:
        (root / "a").rename(root / "moved")
        (root / "a").symlink_to(outside)

    files = LocalFiles("m", root)
    with pytest.raises(RefusedError, match="a is a directory in the backup, and a symlink now"):
        stage_part(files, [b"a/one.txt"], linked)
    assert list(outside.iterdir()) == []


def test_an_excluded_file_is_kept_when_a_part_takes_its_place(quick_folder: Path) -> None:
    root = quick_folder / "r"
    trees.plain(root)
    wanted, fetch = trees.listed(LocalFiles("m", root))
    (root / "a-b").write_bytes(b"excluded meanwhile")
    files, chosen = LocalFiles("m", root, ["a-b"]), Selection([b"a-b"])
    files.stage("op", chosen.select(wanted), fetch, no_check, within=chosen)
    files.apply("op")
    assert (root / "a-b").read_bytes() == b"beside a"
    files.revert("op")
    assert (root / "a-b").read_bytes() == b"excluded meanwhile"


# --- interruptions ------------------------------------------------------------------------------------


class Clock:
    """Lets a number of changes to the world through, then stands for the kill."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left: int | None = None
        self.seen = 0
        for target, name in ((os, "rename"), (os, "unlink"), (os, "rmdir"), (moves, "set_metadata_beneath")):
            monkeypatch.setattr(target, name, self._counted(getattr(target, name)))

    def _counted(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            if self.left is not None and self.seen >= self.left:
                raise Killed
            self.seen += 1
            return real(*arguments, **options)

        return call

    def kill_after(self, changes: int, action: Callable[[], None]) -> bool:
        """True if the action was killed; False if it ended with fewer changes."""
        self.seen, self.left = 0, changes
        try:
            action()
            return False
        except Killed:
            return True
        finally:
            self.left = None


def mixed(root: Path) -> None:
    trees.file_to_directory(root)
    trees.directory_to_file(root)
    trees.modes_and_times(root)
    (root / "zz").symlink_to("a")


@pytest.mark.parametrize("end", ["revert", "apply"])
def test_apply_killed_at_each_change(quick_folder: Path, monkeypatch: pytest.MonkeyPatch, end: str) -> None:
    clock = Clock(monkeypatch)
    for changes in itertools.count():
        root = quick_folder / f"r{changes}"
        trees.plain(root)
        files = LocalFiles("m", root)
        original, changed = restore(files, mixed)
        killed = clock.kill_after(changes, lambda files=files: files.apply("op"))
        again = LocalFiles("m", root)
        if end == "revert":
            again.revert("op")
            assert trees.look(root) == changed, f"killed after {changes} changes"
        else:
            again.apply("op")
            assert trees.look(root) == original, f"killed after {changes} changes"
        if not killed:
            break
    assert changes >= 9


def applied(root: Path) -> tuple[LocalFiles, Any]:
    """A tree with the moves of `mixed` carried out, and how it was before."""
    trees.plain(root)
    files = LocalFiles("m", root)
    _, changed = restore(files, mixed)
    files.apply("op")
    return files, changed


def test_revert_killed_at_each_change(quick_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    for changes in itertools.count():
        root = quick_folder / f"r{changes}"
        files, changed = applied(root)
        killed = clock.kill_after(changes, lambda files=files: files.revert("op"))
        LocalFiles("m", root).revert("op")
        assert trees.look(root) == changed, f"killed after {changes} changes"
        if not killed:
            break
    assert changes >= 9


@pytest.mark.parametrize("backwards", [False, True])
def test_an_undo_killed_at_each_removal_may_be_repeated(
    quick_folder: Path, monkeypatch: pytest.MonkeyPatch, backwards: bool
) -> None:
    """An undo takes the moves back and removes what they staged; in which order a filesystem lists that is its own."""
    clock, listed = Clock(monkeypatch), os.scandir

    @contextlib.contextmanager
    def in_order(path: Any) -> Iterator[list[os.DirEntry[Any]]]:
        with listed(path) as entries:
            yield sorted(entries, key=lambda entry: os.fsencode(entry.name), reverse=backwards)

    for changes in itertools.count():
        root = quick_folder / f"r{changes}"
        files, changed = applied(root)
        files.revert("op")
        with monkeypatch.context() as patched:
            patched.setattr(os, "scandir", in_order)
            killed = clock.kill_after(changes, lambda files=files: files.discard("op"))
        again = LocalFiles("m", root)
        again.revert("op")
        again.discard("op")
        assert trees.look(root) == changed, f"killed after {changes} removals"
        if not killed:
            break
    assert changes >= 7


def test_staging_killed_at_each_content_can_be_staged_again(quick_folder: Path) -> None:
    root = quick_folder / "r"
    trees.plain(root)
    files = LocalFiles("m", root)
    wanted, fetch = trees.listed(files)
    original = trees.look(root)
    trees.clear(root)
    contents = sum(entry.kind == "file" for entry in wanted)
    for number in range(contents):
        left = iter(range(number))

        def dying(entry: Any, target: int, left: Any = left) -> None:
            if next(left, None) is None:
                raise Killed
            fetch(entry, target)

        with pytest.raises(Killed):
            files.stage("op", wanted, dying, no_check)
        assert trees.look(root) == {}
    files.stage("op", wanted, fetch, no_check)
    files.apply("op")
    assert trees.look(root) == original


# --- any tree to any other ----------------------------------------------------------------------------

_name = st.sampled_from([b"a", b"b", b"a-b", b"a.b", b"a\x01", b"\xff", b"c"])
_file = st.tuples(st.just("file"), st.sampled_from([b"", b"1", b"2", b"22"]), st.sampled_from([0o600, 0o755]))
_link = st.tuples(st.just("link"), st.sampled_from([b"a", b"../x", b"\xff"]), st.just(0))
_hard = st.tuples(st.just("hard"), st.sampled_from([b"one", b"two"]), st.just(0))


def tree_of(*leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.recursive(
        st.dictionaries(_name, st.one_of(*leaves), max_size=4),
        lambda inner: st.dictionaries(_name, st.one_of(*leaves, inner), max_size=4),
        max_leaves=8,
    )


def build(base: bytes, tree: Any, groups: dict[bytes, bytes]) -> None:
    for name, value in tree.items():
        path = base + b"/" + name
        if isinstance(value, dict):
            os.mkdir(path)
            build(path, value, groups)
        elif value[0] == "link":
            os.symlink(value[1], path)
        elif value[0] == "hard" and value[1] in groups:
            os.link(groups[value[1]], path)
        else:
            with open(path, "wb") as file:
                file.write(b"equal" if value[0] == "hard" else value[1])
            os.chmod(path, value[2] or 0o644)
            os.utime(path, ns=(5, 5))
            if value[0] == "hard":
                groups[value[1]] = path


def restored_and_taken_back(first: Any, second: Any) -> None:
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        source, target = Path(folder) / "s", Path(folder) / "t"
        source.mkdir()
        target.mkdir()
        build(os.fsencode(source), first, {})
        build(os.fsencode(target), second, {})
        wanted, fetch = trees.listed(LocalFiles("m", source))
        before = trees.look(target)
        files = LocalFiles("m", target)
        files.stage("op", wanted, fetch, no_check)
        assert trees.look(target) == before
        files.apply("op")
        assert trees.look(target) == trees.look(source)
        files.revert("op")
        assert trees.look(target) == before


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(first=tree_of(_file, _link), second=tree_of(_file, _link))
def test_any_tree_is_restored_over_any_other_and_taken_back(first: Any, second: Any) -> None:
    restored_and_taken_back(first, second)


ONE, TWO = ("hard", b"one", 0), ("hard", b"two", 0)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@example(first={b"a": ONE, b"b": ONE}, second={b"a": ("link", b"a", 0), b"b": ONE, b"c": ONE})
@example(first={b"a": ONE, b"b": ONE, b"c": TWO, b"d": TWO}, second={b"a": ONE, b"b": TWO, b"c": TWO, b"d": ONE})
@given(first=tree_of(_file, _hard), second=tree_of(_file, _hard))
def test_any_hard_links_are_restored_over_any_other_and_taken_back(first: Any, second: Any) -> None:
    restored_and_taken_back(first, second)
