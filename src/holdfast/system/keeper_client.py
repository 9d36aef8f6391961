"""Holdfast's side of the keeper: start commands below one, and find what an earlier one holds.

A record is a file of lines, next to the journal. It need not survive a loss of power, because then no process does, so
nothing waits for the disk. Holdfast writes `keeper PID START` before it asks the keeper for anything. The keeper writes
`command PID START` for each command, in case it is killed itself, and `group PATH` for its control group, if it has
one. The first line names the boot and the namespace of process ids that the numbers belong to.
"""

from __future__ import annotations

import contextlib
import marshal
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

import msgspec

from holdfast.system import cgroups, keeper, proc, processes
from holdfast.system.accounts import OWN, Account
from holdfast.system.processes import Identity, session_members

__all__ = ["Keeper", "Kept", "Process", "commands", "end_recorded", "end_session", "recorded"]

_GRACE_SECONDS = 5.0
_LET_GO_SECONDS = 2.0


class Kept:
    """A command below a keeper, with the used part of the interface of subprocess.Popen."""

    def __init__(self, pid: int, owner: Identity, status: int, pipes: Sequence[IO[bytes] | None]) -> None:
        self.pid = pid
        self.stdin, self.stdout, self.stderr = pipes
        self.returncode: int | None = None
        self._keeper = owner
        self._status = status

    def sentinel(self) -> int:
        """Return a descriptor that becomes readable at the command's end; the caller closes it."""
        return os.dup(self._status)

    def poll(self) -> int | None:
        return self._look(0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end. Raise subprocess.TimeoutExpired."""
        code = self._look(None if timeout is None else timeout * 1000)
        if code is None:
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0)
        return code

    def _look(self, milliseconds: float | None) -> int | None:
        if self.returncode is None:
            poller = select.poll()
            poller.register(self._status, select.POLLIN)
            if poller.poll(milliseconds):
                answer = os.read(self._status, keeper.ENDED.size)
                # A killed keeper reports nothing, and there is no other way to know how its command ended.
                status = keeper.ENDED.unpack(answer)[0] if answer else signal.SIGKILL
                self.returncode = os.waitstatus_to_exitcode(status)
                os.close(self._status)
        return self.returncode

    def forget(self) -> None:
        """Stop waiting for the end of the command."""
        os.close(self._status)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def send_signal(self, number: int) -> None:
        """Signal only the command."""
        if self.poll() is not None:
            return
        below = processes.descendants(self._keeper, processes.table())
        if self.pid in below:
            processes.signal_processes({self.pid: below[self.pid]}, number)

    def end(self, grace_seconds: float) -> None:
        """End it with what it started, found by descent or session: SIGTERM, SIGKILL after a grace period."""
        processes.signal_processes(self._members(), signal.SIGTERM)
        deadline = time.monotonic() + grace_seconds
        while self._members() and time.monotonic() < deadline:
            time.sleep(0.02)
        while members := self._members():
            processes.signal_processes(members, signal.SIGKILL)
            time.sleep(0.01)
        self.wait()

    def _members(self) -> dict[int, int]:
        table = processes.table()
        below = processes.descendants(self._keeper, table)
        heads = [pid for pid in below if self.pid in (pid, table[pid].session)]
        found = {pid: below[pid] for pid in heads}
        for pid in heads:
            found |= processes.descendants(Identity(pid, below[pid]), table)
        return found


class Keeper:
    """A keeper that this process started, and the connection to it. Threads may share it."""

    def __init__(self, record: Path | None, environment: Mapping[str, str]) -> None:
        """Start a keeper that writes its record to a file. Raise OSError."""
        self._lock = threading.Lock()
        self._connection, theirs = socket.socketpair()
        try:
            with theirs:
                written = _open_record(record)
                try:
                    process = subprocess.Popen(
                        [sys.executable, "-I", "-S", "-B", keeper.__file__, str(theirs.fileno()), str(written)],
                        cwd="/",
                        env=dict(environment),
                        stdin=subprocess.DEVNULL,
                        stdout=subprocess.DEVNULL,
                        stderr=subprocess.DEVNULL,
                        start_new_session=True,
                        pass_fds=(theirs.fileno(), written),
                    )
                    self.identity = Identity(process.pid, processes.started(process.pid))
                    with contextlib.suppress(OSError):  # a full disk: this process knows the keeper anyway
                        os.write(written, f"keeper {self.identity.pid} {self.identity.started}\n".encode())
                        group = cgroups.make(f"holdfast-{process.pid}-{self.identity.started}", process.pid)
                        if group is not None:
                            self._ask([], str(group), {}, [])
                            os.write(written, f"group {group}\n".encode())
                finally:
                    os.close(written)
            process.returncode = 0  # a caller that needs its end waits with its own descriptor
            if self._connection.recv(1) != b"+":
                raise OSError(0, "the process that keeps commands together did not start")
        except BaseException:
            self._connection.close()
            raise

    def spawn(
        self,
        command: Sequence[str],
        *,
        cwd: str | Path | None,
        environment: Mapping[str, str],
        stdin: IO[bytes] | int | None,
        stdout: IO[bytes] | int | None,
        stderr: IO[bytes] | int | None,
        account: Account = OWN,
    ) -> Kept:
        """Start a command, with the streams of subprocess.Popen. Raise OSError where it cannot be started."""
        with contextlib.ExitStack() as ours, contextlib.ExitStack() as theirs:
            pipes: list[IO[bytes] | None] = []
            descriptors: list[int] = []
            for number, stream in enumerate((stdin, stdout, stderr)):
                pipe, descriptor = _stream(number, stream, descriptors, theirs)
                pipes.append(ours.enter_context(pipe) if pipe is not None else None)
                descriptors.append(descriptor)
            status, reports = os.pipe()
            ours.callback(os.close, status)
            theirs.callback(os.close, reports)
            folder = os.fspath(cwd) if cwd is not None else os.getcwd()
            with self._lock:
                self._ask(list(command), folder, environment, [*descriptors, reports], account)
                theirs.close()
            answer = os.read(status, keeper.STARTED.size)
            if not answer:
                raise OSError(0, "the process that keeps commands together was killed")
            kind, value = keeper.STARTED.unpack(answer)
            if kind == b"e":
                raise OSError(value, os.strerror(value))
            ours.pop_all()
            return Kept(value, self.identity, status, pipes)

    def _ask(
        self,
        command: Sequence[str],
        folder: str,
        environment: Mapping[str, str],
        descriptors: Sequence[int],
        account: Account = OWN,
    ) -> None:
        body = marshal.dumps((list(command), folder, dict(environment), account.ids))
        socket.send_fds(self._connection, [keeper.REQUEST.pack(len(body))], descriptors)
        self._connection.sendall(body)

    def alive(self) -> bool:
        return bool(processes.still_running({self.identity.pid: self.identity.started}))

    def let_go(self) -> None:
        """Let go of it: it ends as soon as nothing is left of what it started."""
        self._connection.close()

    def __del__(self) -> None:
        self._connection.close()


def _open_record(path: Path | None) -> int:
    if path is not None:
        with contextlib.suppress(OSError):
            if not path.parent.is_dir():
                path.parent.mkdir(mode=0o700)
            descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                if os.fstat(descriptor).st_size == 0:
                    os.write(descriptor, f"{processes.boot_and_namespace()}\n".encode())
            except OSError:
                os.close(descriptor)
            else:
                return descriptor
    return os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)


def _stream(
    number: int, stream: IO[bytes] | int | None, earlier: Sequence[int], theirs: contextlib.ExitStack
) -> tuple[IO[bytes] | None, int]:
    """Return our end of a pipe if one is wanted, and the descriptor for the command."""
    if stream == subprocess.PIPE:
        read, write = os.pipe()
        own, given, mode = (write, read, "wb") if number == 0 else (read, write, "rb")
        theirs.callback(os.close, given)
        return os.fdopen(own, mode), given
    if stream == subprocess.STDOUT:
        return None, earlier[1]
    if stream is None or stream == subprocess.DEVNULL:
        nowhere = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        theirs.callback(os.close, nowhere)
        return None, nowhere
    return None, stream if isinstance(stream, int) else stream.fileno()


# --- what an earlier one holds -------------------------------------------------------------------------


class _Record(msgspec.Struct):
    keepers: list[Identity] = msgspec.field(default_factory=list)
    commands: list[Identity] = msgspec.field(default_factory=list)
    groups: list[Path] = msgspec.field(default_factory=list)


def _read(path: Path) -> _Record:
    """Return the content of a record, if it is of this boot and namespace."""
    found = _Record()
    try:
        lines = path.read_text().splitlines()
    except (OSError, ValueError):
        return found
    if lines[:1] != [processes.boot_and_namespace()]:
        return found
    for line in lines[1:]:
        kind, _, rest = line.partition(" ")
        numbers = [int(word) for word in rest.split() if word.isdigit()]
        if kind == "group" and Path(rest).name.startswith("holdfast-"):
            found.groups.append(Path(rest))
        elif kind in ("keeper", "command") and len(numbers) == 2:
            (found.keepers if kind == "keeper" else found.commands).append(Identity(*numbers))
    return found


def commands(record: Path) -> list[Identity]:
    """Return the commands of a record, even dead ones."""
    return _read(record).commands


def recorded(record: Path, table: Mapping[int, proc.Stat] | None = None) -> dict[int, int]:
    """Return living processes that the keepers of a record started, with their start, without the keepers.

    Below a living keeper that is everything but the monitors of containers and their descendants. Of a killed keeper it
    is the commands, what descends from them or belongs to their sessions, and its control group.
    """
    known = _read(record)
    table = table if table is not None else processes.table()
    found: dict[int, int] = {}
    for one in known.keepers:
        found |= processes.descendants(one, table)
    for command in known.commands:
        leader = table.get(command.pid)
        if leader is not None and leader.started != command.started:
            continue  # another process has its number, and that of its session, by now
        below = processes.descendants(command, table)
        below |= {
            pid: entry.started
            for pid, entry in table.items()
            if entry.session == command.pid and entry.started >= command.started
        }
        for pid in tuple(below):
            below |= processes.descendants(Identity(pid, below[pid]), table)
        if leader is not None and not leader.ended:
            below[command.pid] = command.started
        found |= below
    keepers = {one.pid for one in known.keepers}
    for group in known.groups:
        found |= {pid: table[pid].started for pid in cgroups.members(group) if pid in table and pid not in keepers}
    spared = {os.getpid()}
    for pid in filter(keeper.is_monitor, found):
        spared |= {pid, *processes.descendants(Identity(pid, table[pid].started), table)}
    return {pid: start for pid, start in found.items() if pid not in spared and not table[pid].ended}


def end_recorded(
    record: Path, *, hint: str, grace_seconds: float, wait_seconds: float
) -> tuple[int, list[processes.Process]]:
    """End all that the keepers of a record hold, and what has a variable starting with `hint` in its environment.

    The keepers then end by themselves, which proves that nothing is left. Return how many processes there were at
    first, and those that could not be ended.
    """

    def present() -> dict[int, int]:
        return recorded(record) | processes.identified(processes.processes_with(hint))

    count, left = processes.end(present, grace_seconds=grace_seconds, wait_seconds=wait_seconds)
    deadline = time.monotonic() + wait_seconds
    while not left and (holding := _living_keepers(record)):
        table = processes.table()
        if not any(processes.descendants(Identity(pid, start), table) for pid, start in holding.items()):
            processes.await_end(holding, _LET_GO_SECONDS)
        left = present()
        if not left:  # it holds only monitors of containers, or was stopped
            processes.signal_processes(holding, signal.SIGKILL)
            processes.await_end(holding, _LET_GO_SECONDS)
        else:
            _, left = processes.end(present, grace_seconds=0, wait_seconds=wait_seconds)
        if time.monotonic() > deadline:
            left = left or _living_keepers(record)
            break
    if not left:
        for group in _read(record).groups:
            cgroups.remove(group)
    return count, [processes.Process(pid, processes.command_of(pid)) for pid in left]


def _living_keepers(record: Path) -> dict[int, int]:
    return processes.still_running({one.pid: one.started for one in _read(record).keepers})


Process = subprocess.Popen[bytes] | Kept
"""A running command, which is a child of this process or of a keeper."""


def end_session(process: Process) -> None:
    """End a command with all that it started in its session: SIGTERM, then SIGKILL after a grace period."""
    if isinstance(process, Kept):
        process.end(_GRACE_SECONDS)
        return
    session = process.pid  # the command is its session's leader, and its number stays in use until it is waited for
    for pid in session_members(session):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + _GRACE_SECONDS
    while session_members(session) and time.monotonic() < deadline:
        time.sleep(0.02)
    while members := session_members(session):
        for pid in members:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)
    process.wait()
