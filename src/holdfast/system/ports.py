"""TCP ports of this machine: finding a free one, and the process that uses one."""

from __future__ import annotations

import os
import socket
import struct

from holdfast.errors import StepError
from holdfast.system import proc
from holdfast.system.processes import Identity, descendants, open_descriptors, table

_FIRST, _COUNT = 10240, 20000
_ARRIVAL_SECONDS = 1.0


def free_loopback_port() -> int:
    """Return a port that is free and reachable now, below the range that the kernel uses for outgoing connections."""
    for _ in range(200):
        port = _FIRST + int.from_bytes(os.urandom(2), "big") % _COUNT
        if can_be_reached(port):
            return port
    raise StepError("no free loopback port found")


def can_be_reached(port: int) -> bool:
    """Return whether a port is free and a connection to it arrives at the process that listens there.

    A port can be bound and yet be unusable: the rules of a firewall may drop its traffic, and the rules that publish a
    container's port may lead it elsewhere, even after a container engine was killed and the container is gone.
    """
    with _socket() as listener, _socket() as client:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
            listener.listen(1)
            client.connect(("127.0.0.1", port))
            arrived, sender = listener.accept()
            # A reset leaves nothing in TIME_WAIT, which would keep a service from a port that is free.
            arrived.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            arrived.close()
            return bool(sender == client.getsockname())
        except OSError:
            return False


def _socket() -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    made.settimeout(_ARRIVAL_SECONDS)
    return made


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


def ports_of(pid: int) -> list[int]:
    """Return the TCP ports on which a process or one of its descendants listens, as far as this user may look."""
    known = table()
    if pid not in known:
        return []
    family = {pid, *descendants(Identity(pid, known[pid].started), known)}
    sockets = {_link(path) for owner, path in open_descriptors() if owner in family}
    listening = (one for one in proc.connections() if one.state == proc.LISTENING)
    return sorted({one.port for one in listening if f"socket:[{one.inode}]" in sockets})


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
