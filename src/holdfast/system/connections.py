"""Connections of another program: finding and closing them, by /proc/PID/net/tcp and tcp6 (proc(5))."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import socket
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

from holdfast.system import proc

_PIDFD_GETFD = 438  # asm-generic/unistd.h, since Linux 5.6; has no wrapper in Python


def to(places: Iterable[tuple[str, int]], *, by: str, near: int | str = "self") -> set[int]:
    """Return open connections to these addresses and ports, by inode.

    They are those of programs named `by` in the network of a process. Raise PermissionError where such a program is
    another user's.
    """
    wanted = set(places)
    own = {inode for inode, _, _ in _sockets(by)}
    return {inode for inode, place in _table(near) if inode in own and place in wanted}


def cut(inodes: Iterable[int], *, by: str) -> None:
    """Close connections for both sides, as if the other one had hung up. Idempotent. Raise PermissionError."""
    wanted = set(inodes)
    for inode, pid, number in _sockets(by):
        if inode in wanted:
            with contextlib.suppress(ProcessLookupError):
                _shut_down(pid, number, inode)


def _sockets(program: str) -> Iterator[tuple[int, int, int]]:
    """Yield inode, process and number of each open socket of the programs of a name."""
    for pid in proc.numbers():
        try:
            if Path(f"/proc/{pid}/comm").read_text().strip() != program:
                continue
            numbers = os.listdir(f"/proc/{pid}/fd")
        except (FileNotFoundError, ProcessLookupError):
            continue
        for number in numbers:
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                kind, _, inode = os.readlink(f"/proc/{pid}/fd/{number}").partition(":")
                if kind == "socket":
                    yield int(inode.strip("[]")), pid, int(number)


def _table(pid: int | str) -> Iterator[tuple[int, tuple[str, int]]]:
    """Return inode and peer of each open connection in the network of a process."""
    for found in proc.connections(pid):
        if found.state == proc.ESTABLISHED:
            address, port = found.peer
            yield found.inode, (_address(address), port)


def _address(text: str) -> str:
    """Return an address from words of four bytes in the order of this machine."""
    words = bytes.fromhex(text)
    found = b"".join(struct.pack(">I", *struct.unpack("=I", words[at : at + 4])) for at in range(0, len(words), 4))
    if len(found) == 16 and found.startswith(bytes(10) + b"\xff\xff"):
        found = found[12:]
    return socket.inet_ntop(socket.AF_INET if len(found) == 4 else socket.AF_INET6, found)


def _shut_down(pid: int, number: int, inode: int) -> None:
    """Shut a socket down; one that was closed, or whose process ended, is done already. Raise OSError."""
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        own = ctypes.CDLL(None, use_errno=True).syscall(_PIDFD_GETFD, process, number, 0)
        if own < 0:
            error = ctypes.get_errno()
            if error in (errno.EBADF, errno.ESRCH):
                return
            raise OSError(error, os.strerror(error))
        with socket.socket(fileno=own) as connection, contextlib.suppress(OSError):
            if os.fstat(own).st_ino == inode:  # another socket may have the number by now
                connection.shutdown(socket.SHUT_RDWR)
    finally:
        os.close(process)
