"""Finding and ending processes by a variable in their environment, whatever became of their parents."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import msgspec

from holdfast.system import proc
from holdfast.system.proc import Stat

_NOWHERE = " 0"  # where the environment ends: execve(2) sets that last
_NAME_SERVER = "aardvark-dns\n"
_BECOMING_SECONDS = 0.5
_SETTLED_SECONDS = 0.02


class Process(msgspec.Struct, frozen=True):
    pid: int
    command: str


class Identity(msgspec.Struct, frozen=True):
    """One process, not a later one with its number: its start is in clock ticks since boot."""

    pid: int
    started: int


def table() -> dict[int, Stat]:
    """Return every process of this namespace."""
    found = {}
    for pid in proc.numbers():
        with contextlib.suppress(OSError):
            found[pid] = proc.stat(pid)
    return found


def descendants(head: Identity, table: Mapping[int, Stat]) -> dict[int, int]:
    """Return the descendants of a process in a table, with their start; nothing if its number was reused."""
    if head.pid not in table or table[head.pid].started != head.started:
        return {}
    children: dict[int, list[int]] = {}
    for pid, entry in table.items():
        children.setdefault(entry.parent, []).append(pid)
    found: dict[int, int] = {}
    waiting = [head.pid]
    while waiting:
        for pid in children.get(waiting.pop(), ()):
            if pid not in found:
                found[pid] = table[pid].started
                waiting.append(pid)
    return found


def boot_and_namespace() -> str:
    """Return the scope of process numbers: this boot of the machine, this namespace of process ids."""
    return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {namespace_of()}"


def started(pid: int) -> int:
    """Return the start of a process. Raise OSError, even if it has just ended."""
    entry = proc.stat(pid)
    if entry.ended:
        raise ProcessLookupError(pid)
    return entry.started


def command_of(pid: int) -> str:
    """Return a process's command line for display; its short name if it has none."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        return command or Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def identified(found: Iterable[Process]) -> dict[int, int]:
    """Return the living ones of these processes, each with its start."""
    starts = {}
    for process in found:
        with contextlib.suppress(OSError):
            starts[process.pid] = started(process.pid)
    return starts


def variable_of(pid: int, name: str) -> str | None:
    """Return a variable of the environment that a process was started with, if it still shows it."""
    try:
        variables = proc.content(pid, "environ").split(b"\0")
    except OSError:
        return None
    prefix = f"{name}=".encode()
    return next((item.removeprefix(prefix).decode() for item in variables if item.startswith(prefix)), None)


def await_end(known: Mapping[int, int], seconds: float) -> None:
    """Wait until these have ended, at most for some seconds."""
    descriptors = []
    for pid in still_running(known):
        with contextlib.suppress(ProcessLookupError):
            descriptors.append(os.pidfd_open(pid))
    _wait_for_end(descriptors, seconds)


def _carries(pid: int, prefix: bytes) -> bool:
    """Return whether a process has a variable; look again while it is becoming another program.

    A process that is executing a new program has no environment for a moment. One without an environment for good keeps
    the same address for it, while each new program has another one. Between the end of a program and the beginning of
    the next there is no address at all, for as long as others have the processor.
    """
    place, since = "", time.monotonic()
    deadline = since + _BECOMING_SECONDS
    while True:
        try:
            environment = proc.content(pid, "environ")
            if environment:
                return b"\0" + prefix in b"\0" + environment
            now = _place_of_environment(pid)
        except OSError:  # it is gone or another user's, so it is not a child that this user started
            return False
        if now != place:
            place, since = now, time.monotonic()
        settled = deadline if now.endswith(_NOWHERE) else min(deadline, since + _SETTLED_SECONDS)
        if not now or time.monotonic() > settled:
            return False
        time.sleep(0.0002)


def _place_of_environment(pid: int) -> str:
    """Return the address of the environment, with that of the code, which differs in each program.

    It is empty if there never is an environment.
    """
    found = proc.stat(pid)
    return "" if found.ended or found.is_kernel_thread else found.code_and_environment


def processes_with(prefix: str) -> list[Process]:
    """Return living processes, without this one, that have a variable starting with `prefix` (proc(5) environ).

    A prefix that ends with NUL matches a whole variable. Podman's name server for containers is left out: it is
    nobody's child, serves all containers, and has the environment of the command that happened to start the first one.
    """
    found = []
    for pid in proc.numbers():
        if pid != os.getpid() and _carries(pid, prefix.encode()):
            try:
                if Path(f"/proc/{pid}/comm").read_text() == _NAME_SERVER:
                    continue
                command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            found.append(Process(pid, command.strip()))
    return found


def _wait_for_end(descriptors: list[int], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    poller = select.poll()
    waiting = set(descriptors)
    for descriptor in descriptors:
        poller.register(descriptor, select.POLLIN)
    while waiting and time.monotonic() < deadline:
        for descriptor, _ in poller.poll(max(1, int((deadline - time.monotonic()) * 1000))):
            waiting.discard(descriptor)
            poller.unregister(descriptor)
    for descriptor in descriptors:
        os.close(descriptor)


def end(
    find: Callable[[], Mapping[int, int]], *, grace_seconds: float, wait_seconds: float
) -> tuple[int, Mapping[int, int]]:
    """End found processes and what they start meanwhile: SIGTERM, then SIGKILL until nothing is found.

    Return how many processes there were at first, and those that cannot be ended.
    """
    left = find()
    count = len(left)
    signal_processes(left, signal.SIGTERM)
    await_end(left, grace_seconds)
    deadline = time.monotonic() + wait_seconds
    while left := find():
        signal_processes(left, signal.SIGKILL)
        await_end(left, 1.0)
        if time.monotonic() > deadline:
            break
    return count, left


def end_processes_with(prefix: str, *, grace_seconds: float, wait_seconds: float) -> list[Process]:
    """End all such processes; return those that cannot be ended."""
    _, left = end(lambda: identified(processes_with(prefix)), grace_seconds=grace_seconds, wait_seconds=wait_seconds)
    return [Process(pid, command_of(pid)) for pid in left]


def with_cwd_under(folder: str) -> list[int]:
    """Return processes, without this one, that work in a folder or below it (proc(5) cwd), if this user may see it."""
    found = []
    for pid in proc.numbers():
        if pid != os.getpid():
            try:
                place = os.readlink(f"/proc/{pid}/cwd").removesuffix(" (deleted)")
            except OSError:  # gone, or another user's
                continue
            if place == folder or place.startswith(f"{folder}/"):
                found.append(pid)
    return found


def end_processes_in(folder: str, *, wait_seconds: float) -> list[int]:
    """End at once all processes that work in a folder; return those left after a while.

    The children of a server may have no environment by which to find them.
    """
    deadline = time.monotonic() + wait_seconds
    while left := with_cwd_under(folder):
        for pid in left:
            try:
                descriptor = os.pidfd_open(pid)
            except ProcessLookupError:
                continue
            try:
                if pid in with_cwd_under(folder):  # no other process got the number meanwhile
                    signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                pass
            finally:
                os.close(descriptor)
        if time.monotonic() > deadline:
            return left
        time.sleep(0.02)
    return []


def session_members(session: int) -> list[int]:
    """Return living processes of a session (proc(5) stat field 6), with background jobs in other process groups."""
    found = []
    for pid in proc.numbers():
        with contextlib.suppress(OSError):
            entry = proc.stat(pid)
            if entry.session == session and not entry.ended:
                found.append(pid)
    return found


def open_descriptors() -> Iterator[tuple[int, str]]:
    """Yield process and path of each open descriptor (proc(5) fd) that this user may see; it may close meanwhile."""
    for pid in proc.numbers():
        try:
            descriptors = os.listdir(f"/proc/{pid}/fd")
        except OSError:  # gone, or another user's
            continue
        for descriptor in descriptors:
            yield pid, f"/proc/{pid}/fd/{descriptor}"


def namespace_of(pid: int | str = "self") -> str:
    """Return the namespace of process ids of a process (namespaces(7)). Raise OSError if this user may not know."""
    return os.readlink(f"/proc/{pid}/ns/pid")


def find_by_title(title: str, namespace: str) -> dict[int, int]:
    """Return processes of a namespace whose title begins so, each with its start in clock ticks since boot."""
    found = {}
    for pid in proc.numbers():
        with contextlib.suppress(OSError):  # gone, or another user's
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
            if command.startswith(title.encode()) and namespace_of(pid) == namespace:
                found[pid] = started(pid)
    return found


def known_inside_as(pid: int) -> int:
    """Return the number of a process in its own namespace (proc(5) status, NSpid). Raise OSError."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("NSpid:")).split()[-1])


def parent_of(pid: int) -> int:
    """Return the parent of a process (proc(5) stat, field 4). Raise OSError."""
    return proc.stat(pid).parent


def still_running(known: Mapping[int, int]) -> dict[int, int]:
    """Return those that still exist, each with its start."""
    found = {}
    for pid, start in known.items():
        with contextlib.suppress(OSError):
            if started(pid) == start:
                found[pid] = start
    return found


def signal_processes(known: Mapping[int, int], number: int) -> None:
    """Signal those that still exist, through pidfds."""
    for pid in still_running(known):
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            if pid in still_running({pid: known[pid]}):
                signal.pidfd_send_signal(descriptor, number)
        except (ProcessLookupError, PermissionError):
            pass
        finally:
            os.close(descriptor)
