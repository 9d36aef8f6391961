"""Folders that their owner may not list or write in are removed all the same."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import pytest

from holdfast.system import durable
from tests.ordinary import as_ordinary_user

_MODES = (0o000, 0o111, 0o311, 0o444, 0o555)


@pytest.mark.parametrize(("outer", "inner"), list(itertools.product(_MODES, _MODES)))
def test_a_tree_is_removed_whatever_its_owner_may_do_there(quick_folder: Path, outer: int, inner: int) -> None:
    quick_folder.chmod(0o777)

    def remove() -> None:
        top = quick_folder / "shared" / "top"
        deepest = top / "one" / "two"
        deepest.mkdir(parents=True)
        for folder in (deepest, deepest.parent):
            (folder / "file").write_text("x")
        os.chmod(deepest, inner)
        os.chmod(deepest.parent, outer)
        durable.remove_tree(top)
        assert os.listdir(top.parent) == []

    as_ordinary_user(remove)


def test_where_a_tree_stood_others_may_do_what_they_could(quick_folder: Path) -> None:
    """Its owner alone gets back the right to write there; visitors go on reading."""
    quick_folder.chmod(0o777)

    def remove() -> None:
        shared = quick_folder / "shared"
        (shared / "top").mkdir(parents=True)
        shared.chmod(0o555)
        durable.remove_tree(shared / "top")
        assert shared.stat().st_mode & 0o777 == 0o755

    as_ordinary_user(remove)


def test_what_cannot_be_removed_is_an_error_and_changes_no_rights(
    quick_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def busy(*_: object, **__: object) -> None:
        raise OSError(16, "Device or resource busy")

    (quick_folder / "top").mkdir()
    quick_folder.chmod(0o755)
    with monkeypatch.context() as patched:
        patched.setattr("os.rmdir", busy)
        with pytest.raises(OSError, match="busy"):
            durable.remove_tree(quick_folder / "top")
    assert quick_folder.stat().st_mode & 0o777 == 0o755


def test_a_tree_of_any_depth_is_removed_by_two_descriptors(quick_folder: Path) -> None:
    """As an archive of some kilobytes makes it: deeper than a path may be long, and than Python may recurse."""
    top = quick_folder / "top"
    top.mkdir()
    here = os.open(top, os.O_RDONLY)
    for number in range(3000):
        os.mkdir("deep", dir_fd=here)
        with open(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=here), "wb") as file:
            file.write(b"%d" % number)
        inner = os.open("deep", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(here)
    before = set(os.listdir("/proc/self/fd"))
    durable.remove_tree(top)
    assert os.listdir(quick_folder) == []
    assert len(set(os.listdir("/proc/self/fd")) - before) <= 1  # the listing's own


def test_a_link_is_removed_and_what_it_leads_to_stays(quick_folder: Path) -> None:
    (quick_folder / "elsewhere").mkdir()
    (quick_folder / "elsewhere" / "precious").write_text("x")
    (quick_folder / "top").mkdir()
    (quick_folder / "top" / "link").symlink_to(quick_folder / "elsewhere")
    durable.remove_tree(quick_folder / "top")
    (quick_folder / "top").symlink_to(quick_folder / "elsewhere")
    durable.remove_tree(quick_folder / "top")
    assert os.listdir(quick_folder) == ["elsewhere"]
    assert (quick_folder / "elsewhere" / "precious").read_text() == "x"
