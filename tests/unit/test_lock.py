"""Locks name their holder and die with its process."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from holdfast.engine.lock import Lock, Owner, boot_id, process_start_ticks
from holdfast.errors import BusyError
from tests.proof import patience

_HOLD = """
import subprocess, sys
from pathlib import Path
from holdfast.engine.lock import Lock

lock = Lock(Path(sys.argv[1])).acquire("upgrade to v2")
child = subprocess.Popen(["sleep", "600"], start_new_session=True) if sys.argv[2] == "child" else None
print(child.pid if child else 0, flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def held_by_another(path: Path, how: str = "alone") -> Iterator[tuple[subprocess.Popen[str], int]]:
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(path), how], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    child = int(process.stdout.readline())
    try:
        yield process, child
    finally:
        process.kill()
        process.wait(patience.limit(30))
        process.stdin.close()
        process.stdout.close()
        if child:
            os.kill(child, signal.SIGKILL)


def test_a_held_lock_names_its_holder_and_changes_nothing(quick_folder: Path) -> None:
    path = quick_folder / "locks" / "change.lock"
    with held_by_another(path) as (process, _):
        with pytest.raises(BusyError) as caught:
            Lock(path).acquire("backup")
        assert "upgrade to v2" in caught.value.what
        assert f"process {process.pid}" in caught.value.what
        assert "backup" in caught.value.what
        holder = Lock(path).holder()
        assert holder is not None
        assert (holder.pid, holder.what, holder.alive()) == (process.pid, "upgrade to v2", True)


@pytest.mark.parametrize("how", ["alone", "child"])
def test_a_lock_dies_with_its_process_even_while_its_child_lives(quick_folder: Path, how: str) -> None:
    path = quick_folder / "change.lock"
    with held_by_another(path, how) as (process, child):
        process.kill()
        process.wait(patience.limit(30))
        assert not child or process_start_ticks(child) is not None
        assert Lock(path).holder() is None
        with Lock(path).acquire("recover") as lock:
            assert lock.held
    assert not lock.held


def test_a_lock_excludes_within_one_process_and_after_its_release_does_not(quick_folder: Path) -> None:
    path = quick_folder / "change.lock"
    with Lock(path).acquire("first"):
        with pytest.raises(BusyError, match="first"):
            Lock(path).acquire("second")
    Lock(path).acquire("second").release()


def test_shared_locks_go_together_and_keep_an_exclusive_one_out(quick_folder: Path) -> None:
    path = quick_folder / "change.lock"
    with Lock(path).acquire("one", shared=True), Lock(path).acquire("two", shared=True):
        with pytest.raises(BusyError):
            Lock(path).acquire("three")
    with Lock(path).acquire("three"), pytest.raises(BusyError):
        Lock(path).acquire("one", shared=True)


def test_waiting_ends_when_asked_to(quick_folder: Path) -> None:
    path = quick_folder / "change.lock"
    with Lock(path).acquire("first"), pytest.raises(BusyError):
        Lock(path).acquire("second", wait_seconds=3600, cancelled=lambda: True)


def test_waiting_takes_the_lock_once_it_is_free(quick_folder: Path) -> None:
    path = quick_folder / "change.lock"
    first = Lock(path).acquire("first")
    looks = iter(range(2))

    def release_at_the_second_look() -> bool:
        if next(looks, None) is None:
            first.release()
        return False

    with Lock(path).acquire("second", wait_seconds=3600, cancelled=release_at_the_second_look) as second:
        assert second.held


def test_an_owner_is_told_from_another_process_with_its_number() -> None:
    owner = Owner.of_this_process("test")
    assert owner.alive()
    assert not replace(owner, start_ticks=owner.start_ticks - 1).alive()
    assert not replace(owner, boot_id="an earlier boot").alive()
    assert replace(owner, pid_namespace="pid:[1]", start_ticks=1).alive(), "unseen from here, so taken for living"
    assert owner.boot_id == boot_id()


def test_a_zombie_is_gone() -> None:
    process = subprocess.Popen(["true"])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert process_start_ticks(process.pid) is None
    process.wait(patience.limit(30))
