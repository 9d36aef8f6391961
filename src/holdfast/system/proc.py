"""What proc(5) shows of a process and of TCP connections, taken apart. It imports little: services start through it."""

from __future__ import annotations

import os
from collections.abc import Iterator

_CHUNK_BYTES = 1 << 16
ESTABLISHED = "01"
LISTENING = "0A"
"""States of TCP connections in the kernel's net/tcp_states.h, as /proc/net/tcp prints them."""


class Stat:
    """The content of `stat` for a process."""

    def __init__(self, text: bytes) -> None:
        # The name in parentheses before these fields may contain blanks and parentheses. `fields[0]` is field 3.
        self._fields = text.rpartition(b")")[2].split()

    @property
    def ended(self) -> bool:
        """Return whether only its exit code is left (field 3)."""
        return self._fields[0] in (b"Z", b"X")

    @property
    def parent(self) -> int:
        return int(self._fields[1])

    @property
    def group(self) -> int:
        return int(self._fields[2])

    @property
    def session(self) -> int:
        return int(self._fields[3])

    @property
    def is_kernel_thread(self) -> bool:
        """Return whether it is a part of the kernel (field 9, PF_KTHREAD of the kernel's sched.h)."""
        return bool(int(self._fields[6]) & 0x00200000)

    @property
    def started(self) -> int:
        """Return its start in clock ticks since boot (field 22), which tells it from a later one with its number."""
        return int(self._fields[19])

    @property
    def code_and_environment(self) -> str:
        """Return the addresses of its code and of the ends of its environment (fields 26, 50, 51)."""
        return b" ".join((self._fields[23], self._fields[47], self._fields[48])).decode()


def stat(pid: int | str = "self") -> Stat:
    """Return the entry of a process. Raise OSError, even ProcessLookupError while it is read."""
    return Stat(content(pid, "stat"))


def content(pid: int | str, name: str) -> bytes:
    """Return a file of a process. Raise OSError.

    Every process of a machine is read at a time, so this makes no objects for paths and streams.
    """
    descriptor = os.open(f"/proc/{pid}/{name}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        found = b""
        while chunk := os.read(descriptor, _CHUNK_BYTES):
            found += chunk
        return found
    finally:
        os.close(descriptor)


def numbers() -> Iterator[int]:
    """Yield the numbers of the processes of this namespace; each of them may end meanwhile."""
    return (int(name) for name in os.listdir("/proc") if name.isdigit())


class Connection:
    """One line of /proc/PID/net/tcp or tcp6."""

    def __init__(self, fields: list[str]) -> None:
        self._fields = fields

    @property
    def state(self) -> str:
        return self._fields[3]

    @property
    def inode(self) -> int:
        return int(self._fields[9])

    @property
    def port(self) -> int:
        """Return the port on this side."""
        return int(self._fields[1].rpartition(":")[2], 16)

    @property
    def peer(self) -> tuple[str, int]:
        """Return address and port of the other side; the address as words of four bytes in this machine's order."""
        address, _, port = self._fields[2].partition(":")
        return address, int(port, 16)


def connections(pid: int | str = "self") -> Iterator[Connection]:
    """Yield the TCP sockets in the network of a process, of IPv4 and, where the kernel has it, IPv6. Raise OSError."""
    for version in ("tcp", "tcp6"):
        try:
            with open(f"/proc/{pid}/net/{version}") as file:
                lines = file.read().splitlines()[1:]
        except (FileNotFoundError, ProcessLookupError):
            continue
        for line in lines:
            yield Connection(line.split())
