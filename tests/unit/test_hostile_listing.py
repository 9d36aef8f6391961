"""A listing cannot write outside of its tree, whatever its digests say."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from holdfast.drivers.files.local import LocalFiles
from holdfast.errors import DamagedError
from holdfast.model import Entry


def entry(path: str, kind: str = "file", **more: str) -> Entry:
    return Entry(path=path, kind=kind, mode="644", uid=os.getuid(), gid=os.getgid(), mtime_ns=0, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "wanted",
    [
        [entry("../escaped")],
        [entry("/escaped")],
        [entry("a", "directory"), entry("a/../../escaped")],
        [entry("a", "directory"), entry("a/./x")],
        [entry("a", "directory"), entry("a//x")],
        [entry("a", "symlink", target=".."), entry("a/escaped")],
        [entry("missing/x")],
        [entry("x", path_base64="Li4vZXNjYXBlZA==")],
        [entry("a", "directory"), entry("ab/x")],
        [entry("device", "device")],
    ],
    ids=lambda wanted: wanted[-1].path,
)
def test_an_entry_outside_of_its_listing_is_refused_before_anything_moves(folder: Path, wanted: list[Entry]) -> None:
    root = folder / "outer" / "root"
    root.mkdir(parents=True)
    (root / "kept").write_text("kept")
    files = LocalFiles("m", root)
    with pytest.raises(DamagedError):
        files.stage("op", wanted, lambda item, descriptor: None, lambda: None)
    files.apply("op")
    assert (root / "kept").read_text() == "kept"
    assert not list(folder.rglob("*escaped*"))
    assert sorted(os.listdir(folder / "outer")) == ["root"]
