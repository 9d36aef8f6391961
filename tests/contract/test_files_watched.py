"""A pass over what changed alone has the result of one over the whole tree, whatever happens to the tree meanwhile."""

from __future__ import annotations

import dataclasses
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from holdfast.drivers.files import inotify, watch
from holdfast.drivers.files.inotify import Inotify
from holdfast.drivers.files.local import LocalFiles
from holdfast.drivers.vaults.local import small_files
from holdfast.drivers.vaults.local.vault import LocalVault
from holdfast.drivers.vaults.local.writer import LocalRun
from holdfast.model import Entry, Stored
from tests.contract.test_vaults import Keeper

_NAMES = [b"a", b"b", b"a!", b"a b", b"\xff\xfe", "ü".encode(), b"cache", b"zz"]


class Storm:
    """Whoever changes a tree, one random thing at a time; never the same kind of thing in the same place for long."""

    def __init__(self, root: Path, seed: int) -> None:
        self.root = os.fsencode(root)
        self.outside = self.root + b".outside"
        os.mkdir(self.outside)
        self.chance = random.Random(seed)
        self.count = 0

    def _folders(self) -> list[bytes]:
        return [
            self.root,
            *(
                os.path.join(at, name)
                for at, names, _ in os.walk(self.root)
                for name in names
                if not os.path.islink(os.path.join(at, name))
            ),
        ]

    def _things(self) -> list[bytes]:
        return [os.path.join(at, name) for at, folders, names in os.walk(self.root) for name in (*folders, *names)]

    def _place(self) -> bytes:
        return os.path.join(self.chance.choice(self._folders()), self.chance.choice(_NAMES))

    def _content(self) -> bytes:
        self.count += 1
        return b"%d " % self.count * self.chance.choice([0, 1, 40, 9000])

    def blow(self, times: int) -> None:
        for _ in range(times):
            act = self.chance.choice(
                [
                    self._write,
                    self._write,
                    self._append,
                    self._make,
                    self._make,
                    self._remove,
                    self._move,
                    self._move,
                    self._mark,
                    self._link,
                    self._carry_out,
                    self._carry_in,
                    self._replace,
                ]
            )
            try:
                act()
            except (OSError, IndexError):
                continue  # it cannot be done there

    def _write(self) -> None:
        with open(self._place(), "wb") as file:
            file.write(self._content())

    def _append(self) -> None:
        with open(self.chance.choice(self._things()), "ab") as file:
            file.write(b"more")

    def _make(self) -> None:
        place = self._place()
        os.mkdir(place)
        for name in self.chance.sample(_NAMES, 3):
            with open(os.path.join(place, name), "wb") as file:
                file.write(self._content())

    def _remove(self) -> None:
        thing = self.chance.choice(self._things())
        if os.path.isdir(thing) and not os.path.islink(thing):
            shutil.rmtree(thing)
        else:
            os.unlink(thing)

    def _move(self) -> None:
        os.rename(self.chance.choice(self._things()), self._place())

    def _mark(self) -> None:
        thing = self.chance.choice(self._things())
        if not os.path.islink(thing):
            os.chmod(thing, self.chance.choice([0o700, 0o750, 0o777]))
            os.utime(thing, ns=(0, self.chance.randrange(10**18)))

    def _link(self) -> None:
        os.symlink(self.chance.choice(_NAMES), self._place())

    def _carry_out(self) -> None:
        os.rename(self.chance.choice(self._things()), os.path.join(self.outside, b"%d" % self.chance.randrange(5)))

    def _carry_in(self) -> None:
        os.rename(os.path.join(self.outside, self.chance.choice(os.listdir(self.outside) or [b""])), self._place())

    def _replace(self) -> None:
        thing = self.chance.choice(self._things())
        was_folder = os.path.isdir(thing)
        os.rename(thing, os.path.join(self.outside, b"replaced"))
        if was_folder:
            os.symlink(self.outside, thing)
        else:
            os.mkdir(thing)


@dataclasses.dataclass
class Passes:
    files: LocalFiles
    vault: LocalVault
    run: LocalRun
    scans: int = 0

    def store(self, *, keep: bool = False, during: Callable[[], None] = lambda: None) -> Stored:
        return self.run.store_tree(
            "media", self.files, keep_vanished=keep, check=during, progress=lambda done, total, unit: None
        )

    def listing(self) -> list[dict[str, Any]]:
        return plain(self.run.listing("media"))

    def complete(self) -> list[dict[str, Any]]:
        """Return the listing of one pass over the whole tree as it is now."""
        elsewhere = LocalVault(self.vault.path.parent / "other", "guestbook.production")
        run = elsewhere.begin("run")
        run.store_tree("media", self.files, keep_vanished=False, check=lambda: None, progress=lambda *_: None)
        found = plain(run.listing("media"))
        elsewhere.abandon("run")
        return found


def plain(listing: Iterator[Entry]) -> list[dict[str, Any]]:
    entries = list(listing)
    assert [entry.order() for entry in entries] == sorted(entry.order() for entry in entries)
    return [{**msgspec.to_builtins(entry), "recent": None} for entry in entries]


@pytest.fixture
def passes(quick_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Passes]:
    (quick_folder / "media").mkdir()
    vault = LocalVault(quick_folder / "vault", "guestbook.production")
    files = LocalFiles("media", quick_folder / "media", ["cache"])
    found = Passes(files, vault, vault.begin("run"))
    complete = LocalRun._read_all

    def counted(run: LocalRun, *arguments: Any) -> Stored:
        found.scans += run is found.run
        return complete(run, *arguments)

    monkeypatch.setattr(LocalRun, "_read_all", counted)
    yield found
    vault.abandon("run")


@pytest.mark.parametrize("seed", range(30))
def test_the_listing_of_changes_is_that_of_a_whole_pass(passes: Passes, seed: int) -> None:
    storm = Storm(passes.files.root, seed)
    storm.blow(60)
    passes.store(during=lambda: storm.blow(3))
    for _ in range(4):
        passes.store(during=lambda: storm.blow(2))  # as while writers go on
        storm.blow(storm.chance.choice([0, 1, 12]))
        passes.store()
        assert passes.listing() == passes.complete()
    assert passes.scans == 1


@pytest.mark.parametrize("seed", range(6))
def test_what_vanished_is_kept_where_it_is_to_be(passes: Passes, seed: int) -> None:
    storm = Storm(passes.files.root, seed)
    storm.blow(60)
    passes.store()
    before = {one["path"] for one in passes.listing() if one["type"] == "file"}
    storm.blow(30)
    passes.store(keep=True)
    now = {one["path"]: one["type"] for one in passes.listing()}
    lost = {path for path in before if path not in now}
    assert all(any(now.get(above) not in (None, "directory") for above in _above(path)) for path in lost)
    assert {one["path"] for one in passes.complete()} <= now.keys()
    assert passes.scans == 1


def _above(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:number]) for number in range(1, len(parts))]


def test_a_file_of_several_names_is_looked_at_by_each_of_them(passes: Passes) -> None:
    root, outside = passes.files.root, passes.files.root.parent
    for number in range(3):
        (root / f"file{number}").write_text("one")
    os.link(root / "file1", root / "second")
    os.link(root / "file2", outside / "elsewhere")
    passes.store()
    (outside / "elsewhere").write_text("two")  # a change that no watch of this tree can report
    (root / "second").write_text("three")
    passes.store()
    assert passes.listing() == passes.complete()
    assert passes.scans == 1
    os.link(root / "file0", root / "third")
    (root / "third").write_text("four")
    passes.store()
    assert passes.listing() == passes.complete()
    assert passes.scans == 2, "which other names it has is not reported"


def test_content_that_did_not_change_is_not_read_again(passes: Passes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(small_files, "_RECENT_NS", 0)  # as of files that nobody has changed for a while
    root = passes.files.root
    for number in range(20):
        (root / f"file{number}").write_text(str(number))
        os.link(root / f"file{number}", root / f"other{number}")
    passes.store()
    (root / "new").write_text("new")
    assert passes.store().read_files == 1


def test_a_file_that_stays_open_is_read_again_after_each_write(passes: Passes) -> None:
    with open(passes.files.root / "log", "wb", buffering=0) as file:
        file.write(b"one")
        passes.store()
        for number in range(3):
            file.write(b"line %d" % number)
            passes.store()
            assert passes.listing() == passes.complete()
    assert passes.scans == 1


@pytest.mark.parametrize("loss", ["queue", "watches", "instances", "root", "names"])
def test_where_changes_are_not_reported_everything_is_looked_at(
    passes: Passes, monkeypatch: pytest.MonkeyPatch, loss: str
) -> None:
    root = passes.files.root
    (root / "folder").mkdir()
    (root / "folder" / "file").write_text("one")

    def none_left(*_: object) -> int:
        raise OSError(28, "No space left on device")

    if loss == "watches":
        monkeypatch.setattr(Inotify, "watch", none_left)
    if loss == "instances":
        monkeypatch.setattr(inotify, "_checked", none_left)
    if loss == "names":
        monkeypatch.setattr(watch, "_MOST_CHANGES", 1)
    passes.store()
    (root / "folder" / "file").write_text("two")
    (root / "folder" / "new").write_text("two")
    if loss == "queue":
        (tree,) = (one.tree for one in passes.run.watched.values())
        assert isinstance(tree, watch.TreeWatch)
        monkeypatch.setattr(Inotify, "events", lambda _: iter([inotify.Event(-1, inotify.OVERFLOW, b"")]))
        tree.changed()
        monkeypatch.undo()
    if loss == "root":
        os.rename(root, root.with_name("old"))
        shutil.copytree(root.with_name("old"), root)
        (root / "folder" / "third").write_text("three")
    passes.store()
    assert passes.listing() == passes.complete()


def test_a_later_run_of_the_operation_goes_on_where_its_first_set_ended(passes: Passes) -> None:
    root = passes.files.root
    for number in range(5):
        (root / f"file{number}").write_text(str(number))
    passes.store()
    passes.run.finish(Keeper(passes.vault, passes.files).manifest("run"))
    passes.vault.publish("run")
    (root / "file1").write_text("changed")
    (root / "file2").unlink()
    passes.run = passes.vault.begin("run.last")
    assert passes.store().read_files == 1
    assert passes.listing() == passes.complete()
    assert passes.scans == 1
    passes.vault.abandon("run.last")


def test_another_operation_looks_at_everything(passes: Passes) -> None:
    (passes.files.root / "file").write_text("one")
    passes.store()
    passes.run.finish(Keeper(passes.vault, passes.files).manifest("run"))
    passes.vault.publish("run")
    passes.run = passes.vault.begin("run2")
    passes.store()
    assert passes.scans == 2
    passes.vault.abandon("run2")


def test_nothing_is_left_open(passes: Passes) -> None:
    before = len(os.listdir("/proc/self/fd"))
    (passes.files.root / "file").write_text("one")
    watched = passes.files.watched()
    assert watched is not None
    list(watched.scan(lambda: False))
    watched.close()
    watched.close()
    assert len(os.listdir("/proc/self/fd")) == before
