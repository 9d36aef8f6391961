"""Choices of entries by their paths, and listings of which only a part is read."""

from __future__ import annotations

import fnmatch
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.drivers.entries import Children, NamePattern, PathFilter, Selection, order_of
from holdfast.drivers.files.tree import readable
from holdfast.drivers.vaults.local import listing
from holdfast.model import Entry

_NAMES = st.sampled_from([b"a", b"a-b", b"b", b"B.jpg", b"x.jpg", b"caf\xc3\xa9", b"\xff", b'q"\\', b"new\nline"])
_PATHS = st.lists(_NAMES, min_size=1, max_size=4).map(b"/".join)
_QUICK = settings(max_examples=60, deadline=None)


def tree_of(paths: list[bytes]) -> list[bytes]:
    """Paths with all directories above them, in the order of a listing."""
    parts = [path.split(b"/") for path in paths]
    found = {b"/".join(names[: number + 1]) for names in parts for number in range(len(names))}
    return sorted(found, key=order_of)


def entries_of(paths: list[bytes]) -> list[Entry]:
    found = []
    for path in paths:
        shown, encoded = readable(path)
        found.append(Entry(shown, "file", "644", 0, 0, 0, path_base64=encoded))
    return found


def read_in_small_pieces(entries: list[Entry], chosen: PathFilter) -> list[Entry]:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        path = Path(folder) / "listing"
        with listing.ListingWriter(path) as writer:
            for entry in entries:
                writer.write([entry])
        patch.setattr(listing, "_CHUNK_BYTES", 16)
        patch.setattr(listing, "_lines", pieces_of(listing._lines))
        return list(listing.read_chosen(path, chosen))


def pieces_of(lines):  # type: ignore[no-untyped-def]
    """Complete lines, three at a time: a small listing is one block for zstd."""

    def pieces(path: Path):  # type: ignore[no-untyped-def]
        for text in lines(path):
            several = text.splitlines(keepends=True)
            for number in range(0, len(several), 3):
                yield b"".join(several[number : number + 3])

    return pieces


@given(paths=st.lists(_PATHS, max_size=12), chosen=st.lists(_PATHS, max_size=3))
@_QUICK
def test_a_selection_is_paths_with_what_is_below_and_above_them(paths: list[bytes], chosen: list[bytes]) -> None:
    tree = tree_of(paths)
    expected = [
        path
        for path in tree
        if any(path == one or path.startswith(one + b"/") or one.startswith(path + b"/") for one in chosen)
    ]
    selection = Selection(chosen)
    assert [path for path in tree if selection.wants(path)] == expected
    assert [entry.raw_path() for entry in selection.select(entries_of(tree))] == expected
    assert [entry.raw_path() for entry in read_in_small_pieces(entries_of(tree), selection)] == expected
    below = [path for path in tree if any(path == one or path.startswith(one + b"/") for one in chosen)]
    assert [path for path in tree if selection.covers(path)] == below
    assert [path for path in tree if selection.is_above(path)] == [path for path in expected if path not in below]


@given(paths=st.lists(_PATHS, max_size=12), chosen=_PATHS)
@_QUICK
def test_children_are_what_is_directly_in_a_directory(paths: list[bytes], chosen: bytes) -> None:
    tree = tree_of(paths)
    for top in (chosen, b""):
        found = read_in_small_pieces(entries_of(tree), Children(top))
        inside = [path for path in tree if path.rpartition(b"/")[0] == top]
        covered = [entry.raw_path() for entry in found if Children(top).covers(entry.raw_path())]
        assert covered == ([top] if top in tree else []) + inside


@given(
    paths=st.lists(_PATHS, max_size=12), pattern=st.sampled_from(["*", "*.jpg", "?", "[ab]", "a*b", "caf?", "x.jpg"])
)
@_QUICK
def test_a_name_pattern_finds_what_fnmatch_does(paths: list[bytes], pattern: str) -> None:
    tree = tree_of(paths)
    names = {path: path.rpartition(b"/")[2].decode(errors="surrogateescape") for path in tree}
    expected = [path for path in tree if fnmatch.fnmatchcase(names[path], pattern)]
    found = read_in_small_pieces(entries_of(tree), NamePattern(pattern, "media"))
    assert [entry.raw_path() for entry in found] == expected
    for whole in (f"media/{pattern}", f"m*/{pattern}", f"*{pattern}/*", f"other/{pattern}"):
        shown = {path: f"media/{path.decode(errors='surrogateescape')}" for path in tree}
        found = read_in_small_pieces(entries_of(tree), NamePattern(whole, "media"))
        assert [entry.raw_path() for entry in found] == [p for p in tree if fnmatch.fnmatchcase(shown[p], whole)], whole


def test_a_listing_is_read_no_further_than_its_last_chosen_path(quick_folder: Path) -> None:
    path = quick_folder / "listing"
    tree = [b"%05d" % number for number in range(20000)]
    with listing.ListingWriter(path) as writer:
        writer.write(entries_of(tree))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) - 10])  # what is read to its end is damaged
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(listing, "_CHUNK_BYTES", 1024)
        assert len(list(listing.read_chosen(path, Selection([b"00007"])))) == 1
