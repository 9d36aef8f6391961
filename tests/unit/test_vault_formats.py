"""Listings and packs give back what was put in, and notice when they cannot."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.drivers.files.tree import entry_of
from holdfast.drivers.vaults.local import packs
from holdfast.drivers.vaults.local.digest_table import DigestTable
from holdfast.drivers.vaults.local.listing import ListingWriter, read_digests, read_listing
from holdfast.drivers.vaults.local.reader import Contents
from holdfast.errors import DamagedError
from holdfast.model import Entry
from tests.memory import MEMORY
from tests.proof import patience

_paths = st.binary(min_size=1, max_size=40).filter(lambda path: b"\0" not in path)
_big = st.integers(0, 2**63 - 1)


@st.composite
def entries(draw: st.DrawFn) -> Entry:
    """An entry as a scan makes it of a name with any bytes."""
    path = draw(_paths)
    status = os.stat_result(
        (0o100644, draw(_big), draw(_big), 1, draw(st.integers(0, 2**32 - 1)), 0, draw(_big), 0, 0, 0)
    )
    entry = entry_of(path, status)
    assert entry is not None
    assert entry.raw_path() == path
    entry.mtime_ns, entry.ctime_ns = draw(st.integers(-(2**62), 2**62)), draw(_big)
    entry.sha256 = draw(st.sampled_from(["", "ab" * 32, "00" * 32]))
    entry.xattrs = draw(st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=2))
    entry.sparse = draw(st.lists(st.tuples(_big, _big), max_size=2))
    entry.hardlink = draw(st.sampled_from(["", "8:1"]))
    entry.recent = draw(st.booleans())
    return entry


def write(path: Path, listed: list[Entry]) -> None:
    with ListingWriter(path) as writer:
        for start in range(0, len(listed), 3):
            writer.write(listed[start : start + 3])


@settings(max_examples=150, deadline=None)
@given(listed=st.lists(entries(), max_size=10))
def test_a_listing_is_read_as_it_was_written(listed: list[Entry]) -> None:
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        path = Path(folder) / "files.media.jsonl.zst"
        write(path, listed)
        found = list(read_listing(path))
        assert found == listed
        assert [entry.raw_path() for entry in found] == [entry.raw_path() for entry in listed]
        assert list(read_digests(path)) == [entry.sha256 for entry in listed if entry.sha256]
        assert path.stat().st_mode & 0o777 == 0o600


@settings(max_examples=100, deadline=None)
@given(target=_paths)
def test_the_target_of_a_link_may_be_any_bytes(target: bytes) -> None:
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        link = os.fsencode(folder) + b"/link"
        os.symlink(target, link)
        entry = entry_of(b"link", os.lstat(link), target=os.readlink(link))
        assert entry is not None
        write(Path(folder) / "l", [entry])
        (found,) = read_listing(Path(folder) / "l")
        assert (found.kind, found.raw_target()) == ("symlink", target)


def many(count: int) -> list[Entry]:
    return [
        Entry(
            path=f"folder/file-{number}",
            kind="file",
            mode="644",
            uid=0,
            gid=0,
            mtime_ns=number,
            size=number,
            sha256=hashlib.sha256(str(number).encode()).hexdigest(),
        )
        for number in range(count)
    ]


def test_a_listing_longer_than_any_buffer(quick_folder: Path) -> None:
    listed = many(20_000)
    write(quick_folder / "l", listed)
    assert list(read_listing(quick_folder / "l")) == listed


def by_the_library(path: Path) -> bytes:
    with zstandard.open(path, "rb") as file:
        return bytes(file.read())


def by_the_program(path: Path) -> bytes:
    if shutil.which("zstd") is None:
        pytest.skip("no zstd here: `make test-setup` as root installs it")
    return subprocess.run(["zstd", "-dc", path], capture_output=True, check=True, timeout=patience.limit(30)).stdout


@pytest.mark.parametrize("unpacked", [by_the_library, by_the_program])
def test_a_listing_is_plain_zstd_and_json(quick_folder: Path, unpacked: Callable[[Path], bytes]) -> None:
    write(quick_folder / "l.zst", many(3))
    lines = [msgspec.json.decode(line) for line in unpacked(quick_folder / "l.zst").splitlines()]
    assert [line["path"] for line in lines] == ["folder/file-0", "folder/file-1", "folder/file-2"]
    assert lines[1]["type"] == "file"


@pytest.mark.parametrize("content", [b"", b"no zstd at all", b"\x28\xb5\x2f\xfd" + b"\xff" * 20])
def test_what_is_no_listing_is_damaged(quick_folder: Path, content: bytes) -> None:
    (quick_folder / "l").write_bytes(content)
    with pytest.raises(DamagedError):
        list(read_listing(quick_folder / "l"))


def test_a_listing_that_was_cut_is_damaged(quick_folder: Path) -> None:
    write(quick_folder / "l", many(5000))
    whole = (quick_folder / "l").read_bytes()
    for length in range(1, len(whole), len(whole) // 20):
        (quick_folder / "l").write_bytes(whole[:length])
        with pytest.raises(DamagedError):
            list(read_listing(quick_folder / "l"))


# --- packs --------------------------------------------------------------------------------------------


def pack(vault: Path, contents: list[bytes], **limits: int) -> list[str]:
    """Contents in packs of a vault; the packs' names."""
    (vault / "packs").mkdir(parents=True)
    writer = packs.PackWriter(vault / "packs", "0")
    for content in contents:
        writer.append(hashlib.sha256(content).hexdigest(), content)
    writer.close()
    return writer.finished


def fetched(contents: Contents, content: bytes, folder: Path) -> bytes:
    digest = hashlib.sha256(content).hexdigest()
    with open(folder / "out", "w+b", buffering=0) as file:
        contents.fetch(Entry(path="x", kind="file", mode="", uid=0, gid=0, mtime_ns=0, sha256=digest), file.fileno())
        file.seek(0)
        return file.read()


_contents = st.lists(st.one_of(st.binary(max_size=30), st.integers(1, 9000).map(os.urandom)), max_size=30, unique=True)


@settings(max_examples=60, deadline=None)
@given(data=_contents, pack_bytes=st.sampled_from([1, 5000, 64 << 20]), buffer=st.sampled_from([1, 1000]))
def test_packs_give_back_every_content(data: list[bytes], pack_bytes: int, buffer: int) -> None:
    with tempfile.TemporaryDirectory(dir=MEMORY) as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr(packs, "PACK_BYTES", pack_bytes)
        patch.setattr(packs, "_BUFFER_CONTENTS", buffer)
        vault = Path(name)
        names = pack(vault, data)
        contents = Contents(vault, names)
        assert contents.problems == []
        assert [fetched(contents, content, vault) for content in data] == data
        assert all(contents.in_pack(hashlib.sha256(content).hexdigest()) for content in data)
        assert {contents.pack_of(hashlib.sha256(content).hexdigest()) for content in data} == set(names)
        absent = hashlib.sha256(b"not in it, as it is longer than any of them").hexdigest()
        assert (contents.in_pack(absent), contents.pack_of(absent)) == (False, None)
        assert [contents.wrong_in_pack(found) for found in names] == [[]] * len(names)
        with pytest.raises(DamagedError, match="missing"):
            fetched(contents, b"not in it, as it is longer than any of them", vault)
        contents.close()
        assert sum((vault / "packs" / f"{found}.pack").stat().st_size for found in names) == sum(map(len, data))


def test_the_name_of_a_pack_vouches_for_its_index_and_the_index_for_the_pack(quick_folder: Path) -> None:
    data = [b"one", b"two", b"", b"x" * 5000]
    (name,) = pack(quick_folder, data)
    index = (quick_folder / "packs" / f"{name}.idx").read_bytes()
    assert hashlib.sha256(index).hexdigest() == name
    content = (quick_folder / "packs" / f"{name}.pack").read_bytes()
    lines = [line.split() for line in index.splitlines()]
    assert [line[0] for line in lines] == sorted(line[0] for line in lines)
    for digest, offset, length in lines:
        part = content[int(offset) : int(offset) + int(length)]
        assert hashlib.sha256(part).hexdigest() == digest.decode()


def test_damage_in_a_pack_is_found_at_its_content(quick_folder: Path) -> None:
    data = [b"one", b"two", b"three"]
    (name,) = pack(quick_folder, data)
    path = quick_folder / "packs" / f"{name}.pack"
    os.chmod(path, 0o600)
    path.write_bytes(b"onetwoThree")
    contents = Contents(quick_folder, [name])
    assert len(contents.wrong_in_pack(name)) == 1
    assert fetched(contents, b"two", quick_folder) == b"two"
    with pytest.raises(DamagedError, match=hashlib.sha256(b"three").hexdigest()[:12]):
        fetched(contents, b"three", quick_folder)
    contents.close()


# --- the table of digests -----------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(
    wanted=st.dictionaries(st.binary(min_size=32, max_size=32), st.integers(0, 2**72 - 1), max_size=40),
    other=st.lists(st.binary(min_size=32, max_size=32), max_size=10),
)
def test_the_table_of_digests_is_a_dictionary(wanted: dict[bytes, int], other: list[bytes]) -> None:
    table = DigestTable(9)
    for digest, number in wanted.items():
        table.add(digest, number)
    assert {digest: table.find(digest) for digest in wanted} == wanted
    assert [table.find(digest) for digest in other if digest not in wanted] == [
        None for digest in other if digest not in wanted
    ]


_sparse_digests = st.tuples(st.integers(0, 12), st.integers(0, 12)).map(
    lambda ones: b"\0" + bytes(int(place in ones) for place in range(12)) + bytes(19)
)


@settings(max_examples=300, deadline=None)
@given(
    rows=st.lists(st.tuples(_sparse_digests, st.sampled_from([0, 1, 256, 257])), min_size=1, max_size=12),
    probes=st.lists(_sparse_digests, max_size=12),
)
def test_records_of_one_bucket_are_not_confused(rows: list[tuple[bytes, int]], probes: list[bytes]) -> None:
    """Few different bytes, so that the end of one record and the start of the next look like a third."""
    table, expected = DigestTable(2), {}
    for digest, number in rows:
        if digest not in expected:
            table.add(digest, number)
            expected[digest] = number
    assert {digest: table.find(digest) for digest in expected} == expected
    assert [table.find(probe) for probe in probes] == [expected.get(probe) for probe in probes]
