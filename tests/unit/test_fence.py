"""Every surviving child of a dead operation is found and ended, and nobody else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator

import pytest

from holdfast.engine import fence
from holdfast.engine.lock import process_start_ticks
from holdfast.host import OPERATION_VARIABLE
from tests.proof import patience

_GRANDCHILD = """
import subprocess, sys
child = subprocess.Popen(["sleep", "600"], start_new_session=len(sys.argv) > 1)
print(child.pid, flush=True)
{}
"""
_DEAF = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print(0, flush=True)
time.sleep(600)
"""
_RESPAWNS = """
import os, signal, subprocess, time

def respawn(number, frame):
    subprocess.Popen(["sleep", "600"])
    os._exit(0)
signal.signal(signal.SIGTERM, respawn)
print(0, flush=True)
time.sleep(600)
"""


@pytest.fixture(autouse=True)
def _short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fence, "_TERM_GRACE_SECONDS", 0.3)


@pytest.fixture
def operation() -> Iterator[str]:
    """An operation's id; whatever carries it at the end is killed."""
    name = f"op-{uuid.uuid4().hex[:8]}"
    yield name
    for process in fence.survivors(name):
        os.kill(process.pid, signal.SIGKILL)


def start(operation: str, code: str, *arguments: str) -> tuple[subprocess.Popen[str], int]:
    """A marked child that has printed the number of its own child, or 0."""
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments], env={**os.environ, OPERATION_VARIABLE: operation},
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    grandchild = int(process.stdout.readline())
    process.stdout.close()
    return process, grandchild


def gone(pid: int) -> bool:
    return process_start_ticks(pid) is None


def test_no_survivors_is_fine_and_may_be_repeated(operation: str) -> None:
    assert fence.survivors(operation) == []
    assert fence.end_children(operation) == 0
    assert fence.end_children(operation) == 0


def test_a_child_and_its_child_are_ended(operation: str) -> None:
    process, grandchild = start(operation, _GRANDCHILD.format("child.wait()"))
    assert {found.pid for found in fence.survivors(operation)} == {process.pid, grandchild}
    assert fence.end_children(operation) == 2
    process.wait(patience.limit(30))
    assert gone(grandchild)
    assert fence.survivors(operation) == []


@pytest.mark.parametrize("session", [[], ["setsid"]])
def test_a_grandchild_whose_parent_is_dead_is_ended(operation: str, session: list[str]) -> None:
    process, grandchild = start(operation, _GRANDCHILD.format(""), *session)
    process.wait(patience.limit(30))
    assert [found.pid for found in fence.survivors(operation)] == [grandchild]
    assert fence.end_children(operation) == 1
    assert gone(grandchild)


def test_one_that_ignores_sigterm_is_killed(operation: str) -> None:
    process, _ = start(operation, _DEAF)
    assert fence.end_children(operation) == 1
    assert process.wait(patience.limit(30)) == -signal.SIGKILL


def test_one_that_starts_another_at_the_signal_does_not_escape(operation: str) -> None:
    process, _ = start(operation, _RESPAWNS)
    fence.end_children(operation)
    process.wait(patience.limit(30))
    assert fence.survivors(operation) == []


def test_other_operations_and_this_process_are_left_alone(operation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(OPERATION_VARIABLE, operation)
    longer, _ = start(f"{operation}0", _DEAF)
    try:
        unmarked = subprocess.Popen(["sleep", "600"], env={"X": f"{OPERATION_VARIABLE}={operation}"})
        assert fence.survivors(operation) == []
        assert fence.end_children(operation) == 0
        assert longer.poll() is None
        assert unmarked.poll() is None
    finally:
        for process in (longer, unmarked):
            process.kill()
            process.wait(patience.limit(30))
