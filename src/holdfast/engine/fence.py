"""Ends every surviving child of an operation before anything looks at the world.

A killed Holdfast leaves its running command behind: a migration would go on changing data under the recovery.
Children are known by HOLDFAST_OPERATION=<id> in their environment (proc(5) environ); signals go by pidfd after
the mark was read again, so that a reused pid is never hit.
"""

from __future__ import annotations

import os
import select
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from holdfast.errors import StuckError
from holdfast.host import OPERATION_VARIABLE

_TERM_GRACE_SECONDS = 2.0
_KILL_WAIT_SECONDS = 20.0


@dataclass(frozen=True)
class Child:
    pid: int
    command: str


def _carries_mark(pid: int, mark: bytes) -> bool:
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:  # gone, a kernel thread, or another user's: not a child that this user started
        return False
    return mark in environment.split(b"\0")


def survivors(operation: str) -> list[Child]:
    """Living processes that carry the operation's mark, this process left out."""
    mark = f"{OPERATION_VARIABLE}={operation}".encode()
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid() and _carries_mark(int(name), mark):
            try:
                command = Path(f"/proc/{name}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            found.append(Child(int(name), command.strip()))
    return found


def _signal_all(operation: str, number: int) -> list[int]:
    """Signals every survivor through a pidfd; returns the pidfds, which the caller closes."""
    mark = f"{OPERATION_VARIABLE}={operation}".encode()
    descriptors = []
    for child in survivors(operation):
        try:
            descriptor = os.pidfd_open(child.pid)
        except ProcessLookupError:
            continue
        if not _carries_mark(child.pid, mark):  # the pid was reused between the listing and the pidfd
            os.close(descriptor)
            continue
        try:
            signal.pidfd_send_signal(descriptor, number)
        except (ProcessLookupError, PermissionError):
            pass  # gone is what is wanted; a refused signal shows as a survivor below
        descriptors.append(descriptor)
    return descriptors


def _wait(descriptors: list[int], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    waiting = set(descriptors)
    poller = select.poll()
    for descriptor in descriptors:
        poller.register(descriptor, select.POLLIN)
    while waiting and time.monotonic() < deadline:
        for descriptor, _ in poller.poll(max(1, int((deadline - time.monotonic()) * 1000))):
            waiting.discard(descriptor)
            poller.unregister(descriptor)
    for descriptor in descriptors:
        os.close(descriptor)


def end_children(operation: str) -> int:
    """Ends all survivors, also those they start meanwhile; returns how many were found at first.

    May be called twice. Raises StuckError naming what cannot be ended.
    """
    count = len(survivors(operation))
    if count == 0:
        return 0
    _wait(_signal_all(operation, signal.SIGTERM), _TERM_GRACE_SECONDS)
    deadline = time.monotonic() + _KILL_WAIT_SECONDS
    while survivors(operation):
        _wait(_signal_all(operation, signal.SIGKILL), 1.0)
        if time.monotonic() > deadline:
            left = survivors(operation)
            if not left:
                break
            named = ", ".join(f"{child.pid} ({child.command[:60]})" for child in left)
            raise StuckError(
                f"processes of the dead operation {operation} cannot be ended: {named}",
                state="Nothing was looked at or changed while they run.",
                next_step="End them (they may wait for a dead disk or belong to another user), then `holdfast recover`.",
            )
    return count
