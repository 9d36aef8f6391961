"""Unpacking archives of others: holes stay holes, unfit members are refused, and a stop is obeyed within one file."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path

import pytest

from holdfast.drivers.interchange import unpack
from holdfast.errors import CancelledError, NoSpaceError


def no_check() -> None:
    pass


def test_a_sparse_member_of_a_terabyte_takes_the_room_of_its_data(quick_folder: Path) -> None:
    with open(quick_folder / "sparse", "wb") as file:
        file.truncate(1 << 40)
        file.seek(5_000_000)
        file.write(b"data")
    subprocess.run(["tar", "-Sczf", "sparse.tgz", "sparse"], cwd=quick_folder, check=True)
    target = quick_folder / "target"
    target.mkdir()
    unpack.unpack(str(quick_folder / "sparse.tgz"), target, no_check)
    status = (target / "sparse").stat()
    assert status.st_size == 1 << 40 and status.st_blocks * 512 < 1 << 20
    with open(target / "sparse", "rb") as file:
        file.seek(4_999_999)
        assert file.read(6) == b"\0data\0"


def test_a_member_that_does_not_fit_is_refused_before_it_is_written(quick_folder: Path) -> None:
    """Its size stands in the archive, which may say anything."""
    member = tarfile.TarInfo("huge")
    member.size = 1 << 50
    (quick_folder / "huge.tar").write_bytes(member.tobuf() + bytes(1 << 16))
    target = quick_folder / "target"
    target.mkdir()
    with pytest.raises(NoSpaceError, match="'huge'"):
        unpack.unpack(str(quick_folder / "huge.tar"), target, no_check)
    assert list(target.iterdir()) == []


def test_a_stop_is_obeyed_in_the_middle_of_one_member(quick_folder: Path) -> None:
    with tarfile.open(quick_folder / "one.tar", "w") as archive:
        member = tarfile.TarInfo("large")
        member.size = 8 << 20
        archive.addfile(member, io.BytesIO(bytes(member.size)))
    calls = 0

    def stop_at_the_third() -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise CancelledError("stopped")

    target = quick_folder / "target"
    target.mkdir()
    with pytest.raises(CancelledError):
        unpack.unpack(str(quick_folder / "one.tar"), target, stop_at_the_third)
    assert (target / "large").stat().st_size < 8 << 20
