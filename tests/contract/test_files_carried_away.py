"""Trees as an archive and as a plain folder: other programs make the same tree of them."""

from __future__ import annotations

import itertools
import os
import subprocess
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from holdfast.drivers.files.local import LocalFiles
from holdfast.drivers.interchange.folder import write_folder
from holdfast.drivers.interchange.tarball import write_tar
from holdfast.drivers.protocols.files import Fetch
from holdfast.errors import CancelledError, DamagedError
from holdfast.model import Entry
from tests.contract import trees
from tests.contract.test_files_local import NAMES

Carry = Callable[[list[Entry], Fetch, Path], None]


def by_archive(entries: list[Entry], fetch: Fetch, target: Path) -> None:
    """GNU tar unpacks it."""
    archive = target.with_suffix(".tar.gz")
    with open(archive, "wb") as file:
        write_tar(file, entries, fetch, archive.parent, lambda size: None)
    target.mkdir()
    subprocess.run(
        [
            "tar",
            "--extract",
            "--file",
            archive,
            "--directory",
            target,
            "--numeric-owner",
            "--preserve-permissions",
            "--xattrs",
            "--xattrs-include=*",
        ],
        check=True,
        capture_output=True,
    )


def by_folder(entries: list[Entry], fetch: Fetch, target: Path) -> None:
    write_folder(target, lambda: iter(entries), fetch, lambda path, entry: None, lambda size: None)


CARRIES = pytest.mark.parametrize("carry", [by_archive, by_folder])


def everything(root: Path) -> None:
    """What a tree may hold: odd names, links of both kinds, a pipe, holes, a large content, attributes, old times."""
    trees.plain(root)
    trees.modes_and_times(root)
    base = os.fsencode(root)
    for name in NAMES:
        os.mkdir(base + b"/d" + name)
        with open(base + b"/d" + name + b"/" + name, "wb") as file:
            file.write(name)
        os.symlink(name, base + b"/l" + name)
    deep = root / ("long" * 40) / ("name" * 40)
    deep.mkdir(parents=True)
    (deep / ("x" * 200)).write_bytes(b"far below")
    (deep / "link").symlink_to("y" * 300)
    os.link(root / "a-b", root / "a" / "same")
    os.link(root / "a-b", root / "z-same")
    os.mkfifo(root / "pipe")
    (root / "large").write_bytes(os.urandom((3 << 20) + 5))
    with open(root / "holes", "wb") as file:
        file.seek(2 << 20)
        file.write(b"data")
        file.truncate(3 << 20)
    os.utime(root / "large", ns=(1, -1_500_000_001))
    os.chmod(root / "a", 0o555)
    if os.geteuid() == 0:
        os.chown(root / "large", 3_000_000, 2_500_000)
    if trees.supports_xattrs(root):
        os.setxattr(root / "empty", "user.note", "grün\n".encode())
        os.setxattr(root / "emptydir", "user.raw", b"\x00\xff\n=")


@CARRIES
def test_everything_is_carried(carry: Carry, folder: Path) -> None:
    root = folder / "r"
    everything(root)
    entries, fetch = trees.listed(LocalFiles("m", root))
    carry(entries, fetch, folder / "away")
    assert trees.look(folder / "away") == trees.look(root)


@CARRIES
def test_a_content_that_is_damaged_ends_it(carry: Carry, quick_folder: Path) -> None:
    root = quick_folder / "r"
    trees.plain(root)
    entries, _ = trees.listed(LocalFiles("m", root))

    def fetch(entry: Entry, target: int) -> None:
        raise DamagedError("not that content")

    with pytest.raises(DamagedError):
        carry(entries, fetch, quick_folder / "away")


@CARRIES
def test_a_listing_cannot_lead_outside(carry: Carry, quick_folder: Path) -> None:
    for path in ("../escaped", "/escaped", "missing/x"):
        wanted = [Entry(path=path, kind="file", mode="644", uid=0, gid=0, mtime_ns=0)]
        with pytest.raises(DamagedError):
            carry(wanted, lambda entry, target: None, quick_folder / f"away{len(path)}")
    assert not list(quick_folder.rglob("*escaped*"))


def test_it_can_be_ended_within_a_large_content(quick_folder: Path) -> None:
    root = quick_folder / "r"
    root.mkdir()
    (root / "large").write_bytes(bytes(4 << 20))
    entries, fetch = trees.listed(LocalFiles("m", root))
    seen: list[int] = []

    def passed(size: int) -> None:
        seen.append(size)
        if len(seen) == 2:
            raise CancelledError("enough")

    with open(quick_folder / "x", "wb") as file, pytest.raises(CancelledError):
        write_tar(file, entries, fetch, quick_folder, passed)
    assert sum(seen) == 2 << 20
    assert sorted(os.listdir(quick_folder)) == ["r", "x"]


def test_memory_does_not_grow_with_the_files(quick_folder: Path) -> None:
    def many() -> Iterator[Entry]:
        yield Entry(path="d", kind="directory", mode="755", uid=0, gid=0, mtime_ns=0)
        for number in range(20_000):
            yield Entry(path=f"d/{number:08d}", kind="file", mode="644", uid=0, gid=0, mtime_ns=number, size=1)

    def peak(count: int) -> int:
        tracemalloc.start()
        with open(os.devnull, "wb") as file:
            entries = itertools.islice(many(), count)
            write_tar(file, entries, lambda entry, fd: None, quick_folder, lambda size: None)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(10)
    assert peak(20_000) < peak(1_000) + (256 << 10)
