"""Many small files: a second process reads and makes a part of them, and its death is no silent loss."""

from __future__ import annotations

import os
import signal
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from holdfast.drivers.files import staging
from holdfast.drivers.files.local import LocalFiles
from holdfast.drivers.vaults.local import tree_pass
from holdfast.drivers.vaults.local.small_files import TINY_BYTES
from holdfast.drivers.vaults.local.vault import LocalVault
from holdfast.drivers.vaults.local.writer import LocalRun
from holdfast.errors import DamagedError, StepError
from holdfast.system.host import OPERATION_VARIABLE, Host
from holdfast.system.processes import Process, processes_with
from holdfast.system.worker import Worker
from tests.contract import trees
from tests.contract.test_vaults import Keeper, no_check, no_progress
from tests.proof import patience

OPERATION = f"second-process-test-{os.getpid()}"
FILES = 2000


@pytest.fixture(autouse=True)
def two_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also on a machine with one core, and from the first files on."""
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    for module in (tree_pass, staging):
        monkeypatch.setattr(module, "_WORKER_FILES", 1)


@pytest.fixture
def host() -> Host:
    return Host(operation=OPERATION)


@pytest.fixture
def keeper(quick_folder: Path, host: Host) -> Iterator[Keeper]:
    root = quick_folder / "media"
    trees.plain(root)
    for number in range(FILES):
        folder = root / f"many{number % 7}"
        folder.mkdir(exist_ok=True)
        (folder / f"file {number}").write_bytes(b"content %d" % (number // 2))  # each content twice
    (root / "many0" / os.fsdecode(b"not \xff UTF-8")).write_bytes(b"odd")
    if trees.supports_xattrs(root):
        os.setxattr(root / "many1" / "file 1", "user.colour", b"blue")
    yield Keeper(LocalVault(quick_folder / "vault", "guestbook.production", host), LocalFiles("media", root, host=host))
    assert second_processes() == [], "a second process was left behind"


def second_processes() -> list[Process]:
    return processes_with(f"{OPERATION_VARIABLE}={OPERATION}\0")


def restored(keeper: Keeper, id: str, host: Host) -> LocalFiles:
    source = keeper.vault.open_set(id)
    target = LocalFiles("target", keeper.files.root.parent / "target", host=host)
    target.stage("restore", source.listing("media"), source.fetch, no_check)
    target.apply("restore")
    return target


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What second processes answered."""
    found: list[object] = []
    take = Worker.take

    def counted(self: Worker) -> object:
        found.append(take(self))
        return found[-1]

    monkeypatch.setattr(Worker, "take", counted)
    return found


def test_what_two_processes_store_and_make_is_the_tree(keeper: Keeper, host: Host, answers: list[object]) -> None:
    id = keeper.make("run1")
    assert len(answers) > 1
    assert keeper.wrong() == []
    before = len(answers)
    target = restored(keeper, id, host)
    assert len(answers) > before
    assert trees.look(target.root) == trees.look(keeper.files.root)


def test_files_at_rest_are_not_looked_at_by_the_scan(keeper: Keeper, monkeypatch: pytest.MonkeyPatch) -> None:
    root = keeper.files.root
    (root / "many3" / "second name").hardlink_to(root / "many3" / "file 10")
    (root / "many4" / "large").write_bytes(os.urandom(TINY_BYTES + 1))
    with open(root / "many5" / "holes", "wb") as file:
        file.write(b"x")
        file.truncate(TINY_BYTES)
    os.mkfifo(root / "many6" / "pipe")
    (root / "many6" / "link").symlink_to("large")
    at_rest()
    given: list[dict[str, object]] = []
    give = Worker.give

    def seen(self: Worker, order: object) -> None:
        if isinstance(order, bytes):
            given.extend(msgspec.msgpack.decode(order))
        give(self, order)

    monkeypatch.setattr(Worker, "give", seen)
    (root / "many6" / "young").write_bytes(b"changed just now")
    before = trees.look(root)
    id = keeper.make("run1")
    named = [one for one in given if not one["mode"]]
    assert len(named) > FILES // 4
    assert keeper.wrong() == []
    assert keeper.restored(id, "target") == before
    listing = {entry.path: entry for entry in keeper.vault.open_set(id).listing("media")}
    for path, entry in listing.items():
        status = os.lstat(root / os.fsdecode(entry.raw_path()))
        assert (entry.inode, entry.ctime_ns, entry.mode) == (
            status.st_ino,
            status.st_ctime_ns,
            f"{stat.S_IMODE(status.st_mode):o}",
        ), path
    assert listing["many6/young"].recent
    assert not listing["many5/file 5"].recent
    assert listing["many5/holes"].sparse
    assert listing["many3/second name"].hardlink == listing["many3/file 10"].hardlink != ""
    stored = keeper.vault.begin("run2").store_tree(
        "media", keeper.files, keep_vanished=False, check=no_check, progress=no_progress
    )
    assert stored.read_files == 1, "only the young one is read again"
    keeper.vault.abandon("run2")


def at_rest() -> None:
    """Waits until what was written is no longer recent."""
    time.sleep(2.1)


def test_a_second_backup_finds_what_the_second_process_stored(keeper: Keeper) -> None:
    keeper.make("run1")
    (keeper.files.root / "many0").rename(keeper.files.root / "moved")
    for path in (keeper.files.root / "moved").iterdir():
        os.utime(path)
    run = keeper.vault.begin("run2")
    stored = run.store_tree("media", keeper.files, keep_vanished=False, check=no_check, progress=no_progress)
    assert stored.read_files > FILES // 8
    assert stored.new_bytes == 0, "known contents were stored again"
    keeper.vault.abandon("run2")


def test_a_file_that_changed_since_the_scan_is_read_as_it_is_now(
    keeper: Keeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    give = Worker.give

    def late(self: Worker, order: object) -> None:
        if isinstance(order, bytes):
            names = [one["path"] for one in msgspec.msgpack.decode(order) if one["type"] == "file"]
            (keeper.files.root / names[0]).write_bytes(b"another content, longer than before")
            (keeper.files.root / names[1]).unlink()
        give(self, order)

    monkeypatch.setattr(Worker, "give", late)
    id = keeper.make("run1")
    monkeypatch.undo()
    assert keeper.wrong() == []
    keeper.restored(id, "target")
    assert contents(keeper.files.root.parent / "target") == contents(keeper.files.root)


def contents(root: Path) -> dict[Path, bytes]:
    return {
        path.relative_to(root): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and ".holdfast" not in path.parts
    }


def kill_at(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kills the second process when it is given its order of that number."""
    give = Worker.give
    count = 0

    def deadly(self: Worker, order: object) -> None:
        nonlocal count
        count += 1
        if count == number:
            for process in second_processes():
                os.kill(process.pid, signal.SIGKILL)
        give(self, order)

    monkeypatch.setattr(Worker, "give", deadly)


@pytest.mark.parametrize("number", [1, 3])
def test_its_death_fails_the_backup(keeper: Keeper, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    kill_at(number, monkeypatch)
    with pytest.raises(StepError, match="second process"):
        keeper.make("run1")
    keeper.vault.abandon("run1")
    assert keeper.ids() == []


def test_what_its_end_meets_is_raised_here_as_it_is(keeper: Keeper) -> None:
    run = keeper.vault.begin("run1")
    assert isinstance(run, LocalRun)
    (run.folder.parent / "packs").rename(run.folder.parent / "elsewhere")
    with pytest.raises(OSError, match="No such file"):
        run.store_tree("media", keeper.files, keep_vanished=False, check=no_check, progress=no_progress)
    (run.folder.parent / "elsewhere").rename(run.folder.parent / "packs")


@pytest.mark.parametrize("number", [1, 3])
def test_its_death_does_not_fail_a_restore(
    keeper: Keeper, host: Host, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    id = keeper.make("run1")
    kill_at(number, monkeypatch)
    target = restored(keeper, id, host)
    assert trees.look(target.root) == trees.look(keeper.files.root)


def test_damage_that_the_second_process_meets_is_damage(keeper: Keeper, host: Host) -> None:
    id = keeper.make("run1")
    assert isinstance(keeper.vault, LocalVault)
    for pack in (keeper.vault.path / "packs").glob("*.pack"):
        pack.chmod(0o600)
        content = pack.read_bytes()
        pack.write_bytes(content.replace(b"content 9", b"CONTENT 9"))
    with pytest.raises(DamagedError, match="damaged at content"):
        restored(keeper, id, host)


def test_it_ends_with_its_parent(host: Host, quick_folder: Path) -> None:
    process = host.start_pipes([sys.executable, "-m", "holdfast.system.worker"])
    assert process.stdin is not None and process.stdout is not None
    assert [one.pid for one in second_processes()] == [process.pid]
    process.stdin.close()
    assert process.wait(patience.limit(10)) == 0
    process.stdout.close()
