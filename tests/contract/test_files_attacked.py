"""Root works in a tree whose owner swaps its folders for links at every moment: nothing goes out, nothing comes in.

Another process with the rights of the tree's owner does what he could: it exchanges folders for links (renameat2), puts
links in the place of files, and takes Holdfast's own folder away to put another one there, with a list of moves in it.
"""

from __future__ import annotations

import os
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.drivers.entries import Selection
from holdfast.drivers.files.local import LocalFiles
from holdfast.drivers.interchange import extraction
from holdfast.errors import DamagedError, HoldfastError, RefusedError
from holdfast.model import Entry
from holdfast.system import confined
from tests.attacker import SECRET, Ground, attacking

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root works in others' trees: run as root"),
]
ROUNDS = 200


@pytest.fixture
def ground(quick_folder: Path) -> Ground:
    return Ground(quick_folder)


@pytest.fixture
def attacker(ground: Ground, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    with attacking(ground, tmp_path) as process:
        yield process


def contents(files: LocalFiles) -> Iterator[tuple[Entry, bytes]]:
    """What a backup would have: every entry, with the content of files."""
    for entry in files.scan():
        content = b""
        if entry.kind == "file":
            try:
                descriptor = files.open(entry)
            except OSError:
                continue
            with os.fdopen(descriptor, "rb") as file:
                files.complete(entry, file.fileno())
                content = file.read()
        yield entry, content


def test_nothing_from_outside_is_read(ground: Ground, attacker: subprocess.Popen[bytes]) -> None:
    files = ground.files()
    read = 0
    for _ in range(ROUNDS):
        for entry, content in contents(files):
            assert content != SECRET, entry.path
            assert entry.uid == 65534, f"{entry.path} is not of the tree"
            read += entry.kind == "file" and bool(content)
    assert read > ROUNDS, "the test has to read files"


def take_back(files: LocalFiles, ground: Ground) -> None:
    """Undo a restore as far as the attacker lets it; what cannot be undone is forgotten."""
    try:
        files.revert("op")
        files.discard("op")
    except (OSError, HoldfastError):
        for path in ground.records.iterdir():
            (path / "moves.jsonl").unlink(missing_ok=True)


def test_nothing_outside_is_changed(ground: Ground, attacker: subprocess.Popen[bytes]) -> None:
    wanted = [
        Entry("d", "directory", "700", 65534, 65534, 1),
        Entry("d/deep", "directory", "700", 65534, 65534, 1),
        *(Entry(f"d/deep/f{number}", "file", "600", 65534, 65534, 1, 3, sha256="x") for number in range(3)),
        Entry("d/new", "file", "600", 65534, 65534, 1, 3, sha256="x"),
        Entry("d/way", "symlink", "777", 65534, 65534, 1, target="deep"),
    ]
    done = 0
    for number in range(ROUNDS):
        files = ground.files()
        try:
            files.stage("op", iter(wanted), lambda entry, target: os.write(target, b"new") and None, lambda: None)
            files.apply("op")
            done += 1
            files.revert("op")
        except (OSError, HoldfastError) as error:
            assert not isinstance(error, AssertionError)
        take_back(files, ground)
        files.close()
        assert ground.look_outside() == ground.before, f"round {number}"
    assert done > 0, "the test has to change something"


def test_a_part_that_comes_back_changes_nothing_outside(ground: Ground, attacker: subprocess.Popen[bytes]) -> None:
    wanted = [
        Entry("d", "directory", "700", 65534, 65534, 1),
        Entry("d/deep", "directory", "700", 65534, 65534, 1),
        *(Entry(f"d/deep/f{number}", "file", "600", 65534, 65534, 1, 3, sha256="x") for number in range(3)),
        Entry("d/deep/new", "file", "600", 65534, 65534, 1, 3, sha256="x"),
    ]
    done = 0
    for number in range(ROUNDS):
        chosen = Selection([b"d/deep"] if number % 2 else [b"d/deep/f1", b"d/deep/new"])
        files = ground.files()
        try:
            fetch = lambda entry, target: os.write(target, b"new") and None  # noqa: E731
            files.stage("op", chosen.select(wanted), fetch, lambda: None, within=chosen)
            files.apply("op")
            done += 1
            assert not any(entry.uid != 65534 for entry in files.look(chosen))
            files.revert("op")
        except (OSError, HoldfastError) as error:
            assert not isinstance(error, AssertionError)
        take_back(files, ground)
        files.close()
        assert ground.look_outside() == ground.before, f"round {number}"
    assert done > 0, "the test has to change something"


def test_files_written_into_a_folder_of_another_account_change_nothing_outside(
    ground: Ground, attacker: subprocess.Popen[bytes]
) -> None:
    """Also into one that is swapped for a link all the time."""
    wanted = [
        Entry("deep", "directory", "700", 65534, 65534, 1),
        *(Entry(f"deep/f{number}", "file", "600", 65534, 65534, 1, 3, sha256="x") for number in range(3)),
    ]
    for number in range(ROUNDS):  # what a cleanup that is led outside would remove
        for name in ("media", "media/.holdfast"):
            (ground.outside / f"new{number}" / name).mkdir(parents=True)
    before = ground.look_outside()
    ends: Counter[str] = Counter()

    def fetch(entry: Entry, target: int) -> None:
        os.write(target, b"new")
        if number % 4 > 1 and entry.path == "deep/f2":
            raise DamagedError("damaged")

    for number in range(ROUNDS):
        target = ground.tree / "d" / f"new{number}" if number % 2 else ground.tree / f"new{number}"
        try:
            extraction.extract(target, {"media": lambda: iter(wanted)}, fetch, lambda: None)
            ends["done"] += 1
        except (OSError, HoldfastError) as error:
            ends[type(error).__name__] += 1
    assert ground.look_outside() == before
    assert ends["done"] and ends["DamagedError"], ends


def test_a_private_folder_that_is_not_holdfasts_own_refuses(ground: Ground) -> None:
    own = ground.tree / ".holdfast"
    own.symlink_to(ground.outside)
    with pytest.raises(RefusedError, match="is a link"):
        ground.files().workspace("op")
    own.unlink()
    own.mkdir(0o700)
    os.chown(own, 65534, 65534)
    with pytest.raises(RefusedError, match="belongs to account number 65534"):
        ground.files().workspace("op")
    os.chown(own, 0, 0)
    own.chmod(0o755)
    with pytest.raises(RefusedError, match="is open to others"):
        ground.files().workspace("op")
    assert ground.look_outside() == ground.before


def test_moves_whose_stage_was_replaced_are_not_carried_out(ground: Ground) -> None:
    files = ground.files()
    files.stage("op", iter(()), lambda entry, target: None, lambda: None)
    (ground.tree / ".holdfast").rename(ground.tree / "taken")
    for part in ("stage", "aside"):
        (ground.tree / ".holdfast" / "op" / part).mkdir(parents=True)
    (ground.tree / ".holdfast").chmod(0o700)
    for call in (ground.files().apply, ground.files().revert):
        with pytest.raises(HoldfastError, match="replaced"):
            call("op")
    assert (ground.tree / "d" / "g1").read_bytes() == b"mine too"


def test_links_of_others_lead_nowhere_and_the_operators_own_do(ground: Ground, quick_folder: Path) -> None:
    others, own = quick_folder / "others", quick_folder / "own"
    for link in (others, own):
        link.symlink_to(ground.tree)
    os.chown(others, 65534, 65534, follow_symlinks=False)
    with pytest.raises(RefusedError, match="a link of another account"):
        list(LocalFiles("m", others).scan())
    assert [entry.path for entry in LocalFiles("m", own).scan()] == [entry.path for entry in ground.files().scan()]
    database = quick_folder / "app.sqlite3"
    database.symlink_to(ground.outside / "shadow")
    confined.require_trusted(database)
    os.chown(database, 65534, 65534, follow_symlinks=False)
    with pytest.raises(RefusedError, match="a link of another account"):
        confined.require_trusted(database)


def test_immutable_files_are_replaced_and_come_back_so(ground: Ground, folder: Path) -> None:
    """On a disk: a filesystem in memory has no such marks."""
    ground = Ground(folder)
    kept = ground.tree / "d" / "g1"
    if subprocess.run(["chattr", "+i", str(kept)], capture_output=True, check=False).returncode != 0:
        pytest.skip("no immutable files on the filesystem of the tests' folder")
    try:
        files = ground.files()
        files.stage("op", iter(()), lambda entry, target: None, lambda: None)
        files.apply("op")
        assert not kept.exists()
        files.revert("op")
        assert kept.read_bytes() == b"mine too"
        with pytest.raises(PermissionError):
            kept.write_bytes(b"changed")
        files.stage("op2", iter(()), lambda entry, target: None, lambda: None)
        files.apply("op2")
        files.discard("op2")
        assert not (ground.tree / ".holdfast" / "op2").exists()
    finally:
        subprocess.run(["chattr", "-R", "-i", str(folder)], capture_output=True, check=False)


def test_a_mount_inside_of_the_tree_is_told_and_refused_unless_it_is_excluded(ground: Ground) -> None:
    inner = ground.tree / "d" / "with blank"
    inner.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(inner)], check=True)
    try:
        files = ground.files()
        assert files.mounts() == [inner]
        with pytest.raises(RefusedError, match="is a mount inside") as refused:
            files.refuse_mounts()
        assert 'path = "' in refused.value.next_step
        assert [problem.severity for problem in files.check()] == ["warning"]
        LocalFiles("m", ground.tree, ["d/with blank"]).refuse_mounts()
        LocalFiles("m", ground.tree, ["d"]).refuse_mounts()
    finally:
        subprocess.run(["umount", str(inner)], check=True)
    files.refuse_mounts()
