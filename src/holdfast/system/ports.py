"""TCP ports of this machine: finding a free one, and the process that uses one."""

from __future__ import annotations

import os
import socket

from holdfast.errors import StepError
from holdfast.system import proc
from holdfast.system.processes import open_descriptors

_FIRST, _COUNT = 10240, 20000


def free_loopback_port() -> int:
    """Return a port that is free now, below the range that the kernel uses for outgoing connections."""
    for _ in range(200):
        port = _FIRST + int.from_bytes(os.urandom(2), "big") % _COUNT
        if can_be_bound(port):
            return port
    raise StepError("no free loopback port found")


def can_be_bound(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def listeners_on(port: int) -> list[int]:
    """Return the processes that listen on a port, as far as this user may look (proc(5): net/tcp, fd)."""
    wanted = {
        f"socket:[{found.inode}]"
        for found in proc.connections()
        if found.state == proc.LISTENING and found.port == port
    }
    if not wanted:
        return []
    return sorted({pid for pid, path in open_descriptors() if _link(path) in wanted})


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:  # closed meanwhile
        return ""


def other_listeners_on(port: int, pid: int) -> list[int]:
    """Return processes that listen on a port and are older than the process that was started to do so.

    What a service starts is younger than its own process, whatever it does with sessions, users and environments.
    """
    begun = _start_ticks(pid)
    listeners = listeners_on(port)
    ages = {listener: _start_ticks(listener) for listener in listeners}
    if begun is None or any(age is None or age >= begun for age in ages.values()):
        return []
    return listeners


def _start_ticks(pid: int) -> int | None:
    """Return the start of a process in clock ticks since boot; None if it is gone."""
    try:
        return proc.stat(pid).started
    except OSError:
        return None
