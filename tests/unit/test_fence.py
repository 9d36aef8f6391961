"""Every surviving child of a dead operation is found and ended, and nobody else."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.engine import fence
from holdfast.engine.lock import process_start_ticks
from holdfast.system.host import OPERATION_VARIABLE, Host
from tests.proof import patience

NO_RECORD = Path(os.devnull)
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
    for process in fence.survivors(name, NO_RECORD):
        os.kill(process.pid, signal.SIGKILL)


def start(operation: str, code: str, *arguments: str) -> tuple[subprocess.Popen[str], int]:
    """A marked child that has printed the number of its own child, or 0."""
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, OPERATION_VARIABLE: operation},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    grandchild = int(process.stdout.readline())
    process.stdout.close()
    return process, grandchild


def gone(pid: int) -> bool:
    return process_start_ticks(pid) is None


def test_no_survivors_is_fine_and_may_be_repeated(operation: str) -> None:
    assert fence.survivors(operation, NO_RECORD) == []
    assert fence.end_children(operation, NO_RECORD) == 0
    assert fence.end_children(operation, NO_RECORD) == 0


def test_a_child_and_its_child_are_ended(operation: str) -> None:
    process, grandchild = start(operation, _GRANDCHILD.format("child.wait()"))
    assert {found.pid for found in fence.survivors(operation, NO_RECORD)} == {process.pid, grandchild}
    assert fence.end_children(operation, NO_RECORD) == 2
    process.wait(patience.limit(30))
    assert gone(grandchild)
    assert fence.survivors(operation, NO_RECORD) == []


@pytest.mark.parametrize("session", [[], ["setsid"]])
def test_a_grandchild_whose_parent_is_dead_is_ended(operation: str, session: list[str]) -> None:
    process, grandchild = start(operation, _GRANDCHILD.format(""), *session)
    process.wait(patience.limit(30))
    assert [found.pid for found in fence.survivors(operation, NO_RECORD)] == [grandchild]
    assert fence.end_children(operation, NO_RECORD) == 1
    assert gone(grandchild)


def test_one_that_ignores_sigterm_is_killed(operation: str) -> None:
    process, _ = start(operation, _DEAF)
    assert fence.end_children(operation, NO_RECORD) == 1
    assert process.wait(patience.limit(30)) == -signal.SIGKILL


def test_one_that_starts_another_at_the_signal_does_not_escape(operation: str) -> None:
    process, _ = start(operation, _RESPAWNS)
    fence.end_children(operation, NO_RECORD)
    process.wait(patience.limit(30))
    assert fence.survivors(operation, NO_RECORD) == []


def test_other_operations_and_this_process_are_left_alone(operation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(OPERATION_VARIABLE, operation)
    longer, _ = start(f"{operation}0", _DEAF)
    try:
        unmarked = subprocess.Popen(["sleep", "600"], env={"X": f"{OPERATION_VARIABLE}={operation}"})
        assert fence.survivors(operation, NO_RECORD) == []
        assert fence.end_children(operation, NO_RECORD) == 0
        assert longer.poll() is None
        assert unmarked.poll() is None
    finally:
        for process in (longer, unmarked):
            process.kill()
            process.wait(patience.limit(30))


# --- what a keeper holds ---------------------------------------------------------------------------------

_HOLDFAST = """
import sys, time
from pathlib import Path
from holdfast.system.host import Host

host = Host()
host.enter(sys.argv[1], Path(sys.argv[2]))
host.run(sys.argv[3:])
time.sleep(600)
"""
# Leaves its parents, its session and its environment behind, and calls itself something else.
_ESCAPES = """
import os, signal, sys, time

signal.signal(signal.SIGHUP, signal.SIG_IGN)
if os.fork():
    os._exit(0)
os.setsid()
if os.fork():
    os._exit(0)
if len(sys.argv) == 2:
    os.execve("/proc/self/exe", ["php-fpm: master process", "-c", open(sys.argv[1]).read(), sys.argv[1], "there"], {})
with open(sys.argv[1] + ".pid", "w") as file:
    file.write(str(os.getpid()))
os.rename(sys.argv[1] + ".pid", sys.argv[1] + ".is")
time.sleep(600)
"""


@pytest.fixture
def record(tmp_path: Path, operation: str) -> Iterator[Path]:
    path = tmp_path / "processes" / operation
    yield path
    fence.end_children(operation, path)


def killed_holdfast(operation: str, record: Path, *command: str, ready: Path) -> int:
    """Run a command as a part of an operation, and kill Holdfast once it runs; return the number that it wrote down."""
    process = subprocess.Popen([sys.executable, "-c", _HOLDFAST, operation, str(record), *command])
    deadline = patience.deadline(30)
    while not ready.exists():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait(patience.limit(30))
    return int(ready.read_text())


def escaping(operation: str, record: Path, folder: Path) -> int:
    code = folder / "escape.py"
    code.write_text(textwrap.dedent(_ESCAPES))
    ready = Path(f"{code}.is")
    return killed_holdfast(operation, record, sys.executable, "-c", _ESCAPES, str(code), ready=ready)


def keeper_of(record: Path) -> int:
    return int(next(line for line in record.read_text().splitlines() if line.startswith("keeper")).split()[1])


def test_one_without_environment_session_parent_and_name_is_ended(operation: str, record: Path, tmp_path: Path) -> None:
    pid = escaping(operation, record, tmp_path)
    assert Path(f"/proc/{pid}/environ").read_bytes() == b""
    assert [process.pid for process in fence.survivors(operation, record)] == [pid]
    assert fence.end_children(operation, record) == 1
    assert gone(pid)
    assert gone(keeper_of(record)), "a keeper ends with what it holds"
    assert fence.end_children(operation, record) == 0


def test_a_command_whose_keeper_was_killed_too_is_ended(operation: str, record: Path, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    arguments = f"echo $$ > {ready}.new; mv {ready}.new {ready}; sleep 600"
    pid = killed_holdfast(operation, record, "env", "-i", "/bin/sh", "-c", arguments, ready=ready)
    os.kill(keeper_of(record), signal.SIGKILL)
    assert pid in {process.pid for process in fence.survivors(operation, record)}
    fence.end_children(operation, record)
    assert gone(pid)


def test_a_record_of_another_boot_ends_nobody(operation: str, record: Path, tmp_path: Path) -> None:
    pid = escaping(operation, record, tmp_path)
    written = record.read_text()
    record.write_text(written.replace(written[:8], "00000000"))
    assert fence.end_children(operation, record) == 0
    assert not gone(pid)
    record.write_text(written)


def test_a_number_that_another_process_got_since_is_left_alone(operation: str, record: Path, tmp_path: Path) -> None:
    bystander = subprocess.Popen(["sleep", "600"], start_new_session=True, env={})
    try:
        escaping(operation, record, tmp_path)
        with open(record, "a") as file:
            file.write(f"command {bystander.pid} 5\nkeeper {os.getpid()} 6\n")
        fence.end_children(operation, record)
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait(patience.limit(30))


@pytest.mark.parametrize("garbage", ["", "keeper\n", "keeper x y\n", "\0\0\0", "keeper 1 2 3\n"])
def test_a_damaged_record_is_no_traceback(operation: str, record: Path, garbage: str) -> None:
    record.parent.mkdir()
    record.write_text(garbage)
    assert fence.end_children(operation, record) == 0


def test_an_undo_ends_what_its_own_operation_left(operation: str, record: Path, tmp_path: Path) -> None:
    code = tmp_path / "escape.py"
    code.write_text(_ESCAPES)
    host = Host()
    host.enter(operation, record)
    host.run([sys.executable, "-c", _ESCAPES, str(code)])
    deadline = patience.deadline(30)
    while not Path(f"{code}.is").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    host.let_go()
    assert fence.end_children(operation, record) == 1
    assert host.run(["echo", "undo"]).output_tail == "undo\n"
    host.leave()


def test_what_a_committed_operation_started_goes_on(operation: str, record: Path, tmp_path: Path) -> None:
    host = Host()
    host.enter(operation, record)
    pid = int(host.run(["sh", "-c", "setsid sleep 600 >/dev/null 2>&1 & echo $!"]).output_tail)
    host.leave()
    time.sleep(0.1)
    assert not gone(pid)


def test_the_monitor_of_a_container_and_what_is_below_it_go_on(operation: str, record: Path, tmp_path: Path) -> None:
    """Podman's containers are nobody's children by its design: as below a keeper, too."""
    monitor = tmp_path / "conmon"
    shutil.copy(shutil.which("sleep") or "/bin/sleep", monitor)
    ready = tmp_path / "ready"
    arguments = f"env -i {monitor} 600 & echo $! > {ready}.new; mv {ready}.new {ready}; sleep 600"
    pid = killed_holdfast(operation, record, "/bin/sh", "-c", arguments, ready=ready)
    keeper = keeper_of(record)
    try:
        assert pid not in {process.pid for process in fence.survivors(operation, record)}
        assert fence.end_children(operation, record) >= 1
        assert not gone(pid)
        assert gone(keeper), "nothing is left that a keeper is to hold"
    finally:
        os.kill(pid, signal.SIGKILL)


def test_a_keeper_that_holds_monitors_alone_ends_with_its_operation(
    operation: str, record: Path, tmp_path: Path
) -> None:
    monitor = tmp_path / "conmon"
    shutil.copy(shutil.which("sleep") or "/bin/sleep", monitor)
    host = Host()
    host.enter(operation, record)
    pid = int(host.run(["sh", "-c", f"{monitor} 600 >/dev/null 2>&1 & echo $!"]).output_tail)
    keeper = keeper_of(record)
    host.leave()
    deadline = patience.deadline(30)
    while not gone(keeper):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert not gone(pid)
    os.kill(pid, signal.SIGKILL)
